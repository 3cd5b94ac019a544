"""Open a ledger's file: to serve it, beside its service, or only to read it."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from listener.clock import now_ms
from listener.errors import LedgerError, NoLedgerError
from listener.storage.sqlite.connection import set_limits, transaction
from listener.storage.sqlite.faults import FAULTS, advised, told_by
from listener.storage.sqlite.lock import refuse_other_name
from listener.storage.sqlite.schema import is_current, is_new, migrate

# Enough for every statement with every number of rows that it is bound with.
STATEMENTS_KEPT: Final = 512
# A log that grew beyond this while a reader held it is cut down to this once it is begun anew.
# Between two checkpoints it is seldom longer, and overwriting costs less than growing.
LOG_BYTES_KEPT: Final = 64 * 1024**2


def prepare(db: sqlite3.Connection) -> None:
    """Set up a connection that writes to a ledger."""
    set_limits(db)
    db.execute("PRAGMA synchronous = FULL")
    # Before SQLite 3.51.3 a second connection that checkpoints can corrupt the WAL: only the
    # service's writer checkpoints, explicitly.
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}")
    db.execute("PRAGMA foreign_keys = ON")
    # Without this, INSERT OR REPLACE deletes an entry past its trigger.
    db.execute("PRAGMA recursive_triggers = ON")


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
    with _closed_if_it_fails(db, f"the ledger {path} cannot be opened"):
        prepare(db)
        is_behind = not is_current(db, path)
        if not create and is_new(db):
            raise NoLedgerError(_missing(path))
        # A copy made by another tool may have lost this.
        db.execute("PRAGMA journal_mode = WAL")
        if is_behind:
            with transaction(db):
                migrate(db, path, clock=clock)
    return db


@contextmanager
def _closed_if_it_fails(db: sqlite3.Connection, failure: str) -> Iterator[None]:
    """Close a connection on any error; what SQLite reports becomes a LedgerError with its cause."""
    try:
        yield
    except FAULTS as error:
        db.close()
        raise LedgerError(f"{failure}: {advised(error)}") from error
    except BaseException:
        db.close()
        raise


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
    with _closed_if_it_fails(db, f"the ledger {path} cannot be read"):
        set_limits(db)
        is_behind = not is_current(db, path)
        if is_new(db):
            raise NoLedgerError(_missing(path))
    if is_behind:
        db.close()
        raise LedgerError(f"{path} is of an earlier version; `listener serve` brings it up to date")
    return db


def make_private(path: Path) -> None:
    """Create an empty file that only its owner can read, if there is none."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _is_at_rest(path: Path) -> bool:
    """Return whether a ledger was closed, and lies where nobody can write: a read-only copy, say.

    SQLite would want files of its own beside it. Source: SQLite, "Write-Ahead Logging", 5.
    """
    is_read_only = os.statvfs(path.parent).f_flag & os.ST_RDONLY
    return bool(is_read_only) and not path.with_name(f"{path.name}-wal").exists()


def _missing(path: Path) -> str:
    return f"there is no ledger at {path}; `listener serve` makes it"
