"""The hub: a fault of one is not felt by another, and whoever waits is woken."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from listener.errors import LedgerUnavailableError, OverloadedError
from listener.hub import hub as hub_module
from listener.hub import reads as reads_module
from listener.hub.hub import Hub
from listener.ledger.model import EVERY_STREAM, Event
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support.followers import (
    DEADLINE_SECONDS,
    STREAM,
    HeldBell,
    KeptFrames,
    follow,
    record,
    until,
)
from tests.support.told import MERCHANT

OTHER_STREAM = f"{MERCHANT}/300014"


@pytest.fixture(name="ledger")
async def _ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    async with await SqliteLedger.open(tmp_path / "ledger.db") as opened:
        yield opened


# Faults.


class Broken(KeptFrames):
    """A sink that fails."""

    def offer(self, frames: bytes) -> bool:
        raise RuntimeError(f"no socket takes {len(frames)} bytes")


@pytest.mark.parametrize("tail_events_max", [100, 1])
async def test_a_sink_that_raises_disturbs_neither_the_others_nor_the_writer(
    ledger: SqliteLedger, tail_events_max: int, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(ledger, tail_events_max=tail_events_max)
    await hub.start()
    broken, sound = [Broken(), Broken()], [KeptFrames(), KeptFrames()]
    await record(ledger, *range(10))
    for bad, good in zip(broken, sound, strict=True):
        await hub.heads([STREAM])
        follower = hub.subscribe(STREAM, after=0, sink=bad)
        hub.retry(follower)
        await follow(hub, good, after=0)
    await record(ledger, *range(10, 20))
    await until(lambda: all(sink.offsets() == list(range(1, 21)) for sink in sound))
    await until(lambda: all(sink.is_failed for sink in broken))
    assert hub.followers == 2
    assert "subscription_failed" in caplog.text
    await hub.close()


class Unreadable(HeldBell):
    """A ledger that cannot be read for a while."""

    def __init__(self, ledger: SqliteLedger, *, error: Exception) -> None:
        super().__init__(ledger)
        self.error: Exception | None = error
        self.asked = 0

    async def read_events(self, stream: str, *, after: int, limit: int) -> list[Event]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return await super().read_events(stream, after=after, limit=limit)


@pytest.mark.parametrize("error", [LedgerUnavailableError("disk"), ValueError("closed")])
async def test_a_read_that_fails_is_tried_again_and_logged_now_and_then(
    ledger: SqliteLedger, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    await record(ledger, 1, 2, 3)
    source = Unreadable(ledger, error=error)
    hub = Hub(source)
    sinks = [KeptFrames() for _ in range(10)]
    for sink in sinks:
        await follow(hub, sink, after=0)
    await until(lambda: source.asked >= 30)
    assert caplog.text.count("read_failed") == 1
    source.error = None
    await until(lambda: all(sink.offsets() == [1, 2, 3] for sink in sinks))
    await hub.close()


async def test_a_late_bell_does_not_cause_reads_without_a_pause(
    ledger: SqliteLedger,
) -> None:
    bell = HeldBell(ledger)
    hub = Hub(bell)
    await hub.start()
    sink = KeptFrames()
    counted: list[None] = []
    hub.on_read = lambda: counted.append(None)
    await record(ledger, 1, 2)
    # The ledger's head is known, the bell has not rung: what is missing is read once.
    await follow(hub, sink, after=0)
    await until(lambda: sink.offsets() == [1, 2])
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(counted) == 1
    bell.ring()
    assert sink.offsets() == [1, 2]
    await hub.close()


async def test_a_ledger_that_tells_less_than_its_head_is_not_read_in_a_loop(
    ledger: SqliteLedger,
) -> None:
    class Ahead(HeldBell):
        async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
            return dict.fromkeys(streams, 5)

    hub = Hub(Ahead(ledger))
    counted: list[None] = []
    hub.on_read = lambda: counted.append(None)
    began = asyncio.get_running_loop().time()
    await follow(hub, KeptFrames(), after=0)
    await until(lambda: len(counted) >= 4)
    assert asyncio.get_running_loop().time() - began >= 3 * hub_module.RETRY_SECONDS
    await hub.close()


async def test_many_who_lag_behind_are_read_for_a_few_at_a_time(ledger: SqliteLedger) -> None:
    await record(ledger, *range(30))

    class Counting(HeldBell):
        now = most = 0

        async def read_events(self, stream: str, *, after: int, limit: int) -> list[Event]:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                # However fast the ledger is, others come meanwhile.
                await asyncio.sleep(0.01)
                return await super().read_events(stream, after=after, limit=limit)
            finally:
                self.now -= 1

    source = Counting(ledger)
    hub = Hub(source, tail_events_max=1)
    sinks = [KeptFrames() for _ in range(50)]
    for sink in sinks:
        await follow(hub, sink, after=0)
    await until(lambda: all(sink.offsets() == list(range(1, 31)) for sink in sinks))
    assert source.most == reads_module.READS_AT_ONCE_MAX
    await hub.close()


# Waiting.


async def test_a_page_that_waits_is_woken_by_an_event(ledger: SqliteLedger) -> None:
    hub = Hub(ledger)
    await hub.start()
    waiting = asyncio.create_task(hub.page(STREAM, after=0, limit=9, wait_seconds=60))
    other = asyncio.create_task(hub.page(OTHER_STREAM, after=0, limit=9, wait_seconds=60))
    await asyncio.sleep(0)
    await record(ledger, 1)
    async with asyncio.timeout(DEADLINE_SECONDS):
        (event,) = await waiting
    assert event.offset == 1
    assert not other.done()
    await hub.close()
    assert await other == []


async def test_a_wait_is_over_after_its_time(ledger: SqliteLedger) -> None:
    hub = Hub(ledger)
    began = asyncio.get_running_loop().time()
    assert await hub.page(STREAM, after=0, limit=9, wait_seconds=0.05) == []
    await hub.wait(EVERY_STREAM, wait_seconds=0.05)
    assert asyncio.get_running_loop().time() - began >= 0.1
    await hub.close()


async def test_close_wakes_whoever_waits_and_nobody_waits_afterwards(ledger: SqliteLedger) -> None:
    hub = Hub(ledger)
    waiting = [asyncio.create_task(hub.wait(STREAM, wait_seconds=60)) for _ in range(3)]
    await asyncio.sleep(0)
    await hub.close()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*waiting)
        await hub.wait(STREAM, wait_seconds=60)
    assert hub.is_closed
    # Whoever still asks for more of the ledger is not read for any more, and nothing is left over.
    await record(ledger, 1)
    sink = KeptFrames(room=False)
    await follow(hub, sink, after=0)
    sink.room = True
    await hub.close()


async def test_the_number_of_waits_is_limited(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WAITERS_MAX", 2)
    hub = Hub(ledger)
    waiting = [
        asyncio.create_task(hub.page(STREAM, after=0, limit=1, wait_seconds=60)) for _ in range(2)
    ]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await hub.page(STREAM, after=0, limit=1, wait_seconds=60)
    # Who does not wait is served.
    assert await hub.page(STREAM, after=0, limit=1) == []
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert await hub.page(STREAM, after=0, limit=1, wait_seconds=0.01) == []
    await hub.close()
    assert await waiting[1] == []
