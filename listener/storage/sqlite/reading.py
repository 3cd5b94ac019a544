"""Read the ledger on SQLite: one statement a question, each a seek in an index."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from listener.ledger.model import (
    EVERY_STREAM,
    NO_STORE,
    Deliveries,
    Event,
    Status,
    Transaction,
    Why,
)
from listener.ledger.promise import (
    Ack,
    Cursor,
    Doubts,
    Head,
    Line,
    RecordedSale,
    Remembered,
    Scope,
    Search,
    Unacked,
)
from listener.ledger.status import why_held
from listener.storage.sqlite.bulk import Row, read
from listener.storage.sqlite.rows import (
    ENTRY_COLUMNS,
    EVENT_COLUMNS,
    TRANSACTION_COLUMNS,
    entry_of,
    event_of,
    transaction_of,
)
from listener.storage.sqlite.statements import READ_BY_SEQ, READ_STREAMS, prefixed

_HEAD: Final = "SELECT epoch, seq, hash, number, repeats, transactions FROM ledger"
_EVENTS: Final = (
    f'SELECT {EVENT_COLUMNS} FROM events WHERE stream = ? AND "offset" > ?'
    ' ORDER BY "offset" LIMIT ?'
)
_EVERY_EVENT: Final = f"SELECT {EVENT_COLUMNS} FROM events WHERE number > ? ORDER BY number LIMIT ?"
_LINES: Final = (
    f"SELECT {prefixed(ENTRY_COLUMNS, 'e')}, r.count, r.last_at, t.sale_seq"
    " FROM entries e LEFT JOIN repeats r ON r.seq = e.seq"
    " LEFT JOIN transactions t ON t.transaction_no = e.transaction_no"
    " AND t.merchant_no = e.merchant_no"
)
_LINES_AFTER: Final = (
    f"{_LINES} WHERE e.seq > ?1 AND (?2 IS NULL OR e.merchant_no = ?2)"
    " AND (?3 IS NULL OR coalesce(t.store_no, e.store_no, '-') = ?3) ORDER BY e.seq LIMIT ?4"
)
_LINES_BETWEEN: Final = (
    f"{_LINES} WHERE e.seq > ?1 AND e.seq <= ?2 AND (?3 IS NULL OR e.recorded_at >= ?3)"
    " AND (?4 IS NULL OR e.recorded_at < ?4) AND (?5 IS NULL OR e.merchant_no = ?5)"
    " AND (?6 IS NULL OR coalesce(t.store_no, e.store_no, '-') = ?6) ORDER BY e.seq"
)
_LINES_OF: Final = (
    f"{_LINES} WHERE (e.transaction_no = ?1 AND e.merchant_no = ?2) OR e.seq = ?3 ORDER BY e.seq"
)
_TRANSACTIONS: Final = f"SELECT {TRANSACTION_COLUMNS} FROM transactions"
_NEWEST_FIRST: Final = " ORDER BY created_at DESC, first_seq DESC LIMIT :limit"
_OF_NUMBER: Final = (
    f"{_TRANSACTIONS} WHERE transaction_no = ?1 AND (?2 IS NULL OR merchant_no = ?2)"
)
# What is to be raised comes first: it must not wait behind questions that Pockyt does not answer.
_DUE: Final = (
    f"SELECT {TRANSACTION_COLUMNS} FROM ("
    f"SELECT * FROM ({_TRANSACTIONS} WHERE ask_due_at <= ?1 ORDER BY ask_due_at LIMIT ?2)"
    " UNION "
    f"SELECT * FROM ({_TRANSACTIONS} WHERE ask_raise_at <= ?1 ORDER BY ask_raise_at LIMIT ?2)"
    ") ORDER BY ask_raise_at IS NULL OR ask_raise_at > ?1, ask_due_at LIMIT ?2"
)
# Only what is asked about is in this index; nearly nothing is, whatever the ledger's size.
_DOUBTS: Final = (
    "SELECT ask_why, ask_raise_at IS NULL, count(*) FROM transactions INDEXED BY transactions_due"
    " WHERE ask_due_at IS NOT NULL AND ask_since <= ? GROUP BY 1, 2"
)
_NEXT_DUE: Final = (
    "SELECT min(at) FROM (SELECT min(ask_due_at) AS at FROM transactions"
    " WHERE ask_due_at IS NOT NULL UNION ALL SELECT min(ask_raise_at) FROM transactions"
    " WHERE ask_raise_at IS NOT NULL UNION ALL SELECT min(ask_due_at) FROM sales"
    " WHERE ask_due_at IS NOT NULL)"
)
_SALES: Final = (
    f"SELECT {prefixed(ENTRY_COLUMNS, 'e')}, s.transaction_no"
    " FROM sales s JOIN entries e ON e.seq = s.seq"
)
_DUE_SALES: Final = f"{_SALES} WHERE s.ask_due_at <= ? ORDER BY s.ask_due_at LIMIT ?"
_SALE: Final = f"{_SALES} WHERE s.merchant_no = ? AND s.reference = ?"
# CROSS JOIN keeps the order: stream by stream past its acks, not through all cancellations ever.
_UNACKED: Final = (
    'SELECT e.stream, e."offset", n.transaction_no, n.recorded_at FROM streams s'
    " CROSS JOIN events e INDEXED BY events_cancelled ON e.stream = s.stream AND e.cancelled = 1"
    ' AND e."offset" > coalesce((SELECT max("offset") FROM acks WHERE stream = s.stream), 0)'
    " CROSS JOIN entries n ON n.seq = e.seq WHERE n.recorded_at < ? LIMIT ?"
)
_ACKS: Final = 'SELECT terminal, stream, "offset", acked_at FROM acks ORDER BY terminal, stream'
_ACKED: Final = 'SELECT "offset" FROM acks WHERE terminal = ? AND stream = ?'
_REMEMBERED: Final = (
    "SELECT request, status, body FROM answers WHERE key_id = ? AND idempotency_key = ?"
)


def head(db: sqlite3.Connection) -> Head:
    """Read the end of the ledger."""
    epoch, seq, digest, events, repeats, transactions = db.execute(_HEAD).fetchone()
    return Head(
        epoch=epoch,
        seq=seq,
        hash=digest,
        events=events,
        transactions=transactions,
        repeats=repeats,
    )


def stream_heads(db: sqlite3.Connection, streams: Sequence[str]) -> dict[str, int]:
    """Read the newest offset of each stream."""
    heads = dict.fromkeys(streams, 0)
    heads.update(read(db, READ_STREAMS, [(stream,) for stream in heads]))
    if EVERY_STREAM in heads:
        (heads[EVERY_STREAM],) = db.execute("SELECT number FROM ledger").fetchone()
    return heads


def events(db: sqlite3.Connection, stream: str, *, after: int, limit: int) -> list[Event]:
    """Read a stream past an offset."""
    if stream == EVERY_STREAM:
        return [event_of(row) for row in db.execute(_EVERY_EVENT, (after, limit))]
    return [event_of(row) for row in db.execute(_EVENTS, (stream, after, limit))]


def lines(db: sqlite3.Connection, *, after: int, limit: int, scope: Scope) -> list[Line]:
    """Read entries past a seq."""
    rows = db.execute(_LINES_AFTER, (after, scope.merchant_no, scope.store_no, limit))
    return _lines_of(db, rows.fetchall())


def lines_between(
    db: sqlite3.Connection,
    *,
    after: int,
    upto: int,
    since_ms: int | None,
    until_ms: int | None,
    scope: Scope,
) -> list[Line]:
    """Read those entries of a range of seqs that were recorded in a time, and may be seen."""
    values = (after, upto, since_ms, until_ms, scope.merchant_no, scope.store_no)
    return _lines_of(db, db.execute(_LINES_BETWEEN, values).fetchall())


def lines_of(db: sqlite3.Connection, transaction: Transaction) -> list[Line]:
    """Read a transaction's entries, its sale's included."""
    key = (transaction.transaction_no, transaction.merchant_no, transaction.sale_seq)
    return _lines_of(db, db.execute(_LINES_OF, key).fetchall())


def _lines_of(db: sqlite3.Connection, rows: Sequence[Row]) -> list[Line]:
    sale_seqs = {(row[-1],) for row in rows if row[-1]}
    sales = {row[0]: entry_of(row) for row in read(db, READ_BY_SEQ, sale_seqs)}
    found = []
    for row in rows:
        entry, (count, last_at, sale_seq) = entry_of(row), row[-3:]
        deliveries = Deliveries(
            count=1 + (count or 0),
            first_at_ms=entry.recorded_at_ms,
            last_at_ms=last_at or entry.recorded_at_ms,
        )
        held = why_held(entry, sales.get(sale_seq))
        found.append(Line(entry=entry, held=held, deliveries=deliveries))
    return found


def transactions(
    db: sqlite3.Connection, search: Search, *, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page of transactions, newest first."""
    scope = search.scope
    # Each clause is a constant; what was asked for only chooses among them.
    clauses = {
        # The index by store cannot give one merchant's rows in the order of time.
        "+merchant_no = :merchant": scope.merchant_no and not scope.store_no,
        "merchant_no = :merchant AND store_no = :store": scope.store_no not in (None, NO_STORE),
        "merchant_no = :merchant AND store_no IS NULL": scope.store_no == NO_STORE,
        "terminal = :terminal": scope.terminal,
        "status = :status": search.status,
        "status <> 'paid'": search.status and search.status is not Status.PAID,
        "reference = :reference": search.reference,
        "created_at >= :since": search.since_ms is not None,
        "created_at < :until": search.until_ms is not None,
        "created_at <= :at AND (created_at < :at OR first_seq < :seq)": before,
    }
    wanted = " AND ".join(clause for clause, given in clauses.items() if given)
    statement = f"{_TRANSACTIONS} WHERE {wanted or 'true'}{_NEWEST_FIRST}"
    values = {
        "merchant": scope.merchant_no,
        "store": scope.store_no,
        "terminal": scope.terminal,
        "status": search.status,
        "reference": search.reference,
        "since": search.since_ms,
        "until": search.until_ms,
        "at": before.created_at_ms if before else None,
        "seq": before.first_seq if before else None,
        "limit": limit,
    }
    return [transaction_of(row) for row in db.execute(statement, values)]


def transactions_of_number(
    db: sqlite3.Connection, transaction_no: str, *, merchant_no: str | None
) -> list[Transaction]:
    """Read the transactions of a number."""
    return [transaction_of(row) for row in db.execute(_OF_NUMBER, (transaction_no, merchant_no))]


def doubts(db: sqlite3.Connection, *, now_ms: int) -> list[Doubts]:
    """Count what is in doubt now and asked about."""
    return [
        Doubts(why=Why(why), is_raised=bool(waits_no_more) and not Why(why).is_calm, count=count)
        for why, waits_no_more, count in db.execute(_DOUBTS, (now_ms,))
    ]


def due(db: sqlite3.Connection, *, now_ms: int, limit: int) -> list[Transaction]:
    """Read what is to be asked about, or raised, by now."""
    return [transaction_of(row) for row in db.execute(_DUE, (now_ms, limit))]


def due_sales(db: sqlite3.Connection, *, now_ms: int, limit: int) -> list[RecordedSale]:
    """Read the sales that are to be looked for by now."""
    return [_sale_of(row) for row in db.execute(_DUE_SALES, (now_ms, limit))]


def sale(db: sqlite3.Connection, *, merchant_no: str, reference: str) -> RecordedSale | None:
    """Read the sale of a reference."""
    row = db.execute(_SALE, (merchant_no, reference)).fetchone()
    return _sale_of(row) if row else None


def _sale_of(row: Row) -> RecordedSale:
    entry = entry_of(row)
    return RecordedSale(
        seq=entry.seq,
        fact=entry.fact,
        recorded_at_ms=entry.recorded_at_ms,
        transaction_no=row[-1],
    )


def next_due_ms(db: sqlite3.Connection) -> int | None:
    """Read when something is due next."""
    (at,) = db.execute(_NEXT_DUE).fetchone()
    found: int | None = at
    return found


def unacked(db: sqlite3.Connection, *, before_ms: int, limit: int) -> list[Unacked]:
    """Read the cancellations that no terminal of their stream has acknowledged."""
    return [
        Unacked(stream=row[0], offset=row[1], transaction_no=row[2], recorded_at_ms=row[3])
        for row in db.execute(_UNACKED, (before_ms, limit))
    ]


def acks(db: sqlite3.Connection) -> list[Ack]:
    """Read how far every terminal has come."""
    return [
        Ack(terminal=row[0], stream=row[1], offset=row[2], acked_at_ms=row[3])
        for row in db.execute(_ACKS)
    ]


def acked(db: sqlite3.Connection, *, terminal: str, stream: str) -> int | None:
    """Read how far a terminal has come in a stream."""
    row = db.execute(_ACKED, (terminal, stream)).fetchone()
    return row[0] if row else None


def remembered(db: sqlite3.Connection, *, key_id: str, idempotency_key: str) -> Remembered | None:
    """Read what is kept under an Idempotency-Key."""
    row = db.execute(_REMEMBERED, (key_id, idempotency_key)).fetchone()
    return Remembered(request=row[0], status=row[1], body=row[2]) if row else None
