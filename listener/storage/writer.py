"""The one writer: callers that wait at the same time share one commit."""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from listener.errors import LedgerUnavailableError, OverloadedError
from listener.ledger import Bell, Recorded
from listener.model import Event, Fact
from listener.storage.commit import commit
from listener.storage.connection import Connection
from listener.transaction import Confirm

log = logging.getLogger(__name__)

WAITING_MAX: Final = 4_096
BATCH_MAX: Final = 512
# A checkpoint waits for a quiet moment, unless the log has grown past the second number.
CHECKPOINT_AFTER: Final = 1_000
CHECKPOINT_AT_LATEST: Final = 8_000

# Other work than a fact that is to be in the next commit; it gets the connection, and now.
Change = Callable[[sqlite3.Connection, int], Any]


@dataclass(frozen=True, slots=True)
class _Waiter:
    """Somebody who waits for a commit; a caller that went away leaves its future cancelled."""

    item: Fact | Change
    done: asyncio.Future[Any]

    def succeed(self, result: object) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


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
        self._is_committing = False
        self.commit_seconds: Callable[[float, int], None] = lambda _seconds, _facts: None
        self._task = asyncio.create_task(self._run(), name="ledger-writer")

    @property
    def waiting(self) -> int:
        """How many wait for a commit."""
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether a commit is under way or waited for."""
        return self._is_committing or bool(self._waiting)

    def submit(self, item: Fact | Change) -> asyncio.Future[Any]:
        """Have an item in the next commit.

        Raises:
            OverloadedError: More wait than the writer can serve in good time.
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
        """Commit what waits, checkpoint, and stop."""
        self._closing = True
        self._wake.set()
        await self._task

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                await self._rest()
                continue
            count = min(len(self._waiting), BATCH_MAX)
            batch = [self._waiting.popleft() for _ in range(count)]
            self._is_committing = True
            await self._serve(batch)
            self._is_committing = False
            if self._uncheckpointed >= CHECKPOINT_AT_LATEST:
                await self._checkpoint()
        await self._checkpoint()

    async def _rest(self) -> None:
        """Wait for work; checkpoint meanwhile if there is enough to."""
        self._wake.clear()
        if self._uncheckpointed >= CHECKPOINT_AFTER:
            await self._checkpoint()
        if not self._waiting and not self._closing:
            await self._wake.wait()

    async def _serve(self, batch: Sequence[_Waiter]) -> None:
        """Commit a batch and answer everybody in it, whatever happens."""
        started = time.perf_counter()
        try:
            results, events = await self._connection.run(
                lambda db: _commit(
                    db,
                    [waiter.item for waiter in batch],
                    epoch=self._epoch,
                    now_ms=self._now_ms(),
                    confirm=self._confirm,
                )
            )
        except LedgerUnavailableError as error:
            log.error("commit_failed", extra={"cause": str(error), "waiting": len(batch)})
            for waiter in batch:
                waiter.fail(LedgerUnavailableError(str(error)))
            return
        except Exception as error:  # noqa: BLE001 - whatever one item raises, the writer lives on
            await self._isolate(batch, error)
            return
        self._uncheckpointed += len(batch)
        self.commit_seconds(time.perf_counter() - started, len(batch))
        # Events are in the hub before anybody is answered: a reader never sees less than a caller.
        if events:
            self._bell(events)
        for waiter, result in zip(batch, results, strict=True):
            waiter.succeed(result)

    async def _isolate(self, batch: Sequence[_Waiter], error: Exception) -> None:
        """Commit each item of a failed batch alone, so that a bad one fails nobody else."""
        if len(batch) > 1:
            for waiter in batch:
                await self._serve([waiter])
            return
        log.error("fact_failed", exc_info=error)
        failure = LedgerUnavailableError("the ledger could not take this")
        failure.__cause__ = error
        batch[0].fail(failure)

    async def _checkpoint(self) -> None:
        """Move the log into the database file; a failure only leaves the log longer."""
        self._uncheckpointed = 0
        with suppress(LedgerUnavailableError):
            await self._connection.run(
                lambda db: db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            )


def _commit(
    db: sqlite3.Connection,
    items: Sequence[Fact | Change],
    *,
    epoch: str,
    now_ms: int,
    confirm: Confirm,
) -> tuple[list[object], list[Event]]:
    """Commit a batch in one transaction; runs in the connection's thread."""
    facts = [item for item in items if isinstance(item, Fact)]
    if db.in_transaction:  # A rollback failed with the disk.
        db.execute("ROLLBACK")
    db.execute("BEGIN IMMEDIATE")
    try:
        events: list[Event] = []
        recorded: list[Recorded] = []
        if facts:
            committed = commit(db, facts, epoch=epoch, now_ms=now_ms, confirm=confirm)
            events, recorded = committed.events, committed.recorded
        answers = iter(recorded)
        results: list[object] = [
            next(answers) if isinstance(item, Fact) else item(db, now_ms) for item in items
        ]
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return results, events
