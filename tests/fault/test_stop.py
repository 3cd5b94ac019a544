"""SIGTERM under load: what was acknowledged is kept, tills are told, and it does not take long."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import pytest

from listener.web.till.sessions import DRAIN_SECONDS
from tests.fault.lives import Nursery
from tests.fault.load import SUCCESS, Shop, make_key, shop
from tests.support.service import STREAM
from tests.support.tills import BareTill, Till, till

TILLS = 30
SENDERS = 6
BACKLOG = 300
PADDING = 3_000
GRACE_SECONDS = 2.0


async def until_away(one: Till) -> tuple[int, int | None, int]:
    """Follow until it is sent away: to come back after how many ms, the code, the last event."""
    last, frame = 0, await one.frame()
    while frame["type"] != "reconnect":
        if frame["type"] == "event":
            assert frame["offset"] == last + 1
            last = frame["offset"]
        frame = await one.frame()
    return frame["afterMs"], await one.code(), last


async def join_all(stack: AsyncExitStack, shop: Shop, key: str) -> list[Till]:
    tills = [await stack.enter_async_context(till(shop.url, key)) for _ in range(TILLS)]
    for one in tills:
        await one.join({"stream": STREAM, "after": "earliest"})
    return tills


async def stall(stack: AsyncExitStack, shop: Shop, key: str) -> None:
    """Connect a till that reads no more, though far more is sent than its socket holds."""
    bare = await BareTill.follow(shop.url, key)
    stack.callback(bare.close)


@pytest.mark.parametrize("with_stalled", [False, True], ids=["all-read", "one-is-stalled"])
async def test_a_stop_under_load_keeps_what_was_acknowledged_and_sends_every_till_away_in_time(
    nursery: Nursery, tmp_path: Path, *, with_stalled: bool
) -> None:
    async with shop(nursery, tmp_path) as one, AsyncExitStack() as stack:
        one.padding = PADDING
        key = make_key(one.database, terminal=None)
        async with one.life() as life:
            if with_stalled:
                await stall(stack, one, key)
            await asyncio.gather(*(one.send(count=BACKLOG // SENDERS) for _ in range(SENDERS)))
            tills = await join_all(stack, one, key)
            following = asyncio.gather(*(until_away(each) for each in tills))
            sending = [asyncio.create_task(one.send()) for _ in range(SENDERS)]
            before = len(one.outcome.acknowledged)
            async with asyncio.timeout(10):
                while len(one.outcome.acknowledged) < before + 50:
                    await asyncio.sleep(0.001)
            began = perf_counter()
            assert await life.end(signal.SIGTERM) == 0
            took = perf_counter() - began
            told = await following
            await asyncio.gather(*sending)
        assert took < DRAIN_SECONDS + GRACE_SECONDS
        assert {code for _, code, _ in told} == {1012}
        # They are asked back spread over the drain time, not all at once.
        waits = [wait for wait, _, _ in told]
        assert all(0 <= wait <= DRAIN_SECONDS * 1_000 for wait in waits)
        assert len(set(waits)) > TILLS // 2
        # Whoever was not told `success` was told to come again, or was cut off.
        assert {answer.status for answer in one.outcome.answers} <= {200, 503}
        assert {answer for answer in one.outcome.answers if answer.status == 200} == {SUCCESS}
        # It was a clean stop: nothing is left of the log.
        assert not Path(f"{one.ledger}-wal").exists()
        verified = one.check()
        assert min(last for _, _, last in told) >= BACKLOG
        assert max(last for _, _, last in told) <= verified.events
        await one.settle()
        one.check_all()
