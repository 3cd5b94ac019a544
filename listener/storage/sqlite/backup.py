"""Copy a ledger while it is being served."""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from listener.errors import LedgerError
from listener.storage.sqlite import selects, statements
from listener.storage.sqlite.faults import FAULTS, told_by
from listener.storage.sqlite.location import sqlite_path
from listener.storage.sqlite.opening import connect_read_only, make_private

# Called with how many bytes are copied, and how many there are.
Progress = Callable[[int, int], None]

PAGES_AT_ONCE: Final = 1_000


def backup(url: str, destination: Path, *, progress: Progress | None = None) -> None:
    """Copy the ledger at a URL as it stands now; complete and synced once this returns.

    The first ``serve`` on the copy makes it a ledger of its own, with a new epoch, so that no till
    takes positions of one for those of the other. While this runs, the log cannot shrink.

    Raises:
        LedgerError: There is no ledger, the destination exists, or it cannot be written. An
            incomplete copy is removed.
    """
    source = connect_read_only(sqlite_path(url))
    try:
        with new_file(destination) as whole:
            _copy(source, whole, progress or (lambda _done, _total: None))
    finally:
        source.close()


@contextmanager
def new_file(destination: Path) -> Iterator[Path]:
    """Yield an empty file to write; it is synced and gets its name only once it is complete.

    Raises:
        LedgerError: The destination exists, or cannot be written.
    """
    # A dangling link counts as existing too: nothing is written where it points.
    if os.path.lexists(destination):
        raise LedgerError(_taken(destination))
    try:
        # A folder that only we can enter, with a name that nobody can guess: a link or an open
        # file that somebody has placed beside the destination is never written to.
        with tempfile.TemporaryDirectory(
            dir=destination.parent, prefix=f".{destination.name}."
        ) as folder:
            whole = Path(folder) / "copy.db"
            make_private(whole)
            yield whole
            _sync(whole)
            _publish(whole, destination)
        _sync(destination.parent)
    except FileExistsError as error:
        raise LedgerError(_taken(destination)) from error
    except (OSError, *FAULTS) as error:
        raise LedgerError(f"{destination} cannot be written: {told_by(error)}") from error


def _taken(destination: Path) -> str:
    return f"{destination} exists; name a file that does not"


def _publish(whole: Path, destination: Path) -> None:
    """Rename a complete copy to its destination, unless something has that name.

    Raises:
        FileExistsError: Something has taken the name meanwhile.
    """
    try:
        destination.hardlink_to(whole)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links. A rename does not follow a link either; only a file
        # that takes the name at this very moment is lost.
        if os.path.lexists(destination):
            raise FileExistsError from None
        whole.rename(destination)


def finish(copy: sqlite3.Connection, *, is_copy: bool) -> None:
    """Move everything from the log into the ledger's file: a copy is one file."""
    copy.execute("PRAGMA journal_mode = DELETE")
    copy.execute("PRAGMA synchronous = FULL")
    if is_copy:
        copy.execute(statements.MARK_COPY)


def _copy(source: sqlite3.Connection, partial: Path, progress: Progress) -> None:
    (page_bytes,) = source.execute("PRAGMA page_size").fetchone()
    # The read transaction holds the copy at one moment, however long it takes.
    source.execute("BEGIN")
    source.execute(selects.HEAD).fetchone()
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
    """Wait until a file's, or a directory's, content is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
