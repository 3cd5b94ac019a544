"""The back-ends of the ledger, chosen by the setting ``database``.

This module knows both of them, but imports neither driver: the one for PostgreSQL is an extra.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from listener.clock import now_ms
from listener.keys import Key, KeyStore
from listener.ledger.promise import Ledger
from listener.ledger.results import Head, ReadEntry
from listener.ledger.schedule import Confirm
from listener.ledger.scope import Scope
from listener.storage.checks import Progress, Verified
from listener.storage.findings import Finding
from listener.storage.postgres.location import is_postgres, require_driver
from listener.storage.queue import OnCommit

__all__ = [
    "AnyLedger",
    "KeyDesk",
    "Reader",
    "backup",
    "check_up",
    "open_keys",
    "open_ledger",
    "open_reader",
    "rebuild",
    "verify",
]


class AnyLedger(Ledger, KeyStore, Protocol):
    """A ledger that is being served, and the keys stored in it."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


async def open_ledger(
    url: str,
    *,
    confirm: Confirm = "suspicious",
    clock: Callable[[], int] = now_ms,
    on_commit: OnCommit | None = None,
    on_time: Callable[[int], None] | None = None,
    node_url: str = "",
) -> AnyLedger:
    """Open the ledger at a URL to serve it; create it if there is none.

    Args:
        url: As in the setting ``database``.
        confirm: When Pockyt is asked before a status is believed.
        clock: Reads the time as Unix ms.
        on_commit: Called after each commit with its duration (seconds) and its number of items.
        on_time: If several listeners share the ledger, called with its server's time (Unix ms),
            just after that was read, and again each second.
        node_url: This listener's own URL, for the others that serve the same ledger.

    Raises:
        LedgerError: It cannot be opened, or it is a file that another listener is serving.
    """
    if is_postgres(url):
        require_driver()
        from listener.storage.postgres.ledger import PostgresLedger

        return await PostgresLedger.open(
            url,
            confirm=confirm,
            clock=clock,
            on_commit=on_commit,
            on_time=on_time,
            node_url=node_url,
        )
    from listener.storage.sqlite.ledger import SqliteLedger
    from listener.storage.sqlite.location import sqlite_path

    path = sqlite_path(url)
    return await SqliteLedger.open(path, confirm=confirm, clock=clock, on_commit=on_commit)


def verify(url: str, *, progress: Progress | None = None) -> Verified:
    """Check the ledger at a URL, even while it is being served.

    Raises:
        DamagedError: Something is wrong; its ``seq`` is the first entry that shows it.
        LedgerError: There is no ledger, or none that this version can read.
    """
    if is_postgres(url):
        require_driver()
        from listener.storage.postgres import verify as postgres

        return postgres.verify(url, progress=progress)
    from listener.storage.sqlite import verify as sqlite

    return sqlite.verify(url, progress=progress)


def rebuild(url: str, *, confirm: Confirm, progress: Progress | None = None) -> Verified:
    """Compute the states of a ledger again from its entries, then check all of it.

    Nobody may serve it meanwhile. Entries, events, counted repeats, keys and places stay.

    Raises:
        DamagedError: Something is not what was recorded. If it is the chain or the events,
            nothing was changed.
        LedgerError: There is no ledger, it is being served, or this version cannot read it.
    """
    told = progress or (lambda _done, _total: None)
    if is_postgres(url):
        require_driver()
        from listener.storage.postgres import rebuild as postgres

        postgres.rebuild(url, confirm=confirm, progress=told)
    else:
        from listener.storage.sqlite import rebuild as sqlite

        sqlite.rebuild(url, confirm=confirm, progress=told)
    return verify(url)


class Reader(Protocol):
    """Reads a ledger page by page, without taking part in writing it."""

    def head(self) -> Head:
        """Read the end of the ledger."""

    def pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        scope: Scope = ...,
    ) -> Iterator[tuple[int, list[ReadEntry]]]:
        """Yield pages: the seq that was read up to, and the lines up to there that are wanted."""


def open_reader(url: str) -> AbstractContextManager[Reader]:
    """Open the ledger at a URL to read it, whether it is being served or not.

    Raises:
        LedgerError: There is none, or none that this version can read.
        LedgerUnavailableError: It cannot be read now.
    """
    if is_postgres(url):
        require_driver()
        from listener.storage.postgres import pages as postgres

        return postgres.open_reader(url)
    from listener.storage.sqlite import pages as sqlite

    return sqlite.open_reader(url)


class KeyDesk(Protocol):
    """Makes and revokes the keys of a ledger, even while it is served."""

    def add(self, key: Key) -> None:
        """Store a key."""

    def find(self, key_id: str) -> Key | None:
        """Return a key by its id."""

    def list_all(self) -> list[Key]:
        """Return all keys, the oldest first."""

    def revoke(self, key_id: str, *, at_ms: int) -> bool:
        """Revoke a key; return False if there is no such key, or it was revoked before."""


def open_keys(url: str, *, create: bool) -> AbstractContextManager[KeyDesk]:
    """Open the keys of a ledger; with ``create`` the ledger is created if there is none.

    Raises:
        LedgerError: It cannot be opened.
        LedgerUnavailableError: It failed; nothing was changed.
    """
    if is_postgres(url):
        require_driver()
        from listener.storage.postgres import desk as postgres

        return postgres.open_desk(url, create=create)
    from listener.storage.sqlite import desk as sqlite

    return sqlite.open_desk(url, create=create)


def backup(url: str, destination: Path, *, progress: Progress | None = None) -> None:
    """Copy the ledger at a URL into a new SQLite file; it is synced once this returns.

    Raises:
        LedgerError: There is no ledger, the destination exists, or it cannot be written.
    """
    if is_postgres(url):
        require_driver()
        from listener.storage.postgres import backup as postgres

        postgres.backup(url, destination, progress=progress)
        return
    from listener.storage.sqlite import backup as sqlite

    sqlite.backup(url, destination, progress=progress)


def check_up(url: str) -> list[Finding]:
    """Check the state of the ledger at a URL, without disturbing those who use it.

    Raises:
        LedgerError: This version cannot use the database that the URL names.
    """
    if is_postgres(url):
        require_driver()
        from listener.storage.postgres import checkup as postgres

        return postgres.check_up(url)
    from listener.storage.sqlite import checkup as sqlite

    return sqlite.check_up(url)
