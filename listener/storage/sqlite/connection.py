"""A connection to SQLite, and a transaction on it."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Self, TypeVar

import aiosqlite

from listener.errors import LedgerError, LedgerUnavailableError, SearchTooLongError
from listener.storage.sqlite.faults import PRIMARY_CODE, faults_told

T = TypeVar("T")

BUSY_SECONDS: Final = 5.0
LOCK_POLL_SECONDS: Final = 0.002
CACHE_KIB: Final = 64 * 1024
# aiosqlite asks for this; here a whole page is fetched in one call.
ROWS_AT_ONCE: Final = 64
# How many steps of its virtual machine SQLite runs between two looks at the time: well under 1 ms.
STEPS_BETWEEN_LOOKS: Final = 10_000


class Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function in its thread, in one call."""

    @classmethod
    async def open(cls, connector: Callable[[], sqlite3.Connection]) -> Self:
        """Connect.

        Raises:
            LedgerError: What the connector raises.
        """
        # Not in its own thread: aiosqlite does not wait for that to end when connecting fails.
        connecting = asyncio.ensure_future(asyncio.to_thread(connector))
        try:
            db = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # The thread goes on, and nobody may release the ledger's lock before it has ended.
            with suppress(LedgerError):
                (await connecting).close()
            raise
        connection = cls(lambda: db, ROWS_AT_ONCE)
        await connection
        return connection

    async def search(self, work: Callable[[sqlite3.Connection], T], *, seconds: float) -> T:
        """Run ``work``, and interrupt it once it has taken too long.

        Raises:
            SearchTooLongError: It was interrupted.
            LedgerUnavailableError: SQLite failed; its error is the cause.
        """
        return await self.run(lambda db: _within(db, work, seconds))

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on the raw connection, in this connection's own thread.

        Cancelling the caller does not stop the work; the next work waits until it has ended.

        Raises:
            LedgerUnavailableError: SQLite failed; its error is the cause.
        """
        try:
            connection = self._conn
        except ValueError:
            raise LedgerUnavailableError("the ledger is closed") from None
        with faults_told():
            # The only way to run a function in its thread; aiosqlite leaves it untyped.
            result: T = await self._execute(work, connection)  # type: ignore[no-untyped-call]
        return result

    @property
    def raw(self) -> sqlite3.Connection:
        """The connection itself; use it only while its own thread has nothing to do."""
        return self._conn

    def start(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Start ``work``, which must not raise, in this connection's thread, without waiting."""
        # Costs a third of a future, a task and two turns of the loop.
        self._tx.put_nowait((None, partial(work, self._conn)))


def _within(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T], seconds: float) -> T:
    ends_at = time.monotonic() + seconds
    db.set_progress_handler(lambda: time.monotonic() > ends_at, STEPS_BETWEEN_LOOKS)
    try:
        return work(db)
    except sqlite3.OperationalError as error:
        if time.monotonic() > ends_at:
            raise SearchTooLongError from error
        raise
    finally:
        db.set_progress_handler(None, 0)


class transaction:  # noqa: N801 - used as a statement; a generator costs twice the calls
    """Commit everything or nothing; durable at the end.

    ``waits``: whether to wait for another connection that is writing, instead of raising.
    """

    __slots__ = ("_db", "_seconds")

    def __init__(self, db: sqlite3.Connection, *, waits: bool = True) -> None:
        self._db = db
        self._seconds = BUSY_SECONDS if waits else 0.0

    def __enter__(self) -> None:
        _begin(self._db, seconds=self._seconds)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def set_limits(db: sqlite3.Connection) -> None:
    """Set how long a connection waits for locks, and how much of the file it keeps in memory."""
    db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")


def wait_for_nobody(db: sqlite3.Connection) -> None:
    """Set a connection not to wait for locks by itself, so that only ``transaction`` does."""
    db.execute("PRAGMA busy_timeout = 0")


def _begin(db: sqlite3.Connection, *, seconds: float) -> None:
    if db.in_transaction:  # A rollback that failed with the disk.
        db.execute("ROLLBACK")
    ends_at = time.monotonic() + seconds
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            is_locked = error.sqlite_errorcode & PRIMARY_CODE == sqlite3.SQLITE_BUSY
            if not is_locked or time.monotonic() >= ends_at:
                raise
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return
