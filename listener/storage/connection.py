"""Open SQLite the way a ledger needs it, one connection at a time."""

import fcntl
import os
import sqlite3
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Final, TypeVar

import aiosqlite

from listener.errors import LedgerError, LedgerUnavailableError

T = TypeVar("T")

SCHEMA_VERSION: Final = 1
# "pokt": tells our file from any other SQLite database.
APPLICATION_ID: Final = 0x706F6B74
BUSY_SECONDS: Final = 5.0
CACHE_KIB: Final = 64 * 1024
# From each version to the next; version 1 is schema.sql.
MIGRATIONS: Final[dict[int, str]] = {}


class Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function in its thread, in one hop."""

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on the raw connection, in this connection's own thread.

        Raises:
            LedgerUnavailableError: SQLite failed; what it said is the cause.
        """
        try:
            # The one way into its thread that takes a function; aiosqlite leaves it untyped.
            result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            # A mistake in what was asked, not a fault of the disk: the writer isolates it.
            raise
        except sqlite3.Error as error:
            raise LedgerUnavailableError(f"the ledger cannot be used now: {error}") from error
        return result


def schema_text() -> str:
    """Read schema.sql: beside the package in the wheel, at the top level in a checkout."""
    packaged = resources.files("listener.storage").joinpath("schema.sql")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema.sql").read_text(encoding="utf-8")


def prepare(db: sqlite3.Connection) -> None:
    """Set up a connection; every one of a ledger's needs this."""
    db.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    db.execute("PRAGMA synchronous = FULL")
    # Before SQLite 3.51.3 a second connection that checkpoints can corrupt the WAL: only the
    # service's writer does, by hand.
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA foreign_keys = ON")
    # Without this INSERT OR REPLACE deletes an entry past its trigger.
    db.execute("PRAGMA recursive_triggers = ON")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open a ledger's file, made if need be; a later version's is refused, an older one migrated.

    Raises:
        LedgerError: The file cannot be opened, or is not a ledger that this version can use.
    """
    if not create and not path.exists():
        raise LedgerError(f"there is no ledger at {path}; `listener serve` makes it")
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        prepare(db)
        _migrate(db, path)
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger {path} cannot be opened: {error}") from error
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the file to this version's schema, all steps in one transaction."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise LedgerError(f"{path} is another program's database; name a new file")
    if found > SCHEMA_VERSION:
        raise LedgerError(
            f"{path} was written by a later version (schema {found}, this one knows"
            f" {SCHEMA_VERSION}); run that version"
        )
    if tables and found == SCHEMA_VERSION:
        return
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    steps = [MIGRATIONS[n] for n in range(found, SCHEMA_VERSION)] if tables else [schema_text()]
    script = ";".join(steps)
    db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


class ServiceLock:
    """A lock that one service holds on a ledger, so that two never write the same chain."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            LedgerError: Another service has it, or its file cannot be made.
        """
        try:
            self._file = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise LedgerError(f"cannot make {path}.lock: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise LedgerError(f"another listener is serving {path}; stop it first") from error

    def release(self) -> None:
        """Let another service have the ledger."""
        os.close(self._file)
