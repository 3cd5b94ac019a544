"""Decide whether a ledger's file is still the one that its epoch names.

Positions and acknowledgements count within an epoch. Two files that went on from one copy would
both use it, and so would a file that was restored to an earlier state: a till's position would then
mean other events. So such a file gets a new epoch when it is first served, and tills read
everything anew.

Three things show it: the mark that ``backup`` leaves in a copy; a file number in the file system
that differs from the file served last; and fewer entries than the note beside the file counts, such
as none in a new file where another ledger was served. Not detected are a copy that has the same
number on another file system, and a file that was restored together with its note.
"""

import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final

from listener.errors import LedgerError
from listener.storage.sqlite import selects, statements
from listener.storage.sqlite.lock import ServiceLock

BACKUP: Final = "backup"
OTHER_FILE: Final = "another file"
WENT_BACK: Final = "fewer entries"
EMPTY: Final = "an empty ledger where another was"
HEADLESS: Final = "the ledger's file has lost its head; restore a backup"


def begin(db: sqlite3.Connection, path: Path, lock: ServiceLock) -> tuple[str, str | None]:
    """Begin to serve a ledger.

    Returns:
        Its epoch, and why that is a new one, if it is.

    Raises:
        LedgerError: The file has lost its head.
    """
    row = db.execute(selects.ORIGIN).fetchone()
    if row is None:
        raise LedgerError(HEADLESS)
    epoch: str = row[0]
    why = reason(db, path, note=lock.note)
    if why is not None:
        epoch = secrets.token_hex(8)
    db.execute(statements.BEGIN_EPOCH, (epoch, identity(path)))
    _, seq, *_ = db.execute(selects.HEAD).fetchone()
    leave(lock, epoch, seq)
    return epoch, why


def leave(lock: ServiceLock, epoch: str, seq: int) -> None:
    """Write beside the file how far it has come: at the start, and soon after each commit.

    So a file whose log was lost or cut after a crash shows as one with fewer entries.
    """
    lock.write_note(f"{epoch} {seq}")


def reason(db: sqlite3.Connection, path: Path, *, note: str) -> str | None:
    """Return why the next service on a file will begin a new epoch; None where it will not.

    ``note`` is the note beside the file.
    """
    _, _, is_copy, file = db.execute(selects.ORIGIN).fetchone()
    if is_copy:
        return BACKUP
    # Until it is served for the first time it has no file number.
    if file not in (None, identity(path)):
        return OTHER_FILE
    return _went_back(db, note, is_first=file is None)


def identity(path: Path) -> str:
    """Return what distinguishes a file from its copies, and survives a rename and a reboot.

    A device's number would not survive; a file system's own does, on most.
    """
    return f"{os.statvfs(path).f_fsid:x}-{path.stat().st_ino}"


def entries_noted(note: str) -> tuple[str, int]:
    """Return the epoch and the number of entries that a note names; none where it says nothing."""
    noted = note.split()
    if len(noted) == 2 and noted[1].isdecimal():
        return noted[0], int(noted[1])
    return "", 0


def _went_back(db: sqlite3.Connection, note: str, *, is_first: bool) -> str | None:
    epoch, seq, *_ = db.execute(selects.HEAD).fetchone()
    noted_epoch, noted = entries_noted(note)
    if noted_epoch == epoch and noted > seq:
        return WENT_BACK
    return EMPTY if is_first and seq == 0 and noted else None
