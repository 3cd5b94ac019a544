"""Kill the real service in the middle of a stream of notifications, again and again, on one ledger.

``python -m tests.fault.kills 1000`` is the long run; ``test_kills.py`` a short one.
"""

import asyncio
import json
import random
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from listener.pos.client import Follower, MemoryPositions, Timing
from tests.service import FIELDS, FORM, MERCHANT_NO, STORE_NO, TOKEN_TEXT, signed

SENDERS = 8
START_SECONDS = 20.0
# A service lives for so long under load before it is killed.
LIFE_SECONDS = (0.02, 0.4)
CATCH_UP_SECONDS = 30.0
QUICK = Timing(
    connect_seconds=2.0, retry_first_seconds=0.02, retry_max_seconds=0.1, blocked_tries=1_000
)
SETTINGS = """\
port = {port}
database = "sqlite:///{ledger}"
[pockyt]
url = "http://127.0.0.1:9"
[merchants.{merchant_no}]
tokens = ["{token}"]
stores = ["{store_no}"]
"""


@dataclass(slots=True)
class Outcome:
    """What was acknowledged, what the till was told, and what the ledger holds in the end."""

    kills: int = 0
    sent: int = 0
    acknowledged: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    verified: str = ""


async def run(directory: Path, *, kills: int, seed: int) -> Outcome:
    """Kill a service so many times under load; then let it catch up, and read everything."""
    chance = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    config = directory / "listener.toml"
    config.write_text(
        SETTINGS.format(
            port=port,
            ledger=directory / "ledger.db",
            merchant_no=MERCHANT_NO,
            store_no=STORE_NO,
            token=TOKEN_TEXT,
        )
    )
    scope = ("--merchant", MERCHANT_NO, "--store", STORE_NO, "--terminal", "T-1")
    key = json.loads(
        await command("keys", "create", "--config", config, "--role", "pos", *scope, "--json")
    )["key"]
    outcome = Outcome()
    url = f"http://127.0.0.1:{port}"
    follower = Follower(url, key=key, position=MemoryPositions(), timing=QUICK)
    async with aiohttp.ClientSession() as session, follower:
        following = asyncio.create_task(_follow(follower, outcome))
        # The till is there before the first message, so that it must see every one.
        async with _served(config, url, session):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while follower.status.state != "live":
                    await asyncio.sleep(0.01)
        while outcome.kills < kills:
            async with _served(config, url, session):
                sending = [
                    asyncio.create_task(_send(session, url, outcome)) for _ in range(SENDERS)
                ]
                await asyncio.sleep(chance.uniform(*LIFE_SECONDS))
            outcome.kills += 1
            await asyncio.gather(*sending)
        async with _served(config, url, session):
            wanted = int(await _head(session, url, key))
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while len(outcome.told) < wanted:
                    await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    outcome.verified = await command("verify", "--config", config)
    lines = await command("export", "--config", config, "--format", "ndjson")
    outcome.recorded = [json.loads(line)["transactionNo"] for line in lines.splitlines()]
    return outcome


async def command(*arguments: str | Path) -> str:
    """Run a command of the listener to its good end, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "listener", *(str(argument) for argument in arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@asynccontextmanager
async def _served(config: Path, url: str, session: aiohttp.ClientSession) -> AsyncIterator[None]:
    """Run the service until the block is left, and kill it there."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "listener", "serve", "--config", str(config)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _answers(session, url):
                assert process.returncode is None, "the service did not start"
                await asyncio.sleep(0.01)
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/healthz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError):
        return False


async def _send(session: aiohttp.ClientSession, url: str, outcome: Outcome) -> None:
    """Send one new notification after the other until the service is gone."""
    while True:
        outcome.sent += 1
        number = f"{outcome.sent:018d}"
        body = signed({**FIELDS, "transactionNo": number, "reference": f"r{number}"})
        try:
            async with session.post(
                f"{url}/notify/{MERCHANT_NO}", data=body, headers={"Content-Type": FORM}
            ) as answer:
                if answer.status == 200 and await answer.text() == "success":
                    outcome.acknowledged.append(number)
        except (aiohttp.ClientError, OSError):
            return


async def _follow(follower: Follower, outcome: Outcome) -> None:
    async for event in follower:
        outcome.told.append(event.id)


async def _head(session: aiohttp.ClientSession, url: str, key: str) -> str:
    async with session.get(
        f"{url}/v1/pos/events?after=latest", headers={"Authorization": f"Bearer {key}"}
    ) as answer:
        head: int = (await answer.json())["head"]
        return str(head)


def check(outcome: Outcome) -> None:
    """Check that nothing acknowledged is missing, double or out of order."""
    assert set(outcome.acknowledged) <= set(outcome.recorded)
    assert len(outcome.recorded) == len(set(outcome.recorded))
    seqs = [int(told.rpartition("-")[2]) for told in outcome.told]
    assert seqs == sorted(set(seqs)), "an event came twice, or out of order"
    # Every entry of these is a new transaction, so each has its event.
    assert len(seqs) == len(outcome.recorded)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kills-") as made:
        done = asyncio.run(run(Path(made), kills=int(sys.argv[1]), seed=1))
        check(done)
        sys.stdout.write(
            f"{done.kills} kills: {done.sent} sent, {len(done.acknowledged)} acknowledged,"
            f" {len(done.recorded)} recorded, 0 lost, 0 double, 0 out of order\n{done.verified}\n"
        )
