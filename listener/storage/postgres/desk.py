"""Make, list and revoke keys on PostgreSQL, for the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

from listener.clock import now_ms
from listener.keys import Key
from listener.storage.postgres import keys
from listener.storage.postgres.beside import Beside, beside


class PostgresDesk:
    """The keys of a ledger, beside the nodes that serve it."""

    def __init__(self, connected: Beside) -> None:
        self._connected = connected

    def add(self, key: Key) -> None:
        self._connected.run(lambda db: keys.add(db, key))

    def find(self, key_id: str) -> Key | None:
        return self._connected.run(lambda db: keys.find(db, key_id))

    def list_all(self) -> list[Key]:
        return self._connected.run(keys.list_all)

    def revoke(self, key_id: str, *, at_ms: int) -> bool:
        return self._connected.run(lambda db: keys.revoke(db, key_id, now_ms=at_ms))


@contextmanager
def open_desk(url: str, *, create: bool) -> Iterator[PostgresDesk]:
    """Open the keys of a ledger; see :func:`listener.storage.open_keys`."""
    with beside(url, make_at_ms=now_ms() if create else None) as connected:
        yield PostgresDesk(connected)
