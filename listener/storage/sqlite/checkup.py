"""Check a ledger, before and after a deploy."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from listener.errors import LedgerError, NoLedgerError
from listener.ledger.model import rfc3339
from listener.storage.checks import UNREADABLE
from listener.storage.findings import Finding, note, problem
from listener.storage.sqlite import reading, selects
from listener.storage.sqlite.epoch import (
    BACKUP,
    EMPTY,
    HEADLESS,
    OTHER_FILE,
    WENT_BACK,
    entries_noted,
    reason,
)
from listener.storage.sqlite.faults import FAULTS, find_damage, told_by
from listener.storage.sqlite.location import refuse_no_file, sqlite_path
from listener.storage.sqlite.lock import has_lost_its_file, is_served, read_note
from listener.storage.sqlite.opening import connect_read_only
from listener.storage.sqlite.schema import SCHEMA_VERSION

FREE_BYTES_LOW: Final = 1024**3
FREE_BYTES_MIN: Final = 100 * 1024**2
LOG_BYTES_HIGH: Final = 256 * 1024**2
# From this version on, two connections that write and checkpoint at once cannot corrupt the log.
SQLITE_SOUND: Final = (3, 51, 3)


_EVERYBODY_ELSE: Final = 0o077
_WRITERS: Final = 0o022


def check_up(url: str) -> list[Finding]:
    """Check the ledger at a URL; a service that is using it is not disturbed.

    Raises:
        LedgerError: This version cannot use the database that the URL names.
    """
    path = sqlite_path(url)
    try:
        refuse_no_file(path)
    except LedgerError as error:
        # The other findings, its permissions above all, are about a ledger's file; this is none.
        return [Finding(name="ledger", value=str(path)), problem("readable", "no", str(error))]
    return [*_surroundings(path), *_ledger(path)]


def _surroundings(path: Path) -> Iterator[Finding]:
    yield Finding(name="ledger", value=str(path))
    yield _sqlite()
    folder = path.resolve().parent
    if not folder.is_dir():
        yield problem("folder", str(folder), "create this folder for the ledger")
        return
    if not os.access(folder, os.W_OK):
        yield problem("folder", str(folder), "let the listener write here; SQLite's log is beside")
    loose = find_loose_mode(folder, "folder_mode", beyond=_WRITERS)
    if loose is not None:
        yield loose
    yield _free(shutil.disk_usage(folder).free)
    served = is_served(path)
    yield Finding(name="served", value="yes" if served else "no")
    if has_lost_its_file(path):
        advice = (
            "it, or its -shm, was moved away or deleted while it is served: put it back, or stop"
            " the listener"
        )
        yield problem("served_file", "gone", advice)


def find_loose_mode(path: Path, name: str, *, beyond: int) -> Finding | None:
    """Return a finding if anyone but the owner has a permission of the bits ``beyond``."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & beyond:
        return None
    return note(
        name,
        f"{mode:o}",
        f"others on this machine may read or change it: chmod {mode & ~beyond:o} {path}",
    )


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= SQLITE_SOUND:
        return Finding(name="sqlite", value=version)
    return note(
        "sqlite",
        version,
        "before 3.51.3 only one program may checkpoint; here that is the service alone,"
        " so open the file with no other program while it is served",
    )


def _free(free: int) -> Finding:
    if free < FREE_BYTES_MIN:
        return problem("disk_free_bytes", free, "make room now: a full disk stops the ledger")
    if free < FREE_BYTES_LOW:
        return note("disk_free_bytes", free, "make room soon: a full disk stops the ledger")
    return Finding(name="disk_free_bytes", value=free)


def _ledger(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield _none_yet(path, read_note(path))
        return
    yield Finding(name="bytes", value=path.stat().st_size)
    yield _log(path)
    loose = find_loose_mode(path, "ledger_mode", beyond=_EVERYBODY_ELSE)
    if loose is not None:
        yield loose
    # Read first: while the ledger is served, its note changes with it.
    left = read_note(path)
    try:
        db = connect_read_only(path)
    except NoLedgerError:
        yield _none_yet(path, left)
        return
    except LedgerError as error:
        yield problem("readable", "no", str(error))
        return
    try:
        yield from _content(db, path, left)
    except TypeError:
        yield problem("readable", "no", HEADLESS)
    except (*FAULTS, *UNREADABLE) as error:
        yield problem("readable", "no", f"restore a backup; SQLite says: {told_by(error)}")
    finally:
        db.close()


def _none_yet(path: Path, left: str) -> Finding:
    _, count = entries_noted(left)
    if not count:
        return note("exists", "no", "`listener serve` makes it")
    return note(
        "exists",
        "no",
        f"{path.name}.lock tells of a ledger with {count} entries here: put it back, or restore a"
        " backup; `listener serve` would begin an empty one, without its keys",
    )


def _log(path: Path) -> Finding:
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size < LOG_BYTES_HIGH:
        return Finding(name="log_bytes", value=size)
    return note(
        "log_bytes",
        size,
        "a reader has been open for a long time; end it, so that the log can be cut",
    )


def _content(db: sqlite3.Connection, path: Path, left: str) -> Iterator[Finding]:
    yield Finding(name="schema", value=SCHEMA_VERSION)
    (mode,) = db.execute("PRAGMA journal_mode").fetchone()
    if mode == "wal":
        yield Finding(name="journal", value=mode)
    else:
        advice = "a copy has no log yet; the first `listener serve` on it sees to that"
        yield note("journal", mode, advice)
    _, created_at, *_ = db.execute(selects.ORIGIN).fetchone()
    yield Finding(name="created", value=rfc3339(created_at))
    head = reading.head(db)
    why_new = reason(db, path, note=left)
    if why_new is not None:
        advice = {
            BACKUP: "this is a backup: the first `listener serve` on it makes a new epoch",
            OTHER_FILE: "this is not the file that was last served, but a copy, or moved from"
            " another disk: the first `listener serve` on it makes a new epoch",
            WENT_BACK: "an older copy was written over the file that was last served, or its log"
            " was lost: the next `listener serve` makes a new epoch",
            EMPTY: "the ledger that was served here is gone, and this one is empty: put it back, or"
            " restore a backup",
        }[why_new]
        yield note("epoch", head.epoch, advice)
    else:
        yield Finding(name="epoch", value=head.epoch)
    yield Finding(name="entries", value=head.seq)
    yield Finding(name="events", value=head.events)
    yield Finding(name="transactions", value=head.transactions)
    fault = find_damage(db, quick=True)
    if fault is None:
        yield Finding(name="pages", value="ok")
    else:
        yield problem("pages", fault, "stop the listener, keep the file, restore a backup")
