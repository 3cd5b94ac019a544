"""However recording, repeating, acknowledging, reading and restarting interleave, it adds up."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from listener.ledger.model import EVERY_STREAM, Event, Fact
from listener.ledger.results import Recorded
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.verify import verify
from tests.support import told
from tests.support.stored import numbered, url_of

T = TypeVar("T")

STORES: Final = (told.STORE, "300014", None)
STREAMS: Final = ("200043/303660", "200043/300014", "200043/-", EVERY_STREAM)
WORDS: Final = ("init", "success", "closed", "disputed")
READERS: Final = (0, 1)

facts = st.builds(
    numbered,
    st.integers(0, 4),
    st.sampled_from(WORDS),
    store_no=st.sampled_from(STORES),
)
streams = st.sampled_from(STREAMS)
readers = st.sampled_from(READERS)


class Interleaving(RuleBasedStateMachine):
    """A ledger, those who tell it things, and two readers with positions of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self._path = Path(self._folder.name) / "ledger.db"
        self._runner = asyncio.Runner()
        self._ledger = self._open()
        self._seqs: dict[str, int] = {}
        self._read: dict[tuple[int, str], list[Event]] = {}
        self._acked: dict[str, int] = {}

    def _run(self, work: Coroutine[object, object, T]) -> T:
        return self._runner.run(work)

    def _open(self) -> SqliteLedger:
        async def opened() -> SqliteLedger:
            return await SqliteLedger.open(self._path)

        return self._run(opened())

    @rule(batch=st.lists(facts, min_size=1, max_size=5))
    def record(self, batch: list[Fact]) -> None:
        async def record() -> list[Recorded]:
            return await asyncio.gather(*(self._ledger.record(fact) for fact in batch))

        self._note(batch, self._run(record()))

    @rule(batch=st.lists(facts, min_size=1, max_size=5), steps=st.integers(0, 6))
    def record_and_go_away(self, batch: list[Fact], steps: int) -> None:
        async def record() -> list[Recorded]:
            tasks = [asyncio.create_task(self._ledger.record(fact)) for fact in batch]
            for _ in range(steps):
                await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.wait(tasks)
            # What its caller gave up on may be recorded or not; telling it again shows it.
            again = await self._ledger.record(batch[0])
            return [again, *(task.result() for task in tasks[1:])]

        self._note(batch, self._run(record()))

    def _note(self, batch: list[Fact], recorded: list[Recorded]) -> None:
        for fact, one in zip(batch, recorded, strict=True):
            assert fact.fingerprint
            known = self._seqs.setdefault(fact.fingerprint, one.seq)
            assert known == one.seq

    @rule(reader=readers, stream=streams, limit=st.integers(1, 3))
    def read_on(self, reader: int, stream: str, limit: int) -> None:
        seen = self._read.setdefault((reader, stream), [])
        last = _place(seen[-1], stream) if seen else 0
        page = self._run(self._ledger.read_events(stream, after=last, limit=limit))
        assert len(page) <= limit
        seen += page

    @rule(batch=st.lists(facts, min_size=1, max_size=5), reader=readers, stream=streams)
    def record_while_reading(self, batch: list[Fact], reader: int, stream: str) -> None:
        seen = self._read.setdefault((reader, stream), [])

        async def both() -> list[Recorded]:
            tasks = [asyncio.create_task(self._ledger.record(fact)) for fact in batch]
            while not all(task.done() for task in tasks):
                last = _place(seen[-1], stream) if seen else 0
                seen.extend(await self._ledger.read_events(stream, after=last, limit=2))
            return await asyncio.gather(*tasks)

        self._note(batch, self._run(both()))

    @rule(reader=readers, stream=streams)
    def acknowledge(self, reader: int, stream: str) -> None:
        seen = self._read.get((reader, stream), [])
        offset = _place(seen[-1], stream) if seen else 0
        self._run(self._ledger.ack(terminal="T", stream=stream, offset=offset))
        self._acked[stream] = max(offset, self._acked.get(stream, 0))
        kept = self._run(self._ledger.acked(terminal="T", stream=stream))
        assert kept is not None
        assert kept.offset == self._acked[stream]

    @rule()
    def restart(self) -> None:
        self._run(self._ledger.close())
        self._ledger = self._open()

    @invariant()
    def every_reader_got_each_event_once_and_in_order(self) -> None:
        for (_, stream), seen in self._read.items():
            assert [_place(event, stream) for event in seen] == list(range(1, len(seen) + 1))
            assert [event.seq for event in seen] == sorted({event.seq for event in seen})

    def teardown(self) -> None:
        head = self._run(self._ledger.head())
        assert sorted(self._seqs.values()) == list(range(1, head.seq + 1))
        every = self._run(self._ledger.read_events(EVERY_STREAM, after=0, limit=10_000))
        for (_, stream), seen in self._read.items():
            mine = [e for e in every if stream in (EVERY_STREAM, e.stream)]
            assert seen == mine[: len(seen)]
        self._run(self._ledger.close())
        self._runner.close()
        found = verify(url_of(self._path))
        assert found.entries == head.seq
        self._folder.cleanup()


def _place(event: Event, stream: str) -> int:
    return event.number if stream == EVERY_STREAM else event.offset


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
