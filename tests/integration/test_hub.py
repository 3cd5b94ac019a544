"""The hub: what it keeps in memory, what it reads, and that no fault of one is felt by another."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from listener.hub import hub as hub_module
from listener.hub import reads as reads_module
from listener.hub.hub import Hub
from listener.hub.tail import PAGE_EVENTS_MAX
from listener.ledger.model import EVERY_STREAM, stream_of
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support.followers import (
    STREAM,
    HeldBell,
    KeptFrames,
    fact,
    follow,
    places,
    reads,
    record,
    until,
)
from tests.support.told import MERCHANT, STORE

OTHER_STREAM = f"{MERCHANT}/300014"


@pytest.fixture(name="ledger")
async def _ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    async with await SqliteLedger.open(tmp_path / "ledger.db") as opened:
        yield opened


# What is kept in memory.


async def test_at_the_start_the_newest_events_are_taken_into_memory(ledger: SqliteLedger) -> None:
    await record(ledger, *range(10))
    hub = Hub(ledger, tail_events_max=4)
    await hub.start()
    assert await reads(hub, after=6) == 0
    assert await reads(hub, after=5) == 1
    await hub.close()


async def test_the_tail_is_bounded_in_events_over_all_streams(ledger: SqliteLedger) -> None:
    hub = Hub(ledger, tail_events_max=4)
    await hub.start()
    await record(ledger, *range(4))
    assert await reads(hub, after=0) == 0
    await ledger.record(fact(99, store_no="300014"))
    assert await reads(hub, after=1) == 0
    assert await reads(hub, after=0) == 1
    await hub.close()


async def test_the_tail_is_bounded_in_bytes(ledger: SqliteLedger) -> None:
    hub = Hub(ledger, tail_bytes_max=20_000)
    await hub.start()
    await record(ledger, *range(12), currency="c" * 1_500)
    # Ten of these are all that fit.
    assert await reads(hub, after=2) == 0
    assert await reads(hub, after=1) == 1
    await hub.close()


async def test_a_follower_that_ends_twice_takes_no_later_one_with_it(ledger: SqliteLedger) -> None:
    hub = Hub(ledger)
    await hub.start()
    first = hub.subscribe(STREAM, after=0, sink=KeptFrames())
    first.end()
    sink = KeptFrames()
    await follow(hub, sink, after=0)
    first.end()
    await record(ledger, 1)
    await until(lambda: sink.offsets() == [1])
    await hub.close()


async def test_an_event_larger_than_the_whole_tail_still_arrives(ledger: SqliteLedger) -> None:
    hub = Hub(ledger, tail_bytes_max=100)
    await hub.start()
    sink = KeptFrames()
    await follow(hub, sink, after=0)
    await record(ledger, 1, 2, 3)
    await until(lambda: sink.offsets() == [1, 2, 3])
    await hub.close()


async def test_the_stream_of_all_is_kept_once_somebody_has_asked_for_it(
    ledger: SqliteLedger,
) -> None:
    hub = Hub(ledger)
    await hub.start()
    await record(ledger, 1, 2)
    await hub.heads([EVERY_STREAM])
    await record(ledger, 3, 4)
    assert await reads(hub, after=2, name=EVERY_STREAM) == 0
    assert await reads(hub, after=1, name=EVERY_STREAM) == 1
    await hub.close()


async def test_a_bell_for_what_is_known_already_changes_nothing(ledger: SqliteLedger) -> None:
    bell = HeldBell(ledger)
    hub = Hub(bell)
    await record(ledger, 1)
    await record(ledger, 2)
    await hub.start()
    bell.ring(1)
    assert await reads(hub, after=0) == 0
    await hub.close()


@pytest.mark.parametrize("name", [STREAM, EVERY_STREAM])
async def test_an_event_published_while_the_head_is_read_is_not_missed(
    ledger: SqliteLedger, name: str
) -> None:
    class Meanwhile(HeldBell):
        async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
            heads = await super().stream_heads(streams)
            await ledger.record(fact(2))
            self.ring()
            return heads

    await record(ledger, 1)
    hub, sink = Hub(Meanwhile(ledger)), KeptFrames()
    assert await hub.heads([name]) == {name: 2}
    hub.subscribe(name, after=1, sink=sink).advance()
    await until(lambda: sink.offsets() == [2])
    await hub.close()


async def test_an_event_left_out_while_the_head_is_read_is_not_missed(
    ledger: SqliteLedger,
) -> None:
    class Meanwhile(HeldBell):
        async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
            heads = await super().stream_heads(streams)
            assert not self.follows(STREAM)
            await ledger.record(fact(2))
            self.leave_out()
            return heads

    await record(ledger, 1)
    bell, sink = Meanwhile(ledger), KeptFrames()
    hub = Hub(bell)
    assert await hub.heads([STREAM]) == {STREAM: 2}
    hub.subscribe(STREAM, after=1, sink=sink).advance()
    assert bell.follows(STREAM)
    await until(lambda: sink.offsets() == [2])
    # What is left out although somebody has come meanwhile is read, too.
    await ledger.record(fact(3))
    bell.leave_out()
    await until(lambda: sink.offsets() == [2, 3])
    await hub.close()


async def test_a_subscription_many_pages_behind_catches_up_without_another_bell(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PAGE_EVENTS_MAX", 3)
    monkeypatch.setattr(reads_module, "PAGE_EVENTS_MAX", 3)
    await record(ledger, *range(20))
    hub = Hub(ledger, tail_events_max=1)
    await hub.start()
    assert await reads(hub, after=0) == 7
    await hub.close()


async def test_a_page_comes_from_memory_if_it_can_and_from_the_ledger_if_not(
    ledger: SqliteLedger,
) -> None:
    await record(ledger, *range(10))
    hub = Hub(ledger, tail_events_max=4)
    await hub.start()
    await hub.heads([STREAM])
    stored = places(await ledger.read_events(STREAM, after=0, limit=100), STREAM)
    for after, limit in ((0, 3), (0, 100), (5, 2), (6, 2), (6, 100), (9, 1)):
        page = await hub.page(STREAM, after=after, limit=limit)
        assert places(page, STREAM) == stored[after : after + limit]
    assert await hub.page(STREAM, after=10, limit=5) == []
    await ledger.close()
    # Memory serves even then.
    assert len(await hub.page(STREAM, after=6, limit=100)) == 4
    await hub.close()


async def test_names_that_do_not_exist_are_not_kept_in_memory(ledger: SqliteLedger) -> None:
    hub = Hub(ledger)
    names = [f"{MERCHANT}/{number}" for number in range(50)]
    assert set((await hub.heads(names)).values()) == {0}
    for name in names:
        assert await hub.page(name, after=0, limit=1, wait_seconds=0.001) == []
        await hub.wait(name, wait_seconds=0.001)
        subscription = hub.subscribe(name, after=0, sink=KeptFrames())
        subscription.end()
    assert hub.streams == 0
    await hub.close()


# What is written.


async def test_a_published_event_is_already_in_the_ledger(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    hub = Hub(ledger)
    await hub.start()
    seen = []

    class Reading(KeptFrames):
        def offer(self, frames: bytes) -> bool:
            super().offer(frames)
            with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
                seen.append(db.execute("SELECT max(number), count(*) FROM events").fetchone())
            return True

    sink = Reading()
    await follow(hub, sink, after=0)
    await record(ledger, 1)
    await record(ledger, 2)
    assert seen == [(1, 1), (2, 2)]
    await hub.close()


async def test_who_is_told_of_one_stream_finds_the_others_grown(ledger: SqliteLedger) -> None:
    hub = Hub(ledger)
    await hub.start()
    names = [stream_of(MERCHANT, store_no) for store_no in (STORE, None)]
    heads: list[set[int]] = []

    class Looking(KeptFrames):
        def offer(self, frames: bytes) -> bool:
            heads.append({one.head for one in followed})
            return super().offer(frames)

    followed = [hub.subscribe(name, after=0, sink=Looking()) for name in names]
    facts = [fact(1), replace(fact(2), store_no=None)]
    await asyncio.gather(*(ledger.record(one) for one in facts))
    assert heads == [{1}, {1}]
    await hub.close()


async def test_events_are_published_before_their_caller_is_answered(ledger: SqliteLedger) -> None:
    hub = Hub(ledger)
    await hub.start()
    sink = KeptFrames()
    await follow(hub, sink, after=0)
    for number in range(5):
        await ledger.record(fact(number))
        assert sink.offsets() == list(range(1, number + 2))
    await hub.close()


async def test_one_commit_is_one_write_to_each_and_the_same_bytes_for_all(
    ledger: SqliteLedger,
) -> None:
    bell = HeldBell(ledger)
    hub = Hub(bell)
    sinks = [KeptFrames() for _ in range(3)]
    for sink in sinks:
        await follow(hub, sink, after=0)
    await record(ledger, *range(20))
    commits = len(bell.held)
    bell.ring()
    assert all(sink.offsets() == list(range(1, 21)) for sink in sinks)
    assert [len(sink.writes) for sink in sinks] == [commits] * 3
    assert sinks[0].writes[0] is sinks[2].writes[0]
    await hub.close()


async def test_a_write_joins_no_more_than_a_page(ledger: SqliteLedger) -> None:
    hub = Hub(ledger)
    await hub.start()
    await record(ledger, *range(2 * PAGE_EVENTS_MAX + 10))
    sink = KeptFrames()
    await follow(hub, sink, after=0)
    sizes = [write.count(b'{"type":"event"') for write in sink.writes]
    assert sizes == [PAGE_EVENTS_MAX, PAGE_EVENTS_MAX, 10]
    await hub.close()


async def test_a_full_sink_waits_in_the_ledger_and_goes_on_once_it_has_room(
    ledger: SqliteLedger,
) -> None:
    hub = Hub(ledger, tail_events_max=3)
    await hub.start()
    full, free = KeptFrames(room=False), KeptFrames()
    await follow(hub, full, after=0)
    await follow(hub, free, after=0)
    await record(ledger, *range(20))
    await until(lambda: free.offsets() == list(range(1, 21)))
    assert full.writes == []
    full.room = True
    await until(lambda: full.offsets() == list(range(1, 21)))
    await hub.close()


async def test_a_subscription_that_has_ended_gets_nothing_more(ledger: SqliteLedger) -> None:
    await record(ledger, *range(5))
    bell = HeldBell(ledger)
    hub = Hub(bell, tail_events_max=1)
    sink = KeptFrames()
    await hub.heads([STREAM])
    subscription = hub.subscribe(STREAM, after=0, sink=sink)
    subscription.advance()
    # It leaves while the ledger is being read for it.
    subscription.end()
    await record(ledger, 6)
    bell.ring()
    await reads(hub, after=0)
    assert (sink.writes, hub.followers) == ([], 1)
    await hub.close()


async def test_a_page_that_is_ahead_of_the_bell_moves_the_head(ledger: SqliteLedger) -> None:
    # As where another node has recorded, and its bell is still to come here.
    hub = Hub(HeldBell(ledger), tail_events_max=4)
    await record(ledger, *range(6))
    sink = KeptFrames(room=False)
    await hub.heads([STREAM])
    subscription = hub.subscribe(STREAM, after=0, sink=sink)
    await record(ledger, *range(6, 9))
    sink.room = True
    subscription.advance()
    await until(lambda: len(sink.offsets()) == 9)
    assert subscription.head == subscription.offset == 9
    await hub.close()
