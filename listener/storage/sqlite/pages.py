"""Read a ledger page by page beside its service, for `listener export` and the like."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from listener.errors import LedgerError, LedgerUnavailableError
from listener.ledger.results import Head, ReadEntry
from listener.ledger.scope import Scope
from listener.storage.checks import read_page
from listener.storage.sqlite import reading
from listener.storage.sqlite.epoch import HEADLESS
from listener.storage.sqlite.faults import FAULTS, told_by
from listener.storage.sqlite.location import sqlite_path
from listener.storage.sqlite.opening import connect_read_only

PAGE_ENTRIES: Final = 1_000

_ALL: Final = Scope()
# Python's message if a text is not UTF-8.
_NO_TEXT: Final = "Could not decode"


class SqliteReader:
    """Reads pages of a ledger from its file, without taking part in writing it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def head(self) -> Head:
        """Read the end of the ledger.

        Raises:
            LedgerError: The file has lost it.
        """
        try:
            return reading.head(self._db)
        except TypeError as error:
            raise LedgerError(HEADLESS) from error

    def pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        scope: Scope = _ALL,
    ) -> Iterator[tuple[int, list[ReadEntry]]]:
        """Yield pages: the seq that was read up to, and the lines up to there that are wanted.

        Each page is a separate read, so that the service's log can be cut in between; the pages
        still fit together, because entries never change.

        Args:
            after: Begin after this seq.
            until: End at this seq; None for the present head.
            since_ms: Leave out what was recorded before (Unix ms).
            until_ms: Leave out what was recorded then or later. The clock may have been set
                back, so lines after the first such one are read too.
            scope: Leave out the lines of others.

        Raises:
            DamagedError: An entry is not what was recorded; its ``seq`` says which.
        """
        end = self.head().seq if until is None else until
        while after < end:
            upto = min(after + PAGE_ENTRIES, end)
            read = partial(self._lines, since_ms=since_ms, until_ms=until_ms, scope=scope)
            yield upto, read_page(read, after=after, upto=upto)
            after = upto

    def _lines(
        self, after: int, upto: int, *, since_ms: int | None, until_ms: int | None, scope: Scope
    ) -> list[ReadEntry]:
        """Read the entries in a range.

        Raises:
            ValueError: A text is not UTF-8, so that it is not what was recorded.
        """
        try:
            return reading.lines_between(
                self._db, after=after, upto=upto, since_ms=since_ms, until_ms=until_ms, scope=scope
            )
        except sqlite3.OperationalError as error:
            if str(error).startswith(_NO_TEXT):
                raise ValueError(told_by(error)) from error
            raise


@contextmanager
def open_reader(url: str) -> Iterator[SqliteReader]:
    """Open the ledger at a URL to read it, whether it is being served or not.

    Raises:
        LedgerError: There is none, or none that this version can read.
        LedgerUnavailableError: It cannot be read now.
    """
    db = connect_read_only(sqlite_path(url))
    try:
        yield SqliteReader(db)
    except FAULTS as error:
        raise LedgerUnavailableError(f"the ledger cannot be read now: {told_by(error)}") from error
    finally:
        db.close()
