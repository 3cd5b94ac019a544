"""The clients of this repository, while their listener is killed and their line is bad.

Each handles every event once, in order: over all lives of the service, and of the line.
"""

import asyncio
import random
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from listener.storage.sqlite.opening import connect_read_only
from tests.fault.line import Fate, bad_line
from tests.fault.lives import DEADLINE_SECONDS, ROOT, Nursery
from tests.fault.load import Outcome, Shop, make_key, shop, till

LIFE_SECONDS: Final = (1.0, 4.0)
SENDERS: Final = 2
# A sender's pause: about so many notifications a second as a busy shop has.
PAUSE_SECONDS: Final = 0.01
CLIENT: Final = ROOT / "clients" / "js" / "pos-client.js"
# Its own waits, but the first, which are of seconds: several of them would fill a short run.
SCRIPT: Final = """
const { follow, MemoryPositions } = await import(process.argv[1]);
const timing = { retryFirstMs: 200, retryMaxMs: 1000, random: () => Math.random() / 10 };
const options = { key: process.argv[3], position: new MemoryPositions(), timing };
for await (const event of follow(process.argv[2], options)) console.log(event.id);
"""


async def run(
    nursery: Nursery, directory: Path, *, node: str, seconds: float, seed: int
) -> tuple[Outcome, Counter[Fate]]:
    """Run clients for a time, directly and over a bad line; check what each handled.

    The service is killed every few seconds, and is under load while it lives.
    """
    chance = random.Random(seed)
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(shop(nursery, directory))
        port = urlsplit(one.url).port
        assert port
        line = await stack.enter_async_context(bad_line(port, seed=seed))
        keys = [make_key(one.database, terminal=name) for name in ("T-2", "T-3", "T-4")]
        # The shop's own till is the Python client on the good line.
        _, told = await stack.enter_async_context(till(line.url, key=keys[0]))
        one.tills.append(told)
        for url, key in zip((one.url, line.url), keys[1:], strict=True):
            one.tills.append(await stack.enter_async_context(_node_client(node, url, key=key)))
        await _await_first_acks(one)
        ends_at = loop.time() + seconds
        while loop.time() < ends_at:
            await _kill_at_work(one, chance.uniform(*LIFE_SECONDS))
        await one.settle()
        one.check_all()
        return one.outcome, line.fates


async def _await_first_acks(one: Shop) -> None:
    """Wait until each till is connected before the first message, so that it must see every one."""
    async with one.life(), asyncio.timeout(DEADLINE_SECONDS):
        while _tills_that_were_ready(one.ledger) < 1 + len(one.tills):
            await asyncio.sleep(0.02)


def _tills_that_were_ready(ledger: Path) -> int:
    with closing(connect_read_only(ledger)) as db:
        (count,) = db.execute("SELECT count(*) FROM acks").fetchone()
    return int(count)


async def _kill_at_work(one: Shop, seconds: float) -> None:
    async with one.life() as life:
        sending = [
            asyncio.create_task(one.send(pause_seconds=PAUSE_SECONDS)) for _ in range(SENDERS)
        ]
        await asyncio.wait({life.ended}, timeout=seconds)
        assert await life.end() == -9
        one.outcome.kills += 1
    await asyncio.gather(*sending)


@asynccontextmanager
async def _node_client(node: str, url: str, *, key: str) -> AsyncIterator[list[str]]:
    told: list[str] = []
    process = await asyncio.create_subprocess_exec(
        *(node, "--experimental-websocket", "--input-type=module", "--eval", SCRIPT, "--"),
        *(CLIENT.as_uri(), url, key),
        stdout=PIPE,
    )
    assert process.stdout

    async def follow(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            told.append(line.decode().strip())  # noqa: PERF401 - as in tests.fault.load.till

    following = asyncio.create_task(follow(process.stdout))
    try:
        yield told
    finally:
        process.kill()
        await process.wait()
        await following
