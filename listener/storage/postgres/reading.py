"""Read the ledger on PostgreSQL: one statement for each question, each a seek in an index."""

from collections.abc import Sequence
from typing import Any

from listener.ledger.model import (
    EVERY_STREAM,
    Event,
    Transaction,
    Why,
)
from listener.ledger.promise import SALES_MAX
from listener.ledger.results import (
    Acked,
    Doubts,
    Head,
    ReadEntry,
    RecordedSale,
    Remembered,
    StoredAck,
    Unacked,
)
from listener.ledger.scope import Scope
from listener.storage.lines import judges_among, read_lines, recorded_sale_of
from listener.storage.postgres import selects
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.rows import entry_of, event_of, plain, transaction_of
from listener.storage.postgres.texts import packed, unpacked


async def seq(db: Connection) -> int:
    """Read the seq of the newest entry."""
    return await db.fetchval(selects.SEQ) or 0


async def head(db: Connection) -> Head:
    """Read the end of the ledger, and count what it holds."""
    (row,) = await db.fetch(selects.HEAD)
    return Head(
        epoch=row[0], seq=row[1], hash=row[2], events=row[3], transactions=row[4], repeats=row[5]
    )


async def stream_heads(db: Connection, *, streams: Sequence[str]) -> dict[str, int]:
    """Read the newest offset of each stream."""
    names = {packed(name): name for name in streams}
    heads = {
        names[row[0]]: row[1] or 0 for row in await db.fetch(selects.STREAM_HEADS, list(names))
    }
    if EVERY_STREAM in heads:
        heads[EVERY_STREAM] = await db.fetchval(selects.NUMBER) or 0
    return heads


async def events(db: Connection, *, stream: str, after: int, limit: int) -> list[Event]:
    """Read the events of a stream after an offset."""
    if stream == EVERY_STREAM:
        found = await db.fetch(selects.EVERY_EVENT, after, limit)
    else:
        found = await db.fetch(selects.EVENTS, packed(stream), after, limit)
    return [event_of(row) for row in found]


async def lines(
    db: Connection, *, after: int, upto: int, limit: int, scope: Scope
) -> list[ReadEntry]:
    """Read entries in a range of seqs."""
    values = (after, scope.merchant_no, scope.store_no, upto, limit)
    return await _lines_of(db, await db.fetch(selects.LINES_AFTER, *values))


async def counts_between(db: Connection, *, after: int, upto: int, scope: Scope) -> tuple[int, int]:
    """Count the entries in a range of seqs, and their repeats."""
    values = (after, scope.merchant_no, scope.store_no, upto)
    ((entries, repeats),) = await db.fetch(selects.COUNTS_BETWEEN, *values)
    return entries, repeats


async def count_transactions(db: Connection, *, scope: Scope) -> tuple[int, int]:
    """Count the transactions of a merchant or a store, and their events."""
    values = (scope.merchant_no, scope.store_no)
    transactions = await db.fetchval(selects.COUNT_TRANSACTIONS, *values)
    return transactions, await db.fetchval(selects.COUNT_EVENTS, *values)


async def lines_between(
    db: Connection,
    *,
    after: int,
    upto: int,
    since_ms: int | None,
    until_ms: int | None,
    scope: Scope,
) -> list[ReadEntry]:
    """Read the entries in a range of seqs and times that a scope covers."""
    values = (after, scope.merchant_no, scope.store_no, upto, since_ms, until_ms)
    return await _lines_of(db, await db.fetch(selects.LINES_BETWEEN, *values))


async def lines_of(
    db: Connection,
    *,
    transaction: Transaction,
    after: int,
    limit: int | None,
    notifications: bool,
) -> list[ReadEntry]:
    """Read a transaction's entries past a seq, its sale's included."""
    number, merchant_no = packed(transaction.transaction_no), transaction.merchant_no
    values = (number, merchant_no, transaction.sale_seq, after, limit, notifications)
    rows = await db.fetch(selects.LINES_OF, *values)
    return await _lines_of(db, rows)


async def _lines_of(db: Connection, found: Sequence[Any]) -> list[ReadEntry]:
    rows = [plain(row) for row in found]
    seqs = judges_among(rows)
    sales = await db.fetch(selects.BY_SEQ, list(seqs)) if seqs else []
    return read_lines(rows, {row[0]: entry_of(row) for row in sales})


async def transactions_of_number(
    db: Connection, *, transaction_no: str, merchant_no: str | None
) -> list[Transaction]:
    """Read the transactions with a number."""
    found = await db.fetch(selects.OF_NUMBER, packed(transaction_no), merchant_no)
    return [transaction_of(row) for row in found]


async def doubts(db: Connection, *, now_ms: int) -> list[Doubts]:
    """Count the transactions that Pockyt is asked about."""
    return [
        Doubts(why=Why(why), is_raised=bool(waits_no_more) and not Why(why).is_calm, count=count)
        for why, waits_no_more, count in await db.fetch(selects.DOUBTS, now_ms)
    ]


async def due(db: Connection, *, now_ms: int, limit: int) -> list[Transaction]:
    """Read the transactions to ask about, or to raise, by now."""
    return [transaction_of(row) for row in await db.fetch(selects.DUE, now_ms, limit)]


async def due_sales(db: Connection, *, now_ms: int, limit: int) -> list[RecordedSale]:
    """Read the sales to look for by now."""
    return [_sale_of(row) for row in await db.fetch(selects.DUE_SALES, now_ms, limit)]


async def open_sales(
    db: Connection, *, scope: Scope, now_ms: int, limit: int
) -> list[RecordedSale]:
    """Read the sales without a number that Pockyt is asked about."""
    values = (now_ms, scope.merchant_no, scope.store_no, scope.terminal, limit)
    return [_sale_of(row) for row in await db.fetch(selects.OPEN_SALES, *values)]


async def sales_of_reference(
    db: Connection, *, merchant_no: str, reference: str, store_no: str | None
) -> list[RecordedSale]:
    """Read the sales with a reference."""
    values = (merchant_no, packed(reference), store_no, SALES_MAX)
    return [_sale_of(row) for row in await db.fetch(selects.SALES_OF_REFERENCE, *values)]


def _sale_of(row: Any) -> RecordedSale:  # noqa: ANN401 - asyncpg's record
    return recorded_sale_of(plain(row))


async def next_due_ms(db: Connection) -> int | None:
    """Read when something is due next."""
    at: int | None = await db.fetchval(selects.NEXT_DUE)
    return at


async def unacked(db: Connection, *, before_ms: int, scope: Scope, limit: int) -> list[Unacked]:
    """Read the cancellations that no terminal of their stream has acknowledged."""
    return [
        Unacked(
            stream=unpacked(row[0]),
            offset=row[1],
            transaction_no=unpacked(row[2]),
            recorded_at_ms=row[3],
            body=row[4],
        )
        for row in await db.fetch(
            selects.UNACKED, before_ms, scope.merchant_no, scope.store_no, limit
        )
    ]


async def acks(
    db: Connection, *, after: tuple[str, str], scope: Scope, limit: int
) -> list[StoredAck]:
    """Read how far terminals have come, after a terminal and stream."""
    return [
        StoredAck(
            terminal=row[0],
            stream=row[1],
            epoch=row[2],
            offset=row[3],
            acked=row[4],
            acked_at_ms=row[5],
        )
        for row in await db.fetch(selects.ACKS, *after, scope.merchant_no, scope.store_no, limit)
    ]


async def acked(
    db: Connection, *, places: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Acked]:
    """Read where terminals resume in streams."""
    terminals, streams = zip(*{*places}, strict=True)
    rows = await db.fetch(selects.ACKED, terminals, streams)
    return {(row[0], row[1]): Acked(epoch=row[2], offset=row[3]) for row in rows}


async def remembered(db: Connection, *, key_id: str, idempotency_key: str) -> Remembered | None:
    """Read what is stored for an Idempotency-Key."""
    row = await db.fetchrow(selects.REMEMBERED, key_id, idempotency_key)
    return Remembered(request=row[0], status=row[1], body=row[2]) if row else None
