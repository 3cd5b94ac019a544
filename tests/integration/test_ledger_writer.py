"""The one writer: shares commits, lives through whatever fails, and publishes nothing early."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from itertools import chain, repeat
from pathlib import Path
from typing import Final
from unittest.mock import DEFAULT, Mock, patch

import pytest

from listener.errors import LedgerUnavailableError, OverloadedError, ReferenceTakenError
from listener.ledger.model import Event
from listener.ledger.results import Recorded
from listener.ledger.scope import Scope
from listener.storage.queue import WAITING_MAX
from listener.storage.sqlite import checkpoints, opening
from listener.storage.sqlite import writer as writing
from listener.storage.sqlite.checkpoints import CHECKPOINT_AFTER, COMMIT_PAGES
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from listener.storage.sqlite.verify import verify
from listener.storage.sqlite.writer import (
    BATCH_MAX,
    LOOP_BATCH_MAX,
    SLOW_COMMITS,
    SLOW_ITEM_SECONDS,
    SLOW_SECONDS,
    Writer,
)
from tests.support.stored import STREAM, bare, numbered, sold, url_of

DEADLINE_SECONDS: Final = 20.0


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(name="commits")
def _commits() -> list[int]:
    """How much each commit carried."""
    return []


@pytest.fixture(name="ledger")
async def _ledger(path: Path, commits: list[int]) -> AsyncIterator[SqliteLedger]:
    ledger = await SqliteLedger.open(path, on_commit=lambda _seconds, items: commits.append(items))
    async with ledger:
        yield ledger


def committed(path: Path) -> int:
    """Read what another process sees: the newest entry that is committed."""
    with closing(bare(path)) as db:
        (seq,) = db.execute("SELECT max(seq) FROM entries").fetchone()
    return seq or 0


class Hold:
    """Holds the file's write lock, as `keys create` does for a moment."""

    def __init__(self, path: Path) -> None:
        self._db = connect(path, create=False)
        self._db.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


async def under_way(ledger: SqliteLedger) -> None:
    """Wait until nothing waits: a commit has taken all of it, and stands at the lock."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while ledger.waiting:
            await asyncio.sleep(0)


# Sharing


async def test_callers_that_wait_together_share_one_commit(
    ledger: SqliteLedger, commits: list[int]
) -> None:
    acks = (ledger.ack(terminal=f"T{n}", stream=STREAM, offset=1) for n in range(3))
    await asyncio.gather(*(ledger.record(numbered(n)) for n in range(64)), *acks)
    assert commits == [67]


async def test_callers_that_come_during_a_commit_share_the_next(
    ledger: SqliteLedger, path: Path, commits: list[int]
) -> None:
    hold = Hold(path)
    first = asyncio.create_task(ledger.record(numbered(0)))
    await asyncio.sleep(0)
    await under_way(ledger)
    later = [asyncio.create_task(ledger.record(numbered(n))) for n in range(1, 9)]
    await asyncio.sleep(0)
    hold.release()
    await asyncio.gather(first, *later)
    assert commits == [1, 8]


@pytest.mark.parametrize(("slow", "most"), [(0, LOOP_BATCH_MAX), (1, BATCH_MAX)])
async def test_the_size_of_a_commit_is_limited(
    ledger: SqliteLedger, commits: list[int], slow: int, most: int
) -> None:
    ledger._writer._slow_commits = slow
    await asyncio.gather(*(ledger.record(numbered(n)) for n in range(most + 1)))
    assert commits == [most, 1]


async def arrive(ledger: SqliteLedger, *turns: int) -> None:
    """Queue so many items in each of the next turns of the loop, and wait for all of them."""
    done = []
    for count in turns:
        done += [ledger._writer.submit(is_in_loop) for _ in range(count)]
        await asyncio.sleep(0)
    await asyncio.gather(*done)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ((2, 1, 1, 1), [4, 1]),
        ((4, 1), [4, 1]),
        ((5, 1), [5, 1]),
        ((3, 0, 1), [3, 1]),
    ],
    ids=["until as many wait", "as many wait", "more wait", "until a turn brings nobody"],
)
async def test_a_commit_waits_for_as_many_as_the_last_one_carried(
    ledger: SqliteLedger,
    commits: list[int],
    monkeypatch: pytest.MonkeyPatch,
    turns: tuple[int, ...],
    expected: list[int],
) -> None:
    # However slow the disk and the loop are here.
    monkeypatch.setattr(writing, "SLOW_SECONDS", DEADLINE_SECONDS)
    monkeypatch.setattr(writing, "GATHER_SECONDS", DEADLINE_SECONDS)
    await arrive(ledger, 4)
    await arrive(ledger, *turns)
    assert commits == [4, *expected]


async def test_a_commit_in_the_loop_waits_for_no_more_than_it_can_carry(
    ledger: SqliteLedger, commits: list[int]
) -> None:
    # As after a commit in the thread.
    ledger._writer._last_size = BATCH_MAX
    done = [ledger._writer.submit(is_in_loop) for _ in range(LOOP_BATCH_MAX)]
    await asyncio.sleep(0)
    assert commits == [LOOP_BATCH_MAX]
    await asyncio.gather(*done)


async def test_a_commit_does_not_wait_long_for_others(
    ledger: SqliteLedger, commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SLOW_SECONDS", DEADLINE_SECONDS)
    await arrive(ledger, 4)
    monkeypatch.setattr(writing, "GATHER_SECONDS", 0.0)
    await arrive(ledger, 2, 1)
    assert commits == [4, 2, 1]


# In the loop, or in the thread


def is_in_loop(_db: sqlite3.Connection, _now_ms: int) -> bool:
    """Return whether a commit is made in the loop."""
    return threading.current_thread() is threading.main_thread()


async def shared(ledger: SqliteLedger, count: int) -> set[bool]:
    """Commit ``count`` items at once; return whether that was in the loop."""
    return {*await asyncio.gather(*(ledger._writer.submit(is_in_loop) for _ in range(count)))}


async def test_while_the_disk_is_quick_commits_are_made_in_the_loop(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SLOW_SECONDS", DEADLINE_SECONDS)
    assert await shared(ledger, 1) == {True}
    assert await shared(ledger, LOOP_BATCH_MAX + 1) == {True}


async def test_the_loop_never_waits_for_another_process_that_writes(
    ledger: SqliteLedger, path: Path
) -> None:
    hold = Hold(path)
    record = asyncio.create_task(ledger.record(numbered(1)))
    where_task = asyncio.create_task(shared(ledger, 1))
    turns, ends_at = 0, time.monotonic() + 0.2
    while time.monotonic() < ends_at:
        await asyncio.sleep(0.005)
        turns += 1
    assert turns >= 10
    assert not record.done()
    hold.release()
    assert (await record).seq == 1
    assert await where_task == {False}


async def test_until_a_slow_disk_is_quick_again_commits_are_made_in_the_thread(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger._writer.submit(lambda _db, _now_ms: time.sleep(2 * SLOW_SECONDS))
    assert await shared(ledger, 1) == {False}
    await ledger._writer.submit(lambda _db, _now_ms: time.sleep(2 * SLOW_SECONDS))
    monkeypatch.setattr(writing, "SLOW_SECONDS", DEADLINE_SECONDS)
    for _ in range(SLOW_COMMITS):
        assert await shared(ledger, 1) == {False}
    assert await shared(ledger, 1) == {True}


@pytest.mark.parametrize("is_in_thread", [False, True])
@pytest.mark.parametrize(
    ("seconds", "is_slow"),
    [(SLOW_SECONDS + 2 * SLOW_ITEM_SECONDS, False), (SLOW_SECONDS + 3 * SLOW_ITEM_SECONDS, True)],
)
async def test_a_large_commit_may_take_longer(
    ledger: SqliteLedger,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    is_slow: bool,
    is_in_thread: bool,
) -> None:
    ledger._writer._slow_commits = int(is_in_thread)
    clock = Mock(perf_counter=Mock(side_effect=chain([0.0, seconds], repeat(seconds))))
    monkeypatch.setattr(writing, "time", clock)
    assert await shared(ledger, 2) == {not is_in_thread}
    assert ledger._writer._slow_commits == (SLOW_COMMITS if is_slow else 0)


async def test_what_fails_in_the_loop_is_tried_again_in_the_thread(
    ledger: SqliteLedger, path: Path, commits: list[int]
) -> None:
    tries: list[bool] = []

    def change(db: sqlite3.Connection, now_ms: int) -> int:
        tries.append(is_in_loop(db, now_ms))
        if len(tries) == 1:
            raise sqlite3.OperationalError("disk I/O error")
        return 7

    facts = [ledger._writer.submit(numbered(number)) for number in (1, 2)]
    changed = ledger._writer.submit(change)
    assert [(await fact).seq for fact in facts] == [1, 2]
    assert (await changed, tries) == (7, [True, False])
    assert commits == [3]
    # Whatever was wrong may be so for a while.
    assert await shared(ledger, 1) == {False}
    assert verify(url_of(path)).entries == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_who_interrupts_a_commit_in_the_loop_loses_nothing(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    writer = ledger._writer
    # It is interrupted once; the thread may be at it again before this goes on.
    commit = Mock(side_effect=chain([error], repeat(DEFAULT)), wraps=writer._commit)
    monkeypatch.setattr(writer, "_commit", commit)
    # Only the interrupted commit may see to it that there is another.
    monkeypatch.setattr(writer, "_wake", lambda: setattr(writer, "_is_busy", True))
    recorded = writer.submit(numbered(1))
    with pytest.raises(error):
        writer._commit_here()
    assert (await recorded).seq == 1


async def test_a_disk_that_fails_in_the_thread_is_not_tried_in_the_loop(
    ledger: SqliteLedger,
) -> None:
    where: list[bool] = []

    def fail(db: sqlite3.Connection, now_ms: int) -> None:
        where.append(is_in_loop(db, now_ms))
        raise sqlite3.OperationalError("disk I/O error")

    ledger._writer._slow_commits = 1
    for _ in range(SLOW_COMMITS + 2):
        with pytest.raises(LedgerUnavailableError):
            await ledger._writer.submit(fail)
    assert where == [False] * (SLOW_COMMITS + 2)


# Durable before anybody is told


async def test_every_commit_is_synced(path: Path) -> None:
    def read(db: sqlite3.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "wal_autocheckpoint", "recursive_triggers")
        return {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    async with await SqliteLedger.open(path) as ledger:
        settings = await ledger._write_connection.run(read)
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "wal_autocheckpoint": 0,
        "recursive_triggers": 1,
    }


async def test_nobody_is_told_before_it_is_committed(ledger: SqliteLedger, path: Path) -> None:
    order: list[tuple[str, int]] = []

    def ring(events: Sequence[Event]) -> None:
        order.append(("bell", committed(path)))
        assert [event.seq for event in events] == [1, 2]

    async def call(number: int) -> None:
        await ledger.record(numbered(number))
        order.append(("answer", committed(path)))

    ledger.listen(ring)
    await asyncio.gather(call(1), call(2))
    assert order == [("bell", 2), ("answer", 2), ("answer", 2)]


async def test_a_repeat_in_the_same_commit_is_answered_only_with_its_original(
    ledger: SqliteLedger, path: Path
) -> None:
    hold = Hold(path)
    tasks = [asyncio.create_task(ledger.record(numbered(1))) for _ in range(2)]
    await asyncio.sleep(0)
    await under_way(ledger)
    assert not any(task.done() for task in tasks)
    hold.release()
    assert [one.seq for one in await asyncio.gather(*tasks)] == [1, 1]


async def test_an_answer_goes_out_before_the_bell_rings(ledger: SqliteLedger) -> None:
    told: list[str] = []
    ledger.listen(lambda _events: told.append("bell"))
    ledger.queue(numbered(1), lambda _result: told.append("answer"))
    assert (await ledger.record(numbered(2))).is_new
    assert told[:2] == ["answer", "bell"]


async def test_a_commit_without_events_rings_no_bell(ledger: SqliteLedger) -> None:
    rung: list[int] = []
    ledger.listen(lambda events: rung.append(len(events)))
    await ledger.record(numbered(1))
    await ledger.record(numbered(1))
    await ledger.ack(terminal="T", stream=STREAM, offset=1)
    assert rung == [1]


async def test_a_callback_is_called_once_its_entry_is_on_disk(
    ledger: SqliteLedger, path: Path
) -> None:
    called: list[tuple[object, int]] = []
    ledger.queue(numbered(1), lambda result: called.append((result, committed(path))))
    assert not called
    second = await ledger.record(numbered(2))
    ((first, on_disk),) = called
    assert isinstance(first, Recorded)
    assert (first.seq, second.seq, on_disk) == (1, 2, 2)


async def test_a_callback_gets_the_error_that_a_caller_would_have_got(
    ledger: SqliteLedger,
) -> None:
    results: list[Recorded | Exception] = []
    await ledger.record(sold("r1"))
    ledger.queue(sold("r1"), results.append)
    await ledger.record(numbered(2))
    assert isinstance(results[0], ReferenceTakenError)


# Living on


async def test_a_callback_that_fails_stalls_nobody(
    ledger: SqliteLedger, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_result: object) -> None:
        raise RuntimeError("no answer")

    ledger.queue(numbered(1), fail)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await ledger.record(numbered(2))).seq == 2
        assert (await ledger.record(numbered(3))).seq == 3
    assert "answer_failed" in caplog.text


async def test_a_caller_that_goes_away_does_not_undo_its_entry(
    ledger: SqliteLedger, path: Path
) -> None:
    hold = Hold(path)
    in_commit = asyncio.create_task(ledger.record(numbered(1)))
    await asyncio.sleep(0)
    await under_way(ledger)
    in_queue = asyncio.create_task(ledger.record(numbered(2)))
    await asyncio.sleep(0)
    for task in (in_commit, in_queue):
        task.cancel()
    await asyncio.wait([in_commit, in_queue])
    assert in_commit.cancelled()
    assert in_queue.cancelled()
    hold.release()
    # The writer goes on, and both of them are in the ledger.
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await ledger.record(numbered(3))).seq == 3
    assert [event.seq for event in await ledger.read_events(STREAM, after=0, limit=9)] == [1, 2, 3]
    assert verify(url_of(path)).entries == 3


async def test_a_bell_that_fails_stalls_nobody(ledger: SqliteLedger) -> None:
    def ring(_events: Sequence[Event]) -> None:
        raise RuntimeError("no bell")

    ledger.listen(ring)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await ledger.record(numbered(1))).seq == 1
        assert (await ledger.record(numbered(2))).seq == 2


async def test_a_change_that_fails_undoes_itself_and_nothing_else(
    ledger: SqliteLedger, path: Path, commits: list[int]
) -> None:
    writer: Writer = ledger._writer

    def change(db: sqlite3.Connection, _now_ms: int) -> None:
        db.execute("UPDATE ledger SET repeats = 99")
        raise ValueError("no")

    results = await asyncio.gather(
        ledger.record(numbered(1)),
        ledger.record(numbered(2)),
        writer.submit(change),
        ledger.record(numbered(3)),
        return_exceptions=True,
    )
    seqs = [result.seq if isinstance(result, Recorded) else None for result in results]
    assert seqs == [1, 2, None, 3]
    assert isinstance(results[2], LedgerUnavailableError)
    assert isinstance(results[2].__cause__, ValueError)
    assert sum(commits) == 3
    assert verify(url_of(path)).head.repeats == 0


async def test_one_bad_item_among_many_costs_few_commits(
    ledger: SqliteLedger, commits: list[int]
) -> None:
    writer: Writer = ledger._writer

    def change(_db: sqlite3.Connection, _now_ms: int) -> None:
        raise ValueError("no")

    async def fail() -> None:
        await writer.submit(change)

    # In the thread, whose batches are larger.
    writer._slow_commits = 1
    calls = [ledger.record(numbered(n)) for n in range(BATCH_MAX - 1)]
    middle = BATCH_MAX // 2 + 7
    results = await asyncio.gather(*calls[:middle], fail(), *calls[middle:], return_exceptions=True)
    assert sum(isinstance(result, Exception) for result in results) == 1
    assert sum(commits) == BATCH_MAX - 1
    assert 1 < len(commits) < 10


async def test_a_transaction_that_was_left_open_does_not_stop_the_next(
    ledger: SqliteLedger, path: Path
) -> None:
    # As after a ROLLBACK that failed together with its COMMIT.
    def leave_open(db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE ledger SET repeats = 99")

    await ledger._write_connection.run(leave_open)
    assert (await ledger.record(numbered(1))).seq == 1
    assert verify(url_of(path)).head.repeats == 0


# Limits


async def test_too_much_waiting_is_refused_and_the_ledger_recovers(
    ledger: SqliteLedger, path: Path
) -> None:
    hold = Hold(path)
    first = asyncio.create_task(ledger.record(numbered("first")))
    await asyncio.sleep(0)
    await under_way(ledger)
    waiting = [asyncio.create_task(ledger.record(numbered(n))) for n in range(WAITING_MAX)]
    await asyncio.sleep(0)
    assert ledger.waiting == WAITING_MAX
    with pytest.raises(OverloadedError):
        await ledger.record(numbered("one too many"))
    with pytest.raises(OverloadedError):
        await ledger.ack(terminal="T", stream=STREAM, offset=1)
    hold.release()
    recorded = await asyncio.gather(first, *waiting)
    assert len({one.seq for one in recorded}) == WAITING_MAX + 1
    assert (await ledger.record(numbered("one too many"))).is_new


# Stopping


async def test_facts_that_wait_at_the_end_are_committed(path: Path) -> None:
    ledger = await SqliteLedger.open(path)
    tasks = [asyncio.create_task(ledger.record(numbered(n))) for n in range(BATCH_MAX * 2)]
    await asyncio.sleep(0)
    await ledger.close()
    assert len({task.result().seq for task in tasks}) == BATCH_MAX * 2
    assert committed(path) == BATCH_MAX * 2


@pytest.mark.parametrize("count", [1, LOOP_BATCH_MAX + 1])
async def test_what_waits_at_the_end_is_committed_first(path: Path, count: int) -> None:
    carried: list[int] = []
    ledger = await SqliteLedger.open(path, on_commit=lambda _seconds, items: carried.append(items))
    tasks = [asyncio.create_task(ledger.record(numbered(n))) for n in range(count)]
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await ledger.close()
    assert [(await task).seq for task in tasks] == [*range(1, count + 1)]
    assert carried == [count]


async def test_nothing_is_taken_after_the_end(path: Path) -> None:
    ledger = await SqliteLedger.open(path)
    await ledger.close()
    with pytest.raises(LedgerUnavailableError, match="closing"):
        await ledger.record(numbered(1))
    with pytest.raises(LedgerUnavailableError, match="closed"):
        await ledger.head()
    await ledger.close()


@pytest.mark.parametrize("slow", [0, 1])
async def test_a_writer_that_has_died_leaves_nobody_waiting(
    ledger: SqliteLedger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    slow: int,
) -> None:
    def die(_self: Writer, _most: int) -> None:
        raise AssertionError

    monkeypatch.setattr(Writer, "_take", die)
    ledger._writer._slow_commits = slow
    results = await asyncio.gather(
        *(ledger.record(numbered(n)) for n in range(2)), return_exceptions=True
    )
    assert {str(one) for one in results} == {"the ledger's writer has ended"}
    # Its service is not ready any more, and can be stopped.
    with pytest.raises(LedgerUnavailableError, match="closing"):
        await ledger.check_writable()
    assert "writer_failed" in caplog.text


async def test_a_stop_that_is_given_up_on_still_ends(path: Path) -> None:
    ledger = await SqliteLedger.open(path)
    hold = Hold(path)
    task = asyncio.create_task(ledger.record(numbered(1)))
    await asyncio.sleep(0)
    await under_way(ledger)
    closing_task = asyncio.create_task(ledger.close())
    await asyncio.sleep(0)
    closing_task.cancel()
    await asyncio.sleep(0)
    hold.release()
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await task).seq == 1
        await asyncio.wait([closing_task])
        await ledger.close()


# The log


# More pages than SQLite's own threshold for a checkpoint.
MANY_KEYS: Final = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO keys (id, hash, role, created_at) SELECT i, hex(randomblob(2000)), 'pos', 0 FROM n
"""


# A page, and what the log adds to it.
PAGE_BYTES: Final = 4_096
FRAME_BYTES: Final = 24
# Instead of CHECKPOINT_AT_LATEST, in pages.
LATEST: Final = 400


def log_of(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def size_of(path: Path) -> int:
    return path.stat().st_size


async def test_the_log_is_moved_into_the_file_when_it_is_quiet(
    ledger: SqliteLedger, path: Path
) -> None:
    before = size_of(path)
    # Two items are a page, and each commit has some of its own.
    await asyncio.gather(*(ledger.record(numbered(n)) for n in range(2 * CHECKPOINT_AFTER)))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while size_of(path) == before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    # The next commit begins the log anew: it does not grow for ever.
    size = log_of(path)
    await ledger.record(numbered("next"))
    assert log_of(path) == size


async def test_while_commits_come_it_is_not_quiet(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_AFTER", 1)
    monkeypatch.setattr(writing, "QUIET_SECONDS", DEADLINE_SECONDS)
    monkeypatch.setattr(writing, "SLOW_SECONDS", DEADLINE_SECONDS)
    writer = ledger._writer
    await ledger.record(numbered(1))
    pages = writer._checkpoints.pages
    await ledger.record(numbered(2))
    # What the timer calls: one that was set before the last commit, and one after it.
    with patch.object(writer, "_start") as started:
        writer._tidy(pages)
        early = started.call_count
        writer._tidy(writer._checkpoints.pages)
    writer._start()
    assert (early, started.call_count) == (0, 1)


async def test_the_log_stays_short_although_it_is_never_quiet(
    ledger: SqliteLedger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_AT_LATEST", LATEST)
    for number in range(4 * LATEST // COMMIT_PAGES):
        await ledger.record(numbered(number))
    assert log_of(path) < 2 * LATEST * (PAGE_BYTES + FRAME_BYTES)


async def test_keys_made_beside_the_service_leave_the_log_alone(
    ledger: SqliteLedger, path: Path
) -> None:
    await ledger.record(numbered(1))
    before, log = size_of(path), log_of(path)
    with closing(connect(path, create=False)) as db:
        db.execute(MANY_KEYS)
    assert log_of(path) > log + 1_000 * 4_096
    assert size_of(path) == before
    assert (await ledger.record(numbered(2))).seq == 2


async def test_a_long_read_does_not_stop_the_writer(ledger: SqliteLedger, path: Path) -> None:
    await ledger.record(numbered(1))
    with closing(bare(path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(2, 2_000)))
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,)
    lines = await ledger.read_entries(after=1_998, limit=9, scope=Scope())
    assert [line.entry.seq for line in lines] == [1_999]


async def test_a_log_that_a_long_read_has_made_long_is_cut_once_the_read_has_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LOG_BYTES_KEPT", LATEST * PAGE_BYTES)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_AT_LATEST", LATEST)
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(0))
        with closing(bare(path)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,)
            for number in range(1, 4 * LATEST // COMMIT_PAGES):
                await ledger.record(numbered(number))
            assert log_of(path) > 2 * LATEST * PAGE_BYTES
        for number in range(2 * LATEST // COMMIT_PAGES):
            await ledger.record(numbered(f"later {number}"))
        assert log_of(path) <= (LATEST + 1) * PAGE_BYTES


async def test_readers_cannot_write(ledger: SqliteLedger) -> None:
    with pytest.raises(LedgerUnavailableError, match="readonly"):
        await ledger._read(lambda db: db.execute("UPDATE ledger SET repeats = 99"))


async def test_a_ledger_that_can_be_written_says_so(ledger: SqliteLedger) -> None:
    before = await ledger.head()
    await ledger.check_writable()
    assert await ledger.head() == before
    assert before.epoch == ledger.epoch
