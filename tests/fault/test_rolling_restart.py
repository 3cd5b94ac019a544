"""Both listeners are restarted behind the proxy, one after the other, while all goes on."""

import asyncio
import json
import ssl
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import aiohttp
import pytest

from listener.commands.keys import make_key
from listener.keys import Role
from listener.settings import load as read_settings
from listener.storage import verify
from listener.web.till.sessions import DRAIN_SECONDS
from tests.support.commands import Started, environment, started
from tests.support.databases import database
from tests.support.ports import free_port
from tests.support.proxies import Proxy, haproxy
from tests.support.service import FIELDS, FORM, MERCHANT_NO, STORE_NO, TOKEN_TEXT, signed

TILLS = 8
SENDERS = 8
# So many a second, until the restarts are over.
RATE = 100
# For the way back itself: the upgrade through the proxy, hello and ready, on a busy machine.
WAY_SECONDS = 2.0
DEADLINE_SECONDS = 60.0
FOLLOW_ALL = Path(__file__).parents[1] / "support" / "follow_all.py"
PATH = f"/notify/{MERCHANT_NO}/{STORE_NO}"
SETTINGS = """
port = {port}
database = "{url}"
[pockyt]
url = "http://127.0.0.1:9"
[merchants.{merchant}]
tokens = ["{token}"]
stores = ["{store}"]
"""


@dataclass(slots=True)
class Load:
    """Notifications through the proxy, each sent once; what was answered."""

    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    taken: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    is_over: bool = False

    def has_sent(self, number: int) -> bool:
        return len(self.taken) >= number

    async def send(self, client: aiohttp.ClientSession, url: str) -> None:
        while not self.is_over:
            number = str(next(self.numbers))
            body = signed({**FIELDS, "transactionNo": number, "reference": f"r{number}"})
            try:
                async with client.post(url, data=body, headers={"Content-Type": FORM}) as answer:
                    told = f"{answer.status} {await answer.text()}"
            except aiohttp.ClientError as error:
                told = repr(error)
            if told == "200 success":
                self.taken.append(number)
            else:
                self.refused.append((number, told))
            await asyncio.sleep(SENDERS / RATE)


@dataclass(slots=True)
class Tills:
    """What the shipped POS client reports of each till: events, and when it was live or not."""

    events: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    states: dict[str, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    causes: set[str | None] = field(default_factory=set)

    def take(self, line: bytes) -> None:
        told = json.loads(line)
        assert "stopped" not in told, told
        if "event" in told:
            self.events[told["name"]].append(told["event"])
        else:
            self.states[told["name"]].append((told["at"], told["state"]))
            self.causes.add(told["cause"])

    def all_live(self) -> bool:
        return len(self.states) == TILLS and all(
            states[-1][1] == "live" for states in self.states.values()
        )

    def have_heard(self, number: int) -> bool:
        return all(len(self.events[name]) >= number for name in self.states)

    def away_seconds(self) -> list[float]:
        """Return how long tills were not live, each time that they were sent away."""
        return [
            until - since
            for states in self.states.values()
            for (since, state), (until, after) in pairwise(_changes(states))
            if (state, after) == ("connecting", "live")
        ]


def _changes(states: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the times at which a state began, from the first live one on."""
    found: list[tuple[float, str]] = []
    for at, state in states:
        if (found or state == "live") and (not found or found[-1][1] != state):
            found.append((at, state))
    return found


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.fixture(name="configs")
def _configs(tmp_path: Path, url: str) -> dict[str, tuple[Path, int]]:
    found = {}
    for name in ("a", "b"):
        port = free_port()
        path = tmp_path / f"{name}.toml"
        path.write_text(
            SETTINGS.format(
                port=port, url=url, merchant=MERCHANT_NO, token=TOKEN_TEXT, store=STORE_NO
            )
        )
        found[name] = path, port
    return found


@asynccontextmanager
async def following(proxy: Proxy, key: str) -> AsyncIterator[Tills]:
    """Run tills in a process of their own, which trusts the proxy's certificate."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, FOLLOW_ALL),
        env=environment({"SSL_CERT_FILE": str(proxy.certificate)}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    urls = {f"till {number}": proxy.url for number in range(TILLS)}
    plan = {"urls": urls, "key": key, "timing": {}}
    process.stdin.write(json.dumps(plan).encode() + b"\n")
    tills = Tills()

    async def read() -> None:
        assert process.stdout
        async for line in process.stdout:
            tills.take(line)

    reading = asyncio.create_task(read())
    try:
        yield tills
        if reading.done():
            reading.result()
    finally:
        process.kill()
        await process.wait()
        await asyncio.gather(reading, return_exceptions=True)


async def wait_until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():
            await asyncio.sleep(0.05)


async def restart(node: Started, config: Path, life: ExitStack) -> Started:
    """Do what an operator does: stop it, and start it anew once it has ended."""
    assert await asyncio.to_thread(node.stop) == 0
    again = life.enter_context(started("serve", "--config", config))
    await asyncio.to_thread(again.until, again.err, " serving ")
    return again


async def test_no_notification_fails_and_tills_are_back_within_their_jitter(
    url: str, configs: dict[str, tuple[Path, int]], tmp_path: Path
) -> None:
    load = Load()
    with ExitStack() as life:
        nodes = {
            name: life.enter_context(started("serve", "--config", path))
            for name, (path, _) in configs.items()
        }
        for node in nodes.values():
            await asyncio.to_thread(node.until, node.err, " serving ")
        settings = read_settings(configs["a"][0], {})
        key = (
            await asyncio.to_thread(
                make_key, settings, role=Role.POS, merchant_no=MERCHANT_NO, store_no=STORE_NO
            )
        )[1]
        ports = {name: port for name, (_, port) in configs.items()}
        async with haproxy(tmp_path, listeners=ports) as proxy, following(proxy, key) as tills:
            await wait_until(tills.all_live)
            trust = ssl.create_default_context(cafile=proxy.certificate)
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=trust, limit=SENDERS)
            ) as client:
                senders = [
                    asyncio.create_task(load.send(client, proxy.url + PATH)) for _ in range(SENDERS)
                ]
                for name, (path, _) in configs.items():
                    nodes[name] = await restart(nodes[name], path, life)
                    await proxy.wait_for(name, "UP")
                    await wait_until(tills.all_live)
                    # Work went on meanwhile, and goes on with it.
                    await wait_until(partial(load.has_sent, len(load.taken) + RATE))
                load.is_over = True
                await asyncio.gather(*senders)
                await wait_until(
                    lambda: all(len(tills.events[name]) >= len(load.taken) for name in tills.states)
                )
        for node in nodes.values():
            assert await asyncio.to_thread(node.stop) == 0
    assert load.refused == []
    for name in tills.states:
        # Each event once, in an order that is the same for all of them.
        assert sorted(tills.events[name]) == sorted(load.taken)
        assert tills.events[name] == tills.events["till 0"]
    # Sent away by a listener, each till came in at its first try: the proxy asked both for it.
    assert tills.causes == {None, "closed"}
    away = tills.away_seconds()
    # Each listener has sent its own tills away, and some may have been sent to both.
    assert len(away) >= TILLS
    assert max(away) <= DRAIN_SECONDS + WAY_SECONDS
    found = await asyncio.to_thread(verify, url)
    assert found.entries == len(load.taken)
