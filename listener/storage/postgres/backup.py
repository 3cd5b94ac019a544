"""Copy a ledger on PostgreSQL into a file, while it is being served."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from listener.storage.checks import Progress
from listener.storage.postgres.beside import beside
from listener.storage.postgres.copying import to_file
from listener.storage.sqlite.backup import finish, new_file
from listener.storage.sqlite.opening import connect


def backup(url: str, destination: Path, *, progress: Progress | None = None) -> None:
    """Copy the ledger at a URL as it stands now into a ledger on SQLite.

    The first ``serve`` on the copy makes it a ledger of its own, with a new epoch.

    Raises:
        LedgerError: There is no ledger, the destination exists, or it cannot be written. An
            incomplete copy is removed.
    """
    take(url, destination, is_copy=True, progress=progress or (lambda _done, _total: None))


def take(
    url: str,
    destination: Path,
    *,
    is_copy: bool,
    progress: Callable[[int, int], None],
) -> None:
    """Copy a ledger into a file; unless it is marked as a copy, it goes on under its epoch."""
    with (
        beside(url) as connected,
        new_file(destination) as whole,
        closing(connect(whole, create=True)) as copy,
    ):
        connected.run(lambda db: to_file(db, copy, progress))
        finish(copy, is_copy=is_copy)
