"""The keys in the ledger's file: written briefly by the command line, read by the service."""

import sqlite3
from typing import Final

from listener.keys import Key, Role
from listener.storage.checks import unreadable_key
from listener.storage.sqlite.connection import transaction

_COLUMNS: Final = (
    "id, hash, role, merchant_no, store_no, terminal, may_refund, created_at, revoked_at"
)
_ADD: Final = f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# id
_FIND: Final = f"SELECT {_COLUMNS} FROM keys WHERE id = ?"
_LIST: Final = f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id"
# revoked_at, id
_REVOKE: Final = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
_GROW_VERSION: Final = "UPDATE ledger SET keys_version = keys_version + 1"
_VERSION: Final = "SELECT keys_version FROM ledger"
_REVOKED: Final = "SELECT id FROM keys WHERE revoked_at IS NOT NULL"


def add(db: sqlite3.Connection, key: Key) -> None:
    """Store a key."""
    row = (
        key.id,
        key.hash,
        key.role,
        key.merchant_no,
        key.store_no,
        key.terminal,
        int(key.may_refund),
        key.created_at_ms,
        key.revoked_at_ms,
    )
    with transaction(db):
        db.execute(_ADD, row)
        db.execute(_GROW_VERSION)


def find(db: sqlite3.Connection, key_id: str) -> Key | None:
    """Read a key by its id."""
    row = db.execute(_FIND, (key_id,)).fetchone()
    return _key_of(row) if row else None


def list_all(db: sqlite3.Connection) -> list[Key]:
    """Read all keys, the oldest first."""
    return [_key_of(row) for row in db.execute(_LIST)]


def revoke(db: sqlite3.Connection, key_id: str, *, now_ms: int) -> bool:
    """Revoke a key; return False if there is no such key, or it was revoked before."""
    with transaction(db):
        changed = db.execute(_REVOKE, (now_ms, key_id)).rowcount
        db.execute(_GROW_VERSION)
    return changed == 1


def version(db: sqlite3.Connection) -> int:
    """Read the number that grows with every change of a key."""
    (found,) = db.execute(_VERSION).fetchone()
    number: int = found
    return number


def revoked(db: sqlite3.Connection) -> frozenset[str]:
    """Read the ids of the keys that were revoked."""
    return frozenset(key_id for (key_id,) in db.execute(_REVOKED))


def _key_of(row: tuple[object, ...]) -> Key:
    """Read a key.

    Raises:
        LedgerError: It is not what was stored.
    """
    try:
        return Key(
            id=str(row[0]),
            hash=str(row[1]),
            role=Role(str(row[2])),
            merchant_no=_text(row[3]),
            store_no=_text(row[4]),
            terminal=_text(row[5]),
            may_refund=bool(row[6]),
            created_at_ms=int(str(row[7])),
            revoked_at_ms=int(str(row[8])) if row[8] is not None else None,
        )
    except ValueError as error:
        raise unreadable_key(row[0]) from error


def _text(value: object) -> str | None:
    return None if value is None else str(value)
