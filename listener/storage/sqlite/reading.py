"""Read the ledger on SQLite: one statement for each question, each a seek in an index."""

import sqlite3
from collections.abc import Sequence

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
from listener.storage.rows import Row, entry_of, event_of, transaction_of
from listener.storage.sqlite import selects, statements
from listener.storage.sqlite.bulk import read


def head(db: sqlite3.Connection) -> Head:
    """Read the end of the ledger."""
    epoch, seq, digest, events, repeats, transactions = db.execute(selects.HEAD).fetchone()
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
    (found,) = db.execute(selects.SEAL).fetchone()
    text: str = found
    return text


def stream_heads(db: sqlite3.Connection, streams: Sequence[str]) -> dict[str, int]:
    """Read the newest offset of each stream."""
    heads = dict.fromkeys(streams, 0)
    heads.update(read(db, statements.STREAM_HEADS, [(stream,) for stream in heads]))
    if EVERY_STREAM in heads:
        (heads[EVERY_STREAM],) = db.execute(selects.NUMBER).fetchone()
    return heads


def events(db: sqlite3.Connection, stream: str, *, after: int, limit: int) -> list[Event]:
    """Read the events of a stream after an offset."""
    if stream == EVERY_STREAM:
        return [event_of(row) for row in db.execute(selects.EVERY_EVENT, (after, limit))]
    return [event_of(row) for row in db.execute(selects.EVENTS_OF_STREAM, (stream, after, limit))]


def lines(
    db: sqlite3.Connection, *, after: int, upto: int, limit: int, scope: Scope
) -> list[ReadEntry]:
    """Read entries in a range of seqs."""
    values = (after, upto, scope.merchant_no, scope.store_no, limit)
    return _lines_of(db, db.execute(selects.LINES_AFTER, values).fetchall())


def counts_between(
    db: sqlite3.Connection, *, after: int, upto: int, scope: Scope
) -> tuple[int, int]:
    """Count the entries in a range of seqs, and their repeats."""
    values = (after, upto, scope.merchant_no, scope.store_no)
    entries, repeats = db.execute(selects.COUNTS_BETWEEN, values).fetchone()
    return entries, repeats


def count_transactions(db: sqlite3.Connection, *, scope: Scope) -> tuple[int, int]:
    """Count the transactions of a merchant or a store, and their events."""
    values = (scope.merchant_no, scope.store_no)
    (transactions,) = db.execute(selects.COUNT_TRANSACTIONS, values).fetchone()
    (events,) = db.execute(selects.COUNT_EVENTS, values).fetchone()
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
    return _lines_of(db, db.execute(selects.LINES_BETWEEN, values).fetchall())


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
    return _lines_of(db, db.execute(selects.LINES_OF, values).fetchall())


def _lines_of(db: sqlite3.Connection, rows: Sequence[Row]) -> list[ReadEntry]:
    seqs = [(seq,) for seq in judges_among(rows)]
    sales = {row[0]: entry_of(row) for row in read(db, statements.ENTRIES_AT, seqs)}
    return read_lines(rows, sales)


def transactions_of_number(
    db: sqlite3.Connection, transaction_no: str, *, merchant_no: str | None
) -> list[Transaction]:
    """Read the transactions with a number."""
    return [
        transaction_of(row)
        for row in db.execute(selects.TRANSACTIONS_OF_NUMBER, (transaction_no, merchant_no))
    ]


def doubts(db: sqlite3.Connection, *, now_ms: int) -> list[Doubts]:
    """Count the transactions that Pockyt is asked about."""
    return [
        Doubts(why=Why(why), is_raised=bool(waits_no_more) and not Why(why).is_calm, count=count)
        for why, waits_no_more, count in db.execute(selects.DOUBTS, (now_ms,))
    ]


def due(db: sqlite3.Connection, *, now_ms: int, limit: int) -> list[Transaction]:
    """Read the transactions to ask about, or to raise, by now."""
    return [transaction_of(row) for row in db.execute(selects.DUE, (now_ms, limit))]


def due_sales(db: sqlite3.Connection, *, now_ms: int, limit: int) -> list[RecordedSale]:
    """Read the sales to look for by now."""
    return [recorded_sale_of(row) for row in db.execute(selects.DUE_SALES, (now_ms, limit))]


def open_sales(
    db: sqlite3.Connection, *, scope: Scope, now_ms: int, limit: int
) -> list[RecordedSale]:
    """Read the sales without a number that Pockyt is asked about."""
    values = (now_ms, scope.merchant_no, scope.store_no, scope.terminal, limit)
    return [recorded_sale_of(row) for row in db.execute(selects.OPEN_SALES, values)]


def sales_of_reference(
    db: sqlite3.Connection, *, merchant_no: str, reference: str, store_no: str | None
) -> list[RecordedSale]:
    """Read the sales with a reference."""
    values = (merchant_no, reference, store_no, SALES_MAX)
    return [recorded_sale_of(row) for row in db.execute(selects.SALES_OF_REFERENCE, values)]


def next_due_ms(db: sqlite3.Connection) -> int | None:
    """Read when something is due next."""
    (at,) = db.execute(selects.NEXT_DUE).fetchone()
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
        for row in db.execute(selects.UNACKED, values)
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
        for row in db.execute(selects.ACKS, values)
    ]


def acked(db: sqlite3.Connection, *, terminal: str, stream: str) -> Acked | None:
    """Read where a terminal resumes in a stream."""
    row = db.execute(selects.ACKED, (terminal, stream)).fetchone()
    return Acked(epoch=row[0], offset=row[1]) if row else None


def remembered(db: sqlite3.Connection, *, key_id: str, idempotency_key: str) -> Remembered | None:
    """Read what is stored for an Idempotency-Key."""
    row = db.execute(selects.ANSWER, (key_id, idempotency_key)).fetchone()
    return Remembered(request=row[0], status=row[1], body=row[2]) if row else None
