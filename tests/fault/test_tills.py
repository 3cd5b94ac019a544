"""Tills that stall, vanish, flood and come all at once: nobody else is to feel it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing, suppress
from functools import partial
from pathlib import Path
from time import perf_counter

import pytest
from websockets.frames import Frame, Opcode

from listener.hub.hub import Hub
from listener.web import app as app_module
from listener.web.context import HUB, METRICS, SESSIONS
from listener.web.till.sessions import SessionTiming
from tests.support.service import STREAM, Serving, serving
from tests.support.tills import DEADLINE_SECONDS, BareTill, Till, till

TILLS = 50
STORM = 200
SOON_SECONDS = 2.0
QUICK = SessionTiming(tick_seconds=0.02, close_seconds=0.3, dead_seconds=1.5, ping_seconds=0.2)
PATIENT = SessionTiming(tick_seconds=0.02, close_seconds=0.3, stalled_seconds=60.0)


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db", timing=PATIENT) as running:
        yield running


async def sell(service: Serving, *numbers: int, currency: str = "USD") -> None:
    """Record one notification of each transaction number, all at the same time."""
    sent = (
        service.notify({"transactionNo": str(number), "currency": currency}) for number in numbers
    )
    assert set(await asyncio.gather(*sent)) == {(200, "success")}


async def joined(stack: AsyncExitStack, service: Serving, count: int) -> list[Till]:
    """Open so many connections, each past its ready."""
    key = service.key()
    tills = [await stack.enter_async_context(till(service.url, key)) for _ in range(count)]
    await asyncio.gather(*(one.join() for one in tills))
    return tills


async def bare_till(service: Serving) -> BareTill:
    """Open a connection that reads no further than its ready."""
    bare = await BareTill.open(service.url, service.key())
    await bare.say(type="connect", streams=[{"stream": STREAM, "after": "earliest"}])
    await bare.read_until(b'"ready"')
    return bare


async def left(service: Serving, count: int) -> None:
    """Wait until no more than so many connections and followers are left."""
    app = service.service.app
    async with asyncio.timeout(DEADLINE_SECONDS):
        while app[SESSIONS].count > count or app[HUB].followers > count:
            await asyncio.sleep(0.005)


def pages_read(service: Serving) -> float:
    """Return how many pages of events were read from the ledger for tills."""
    (line,) = (
        line
        for line in service.service.app[METRICS].text().decode().splitlines()
        if line.startswith("listener_event_reads_total ")
    )
    return float(line.split()[1])


async def test_a_stalled_till_delays_none_of_the_others_and_holds_little_memory(
    service: Serving,
) -> None:
    stalled = await bare_till(service)
    async with AsyncExitStack() as stack:
        stack.callback(stalled.close)
        tills = await joined(stack, service, TILLS)
        # Far more than the stalled one's socket takes.
        heard = [asyncio.create_task(one.offsets(300)) for one in tills]
        for start in range(0, 300, 50):
            await sell(service, *range(start, start + 50), currency="c" * 3_000)
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert all(offsets == list(range(1, 301)) for offsets in await asyncio.gather(*heard))
        began = perf_counter()
        await sell(service, 1_000)
        await asyncio.gather(*(one.offsets(1) for one in tills))
        assert perf_counter() - began < SOON_SECONDS
        # The stalled one is still there, and is behind in the ledger, not in a queue.
        assert service.service.app[SESSIONS].count == TILLS + 1
        async with asyncio.timeout(DEADLINE_SECONDS):
            await stalled.read_until(b'"offset":301,', at_once=65_536)


async def test_a_till_whose_socket_is_reset_is_forgotten_at_once(service: Serving) -> None:
    async with AsyncExitStack() as stack:
        (one,) = await joined(stack, service, 1)
        for _ in range(5):
            bare = await bare_till(service)
            await sell(service, 1)
            # What it has not read makes the close a reset.
            bare.close()
        await left(service, 1)
        await sell(service, 2)
        assert await one.offsets(2) == [1, 2]


async def test_a_till_that_vanished_without_a_word_is_gone_after_dead_seconds(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "ledger.db", timing=QUICK) as service, AsyncExitStack() as stack:
        (one,) = await joined(stack, service, 1)
        answering = asyncio.create_task(answer_pings(one))
        silent = await bare_till(service)
        began = perf_counter()
        with closing(silent.sock):
            await left(service, 1)
            assert perf_counter() - began >= QUICK.dead_seconds * 0.9
            assert (4201).to_bytes(2, "big") in await silent.read()
        answering.cancel()


async def answer_pings(one: Till) -> None:
    while True:
        frame = await one.frame()
        if frame["type"] == "ping":
            await one.say(type="pong", t=frame["t"])


async def test_a_flood_of_frames_is_stopped_and_felt_by_nobody(service: Serving) -> None:
    async with AsyncExitStack() as stack:
        (one,) = await joined(stack, service, 1)
        flooding = await bare_till(service)
        stack.callback(flooding.close)
        flood = asyncio.create_task(asyncio.to_thread(send_for_ever, flooding))
        for number in range(20):
            began = perf_counter()
            await sell(service, number)
            assert await one.offsets(1) == [number + 1]
            assert perf_counter() - began < SOON_SECONDS
        await flood
        await left(service, 1)
        text = service.service.app[METRICS].text()
        assert b'listener_pos_closes_total{code="4101"} 1.0' in text


def send_for_ever(bare: BareTill) -> None:
    """Send as much as the socket takes, from beside the event loop, until it is cut."""
    payload = b'{"type":"ack","stream":"0/0","offset":0}'
    frames = Frame(Opcode.TEXT, payload).serialize(mask=True) * 1_000
    bare.sock.setblocking(True)
    with suppress(ConnectionError):
        while True:
            bare.sock.sendall(frames)


async def test_a_storm_of_tills_that_come_back_is_served_from_memory(service: Serving) -> None:
    await sell(service, *range(40))
    key, epoch = service.key(), service.ledger.epoch
    async with AsyncExitStack() as stack:

        async def come_back(missed: int) -> list[int]:
            one = await stack.enter_async_context(till(service.url, key))
            after = {"epoch": epoch, "offset": 40 - missed}
            await one.join({"stream": STREAM, "after": after})
            return await one.offsets(missed)

        told = await asyncio.gather(*(come_back(number % 40) for number in range(STORM)))
    assert told == [list(range(41 - number % 40, 41)) for number in range(STORM)]
    assert pages_read(service) == 0


async def test_events_that_left_memory_are_read_from_the_ledger_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "Hub", partial(Hub, tail_events_max=2))
    async with serving(tmp_path / "ledger.db") as service:
        await sell(service, *range(5))
        async with till(service.url, service.key()) as one:
            await one.join({"stream": STREAM, "after": "earliest"})
            assert await one.offsets(5) == [1, 2, 3, 4, 5]
        assert pages_read(service) == 1


async def test_tills_that_vanish_in_the_middle_of_everything_leave_nothing_behind(
    service: Serving,
) -> None:
    key = service.key()

    async def vanish(number: int) -> None:
        bare = await BareTill.open(service.url, key)
        with closing(bare.sock):
            if number % 3:
                await bare.say(type="connect", streams=[{"stream": STREAM, "after": "earliest"}])
            if number % 3 == 2:
                await bare.read_until(b'"ready"')

    async def sell_on() -> None:
        for start in range(0, 100, 20):
            await sell(service, *range(start, start + 20))

    selling = asyncio.create_task(sell_on())
    await asyncio.gather(*(vanish(number) for number in range(60)))
    await selling
    await left(service, 0)
    assert service.service.app[SESSIONS].online() == {}
    async with till(service.url, key) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        assert await one.offsets(100) == list(range(1, 101))
