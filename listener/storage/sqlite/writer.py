"""The one writer: callers that wait at the same time share one commit."""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from listener import log
from listener.errors import LedgerUnavailableError, ListenerError, OverloadedError
from listener.ledger.model import Event, Fact
from listener.ledger.promise import Bell, Recorded
from listener.ledger.schedule import Confirm
from listener.storage.sqlite.commit import commit
from listener.storage.sqlite.connection import Connection, faults_told, transaction

logger = logging.getLogger(__name__)

WAITING_MAX: Final = 4_096
BATCH_MAX: Final = 512
# Turns of the event loop before a commit: in the first, those that were answered are written to,
# and in the second, what they send at once is read. So they share the next commit.
GATHER_TURNS: Final = 2
# With so much else in the loop, one turn is long enough. A turn of many good notifications is not:
# to end sooner would make two commits of one.
GATHER_SECONDS: Final = 0.01
# A checkpoint waits until nothing has come for a moment, unless this many changes wait for it.
CHECKPOINT_AFTER: Final = 1_000
CHECKPOINT_AT_LATEST: Final = 8_000
QUIET_SECONDS: Final = 0.05

# Other work than a fact that is to be in the next commit; it gets the connection, and now.
Change = Callable[[sqlite3.Connection, int], Any]
# Called in the loop with an item's result, or with the error that it ended in.
Answer = Callable[[Any], None]
# Called in the loop after a commit: how long it took (seconds), and how many items it carried.
OnCommit = Callable[[float, int], None]

_Waiter = tuple[Fact | Change, Answer]


class Writer:
    """Queues facts and changes, commits them in groups, rings the bell, then answers.

    Commits are made in the connection's thread, one at a time; everything else happens in the loop.
    Either the thread is working, or it will be in a few turns of the loop, or nothing waits.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        epoch: str,
        confirm: Confirm,
        now_ms: Callable[[], int],
        bell: Bell,
        on_commit: OnCommit | None = None,
    ) -> None:
        self._connection = connection
        self._epoch = epoch
        self._confirm: Confirm = confirm
        self._now_ms = now_ms
        self._bell = bell
        self._on_commit = on_commit
        self._waiting: deque[_Waiter] = deque()
        self._is_busy = False
        self._closing = False
        self._has_ended = False
        self._ended = asyncio.Event()
        self._uncheckpointed = 0
        self._quiet: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._in_loop = self._loop.call_soon_threadsafe

    @property
    def waiting(self) -> int:
        """How many wait for a commit."""
        return len(self._waiting)

    def queue(self, item: Fact | Change, answer: Answer) -> None:
        """Queue an item for the next commit; ``answer`` is called once that is on disk.

        Raises:
            OverloadedError: More are waiting than the writer can serve in good time.
            LedgerUnavailableError: The ledger is closing.
        """
        if self._closing:
            raise LedgerUnavailableError("the ledger is closing; send it again")
        if len(self._waiting) >= WAITING_MAX:
            raise OverloadedError("too much is waiting for the ledger; send it again")
        self._waiting.append((item, answer))
        if not self._is_busy:
            self._is_busy = True
            self._gather()

    def submit(self, item: Fact | Change) -> asyncio.Future[Any]:
        """Queue an item, and return its result as a future; raises as :meth:`queue` does."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self.queue(item, partial(_settle, done))
        return done

    async def close(self) -> None:
        """Commit what waits, checkpoint, and stop; cancelling the caller does not interrupt it."""
        self._closing = True
        if not self._is_busy and not self._has_ended:
            self._is_busy = True
            self._start()
        await self._ended.wait()

    def _gather(self, turns: int = GATHER_TURNS, ends_at: float = 0.0) -> None:
        """Start in a few turns of the loop, so that all that arrives in them shares a commit."""
        now = self._loop.time()
        ends_at = ends_at or now + GATHER_SECONDS
        if turns and now < ends_at:
            self._loop.call_soon(self._gather, turns - 1, ends_at)
        else:
            self._start()

    def _start(self) -> None:
        """Start the work in the connection's thread."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        self._connection.start(self._work)

    def _work(self, db: sqlite3.Connection) -> None:
        """Commit what waits, and checkpoint when that is due; in the connection's thread."""
        try:
            if self._waiting:
                self._commit_waiting(db)
            is_last = self._closing and not self._waiting
            if is_last or self._uncheckpointed >= CHECKPOINT_AT_LATEST:
                self._checkpoint(db)
            self._has_ended = is_last
        except Exception:
            logger.exception("writer_failed")
            self._closing = self._has_ended = True
        finally:
            self._in_loop(self._rest)

    def _rest(self) -> None:
        """Go on if something came meanwhile; else checkpoint once it stays quiet."""
        if self._has_ended:
            # However it ended, nobody waits for it in vain.
            ended = [LedgerUnavailableError("the ledger's writer has ended") for _ in self._waiting]
            _answer(self._waiting, ended)
            self._waiting.clear()
            self._ended.set()
        elif self._waiting or self._closing:
            self._gather()
        else:
            self._is_busy = False
            if self._uncheckpointed >= CHECKPOINT_AFTER:
                self._quiet = self._loop.call_later(QUIET_SECONDS, self._tidy)

    def _tidy(self) -> None:
        """Checkpoint in a quiet moment."""
        self._quiet = None
        self._connection.start(self._checkpoint)

    def _commit_waiting(self, db: sqlite3.Connection) -> None:
        """Commit what waits, up to the size of one commit."""
        count = min(len(self._waiting), BATCH_MAX)
        self._serve(db, [self._waiting.popleft() for _ in range(count)])

    def _serve(self, db: sqlite3.Connection, batch: Sequence[_Waiter]) -> None:
        """Commit a batch, and answer everybody in it, whatever happens."""
        started = time.perf_counter()
        try:
            with faults_told():
                results, events = _commit(
                    db,
                    items=[item for item, _ in batch],
                    epoch=self._epoch,
                    now_ms=self._now_ms,
                    confirm=self._confirm,
                )
        except LedgerUnavailableError as error:
            log.event(
                logger,
                "commit_failed",
                level=logging.ERROR,
                cause=str(error),
                items=len(batch),
            )
            # Each its own: a raised error carries the traceback of who awaits it.
            self._in_loop(_answer, batch, [LedgerUnavailableError(str(error)) for _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever one item raises, the writer lives on
            self._isolate(db, batch, error)
        else:
            self._uncheckpointed += len(batch)
            self._in_loop(self._finish, batch, results, events, time.perf_counter() - started)

    def _finish(
        self,
        batch: Sequence[_Waiter],
        results: Sequence[object],
        events: Sequence[Event],
        seconds: float,
    ) -> None:
        """Ring the bell for a commit, and answer; in the loop."""
        # Events are in the hub before anybody is answered: a reader never sees less than a caller.
        self._announce(events, seconds=seconds, items=len(batch))
        _answer(batch, results)

    def _announce(self, events: Sequence[Event], *, seconds: float, items: int) -> None:
        """Ring the bell; an error there must not affect those who wait for the commit."""
        try:
            if events:
                self._bell(events)
            if self._on_commit:
                self._on_commit(seconds, items)
        except Exception:
            logger.exception("bell_failed")

    def _isolate(self, db: sqlite3.Connection, batch: Sequence[_Waiter], error: Exception) -> None:
        """Commit the halves of a failed batch separately, until only the bad item fails."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._serve(db, batch[:middle])
            self._serve(db, batch[middle:])
            return
        logger.error("item_failed", exc_info=error)
        failure = LedgerUnavailableError("the ledger could not take this")
        failure.__cause__ = error
        self._in_loop(_answer, batch, [failure])

    def _checkpoint(self, db: sqlite3.Connection) -> None:
        """Move the log into the database file; if that fails, the log only grows longer."""
        self._uncheckpointed = 0
        try:
            with faults_told():
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except LedgerUnavailableError as error:
            log.event(logger, "checkpoint_failed", level=logging.WARNING, cause=str(error))


def _settle(done: asyncio.Future[Any], result: object) -> None:
    """Settle a future; an error is raised where it is awaited. A caller that left cancelled it."""
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)


def _answer(batch: Sequence[_Waiter], results: Sequence[object]) -> None:
    """Answer everybody in a batch; an error with one must not affect the others."""
    for (_, answer), result in zip(batch, results, strict=True):
        try:
            answer(result)
        except Exception:
            logger.exception("answer_failed")


def _commit(
    db: sqlite3.Connection,
    *,
    items: Sequence[Fact | Change],
    epoch: str,
    now_ms: Callable[[], int],
    confirm: Confirm,
) -> tuple[list[object], list[Event]]:
    """Commit a batch in one transaction."""
    facts = [item for item in items if isinstance(item, Fact)]
    at_ms = now_ms()
    events: list[Event] = []
    recorded: list[Recorded | ListenerError] = []
    with transaction(db):
        if facts:
            committed = commit(db, facts, epoch=epoch, now_ms=at_ms, confirm=confirm)
            events, recorded = committed.events, committed.recorded
        answers = iter(recorded)
        results: list[object] = [
            next(answers) if isinstance(item, Fact) else item(db, at_ms) for item in items
        ]
    return results, events
