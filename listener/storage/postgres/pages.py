"""Read a ledger page by page, each page a short read of its own, for `listener export`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from listener.ledger.results import Head, ReadEntry
from listener.ledger.scope import Scope
from listener.storage.checks import read_page
from listener.storage.postgres import reading
from listener.storage.postgres.beside import Beside, beside

PAGE_ENTRIES: Final = 1_000

_ALL: Final = Scope()


class PostgresReader:
    """Reads pages of a ledger on PostgreSQL."""

    def __init__(self, connected: Beside) -> None:
        self._connected = connected

    def head(self) -> Head:
        """Read the end of the ledger."""
        return self._connected.run(reading.head)

    def pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        scope: Scope = _ALL,
    ) -> Iterator[tuple[int, list[ReadEntry]]]:
        """Yield pages: the seq that was read up to, and the lines that are wanted.

        The arguments are those of the reader on SQLite.
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
        """Read the entries in a range."""
        return self._connected.run(
            partial(
                reading.lines_between,
                after=after,
                upto=upto,
                since_ms=since_ms,
                until_ms=until_ms,
                scope=scope,
            )
        )


@contextmanager
def open_reader(url: str) -> Iterator[PostgresReader]:
    """Open the ledger at a URL to read it, whether it is being served or not.

    Raises:
        LedgerError: There is none, or none that this version can read.
        LedgerUnavailableError: It cannot be read now.
    """
    with beside(url) as connected:
        yield PostgresReader(connected)
