"""Make, list and revoke keys in a ledger's file, for the command line."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from listener.errors import LedgerError, LedgerUnavailableError
from listener.keys import Key
from listener.storage.sqlite import keys
from listener.storage.sqlite.faults import FAULTS, told_by
from listener.storage.sqlite.location import sqlite_path
from listener.storage.sqlite.lock import has_lost_its_file, refuse_other_name
from listener.storage.sqlite.opening import connect


class SqliteDesk:
    """The keys of a ledger, used beside a service that may be writing to its file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(self, key: Key) -> None:
        keys.add(self._db, key)

    def find(self, key_id: str) -> Key | None:
        return keys.find(self._db, key_id)

    def list_all(self) -> list[Key]:
        return keys.list_all(self._db)

    def revoke(self, key_id: str, *, at_ms: int) -> bool:
        return keys.revoke(self._db, key_id, now_ms=at_ms)


@contextmanager
def open_desk(url: str, *, create: bool) -> Iterator[SqliteDesk]:
    """Open the keys of a ledger; see :func:`listener.storage.open_keys`."""
    path = sqlite_path(url)
    refuse_other_name(path)
    if has_lost_its_file(path):
        raise LedgerError(
            f"a listener serves {path}, but that file, or its -shm, was moved away or deleted: put"
            " it back, or stop the listener"
        )
    with closing(connect(path, create=create)) as db:
        try:
            yield SqliteDesk(db)
        except FAULTS as error:
            raise LedgerUnavailableError(
                f"the ledger cannot be used now: {told_by(error)}"
            ) from error
