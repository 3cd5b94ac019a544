"""Read the ledger on PostgreSQL: one statement for each question, each a seek in an index."""

from collections.abc import Sequence
from typing import Any, Final

from listener.ledger.chain import ENTRY_COLUMNS
from listener.ledger.model import (
    EVERY_STREAM,
    NO_STORE,
    DeliveryCount,
    Entry,
    Event,
    Status,
    Transaction,
    Why,
)
from listener.ledger.promise import (
    Acked,
    Cursor,
    Doubts,
    Head,
    ReadEntry,
    RecordedSale,
    Remembered,
    Scope,
    Search,
    StoredAck,
    Unacked,
)
from listener.ledger.transaction import why_held_among
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.rows import entry_of, event_of, sale_of, transaction_of
from listener.storage.postgres.texts import packed, unpacked
from listener.storage.rows import EVENT_COLUMNS, SALE_COLUMNS, TRANSACTION_COLUMNS

# How many sales of one reference are read: those that use it, and the newest refused ones.
SALES_MAX: Final = 64


def listed(names: Sequence[str], table: str) -> str:
    """List columns for a statement, each with the name of its table before it."""
    return ", ".join(f"{table}.{name}" for name in names)


_ENTRY: Final = listed(ENTRY_COLUMNS, "e")
_EVENT: Final = listed(EVENT_COLUMNS, "v")
_TRANSACTION: Final = listed(TRANSACTION_COLUMNS, "t")
_SEQ: Final = "SELECT seq FROM entries ORDER BY seq DESC LIMIT 1"
_NUMBER: Final = "SELECT number FROM events ORDER BY number DESC LIMIT 1"
# One statement, so that all of it is read at one moment.
_HEAD: Final = (
    "SELECT l.epoch, coalesce(e.seq, 0), coalesce(e.hash, repeat('0', 64)),"
    f" coalesce(({_NUMBER}), 0), (SELECT count(*) FROM transactions),"
    " (SELECT coalesce(sum(count), 0)::bigint FROM repeats)"
    " FROM ledger l LEFT JOIN (SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1) e ON true"
)
_STREAM_HEADS: Final = (
    'SELECT s.stream, (SELECT e."offset" FROM events e WHERE e.stream = s.stream'
    ' ORDER BY e."offset" DESC LIMIT 1) FROM unnest($1::text[]) s(stream)'
)
_EVENTS: Final = (
    f'SELECT {_EVENT} FROM events v WHERE stream = $1 AND "offset" > $2 ORDER BY "offset" LIMIT $3'
)
_EVERY_EVENT: Final = f"SELECT {_EVENT} FROM events v WHERE number > $1 ORDER BY number LIMIT $2"
_LINES: Final = (
    f"SELECT {_ENTRY}, r.count, r.last_at, t.sale_seq, t.judge_seq, t.disputed"
    " FROM entries e LEFT JOIN repeats r ON r.seq = e.seq"
    " LEFT JOIN transactions t ON t.transaction_no = e.transaction_no"
    " AND t.merchant_no = e.merchant_no"
)
_SCOPED: Final = (
    " AND ($2::text IS NULL OR e.merchant_no = $2)"
    " AND ($3::text IS NULL OR coalesce(t.store_no, e.store_no, '-') = $3)"
)
_LINES_AFTER: Final = f"{_LINES} WHERE e.seq > $1{_SCOPED} AND e.seq <= $4 ORDER BY e.seq LIMIT $5"
_COUNTS_BETWEEN: Final = (
    "SELECT count(*), coalesce(sum(r.count), 0)::bigint FROM entries e"
    " LEFT JOIN repeats r ON r.seq = e.seq LEFT JOIN transactions t"
    " ON t.transaction_no = e.transaction_no AND t.merchant_no = e.merchant_no"
    f" WHERE e.seq > $1{_SCOPED} AND e.seq <= $4"
)
_COUNT_TRANSACTIONS: Final = (
    "SELECT count(*) FROM transactions WHERE merchant_no = $1"
    " AND ($2::text IS NULL OR coalesce(store_no, '-') = $2)"
)
# Steps from one stream of the merchant to the next: the newest offset is the number of events.
_COUNT_EVENTS: Final = (
    "WITH RECURSIVE s AS ("
    "(SELECT stream FROM events WHERE stream > $1 || '/' AND stream < $1 || '0'"
    " ORDER BY stream LIMIT 1) UNION ALL"
    " SELECT (SELECT e.stream FROM events e WHERE e.stream > s.stream AND e.stream < $1 || '0'"
    " ORDER BY e.stream LIMIT 1) FROM s WHERE s.stream IS NOT NULL)"
    ' SELECT coalesce(sum((SELECT max(e."offset") FROM events e WHERE e.stream = s.stream)),'
    " 0)::bigint FROM s WHERE ($2::text IS NULL OR s.stream = $1 || '/' || $2)"
)
_LINES_BETWEEN: Final = (
    f"{_LINES} WHERE e.seq > $1{_SCOPED} AND e.seq <= $4"
    " AND ($5::bigint IS NULL OR e.recorded_at >= $5)"
    " AND ($6::bigint IS NULL OR e.recorded_at < $6) ORDER BY e.seq"
)
_LINES_OF: Final = (
    f"{_LINES} WHERE e.transaction_no = $1 AND e.merchant_no = $2"
    f" UNION ALL {_LINES} WHERE e.seq = $3 ORDER BY seq"
)
_BY_SEQ: Final = f"SELECT {_ENTRY} FROM entries e WHERE seq = ANY ($1::bigint[])"
_TRANSACTIONS: Final = f"SELECT {_TRANSACTION} FROM transactions t"
_NEWEST_FIRST: Final = " ORDER BY created_at DESC, first_seq DESC LIMIT "
_OF_NUMBER: Final = (
    f"{_TRANSACTIONS} WHERE transaction_no = $1 AND ($2::text IS NULL OR merchant_no = $2)"
)
# What is to be raised comes first; cancels are always among the rest, however much is due.
_DUE: Final = (
    f"SELECT {_TRANSACTION} FROM ("
    f"SELECT * FROM ({_TRANSACTIONS} WHERE ask_due_at <= $1 AND ask_why = 'cancel'"
    " ORDER BY ask_due_at, first_seq LIMIT $2) c UNION "
    f"SELECT * FROM ({_TRANSACTIONS} WHERE ask_raise_at <= $1"
    " ORDER BY ask_raise_at, first_seq LIMIT $2) r UNION "
    f"SELECT * FROM ({_TRANSACTIONS} WHERE ask_due_at <= $1"
    " ORDER BY ask_due_at, first_seq LIMIT $2) d"
    ") t ORDER BY ask_raise_at IS NULL OR ask_raise_at > $1, ask_due_at, first_seq"
)
_DOUBTS: Final = (
    "SELECT ask_why, ask_raise_at IS NULL, count(*) FROM transactions"
    " WHERE ask_due_at IS NOT NULL AND ask_since <= $1 GROUP BY 1, 2"
)
_NEXT_DUE: Final = (
    "SELECT least("
    "(SELECT min(ask_due_at) FROM transactions WHERE ask_due_at IS NOT NULL),"
    " (SELECT min(ask_raise_at) FROM transactions WHERE ask_raise_at IS NOT NULL),"
    " (SELECT min(ask_due_at) FROM sales WHERE ask_due_at IS NOT NULL),"
    " (SELECT min(ask_raise_at) FROM sales WHERE ask_raise_at IS NOT NULL))"
)
# Each with its entry, and the entry of the wish to cancel it.
_SALES: Final = (
    f"SELECT {listed(SALE_COLUMNS, 's')}, {_ENTRY}, {listed(ENTRY_COLUMNS, 'w')}"
    " FROM sales s JOIN entries e ON e.seq = s.seq LEFT JOIN entries w ON w.seq = s.cancel_seq"
)
# Those with a cancel that somebody waits for come first.
_DUE_SALES: Final = (
    f"{_SALES} WHERE s.seq IN ("
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_due_at <= $1 AND cancel_seq IS NOT NULL"
    " ORDER BY ask_due_at, seq LIMIT $2) c UNION "
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_raise_at <= $1"
    " ORDER BY ask_raise_at, seq LIMIT $2) r UNION "
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_due_at <= $1"
    " ORDER BY ask_due_at, seq LIMIT $2) d"
    ") ORDER BY s.cancel_seq IS NULL, s.ask_due_at, s.seq"
)
# Those that use the reference come first.
_SALES_OF_REFERENCE: Final = (
    f"{_SALES} WHERE s.merchant_no = $1 AND s.reference = $2"
    " AND ($3::text IS NULL OR s.store_no = $3) ORDER BY s.is_refused, s.seq DESC LIMIT $4"
)
# Steps from one stream with a cancellation to the next, then on from its acks, not through all
# events.
_UNACKED: Final = (
    "WITH RECURSIVE s AS ("
    "(SELECT stream FROM events WHERE cancelled = 1 ORDER BY stream LIMIT 1) UNION ALL"
    " SELECT (SELECT e.stream FROM events e WHERE e.cancelled = 1 AND e.stream > s.stream"
    " ORDER BY e.stream LIMIT 1) FROM s WHERE s.stream IS NOT NULL)"
    ' SELECT e.stream, e."offset", n.transaction_no, n.recorded_at, e.body'
    " FROM s JOIN events e ON e.stream = s.stream AND e.cancelled = 1"
    ' AND e."offset" > coalesce((SELECT max(a.acked) FROM acks a WHERE a.stream = s.stream), 0)'
    " JOIN entries n ON n.seq = e.seq WHERE n.recorded_at < $1"
    " AND ($2::text IS NULL OR n.merchant_no = $2)"
    " AND ($3::text IS NULL OR e.stream = $2 || '/' || $3)"
    ' ORDER BY e.stream, e."offset" LIMIT $4'
)
# Terminals are few: as many as there are tills.
_ACKS: Final = (
    'SELECT terminal, stream, epoch, "offset", acked, acked_at FROM acks'
    " WHERE (terminal, stream) > ($1, $2)"
    " AND ($3::text IS NULL OR starts_with(stream, $3 || '/'))"
    " AND ($4::text IS NULL OR stream = $3 || '/' || $4) ORDER BY terminal, stream LIMIT $5"
)
_ACKED: Final = 'SELECT epoch, "offset" FROM acks WHERE terminal = $1 AND stream = $2'
_REMEMBERED: Final = (
    "SELECT request, status, body FROM answers WHERE key_id = $1 AND idempotency_key = $2"
)


async def seq(db: Connection) -> int:
    """Read the seq of the newest entry."""
    return await db.fetchval(_SEQ) or 0


async def head(db: Connection) -> Head:
    """Read the end of the ledger, and count what it holds."""
    (row,) = await db.fetch(_HEAD)
    return Head(
        epoch=row[0], seq=row[1], hash=row[2], events=row[3], transactions=row[4], repeats=row[5]
    )


async def stream_heads(db: Connection, *, streams: Sequence[str]) -> dict[str, int]:
    """Read the newest offset of each stream."""
    names = {packed(name): name for name in streams}
    heads = {names[row[0]]: row[1] or 0 for row in await db.fetch(_STREAM_HEADS, list(names))}
    if EVERY_STREAM in heads:
        heads[EVERY_STREAM] = await db.fetchval(_NUMBER) or 0
    return heads


async def events(db: Connection, *, stream: str, after: int, limit: int) -> list[Event]:
    """Read the events of a stream after an offset."""
    if stream == EVERY_STREAM:
        found = await db.fetch(_EVERY_EVENT, after, limit)
    else:
        found = await db.fetch(_EVENTS, packed(stream), after, limit)
    return [event_of(row) for row in found]


async def lines(
    db: Connection, *, after: int, upto: int, limit: int, scope: Scope
) -> list[ReadEntry]:
    """Read entries in a range of seqs."""
    values = (after, scope.merchant_no, scope.store_no, upto, limit)
    return await _lines_of(db, await db.fetch(_LINES_AFTER, *values))


async def counts_between(db: Connection, *, after: int, upto: int, scope: Scope) -> tuple[int, int]:
    """Count the entries in a range of seqs, and their repeats."""
    values = (after, scope.merchant_no, scope.store_no, upto)
    ((entries, repeats),) = await db.fetch(_COUNTS_BETWEEN, *values)
    return entries, repeats


async def count_transactions(db: Connection, *, scope: Scope) -> tuple[int, int]:
    """Count the transactions of a merchant or a store, and their events."""
    values = (scope.merchant_no, scope.store_no)
    transactions = await db.fetchval(_COUNT_TRANSACTIONS, *values)
    return transactions, await db.fetchval(_COUNT_EVENTS, *values)


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
    return await _lines_of(db, await db.fetch(_LINES_BETWEEN, *values))


async def lines_of(db: Connection, *, transaction: Transaction) -> list[ReadEntry]:
    """Read a transaction's entries, its sale's included."""
    number, merchant_no = packed(transaction.transaction_no), transaction.merchant_no
    rows = await db.fetch(_LINES_OF, number, merchant_no, transaction.sale_seq)
    return await _lines_of(db, rows)


async def by_seq(db: Connection, seqs: Sequence[int]) -> dict[int, Entry]:
    """Read entries by their seqs."""
    return {row[0]: entry_of(row) for row in await db.fetch(_BY_SEQ, seqs)} if seqs else {}


async def _lines_of(db: Connection, rows: Sequence[Any]) -> list[ReadEntry]:
    sales = await by_seq(db, sorted({seq for row in rows if (seq := row[-3] or row[-2])}))
    found = []
    for row in rows:
        entry = entry_of(row)
        count, last_at, sale_seq, judge_seq, disputed = (row[n] for n in range(-5, 0))
        deliveries = DeliveryCount(
            count=1 + (count or 0),
            first_at_ms=entry.recorded_at_ms,
            last_at_ms=last_at or entry.recorded_at_ms,
        )
        held = why_held_among(
            entry,
            sales.get(sale_seq or judge_seq),
            is_bound=sale_seq is not None,
            disputed=disputed,
        )
        found.append(ReadEntry(entry=entry, held=held, deliveries=deliveries))
    return found


async def transactions(
    db: Connection, *, search: Search, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page of transactions, newest first."""
    scope = search.scope
    values: list[object] = []

    def bound(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    # Each clause is a constant except for its parameter; the query only chooses among them.
    clauses = []
    if scope.merchant_no:
        clauses.append(f"merchant_no = {bound(scope.merchant_no)}")
    if scope.store_no == NO_STORE:
        clauses.append("store_no IS NULL")
    elif scope.store_no is not None:
        clauses.append(f"store_no = {bound(scope.store_no)}")
    if scope.terminal:
        clauses.append(f"terminal = {bound(packed(scope.terminal))}")
    if search.status:
        clauses.append(f"status = {bound(search.status.value)}")
        clauses += ["status <> 'paid'"] if search.status is not Status.PAID else []
    if search.reference:
        clauses.append(f"reference = {bound(packed(search.reference))}")
    if search.contains:
        part = bound(packed(search.contains))
        clauses.append(
            f'(strpos(lower(reference), lower({part} COLLATE "C")) > 0'
            f' OR strpos(lower(transaction_no), lower({part} COLLATE "C")) > 0)'
        )
    if search.since_ms is not None:
        clauses.append(f"created_at >= {bound(search.since_ms)}")
    if search.until_ms is not None:
        clauses.append(f"created_at < {bound(search.until_ms)}")
    if before:
        at, first = bound(before.created_at_ms), bound(before.first_seq)
        clauses.append(f"(created_at, first_seq) < ({at}, {first})")
    wanted = " AND ".join(clauses)
    statement = f"{_TRANSACTIONS} WHERE {wanted or 'true'}{_NEWEST_FIRST}{bound(limit)}"
    return [transaction_of(row) for row in await db.fetch(statement, *values)]


async def transactions_of_number(
    db: Connection, *, transaction_no: str, merchant_no: str | None
) -> list[Transaction]:
    """Read the transactions with a number."""
    found = await db.fetch(_OF_NUMBER, packed(transaction_no), merchant_no)
    return [transaction_of(row) for row in found]


async def doubts(db: Connection, *, now_ms: int) -> list[Doubts]:
    """Count the transactions that Pockyt is asked about."""
    return [
        Doubts(why=Why(why), is_raised=bool(waits_no_more) and not Why(why).is_calm, count=count)
        for why, waits_no_more, count in await db.fetch(_DOUBTS, now_ms)
    ]


async def due(db: Connection, *, now_ms: int, limit: int) -> list[Transaction]:
    """Read the transactions to ask about, or to raise, by now."""
    return [transaction_of(row) for row in await db.fetch(_DUE, now_ms, limit)]


async def due_sales(db: Connection, *, now_ms: int, limit: int) -> list[RecordedSale]:
    """Read the sales to look for by now."""
    return [_sale_of(row) for row in await db.fetch(_DUE_SALES, now_ms, limit)]


async def sales_of_reference(
    db: Connection, *, merchant_no: str, reference: str, store_no: str | None
) -> list[RecordedSale]:
    """Read the sales with a reference."""
    values = (merchant_no, packed(reference), store_no, SALES_MAX)
    return [_sale_of(row) for row in await db.fetch(_SALES_OF_REFERENCE, *values)]


def _sale_of(row: Any) -> RecordedSale:  # noqa: ANN401 - asyncpg's record
    """Read a sale, its entry, and the entry of the wish to cancel it."""
    entry_at = len(SALE_COLUMNS)
    wish_at = entry_at + len(ENTRY_COLUMNS)
    entry = entry_of(row[entry_at:wish_at])
    return RecordedSale(
        state=sale_of(row[:entry_at]),
        fact=entry.fact,
        recorded_at_ms=entry.recorded_at_ms,
        wish=entry_of(row[wish_at:]).fact if row[wish_at] is not None else None,
    )


async def next_due_ms(db: Connection) -> int | None:
    """Read when something is due next."""
    at: int | None = await db.fetchval(_NEXT_DUE)
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
        for row in await db.fetch(_UNACKED, before_ms, scope.merchant_no, scope.store_no, limit)
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
        for row in await db.fetch(_ACKS, *after, scope.merchant_no, scope.store_no, limit)
    ]


async def acked(db: Connection, *, terminal: str, stream: str) -> Acked | None:
    """Read where a terminal resumes in a stream."""
    row = await db.fetchrow(_ACKED, terminal, stream)
    return Acked(epoch=row[0], offset=row[1]) if row else None


async def remembered(db: Connection, *, key_id: str, idempotency_key: str) -> Remembered | None:
    """Read what is stored for an Idempotency-Key."""
    row = await db.fetchrow(_REMEMBERED, key_id, idempotency_key)
    return Remembered(request=row[0], status=row[1], body=row[2]) if row else None
