"""Take a copy of a ledger while it is served."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from listener.errors import LedgerError
from listener.storage.sqlite import statements
from listener.storage.sqlite.connection import FAULTS, connect_read_only, make_private, told_by
from listener.storage.sqlite.location import sqlite_path

# Told how many bytes are copied, and of how many.
Progress = Callable[[int, int], None]

PAGES_AT_ONCE: Final = 1_000


def backup(url: str, destination: Path, *, progress: Progress | None = None) -> None:
    """Copy the ledger of a URL as it stands now; complete and synced once this returns.

    The first ``serve`` on the copy makes it a ledger of its own, with a new epoch, so that no till
    takes positions of one for those of the other. While it runs, the log cannot shrink.

    Raises:
        LedgerError: There is no ledger, the destination exists, or it cannot be written. Nothing
            is left of a copy that was not completed.
    """
    source = connect_read_only(sqlite_path(url))
    try:
        with whole(destination) as partial:
            _copy(source, partial, progress or (lambda _done, _total: None))
    finally:
        source.close()


@contextmanager
def whole(destination: Path) -> Iterator[Path]:
    """Yield a file to write, which is given its name and synced only once it is whole.

    Raises:
        LedgerError: The destination exists, or cannot be written.
    """
    if destination.exists():
        raise LedgerError(f"{destination} exists; name a file that does not")
    partial = destination.with_name(f"{destination.name}.partial")
    try:
        make_private(partial)
        yield partial
        _sync(partial)
        partial.rename(destination)
        _sync(destination.parent)
    except (OSError, *FAULTS) as error:
        raise LedgerError(f"{destination} cannot be written: {told_by(error)}") from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)


def finish(copy: sqlite3.Connection, *, is_copy: bool) -> None:
    """Move all of a written ledger out of the log and into its file: a copy is one file."""
    copy.execute("PRAGMA journal_mode = DELETE")
    copy.execute("PRAGMA synchronous = FULL")
    if is_copy:
        copy.execute(statements.MARK_COPY)


def _copy(source: sqlite3.Connection, partial: Path, progress: Progress) -> None:
    (page_bytes,) = source.execute("PRAGMA page_size").fetchone()
    # The read transaction keeps the copy at one moment, however long it takes.
    source.execute("BEGIN")
    source.execute(statements.HEAD).fetchone()
    copy = sqlite3.connect(partial, isolation_level=None)
    try:
        source.backup(
            copy,
            pages=PAGES_AT_ONCE,
            progress=lambda _status, remaining, total: progress(
                (total - remaining) * page_bytes, total * page_bytes
            ),
        )
        finish(copy, is_copy=True)
    finally:
        copy.close()


def _sync(path: Path) -> None:
    """Have a file's, or a directory's, content on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
