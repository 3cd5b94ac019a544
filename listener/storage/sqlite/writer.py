"""The one writer: callers that wait at the same time share one commit."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from listener import log
from listener.errors import LedgerUnavailableError, ListenerError
from listener.ledger.model import Event, Fact
from listener.ledger.promise import Bell
from listener.ledger.results import Recorded
from listener.ledger.schedule import Confirm
from listener.storage.queue import CommitQueue, OnCommit, Waiter, fail, fail_alone, halves, refuse
from listener.storage.sqlite.commit import commit
from listener.storage.sqlite.connection import Connection, faults_told, transaction

logger = logging.getLogger(__name__)

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


class Writer(CommitQueue[Fact | Change, Sequence[Event]]):
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
        super().__init__(publish=bell, on_commit=on_commit)
        self._connection = connection
        self._epoch = epoch
        self._confirm: Confirm = confirm
        self._now_ms = now_ms
        self._is_busy = False
        self._has_ended = False
        self._ended = asyncio.Event()
        self._uncheckpointed = 0
        self._quiet: asyncio.TimerHandle | None = None
        self._in_loop = self._loop.call_soon_threadsafe

    async def close(self) -> None:
        """Commit what waits, checkpoint, and stop; cancelling the caller does not interrupt it."""
        self._closing = True
        if not self._is_busy and not self._has_ended:
            self._is_busy = True
            self._start()
        await self._ended.wait()

    def _wake(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self._gather()

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
            refuse(self._waiting, "the ledger's writer has ended")
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
        self._serve(db, self._take(BATCH_MAX))

    def _serve(self, db: sqlite3.Connection, batch: Sequence[Waiter[Fact | Change]]) -> None:
        """Commit a batch, and answer everybody in it, whatever happens."""
        started = time.perf_counter()
        try:
            with faults_told():
                results, events = _commit(
                    db,
                    items=[waiter.item for waiter in batch],
                    epoch=self._epoch,
                    now_ms=self._now_ms,
                    confirm=self._confirm,
                )
        except LedgerUnavailableError as error:
            self._in_loop(fail, batch, error)
        except Exception as error:  # noqa: BLE001 - whatever one item raises, the writer lives on
            self._isolate(db, batch, error)
        else:
            self._uncheckpointed += len(batch)
            self._in_loop(self._finish, batch, results, events, time.perf_counter() - started)

    def _isolate(
        self, db: sqlite3.Connection, batch: Sequence[Waiter[Fact | Change]], error: Exception
    ) -> None:
        """Commit the halves of a failed batch separately, until only the bad item fails."""
        if len(batch) == 1:
            self._in_loop(fail_alone, batch[0], error)
            return
        for half in halves(batch):
            self._serve(db, half)

    def _checkpoint(self, db: sqlite3.Connection) -> None:
        """Move the log into the database file; if that fails, the log only grows longer."""
        self._uncheckpointed = 0
        try:
            with faults_told():
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except LedgerUnavailableError as error:
            log.event(logger, "checkpoint_failed", level=logging.WARNING, cause=str(error))


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
