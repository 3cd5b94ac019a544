"""Turn what SQLite reports into the ledger's errors, and into words for a person."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from listener.errors import LedgerUnavailableError

# The last byte of an extended result code.
PRIMARY_CODE: Final = 0xFF
TOLD_CHARS_MAX: Final = 200

# Everything that SQLite raises; the second where its message quotes bytes of a damaged file.
FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# With these codes it also reports a disk without room, or without a free inode.
_NO_ROOM_OR_RIGHTS: Final = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL}
)
# Errors that one item of a batch can cause; all others are about the file or the disk.
_MISTAKES: Final = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)


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


def told_by(error: Exception | str) -> str:
    """Describe on one line what SQLite or the system reported, without bytes of a damaged file."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    text = str(error).partition(" with text ")[0]
    return text[:TOLD_CHARS_MAX].encode("unicode_escape").decode()


def advised(error: Exception) -> str:
    """Describe why a ledger's file cannot be opened, and what to do or to look at."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & PRIMARY_CODE
    if code in _DAMAGED:
        return f"{told_by(error)}; stop the listener, keep all its files, and restore a backup"
    if code in _NO_ROOM_OR_RIGHTS:
        return f"{told_by(error)}; has its disk room (`df`, `df -i`), and may you write there?"
    return told_by(error)


def find_damage(db: sqlite3.Connection, *, quick: bool) -> str | None:
    """Run SQLite's check of pages, and of indexes unless ``quick``; return the first fault."""
    check = "quick_check" if quick else "integrity_check"
    (said,) = db.execute(f"PRAGMA {check}(1)").fetchone()
    # A fault of a page has a heading on a line of its own.
    return None if said == "ok" else told_by(said.rpartition("\n")[2])
