"""Copy a whole ledger between PostgreSQL and a file: every number, hash and byte stays."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from listener.errors import LedgerError
from listener.ledger.chain import ENTRY_COLUMNS, GENESIS
from listener.storage.checks import Progress
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.texts import packed, unpacked
from listener.storage.rows import SALE_COLUMNS, TRANSACTION_COLUMNS

PAGE_ROWS: Final = 1_000

# The tables that both back-ends have, under the same names.
TABLES: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "entries": ENTRY_COLUMNS,
        "events": ("number", "stream", "offset", "seq", "cancelled", "body"),
        "transactions": TRANSACTION_COLUMNS,
        "repeats": ("seq", "count", "last_at"),
        "sales": SALE_COLUMNS,
        "acks": ("terminal", "stream", "epoch", "offset", "acked", "acked_at"),
        "keys": (
            *("id", "hash", "role", "merchant_no", "store_no", "terminal", "may_refund"),
            *("created_at", "revoked_at"),
        ),
        "answers": ("key_id", "idempotency_key", "request", "status", "body", "recorded_at"),
    }
)
# JSON, in which a NUL is always escaped.
_AS_THEY_ARE: Final = frozenset({"fields", "body"})
_SNAPSHOT: Final = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
    " SET LOCAL idle_in_transaction_session_timeout = 0"
)
_LEDGER: Final = "SELECT epoch, created_at, keys_version, secret FROM ledger"
_SEQ: Final = "SELECT coalesce(max(seq), 0) FROM entries"
_TOTAL: Final = (
    "SELECT (SELECT coalesce(max(seq), 0) FROM entries) + (SELECT coalesce(max(number), 0)"
    " FROM events)"
)
# For the file: the head and the streams, which PostgreSQL does not store separately.
_STREAMS: Final = (
    'INSERT INTO streams (stream, head) SELECT stream, max("offset") FROM events GROUP BY stream'
)
_PUT_LEDGER: Final = "UPDATE ledger SET epoch = ?, created_at = ?, keys_version = ?, secret = ?"
_PUT_HEAD: Final = (
    "UPDATE ledger SET seq = (SELECT coalesce(max(seq), 0) FROM entries),"
    f" hash = coalesce((SELECT hash FROM entries ORDER BY seq DESC LIMIT 1), '{GENESIS}'),"
    " number = (SELECT coalesce(max(number), 0) FROM events),"
    " repeats = (SELECT coalesce(sum(count), 0) FROM repeats),"
    " transactions = (SELECT count(*) FROM transactions)"
)
_TAKE_LEDGER: Final = (
    "UPDATE ledger SET epoch = $1, created_at = $2, keys_version = $3, secret = $4, is_copy = $5"
)
# An empty ledger that was itself put back has had more than one.
_FORGET_EPOCHS: Final = "DELETE FROM epochs WHERE reason <> 'made'"
_NAME_EPOCH: Final = "UPDATE epochs SET epoch = $1, began_at = $2, seq = $3"
_ANALYZE: Final = "ANALYZE entries, events, transactions, repeats, sales, acks"


async def to_file(db: Connection, copy: sqlite3.Connection, progress: Progress) -> None:
    """Copy all that PostgreSQL holds at this moment into a new ledger's file.

    The snapshot delays nobody: no row that changes with each entry piles up old versions that
    would have to be skipped.
    """
    await db.execute(_SNAPSHOT)
    done, total = 0, await db.fetchval(_TOTAL)
    copy.execute("BEGIN IMMEDIATE")
    for table, names in TABLES.items():
        listed = ", ".join(f'"{name}"' for name in names)
        places = ", ".join("?" * len(names))
        insert = f"INSERT INTO {table} ({listed}) VALUES ({places})"
        cursor = await db.cursor(f"SELECT {listed} FROM {table}")
        while rows := await cursor.fetch(PAGE_ROWS):
            copy.executemany(insert, _converted(rows, names, unpacked))
            done += len(rows)
            progress(min(done, total), total)
    copy.execute(_PUT_LEDGER, tuple(await _row(db, _LEDGER)))
    copy.execute(_STREAMS)
    copy.execute(_PUT_HEAD)
    copy.execute("COMMIT")
    await db.execute("COMMIT")


async def from_file(
    source: sqlite3.Connection, db: Connection, progress: Progress, *, is_copy: bool
) -> None:
    """Copy a ledger's file into an empty ledger on PostgreSQL, all of it or nothing.

    If it is marked as a copy, the first service on it begins a new epoch.

    Raises:
        LedgerError: The ledger there is not empty.
    """
    source.execute("BEGIN")
    (total,) = source.execute(_TOTAL).fetchone()
    async with db.transaction():
        await db.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await db.execute("LOCK TABLE entries, keys IN EXCLUSIVE MODE")
        if await db.fetchval("SELECT EXISTS (SELECT 1 FROM entries UNION ALL SELECT 1 FROM keys)"):
            raise LedgerError("the ledger to import into is not empty")
        done = 0
        for table, names in TABLES.items():
            listed = ", ".join(f'"{name}"' for name in names)
            found = source.execute(f"SELECT {listed} FROM {table}")
            while rows := found.fetchmany(PAGE_ROWS):
                records = list(_converted(rows, names, packed))
                await db.copy_records_to_table(table, records=records, columns=list(names))
                done += len(rows)
                progress(min(done, total), total)
        origin = source.execute(_LEDGER).fetchone()
        (epoch, created_at, *_), (seq,) = origin, source.execute(_SEQ).fetchone()
        await db.execute(_TAKE_LEDGER, *origin, int(is_copy))
        await db.execute(_FORGET_EPOCHS)
        await db.execute(_NAME_EPOCH, epoch, created_at, seq)
    await db.execute(_ANALYZE)


async def _row(db: Connection, statement: str) -> Any:  # noqa: ANN401 - asyncpg's record
    (row,) = await db.fetch(statement)
    return row


def _converted(
    rows: Iterable[Iterable[Any]], names: Sequence[str], convert: Callable[[str], str]
) -> Iterator[tuple[Any, ...]]:
    """Convert the texts of rows from one back-end to the other."""
    is_plain = [name in _AS_THEY_ARE for name in names]
    for row in rows:
        yield tuple(
            value if plain or not isinstance(value, str) else convert(value)
            for value, plain in zip(row, is_plain, strict=True)
        )
