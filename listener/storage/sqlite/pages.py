"""Read a ledger beside the service that writes it: for `listener export` and the like."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from listener.errors import LedgerUnavailableError
from listener.ledger.promise import Head, ReadEntry, Scope
from listener.storage.sqlite import reading
from listener.storage.sqlite.connection import FAULTS, connect_read_only, told_by
from listener.storage.sqlite.location import sqlite_path

PAGE_ENTRIES: Final = 1_000

_ALL: Final = Scope()


class Reader:
    """Pages of a ledger, read from its file without a part in writing it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def head(self) -> Head:
        """Read the end of the ledger."""
        return reading.head(self._db)

    def pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        scope: Scope = _ALL,
    ) -> Iterator[tuple[int, list[ReadEntry]]]:
        """Yield up to which seq was read, and those of its lines that are wanted.

        Each page is a read of its own, so that the service's log can be cut meanwhile; entries
        are never changed, so that they still fit together.

        Args:
            after: Begin past this seq.
            until: End at this seq; None for the head as it is now.
            since_ms: Leave out what was recorded before (Unix ms).
            until_ms: Leave out what was recorded then or later. The clock may have stepped back,
                so that lines past the first such one are looked at, too.
            scope: Leave out the lines of others.
        """
        end = self.head().seq if until is None else until
        while after < end:
            upto = min(after + PAGE_ENTRIES, end)
            yield (
                upto,
                reading.lines_between(
                    self._db,
                    after=after,
                    upto=upto,
                    since_ms=since_ms,
                    until_ms=until_ms,
                    scope=scope,
                ),
            )
            after = upto


@contextmanager
def open_reader(url: str) -> Iterator[Reader]:
    """Open the ledger of a URL to read it, be it served meanwhile or not.

    Raises:
        LedgerError: There is none, or none that this version can read.
        LedgerUnavailableError: It cannot be read now.
    """
    db = connect_read_only(sqlite_path(url))
    try:
        yield Reader(db)
    except FAULTS as error:
        raise LedgerUnavailableError(f"the ledger cannot be read now: {told_by(error)}") from error
    finally:
        db.close()
