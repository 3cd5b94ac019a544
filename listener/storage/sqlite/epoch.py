"""Decide whether a ledger's file is still the one that its epoch names.

Positions and acknowledgements count within an epoch. Two files that went on from one copy would
both use it, and so would a file that was put back to what it was: a till's position would then mean
other events. So each gets a new epoch when it is first served, and tills read everything anew.

What shows it: the mark that ``backup`` leaves in a copy; another file than the one that was
served last, by its number in its file system; and fewer entries than the note beside the file
says that there were. What is copied onto another file system under the same number, or put back in
place by somebody who puts the note back as well, is not found out.
"""

import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final

from listener.errors import LedgerError
from listener.storage.sqlite import statements
from listener.storage.sqlite.lock import ServiceLock

BACKUP: Final = "backup"
OTHER_FILE: Final = "another file"
WENT_BACK: Final = "fewer entries"


def begin(db: sqlite3.Connection, path: Path, lock: ServiceLock) -> tuple[str, str | None]:
    """Begin to serve a ledger.

    Returns:
        Its epoch, and why that is a new one, if it is.

    Raises:
        LedgerError: The file has lost its head.
    """
    row = db.execute(statements.ORIGIN).fetchone()
    if row is None:
        raise LedgerError("the ledger's file has lost its head; restore a backup")
    epoch: str = row[0]
    why = reason(db, path) or _went_back(db, lock.note)
    if why is not None:
        epoch = secrets.token_hex(8)
    db.execute(statements.BEGIN_EPOCH, (epoch, identity(path)))
    leave(db, lock)
    return epoch, why


def leave(db: sqlite3.Connection, lock: ServiceLock) -> None:
    """Write beside the file how far it has come."""
    epoch, seq, *_ = db.execute(statements.HEAD).fetchone()
    lock.write_note(f"{epoch} {seq}")


def reason(db: sqlite3.Connection, path: Path) -> str | None:
    """Return why the next service on a file begins a new epoch, as far as the file itself shows."""
    _, _, is_copy, file = db.execute(statements.ORIGIN).fetchone()
    if is_copy:
        return BACKUP
    # Before it was ever served it has no file of its own yet.
    return OTHER_FILE if file not in (None, identity(path)) else None


def identity(path: Path) -> str:
    """Return what tells a file from its copies, and stays when it is renamed or the machine boots.

    The number of a device would not stay; a file system's own does, on most.
    """
    return f"{os.statvfs(path).f_fsid:x}-{path.stat().st_ino}"


def _went_back(db: sqlite3.Connection, note: str) -> str | None:
    epoch, seq, *_ = db.execute(statements.HEAD).fetchone()
    noted = note.split()
    if len(noted) == 2 and noted[0] == epoch and noted[1].isdecimal() and int(noted[1]) > seq:
        return WENT_BACK
    return None
