"""The one writer: callers that wait at the same time share one commit."""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
# A checkpoint waits until nothing has come for a moment, unless this many changes wait for it.
CHECKPOINT_AFTER: Final = 1_000
CHECKPOINT_AT_LATEST: Final = 8_000
QUIET_SECONDS: Final = 0.05

# Other work than a fact that is to be in the next commit; it gets the connection, and now.
Change = Callable[[sqlite3.Connection, int], Any]
# Told of a commit: how long it took (seconds), and how many items it carried.
OnCommit = Callable[[float, int], None]


@dataclass(frozen=True, slots=True)
class _Waiter:
    """Somebody who waits for a commit; a caller that went away leaves its future cancelled."""

    item: Fact | Change
    done: asyncio.Future[Any]

    def answer(self, result: object) -> None:
        """Tell the caller; an error as a result is raised there."""
        if self.done.done():
            return
        if isinstance(result, Exception):
            self.done.set_exception(result)
        else:
            self.done.set_result(result)


class Writer:
    """Takes facts and changes, commits them in groups, rings the bell, then answers."""

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
        self._waiting: deque[_Waiter] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._uncheckpointed = 0
        self._on_commit = on_commit
        self._in_loop = asyncio.get_running_loop().call_soon_threadsafe
        self._task = asyncio.create_task(self._run(), name="ledger-writer")

    @property
    def waiting(self) -> int:
        """How many wait for a commit."""
        return len(self._waiting)

    def submit(self, item: Fact | Change) -> asyncio.Future[Any]:
        """Have an item in the next commit.

        Raises:
            OverloadedError: More wait than the writer can serve in good time.
            LedgerUnavailableError: The ledger is closing.
        """
        if self._closing:
            raise LedgerUnavailableError("the ledger is closing; send it again")
        if len(self._waiting) >= WAITING_MAX:
            raise OverloadedError("too much is waiting for the ledger; send it again")
        waiter = _Waiter(item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._wake.set()
        return waiter.done

    async def close(self) -> None:
        """Commit what waits, checkpoint, and stop; cancelling a caller does not hinder it."""
        self._closing = True
        self._wake.set()
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            while self._waiting or not self._closing:
                if not self._waiting:
                    await self._rest()
                    continue
                await self._connection.run(self._commit_waiting)
                if self._uncheckpointed >= CHECKPOINT_AT_LATEST:
                    await self._checkpoint()
            await self._checkpoint()
        except Exception:
            logger.exception("writer_failed")
        finally:
            # However it ended, nobody waits for it in vain.
            self._closing = True
            for waiter in self._waiting:
                waiter.answer(LedgerUnavailableError("the ledger's writer has ended"))

    async def _rest(self) -> None:
        """Wait for work; checkpoint if none comes for a moment and there is enough to."""
        self._wake.clear()
        is_due = self._uncheckpointed >= CHECKPOINT_AFTER
        try:
            async with asyncio.timeout(QUIET_SECONDS if is_due else None):
                await self._wake.wait()
        except TimeoutError:
            await self._checkpoint()

    def _commit_waiting(self, db: sqlite3.Connection) -> None:
        """Commit what waits until a checkpoint is due; in the connection's thread.

        If each batch were handed over by the loop, the disk would wait for the loop's next turn.
        """
        while self._waiting and self._uncheckpointed < CHECKPOINT_AT_LATEST:
            count = min(len(self._waiting), BATCH_MAX)
            self._serve(db, [self._waiting.popleft() for _ in range(count)])

    def _serve(self, db: sqlite3.Connection, batch: Sequence[_Waiter]) -> None:
        """Commit a batch, and have the loop answer everybody in it, whatever happens."""
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
        """Ring the bell; what goes wrong there is not of those who wait for the commit."""
        try:
            if events:
                self._bell(events)
            if self._on_commit:
                self._on_commit(seconds, items)
        except Exception:
            logger.exception("bell_failed")

    def _isolate(self, db: sqlite3.Connection, batch: Sequence[_Waiter], error: Exception) -> None:
        """Commit the halves of a failed batch apart, until the bad item fails nobody but itself."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._serve(db, batch[:middle])
            self._serve(db, batch[middle:])
            return
        logger.error("item_failed", exc_info=error)
        failure = LedgerUnavailableError("the ledger could not take this")
        failure.__cause__ = error
        self._in_loop(_answer, batch, [failure])

    async def _checkpoint(self) -> None:
        """Move the log into the database file; a failure only leaves the log longer."""
        self._uncheckpointed = 0
        try:
            await self._connection.run(
                lambda db: db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            )
        except LedgerUnavailableError as error:
            log.event(logger, "checkpoint_failed", level=logging.WARNING, cause=str(error))


def _answer(batch: Sequence[_Waiter], results: Sequence[object]) -> None:
    for waiter, result in zip(batch, results, strict=True):
        waiter.answer(result)


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
