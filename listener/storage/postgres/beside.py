"""Use a ledger on PostgreSQL from a command, beside the nodes that serve it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from listener.errors import LedgerError, LedgerUnavailableError
from listener.storage.postgres.connection import (
    FAULTS,
    SERVER_NOW_MS,
    Connection,
    connect,
    hang_up,
    told_by,
)
from listener.storage.postgres.location import Location, read_location
from listener.storage.postgres.schema import prepare, read_identity
from listener.storage.postgres.waiting import watched

T = TypeVar("T")

NAME: Final = "pockyt-listener command"
ROWS_AT_ONCE: Final = 1_000
# Without a time limit: a command works with the rows between two statements.
BEGIN: Final = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0"

_LOG: Final = logging.getLogger(__name__)
_SERVED: Final = f"SELECT count(*) FROM nodes WHERE lease_until >= {SERVER_NOW_MS}"


class Beside:
    """The connection of a command, which has no event loop of its own."""

    def __init__(self, runner: asyncio.Runner, db: Connection, location: Location) -> None:
        self._runner = runner
        self._db = db
        self._location = location

    def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run work on the connection.

        Raises:
            LedgerUnavailableError: It failed, or its outcome is not known.
        """

        async def working() -> T:
            # A command sets up no log: Python writes a warning to stderr as it is.
            async with watched(self._location, name=NAME, tell=_LOG.warning):
                result = await work(self._db)
            if self._db.warning is not None:
                raise LedgerUnavailableError(
                    f"the ledger may not have stored it: {self._db.warning}"
                )
            return result

        try:
            return self._runner.run(working())
        except FAULTS as error:
            raise LedgerUnavailableError(
                f"the ledger cannot be used now: {told_by(error)}"
            ) from error

    def rows(self, statement: str) -> Iterator[Any]:
        """Yield the rows of a statement, all from one moment; call this within a transaction."""
        self.run(lambda db: db.execute(f"DECLARE selected CURSOR FOR {statement}"))
        while some := self.run(lambda db: db.fetch(f"FETCH {ROWS_AT_ONCE} FROM selected")):
            yield from some
        self.run(lambda db: db.execute("CLOSE selected"))


def refuse_served(connected: Beside) -> None:
    """Refuse a ledger that a listener serves.

    Raises:
        LedgerError: A listener serves it.
    """
    nodes: Any = connected.run(lambda db: db.fetchval(_SERVED))
    if nodes:
        raise LedgerError(f"{nodes} listener(s) serve the ledger on PostgreSQL; stop them first")


@contextmanager
def beside(url: str, *, make_at_ms: int | None = None) -> Iterator[Beside]:
    """Connect a command to a ledger, whether it is being served or not.

    Args:
        url: As in the setting ``database``.
        make_at_ms: The time (Unix ms) to create a ledger with if there is none.

    Raises:
        LedgerError: There is no ledger, or none that this version can read.
        LedgerUnavailableError: No server can be reached.
    """
    with connected_to(url) as connected:
        if make_at_ms is None:
            connected.run(read_identity)
        else:
            connected.run(lambda db: prepare(db, now_ms=make_at_ms))
        yield connected


@contextmanager
def connected_to(url: str) -> Iterator[Beside]:
    """Connect a command to a database, whether there is a ledger in it or not.

    Raises:
        LedgerError: The server cannot hold a ledger.
        LedgerUnavailableError: No server can be reached.
    """
    location = read_location(url)
    with asyncio.Runner() as runner:
        db = runner.run(connect(location, name=NAME))
        try:
            yield Beside(runner, db, location)
        except KeyboardInterrupt:
            # Otherwise asyncpg is still cancelling a statement when the loop ends, which complains.
            runner.run(hang_up(db))
            raise
        finally:
            db.terminate()
