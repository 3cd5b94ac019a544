"""Open SQLite connections with the settings that a ledger needs."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

import aiosqlite

from listener.errors import (
    LedgerError,
    LedgerUnavailableError,
    NoLedgerError,
    SearchTooLongError,
)
from listener.storage.sqlite.lock import refuse_other_name
from listener.storage.sqlite.schema import is_current, is_new, migrate

T = TypeVar("T")

BUSY_SECONDS: Final = 5.0
LOCK_POLL_SECONDS: Final = 0.002
# The last byte of an extended result code.
PRIMARY_CODE: Final = 0xFF
CACHE_KIB: Final = 64 * 1024
TOLD_CHARS_MAX: Final = 200
# aiosqlite asks for this; here a whole page is fetched in one call.
ROWS_AT_ONCE: Final = 64
# How many steps of its virtual machine SQLite runs between two looks at the time: well under 1 ms.
STEPS_BETWEEN_LOOKS: Final = 10_000
# Enough for every statement with every number of rows that it is bound with.
STATEMENTS_KEPT: Final = 512

# Everything that SQLite raises; the second where its message quotes bytes of a damaged file.
FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# Errors that one item of a batch can cause; all others are about the file or the disk.
_MISTAKES: Final = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)


def now_ms() -> int:
    """Read the clock as Unix ms."""
    return time.time_ns() // 1_000_000


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
        """The connection itself, to be used while its own thread has nothing to do."""
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


@contextmanager
def faults_told() -> Iterator[None]:
    """Raise SQLite's errors as the ledger's.

    Raises:
        LedgerUnavailableError: SQLite failed; its error is the cause.
    """
    try:
        yield
    except _MISTAKES:
        # The writer finds out which item caused it.
        raise
    except FAULTS as error:
        raise LedgerUnavailableError(f"the ledger cannot be used now: {told_by(error)}") from error


class transaction:  # noqa: N801 - used as a statement; a generator costs twice the calls
    """Commit everything or nothing; durable at the end.

    ``waits`` is whether it waits for another connection that is writing, or raises.
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


def prepare(db: sqlite3.Connection) -> None:
    """Set up a connection to a ledger."""
    db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    db.execute("PRAGMA synchronous = FULL")
    # Before SQLite 3.51.3 a second connection that checkpoints can corrupt the WAL: only the
    # service's writer checkpoints, explicitly.
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA foreign_keys = ON")
    # Without this, INSERT OR REPLACE deletes an entry past its trigger.
    db.execute("PRAGMA recursive_triggers = ON")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")


def connect(path: Path, *, create: bool, clock: Callable[[], int] = now_ms) -> sqlite3.Connection:
    """Open a ledger's file for writing. It is created if missing, and migrated if older.

    When the last connection of all processes closes, SQLite moves the log into the file. It locks
    the file for that, so it does not matter which connection is the last.

    Raises:
        LedgerError: The file cannot be opened, or is not a ledger that this version can use.
    """
    if not create and not path.exists():
        raise NoLedgerError(_missing(path))
    try:
        if create:
            make_private(path)
        db = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_KEPT,
        )
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"the ledger {path} cannot be opened: {told_by(error)}") from error
    try:
        prepare(db)
        is_behind = not is_current(db, path)
        if not create and is_new(db):
            raise NoLedgerError(_missing(path))
        # A copy made by another tool may have lost this.
        db.execute("PRAGMA journal_mode = WAL")
        if is_behind:
            with transaction(db):
                migrate(db, path, clock=clock)
    except FAULTS as error:
        db.close()
        raise LedgerError(f"the ledger {path} cannot be opened: {advised(error)}") from error
    except BaseException:
        db.close()
        raise
    return db


def connect_query_only(path: Path) -> sqlite3.Connection:
    """Open a ledger's file in its service, for reads; it is kept in step with the writer."""
    db = connect(path, create=False)
    db.execute("PRAGMA query_only = ON")
    return db


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a ledger's file beside its service: nothing is written, migrated or checkpointed.

    Raises:
        NoLedgerError: There is none, or a file without tables.
        LedgerError: It cannot be opened, or is not one that this version can read.
    """
    if not path.exists():
        raise NoLedgerError(_missing(path))
    refuse_other_name(path)
    try:
        mode = "mode=ro&immutable=1" if _is_at_rest(path.resolve()) else "mode=ro"
        db = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger {path} cannot be opened: {told_by(error)}") from error
    try:
        db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        is_behind = not is_current(db, path)
        if is_new(db):
            raise NoLedgerError(_missing(path))
    except FAULTS as error:
        db.close()
        raise LedgerError(f"the ledger {path} cannot be read: {advised(error)}") from error
    except BaseException:
        db.close()
        raise
    if is_behind:
        db.close()
        raise LedgerError(f"{path} is of an earlier version; `listener serve` brings it up to date")
    return db


def told_by(error: Exception | str) -> str:
    """Describe on one line what SQLite or the system reported, without bytes of a damaged file."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    text = str(error).partition(" with text ")[0]
    return text[:TOLD_CHARS_MAX].encode("unicode_escape").decode()


def advised(error: Exception) -> str:
    """Describe why a ledger's file cannot be opened, and what to do where it is damaged."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & PRIMARY_CODE
    if code in _DAMAGED:
        return f"{told_by(error)}; stop the listener, keep all its files, and restore a backup"
    return told_by(error)


def find_damage(db: sqlite3.Connection, *, quick: bool) -> str | None:
    """Run SQLite's check of pages, and of indexes unless ``quick``; return the first fault."""
    check = "quick_check" if quick else "integrity_check"
    (said,) = db.execute(f"PRAGMA {check}(1)").fetchone()
    # A fault of a page has a heading on a line of its own.
    return None if said == "ok" else told_by(said.rpartition("\n")[2])


def make_private(path: Path) -> None:
    """Create an empty file that only its owner can read, if there is none."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _is_at_rest(path: Path) -> bool:
    """Return whether a ledger was closed, and lies where nobody can write: on evidence, say.

    SQLite would want files of its own beside it. Source: SQLite, "Write-Ahead Logging", 5.
    """
    is_read_only = os.statvfs(path.parent).f_flag & os.ST_RDONLY
    return bool(is_read_only) and not path.with_name(f"{path.name}-wal").exists()


def _missing(path: Path) -> str:
    return f"there is no ledger at {path}; `listener serve` makes it"
