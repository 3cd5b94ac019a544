"""Two nodes under load that are killed, paused and cut off: nothing is lost, doubled or skipped."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from listener.storage import verify
from tests.support.databases import database
from tests.support.service import FIELDS, FORM, MERCHANT_NO, STORE_NO, TOKEN_TEXT, signed
from tests.support.shop import free_port

NOTIFICATIONS = int(os.environ.get("TEST_POSTGRES_NOTIFICATIONS", "400"))
FAULTS = int(os.environ.get("TEST_POSTGRES_FAULTS", "6"))
SENDERS = 16
DEADLINE_SECONDS = 300.0 + 10 * FAULTS
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


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    with database() as url:
        yield url


@dataclass
class Node:
    """A listener in a process of its own."""

    config: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "listener", "serve", "--config", self.config),
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        assert self.process
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        assert self.process
        self.process.terminate()
        async with asyncio.timeout(60):
            await self.process.wait()


@dataclass
class Load:
    """Notifications that are sent, as Pockyt does, until they are acknowledged."""

    nodes: list[Node]
    chance: random.Random
    acknowledged: set[str] = field(default_factory=set)
    waiting: list[str] = field(default_factory=list)

    async def send(self, client: aiohttp.ClientSession) -> None:
        while self.waiting:
            number = self.waiting.pop()
            while not await self._deliver(client, number):
                await asyncio.sleep(0.05)
            self.acknowledged.add(number)
            # One in twenty comes again, at either node.
            if self.chance.random() < 0.05:
                await self._deliver(client, number)

    async def _deliver(self, client: aiohttp.ClientSession, number: str) -> bool:
        port = self.chance.choice(self.nodes).port
        body = signed({**FIELDS, "transactionNo": number, "reference": f"r{number}"})
        try:
            async with client.post(
                f"http://127.0.0.1:{port}{PATH}", data=body, headers={"Content-Type": FORM}
            ) as answer:
                return answer.status == 200 and await answer.read() == b"success"
        except (aiohttp.ClientError, TimeoutError):
            return False


async def strike(nodes: list[Node], url: str, chance: random.Random) -> None:
    """Do one thing that machines and networks do."""
    node = chance.choice(nodes)
    assert node.process
    match chance.randrange(3):
        case 0:
            await node.kill()
            await node.start()
        case 1:
            node.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(1)
            node.process.send_signal(signal.SIGCONT)
        case _:
            db = await asyncpg.connect(url)
            await db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'pockyt-listener%' AND random() < 0.5"
            )
            await db.close()


async def test_two_nodes_that_fail_all_the_time_lose_and_double_nothing(
    url: str, tmp_path: Path
) -> None:
    # Its seed is in the name of no test: what is random here is when a fault strikes.
    chance = random.Random(1)
    nodes = []
    for name in ("a", "b"):
        port = free_port()
        config = tmp_path / f"{name}.toml"
        config.write_text(
            SETTINGS.format(
                port=port, url=url, merchant=MERCHANT_NO, token=TOKEN_TEXT, store=STORE_NO
            )
        )
        nodes.append(Node(config, port))
    for node in nodes:
        await node.start()
    numbers = [str(number) for number in range(1, NOTIFICATIONS + 1)]
    load = Load(nodes, chance, waiting=list(numbers))
    try:
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=6)) as client,
        ):
            senders = [asyncio.create_task(load.send(client)) for _ in range(SENDERS)]
            for fault in range(1, FAULTS + 1):
                due = NOTIFICATIONS * fault // (FAULTS + 1)
                while len(load.acknowledged) < due:
                    await asyncio.sleep(0.02)
                await strike(nodes, url, chance)
            await asyncio.gather(*senders)
        for node in nodes:
            await node.stop()
    finally:
        for node in nodes:
            if node.process and node.process.returncode is None:
                await node.kill()
    assert load.acknowledged == set(numbers)
    found = await asyncio.to_thread(verify, url)
    # Numbers and offsets without a hole, each notification once, whatever was sent again.
    assert (found.entries, found.transactions) == (NOTIFICATIONS, NOTIFICATIONS)
