"""Read the ledger on SQLite: one statement for each question, each a seek in an index."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from listener.ledger.chain import ENTRY_COLUMNS
from listener.ledger.model import (
    EVERY_STREAM,
    NO_STORE,
    DeliveryCount,
    Event,
    Status,
    Transaction,
    Why,
)
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
from listener.ledger.scope import Cursor, Scope, Search
from listener.ledger.transaction import why_held_among
from listener.storage.rows import SALE_COLUMNS, Row, entry_of, event_of, sale_of, transaction_of
from listener.storage.sqlite import statements
from listener.storage.sqlite.bulk import read

# How many sales of one reference are read: those that use it, and the newest refused ones.
SALES_MAX: Final = 64


def head(db: sqlite3.Connection) -> Head:
    """Read the end of the ledger."""
    epoch, seq, digest, events, repeats, transactions = db.execute(statements.HEAD).fetchone()
    return Head(
        epoch=epoch,
        seq=seq,
        hash=digest,
        events=events,
        transactions=transactions,
        repeats=repeats,
    )


def secret(db: sqlite3.Connection) -> str:
    """Read the secret of this ledger."""
    (found,) = db.execute(statements.SEAL).fetchone()
    text: str = found
    return text


def stream_heads(db: sqlite3.Connection, streams: Sequence[str]) -> dict[str, int]:
    """Read the newest offset of each stream."""
    heads = dict.fromkeys(streams, 0)
    heads.update(read(db, statements.STREAM_HEADS, [(stream,) for stream in heads]))
    if EVERY_STREAM in heads:
        (heads[EVERY_STREAM],) = db.execute(statements.NUMBER).fetchone()
    return heads


def events(db: sqlite3.Connection, stream: str, *, after: int, limit: int) -> list[Event]:
    """Read the events of a stream after an offset."""
    if stream == EVERY_STREAM:
        return [event_of(row) for row in db.execute(statements.EVERY_EVENT, (after, limit))]
    return [
        event_of(row) for row in db.execute(statements.EVENTS_OF_STREAM, (stream, after, limit))
    ]


def lines(
    db: sqlite3.Connection, *, after: int, upto: int, limit: int, scope: Scope
) -> list[ReadEntry]:
    """Read entries in a range of seqs."""
    values = (after, upto, scope.merchant_no, scope.store_no, limit)
    return _lines_of(db, db.execute(statements.LINES_AFTER, values).fetchall())


def counts_between(
    db: sqlite3.Connection, *, after: int, upto: int, scope: Scope
) -> tuple[int, int]:
    """Count the entries in a range of seqs, and their repeats."""
    values = (after, upto, scope.merchant_no, scope.store_no)
    entries, repeats = db.execute(statements.COUNTS_BETWEEN, values).fetchone()
    return entries, repeats


def count_transactions(db: sqlite3.Connection, *, scope: Scope) -> tuple[int, int]:
    """Count the transactions of a merchant or a store, and their events."""
    values = (scope.merchant_no, scope.store_no)
    (transactions,) = db.execute(statements.COUNT_TRANSACTIONS, values).fetchone()
    (events,) = db.execute(statements.COUNT_EVENTS, values).fetchone()
    return transactions, events


def lines_between(
    db: sqlite3.Connection,
    *,
    after: int,
    upto: int,
    since_ms: int | None,
    until_ms: int | None,
    scope: Scope,
) -> list[ReadEntry]:
    """Read the entries in a range of seqs and times that a scope covers."""
    values = (after, upto, since_ms, until_ms, scope.merchant_no, scope.store_no)
    return _lines_of(db, db.execute(statements.LINES_BETWEEN, values).fetchall())


def lines_of(
    db: sqlite3.Connection,
    transaction: Transaction,
    *,
    after: int,
    limit: int | None,
    notifications: bool,
) -> list[ReadEntry]:
    """Read a transaction's entries past a seq, its sale's included."""
    key = (transaction.transaction_no, transaction.merchant_no, transaction.sale_seq)
    values = (*key, after, -1 if limit is None else limit, notifications)
    return _lines_of(db, db.execute(statements.LINES_OF, values).fetchall())


def _lines_of(db: sqlite3.Connection, rows: Sequence[Row]) -> list[ReadEntry]:
    sale_seqs = {(seq,) for row in rows if (seq := row[-3] or row[-2])}
    sales = {row[0]: entry_of(row) for row in read(db, statements.ENTRIES_AT, sale_seqs)}
    found = []
    for row in rows:
        entry, (count, last_at, sale_seq, judge_seq, disputed) = entry_of(row), row[-5:]
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


def transactions(
    db: sqlite3.Connection, search: Search, *, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page of transactions, newest first."""
    scope, status = search.scope, search.status
    # The condition that finds the fewest rows comes first, with its own index. A + stops SQLite
    # from choosing another index for having more columns, and walking through a whole store.
    by_status = status not in (None, Status.PAID)
    leader = "reference" if search.reference else "terminal" if scope.terminal else None
    leader = leader or ("status" if by_status else "store" if scope.store_no else "time")
    if leader == "time" and scope.merchant_no:
        return _of_every_store(db, search, before=before, limit=limit)
    by_store = leader == "store" or (leader == "terminal" and scope.store_no is not None)
    has_store = scope.store_no not in (None, NO_STORE)
    has_none = scope.store_no == NO_STORE
    # Each clause is a constant; the query only chooses among them.
    clauses = {
        "+merchant_no = :merchant": scope.merchant_no and not by_store,
        "merchant_no = :merchant": scope.merchant_no and by_store,
        "+store_no = :store": has_store and not by_store,
        "store_no = :store": has_store and by_store,
        "+store_no IS NULL": has_none and not by_store,
        "store_no IS NULL": has_none and by_store,
        "+terminal = :terminal": scope.terminal and leader != "terminal",
        "terminal = :terminal": leader == "terminal",
        "+status = :status": status and leader != "status",
        "status = :status AND status <> 'paid'": leader == "status",
        "reference = :reference": search.reference,
        statements.CONTAINS: search.contains,
        "created_at >= :since": search.since_ms is not None,
        "created_at < :until": search.until_ms is not None,
        "created_at <= :at AND (created_at < :at OR first_seq < :seq)": before,
    }
    wanted = " AND ".join(clause for clause, given in clauses.items() if given)
    statement = f"{statements.TRANSACTIONS} WHERE {wanted or 'true'}{statements.NEWEST_FIRST}"
    values = {
        "merchant": scope.merchant_no,
        "store": scope.store_no,
        "terminal": scope.terminal,
        "status": search.status,
        "reference": search.reference,
        "part": _like(search.contains) if search.contains else None,
        "since": search.since_ms,
        "until": search.until_ms,
        "at": before.created_at_ms if before else None,
        "seq": before.first_seq if before else None,
        "limit": limit,
    }
    return [transaction_of(row) for row in db.execute(statement, values)]


def _like(part: str) -> str:
    """Return the LIKE pattern for a text anywhere in a value, without wildcards in the text."""
    for char in ("\\", "%", "_"):
        part = part.replace(char, f"\\{char}")
    return f"%{part}%"


def _of_every_store(
    db: sqlite3.Connection, search: Search, *, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page store by store: by time alone, a small merchant's lines are hard to find."""
    merchant_no = search.scope.merchant_no
    stores = [store_no for (store_no,) in db.execute(statements.STORES_OF, (merchant_no,))]
    found: list[Transaction] = []
    for store_no in (*stores, NO_STORE):
        of_store = replace(search, scope=replace(search.scope, store_no=store_no))
        found += transactions(db, of_store, before=before, limit=limit)
    found.sort(key=lambda one: (one.created_at_ms, one.first_seq), reverse=True)
    return found[:limit]


def transactions_of_number(
    db: sqlite3.Connection, transaction_no: str, *, merchant_no: str | None
) -> list[Transaction]:
    """Read the transactions with a number."""
    return [
        transaction_of(row)
        for row in db.execute(statements.TRANSACTIONS_OF_NUMBER, (transaction_no, merchant_no))
    ]


def doubts(db: sqlite3.Connection, *, now_ms: int) -> list[Doubts]:
    """Count the transactions that Pockyt is asked about."""
    return [
        Doubts(why=Why(why), is_raised=bool(waits_no_more) and not Why(why).is_calm, count=count)
        for why, waits_no_more, count in db.execute(statements.DOUBTS, (now_ms,))
    ]


def due(db: sqlite3.Connection, *, now_ms: int, limit: int) -> list[Transaction]:
    """Read the transactions to ask about, or to raise, by now."""
    return [transaction_of(row) for row in db.execute(statements.DUE, (now_ms, limit))]


def due_sales(db: sqlite3.Connection, *, now_ms: int, limit: int) -> list[RecordedSale]:
    """Read the sales to look for by now."""
    return [_sale_of(row) for row in db.execute(statements.DUE_SALES, (now_ms, limit))]


def sales_of_reference(
    db: sqlite3.Connection, *, merchant_no: str, reference: str, store_no: str | None
) -> list[RecordedSale]:
    """Read the sales with a reference."""
    values = (merchant_no, reference, store_no, SALES_MAX)
    return [_sale_of(row) for row in db.execute(statements.SALES_OF_REFERENCE, values)]


def _sale_of(row: Row) -> RecordedSale:
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


def next_due_ms(db: sqlite3.Connection) -> int | None:
    """Read when something is due next."""
    (at,) = db.execute(statements.NEXT_DUE).fetchone()
    found: int | None = at
    return found


def unacked(db: sqlite3.Connection, *, before_ms: int, scope: Scope, limit: int) -> list[Unacked]:
    """Read the cancellations that no terminal of their stream has acknowledged."""
    values = (before_ms, scope.merchant_no, scope.store_no, limit)
    return [
        Unacked(
            stream=row[0],
            offset=row[1],
            transaction_no=row[2],
            recorded_at_ms=row[3],
            body=row[4],
        )
        for row in db.execute(statements.UNACKED, values)
    ]


def acks(
    db: sqlite3.Connection, *, after: tuple[str, str], scope: Scope, limit: int
) -> list[StoredAck]:
    """Read how far terminals have come, after a terminal and stream."""
    values = (*after, scope.merchant_no, scope.store_no, limit)
    return [
        StoredAck(
            terminal=row[0],
            stream=row[1],
            epoch=row[2],
            offset=row[3],
            acked=row[4],
            acked_at_ms=row[5],
        )
        for row in db.execute(statements.ACKS, values)
    ]


def acked(db: sqlite3.Connection, *, terminal: str, stream: str) -> Acked | None:
    """Read where a terminal resumes in a stream."""
    row = db.execute(statements.ACKED, (terminal, stream)).fetchone()
    return Acked(epoch=row[0], offset=row[1]) if row else None


def remembered(db: sqlite3.Connection, *, key_id: str, idempotency_key: str) -> Remembered | None:
    """Read what is stored for an Idempotency-Key."""
    row = db.execute(statements.ANSWER, (key_id, idempotency_key)).fetchone()
    return Remembered(request=row[0], status=row[1], body=row[2]) if row else None
