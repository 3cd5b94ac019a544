"""The keys in the ledger's database: written by the command line, read by every node."""

from collections.abc import Sequence
from typing import Any, Final

from listener.keys import Key, Role
from listener.storage.checks import unreadable_key
from listener.storage.postgres.connection import Connection

_COLUMNS: Final = (
    "id, hash, role, merchant_no, store_no, terminal, may_refund, created_at, revoked_at"
)
# Each in one statement: the key, and the number by which every node notices the change.
_ADD: Final = (
    f"WITH added AS (INSERT INTO keys ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9))"
    " UPDATE ledger SET keys_version = keys_version + 1"
)
_REVOKE: Final = (
    "WITH revoked AS (UPDATE keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL"
    " RETURNING id), grown AS (UPDATE ledger SET keys_version = keys_version + 1)"
    " SELECT count(*) FROM revoked"
)
_FIND: Final = f"SELECT {_COLUMNS} FROM keys WHERE id = ANY ($1::text[])"
_LIST: Final = f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id"
_VERSION: Final = "SELECT keys_version FROM ledger"
_REVOKED: Final = "SELECT id FROM keys WHERE revoked_at IS NOT NULL"


async def add(db: Connection, key: Key) -> None:
    """Store a key."""
    await db.execute(
        _ADD,
        key.id,
        key.hash,
        key.role.value,
        key.merchant_no,
        key.store_no,
        key.terminal,
        int(key.may_refund),
        key.created_at_ms,
        key.revoked_at_ms,
    )


async def revoke(db: Connection, key_id: str, *, now_ms: int) -> bool:
    """Revoke a key; return False if there is no such key, or it was revoked before."""
    changed: int = await db.fetchval(_REVOKE, now_ms, key_id)
    return changed == 1


async def find(db: Connection, key_id: str) -> Key | None:
    """Read a key by its id."""
    return (await find_all(db, [key_id])).get(key_id)


async def find_all(db: Connection, ids: Sequence[str]) -> dict[str, Key]:
    """Read keys by their ids."""
    # Anyone who connects can ask for an id; with a NUL it is neither a key nor text for
    # PostgreSQL.
    sought = [*{key_id for key_id in ids if "\0" not in key_id}]
    return {row[0]: _key_of(row) for row in await db.fetch(_FIND, sought)}


async def list_all(db: Connection) -> list[Key]:
    """Read all keys, the oldest first."""
    return [_key_of(row) for row in await db.fetch(_LIST)]


async def version(db: Connection) -> int:
    """Read the number that grows with every change of a key."""
    found: int = await db.fetchval(_VERSION)
    return found


async def revoked(db: Connection) -> frozenset[str]:
    """Read the ids of the keys that were revoked."""
    return frozenset(row[0] for row in await db.fetch(_REVOKED))


def _key_of(row: Any) -> Key:  # noqa: ANN401 - asyncpg's record
    """Read a key.

    Raises:
        LedgerError: It is not what was stored.
    """
    try:
        return Key(
            id=row[0],
            hash=row[1],
            role=Role(row[2]),
            merchant_no=row[3],
            store_no=row[4],
            terminal=row[5],
            may_refund=bool(row[6]),
            created_at_ms=row[7],
            revoked_at_ms=row[8],
        )
    except ValueError as error:
        raise unreadable_key(row[0]) from error
