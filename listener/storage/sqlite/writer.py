"""The one writer: callers that wait at the same time share one commit."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from listener.errors import LedgerUnavailableError
from listener.ledger.model import Event, Fact
from listener.ledger.promise import Bell
from listener.ledger.schedule import Confirm
from listener.storage.queue import CommitQueue, OnCommit, Waiter, fail, fail_alone, halves, refuse
from listener.storage.sqlite import statements
from listener.storage.sqlite.checkpoints import Checkpoints
from listener.storage.sqlite.commit import commit
from listener.storage.sqlite.connection import Connection, transaction
from listener.storage.sqlite.faults import faults_told

BATCH_MAX: Final = 512
# Fewer in the loop, since nothing else runs there meanwhile.
LOOP_BATCH_MAX: Final = 256
# A commit that took longer, for its size, most likely waited for the disk. The thread then makes
# the commits, until so many in a row were quick.
SLOW_SECONDS: Final = 0.005
SLOW_ITEM_SECONDS: Final = 0.000_1
SLOW_COMMITS: Final = 8
# How long a commit waits for callers that are on their way. This is longer than a turn of the loop
# with two hundred good notifications, which would otherwise become two commits.
GATHER_SECONDS: Final = 0.01
# How long nothing must arrive before the log is moved into the file.
QUIET_SECONDS: Final = 0.05
# How soon after a commit the note beside the file counts it. Writing it at each commit cost 4 % of
# a notification's time at 1,000 a second.
NOTE_SECONDS: Final = 0.02
# What a check writes after a commit that failed: a body of 64 KiB, as an entry and in an event.
ROOM_BYTES: Final = 128 * 1024

_LOG: Final = logging.getLogger(__name__)

# Work for the next commit that is not a fact; called with the connection and the time.
Change = Callable[[sqlite3.Connection, int], Any]


class Writer(CommitQueue[Fact | Change, Sequence[Event]]):
    """Queues facts and changes, commits them in groups, answers, then rings the bell.

    One commit is made at a time: in the loop while the disk is quick, otherwise in the connection's
    thread. If anything waits, a commit is under way, or begins within a few turns of the loop.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        epoch: str,
        confirm: Confirm,
        now_ms: Callable[[], int],
        bell: Bell,
        check_files: Callable[[], None],
        leave_note: Callable[[int], None],
        on_commit: OnCommit | None = None,
    ) -> None:
        super().__init__(publish=bell, on_commit=on_commit)
        self._check_files = check_files
        self._leave_note = leave_note
        # The newest entry that the note is to count, and when to write it.
        self._seq = 0
        self._noting: asyncio.TimerHandle | None = None
        self._connection = connection
        # Used in the loop while its thread has nothing to do.
        self._db = connection.raw
        self._epoch = epoch
        self._confirm: Confirm = confirm
        self._now_ms = now_ms
        self._is_busy = False
        self._has_ended = False
        self._ended = asyncio.Event()
        # How many the last commit carried, and how many commits are not to be made in the loop.
        self._last_size = 0
        self._slow_commits = 0
        self._checkpoints = Checkpoints()
        self._quiet: asyncio.TimerHandle | None = None
        # Whether the last commit failed, and whether one did since the last check.
        self._has_failed = False
        self._has_failed_since_check = False
        self._in_loop = self._loop.call_soon_threadsafe

    async def check(self) -> None:
        """Commit something that changes nothing; after a failure, as much as a long notification.

        On a full disk the log may still have a page or two for less, and none for a notification.

        Raises:
            LedgerUnavailableError: It cannot be committed.
        """
        if self._has_failed_since_check:
            # Reset first: if this fails as well, it is set again.
            self._has_failed_since_check = False
            await self.submit(_take_room)
            await self.submit(lambda db, _at_ms: db.execute(statements.GIVE_ROOM_BACK).rowcount)
        else:
            await self.submit(lambda db, _at_ms: db.execute(statements.TOUCH).rowcount)

    async def close(self) -> None:
        """Commit what waits, checkpoint, and stop; cancelling the caller does not interrupt it."""
        self._closing = True
        if not self._is_busy and not self._has_ended:
            self._is_busy = True
            self._start()
        await self._ended.wait()
        if self._noting is not None:
            self._noting.cancel()
            self._note()

    def _wake(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self._go_on()

    def _go_on(self) -> None:
        """Commit in the next turn of the loop, or once callers on their way have arrived."""
        self._loop.call_soon(self._commit_or_wait, 0, self._loop.time() + GATHER_SECONDS)

    def _commit_or_wait(self, seen: int, ends_at: float) -> None:
        """Commit, unless each turn of the loop still brings more, up to what the last one carried.

        Callers that the last commit answered send again soon, and sharing the next one costs less.
        """
        count = len(self._waiting)
        if seen < count < min(self._last_size, LOOP_BATCH_MAX) and self._loop.time() < ends_at:
            self._loop.call_soon(self._commit_or_wait, count, ends_at)
        elif self._slow_commits or self._closing or self._checkpoints.is_overdue:
            self._start()
        else:
            self._commit_here()

    def _commit_here(self) -> None:
        """Commit in the loop what waits."""
        batch: list[Waiter[Fact | Change]] = []
        started = time.perf_counter()
        try:
            batch = self._take(LOOP_BATCH_MAX)
            results, events = self._commit(self._db, batch, waits=False)
        except BaseException as error:
            # It was rolled back. The thread tries again, and refuses what it cannot commit.
            self._waiting.extendleft(reversed(batch))
            self._slow_commits = SLOW_COMMITS
            self._start()
            if isinstance(error, Exception):
                return
            raise
        seconds = time.perf_counter() - started
        self._judge(seconds, len(batch))
        try:
            self._finish(batch, results, events, seconds)
        finally:
            self._rest()

    def _judge(self, seconds: float, count: int) -> None:
        """Send the next commits to the thread if one took long for what it carried."""
        if seconds > SLOW_SECONDS + SLOW_ITEM_SECONDS * count:
            self._slow_commits = SLOW_COMMITS

    def _start(self) -> None:
        """Start the work in the connection's thread."""
        self._connection.start(self._work)

    def _work(self, db: sqlite3.Connection) -> None:
        """Commit what waits, and checkpoint when that is due; in the connection's thread."""
        try:
            if self._waiting:
                self._slow_commits = max(0, self._slow_commits - 1)
                self._serve(db, self._take(BATCH_MAX))
            is_last = self._closing and not self._waiting
            if is_last or self._checkpoints.is_due:
                self._checkpoints.make(db)
            self._has_ended = is_last
        except Exception:  # noqa: BLE001 - whoever waits is answered all the same
            _LOG.exception("writer_failed")
            self._closing = self._has_ended = True
        finally:
            self._in_loop(self._rest)

    def _rest(self) -> None:
        """Go on if something came meanwhile, or is due; else checkpoint once it stays quiet."""
        if self._has_ended:
            # However it ended, nobody waits for it in vain.
            refuse(self._waiting, "the ledger's writer has ended")
            self._waiting.clear()
            if self._quiet is not None:
                self._quiet.cancel()
            self._ended.set()
        elif self._waiting or self._closing or self._checkpoints.is_overdue:
            self._go_on()
        else:
            self._is_busy = False
            if self._checkpoints.is_worthwhile and self._quiet is None:
                self._look_again()

    def _look_again(self) -> None:
        """See after a moment whether anything has come."""
        pages = self._checkpoints.pages
        self._quiet = self._loop.call_later(QUIET_SECONDS, self._tidy, pages)

    def _tidy(self, pages: int) -> None:
        """Checkpoint, if nothing has come for a moment; otherwise look again after another."""
        self._quiet = None
        if not self._checkpoints.is_worthwhile:
            return
        if self._is_busy or self._checkpoints.pages != pages:
            self._look_again()
        else:
            self._is_busy = True
            self._checkpoints.ask()
            self._start()

    def _serve(self, db: sqlite3.Connection, batch: Sequence[Waiter[Fact | Change]]) -> None:
        """Commit a batch, and answer everybody in it, whatever happens."""
        started = time.perf_counter()
        try:
            with faults_told():
                results, events = self._commit(db, batch)
        except LedgerUnavailableError as error:
            # A disk that fails is not a quick one.
            self._slow_commits = SLOW_COMMITS
            self._has_failed = self._has_failed_since_check = True
            self._checkpoints.ask_while_failing()
            self._in_loop(fail, batch, error)
        except Exception as error:  # noqa: BLE001 - whatever one item raises, the writer lives on
            self._isolate(db, batch, error)
        else:
            seconds = time.perf_counter() - started
            self._judge(seconds, len(batch))
            if self._has_failed:
                # The disk may have been full: before the log takes all the room that was made, it
                # is moved into the file, and then overwritten.
                self._has_failed = False
                self._checkpoints.ask()
            self._in_loop(self._finish, batch, results, events, seconds)

    def _isolate(
        self, db: sqlite3.Connection, batch: Sequence[Waiter[Fact | Change]], error: Exception
    ) -> None:
        """Commit the halves of a failed batch separately, until only the bad item fails."""
        if len(batch) == 1:
            self._in_loop(fail_alone, batch[0], error)
            return
        for half in halves(batch):
            self._serve(db, half)

    def _finish(
        self,
        batch: Sequence[Waiter[Fact | Change]],
        results: Sequence[object],
        news: Sequence[Event],
        seconds: float,
    ) -> None:
        super()._finish(batch, results, news, seconds)
        if self._noting is None and self._seq:
            self._noting = self._loop.call_later(NOTE_SECONDS, self._note)

    def _note(self) -> None:
        """Write the newest entry into the note beside the file."""
        self._noting = None
        # The note is only a hint; what is committed stays committed.
        with suppress(OSError):
            self._leave_note(self._seq)

    def _commit(
        self, db: sqlite3.Connection, batch: Sequence[Waiter[Fact | Change]], *, waits: bool = True
    ) -> tuple[Sequence[object], Sequence[Event]]:
        """Commit a batch in one transaction; return each item's result, and the events.

        ``waits``: whether to wait for another process that is writing.
        """
        facts = [waiter.item for waiter in batch if isinstance(waiter.item, Fact)]
        committed = None
        at_ms = self._now_ms()
        results: list[Any] = []
        events: list[Event] = []
        self._check_files()
        with transaction(db, waits=waits):
            if facts:
                committed = commit(
                    db, facts, epoch=self._epoch, now_ms=at_ms, confirm=self._confirm
                )
                results, events = committed.recorded, committed.events
            if len(facts) < len(batch):
                results = _apply(db, at_ms, batch, iter(results))
        if committed is not None:
            self._seq = committed.seq
        self._last_size = len(batch)
        self._checkpoints.count(len(batch))
        return results, events


def _take_room(db: sqlite3.Connection, at_ms: int) -> int:
    return db.execute(statements.TAKE_ROOM, ("x" * ROOM_BYTES, at_ms)).rowcount


def _apply(
    db: sqlite3.Connection,
    at_ms: int,
    batch: Sequence[Waiter[Fact | Change]],
    recorded: Iterator[Any],
) -> list[Any]:
    """Make the changes of a batch; return each item's result, that of a fact as it was recorded."""
    return [
        next(recorded) if isinstance(waiter.item, Fact) else waiter.item(db, at_ms)
        for waiter in batch
    ]
