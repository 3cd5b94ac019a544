"""Commit a group of facts to SQLite: read what they need, decide them, write the changes.

Runs within a transaction that holds the ledger's write lock. So the head does not change between
reading and writing, and every number is final.
"""

import sqlite3
from collections.abc import Sequence

from listener.ledger.batch import Changes, decide, number_events
from listener.ledger.chain import columns, digest
from listener.ledger.model import Entry, Event, Fact
from listener.ledger.schedule import Confirm
from listener.ledger.wanted import Seen, judges_of, to_compare, to_sum_up, wanted
from listener.storage.rows import (
    Row,
    entry_of,
    event_row,
    is_plain,
    plain_row,
    sale_of,
    sale_row,
    transaction_of,
    transaction_row,
)
from listener.storage.sqlite import statements
from listener.storage.sqlite.bulk import put, read
from listener.storage.sqlite.plain import Committed, commit_plain


def commit(
    db: sqlite3.Connection, facts: Sequence[Fact], *, epoch: str, now_ms: int, confirm: Confirm
) -> Committed:
    """Append facts in one transaction, which the caller begins and ends."""
    plain = commit_plain(db, facts, epoch=epoch, now_ms=now_ms, confirm=confirm)
    if plain is not None:
        return plain
    seq, previous, number = db.execute(statements.HEAD_TO_APPEND).fetchone()
    seen = _see(db, facts, seq=seq)
    changes = decide(facts, seen, epoch=epoch, now_ms=now_ms, confirm=confirm)
    rows = _chained(changes.entries, previous=previous)
    streams = {(event.stream,) for event in changes.events}
    heads: dict[str, int] = dict(read(db, statements.STREAM_HEADS, streams))
    events = number_events(changes.events, number=number, heads=heads)
    put(db, statements.ADD_ENTRIES, rows)
    _write_events(db, changes, events)
    _write_states(db, changes, now_ms=now_ms)
    head = (
        seq + len(rows),
        rows[-1][-1] if rows else previous,
        number + len(events),
        sum(changes.repeats.values()),
        len(changes.begun),
    )
    db.execute(statements.PUT_HEAD, head)
    return Committed(changes.recorded, events, head[0])


def _see(db: sqlite3.Connection, facts: Sequence[Fact], *, seq: int) -> Seen:
    """Read the part of the ledger that is needed to decide these facts."""
    wants = wanted(facts)
    found = read(db, statements.STATES_OF, wants.transactions)
    transactions = [transaction_of(row) for row in found]
    unbound: dict[tuple[str, str], int] = {
        (merchant_no, reference): sale_seq
        for merchant_no, reference, sale_seq in read(db, statements.UNBOUND, wants.notified)
    }
    if not (found or unbound or wants.unnumbered or wants.sales or wants.references):
        # Nearly always, nothing in the ledger concerns them.
        return Seen(seq=seq)
    whole = to_sum_up(facts, transactions, unbound)
    same = to_compare(wants, transactions, whole)
    rows = read(db, statements.ENTRIES_OF, whole) + read(db, statements.ENTRIES_LIKE, same)
    named = wants.sales | set(unbound.values())
    seqs = named | judges_of(transactions)
    sales = read(db, statements.ENTRIES_AT, [(sale_seq,) for sale_seq in seqs])
    states = read(db, statements.SALES_AT, [(sale_seq,) for sale_seq in named])
    references = read(db, statements.REFERENCES, wants.references)
    return Seen(
        seq=seq,
        entries=[entry_of(row) for row in rows],
        transactions=transactions,
        sales={row[0]: entry_of(row) for row in sales},
        sale_states={row[0]: sale_of(row) for row in states},
        references=frozenset(references),
        unbound=unbound,
    )


def _chained(entries: Sequence[Entry], *, previous: str) -> list[Row]:
    """Return the rows of new entries, each with its hash."""
    rows: list[Row] = []
    for entry in entries:
        row = columns(entry)
        previous = digest(previous, row)
        rows.append((*row, previous))
    return rows


def _write_events(db: sqlite3.Connection, changes: Changes, events: Sequence[Event]) -> None:
    rows = [
        event_row(event, is_cancellation=new.is_cancellation)
        for new, event in zip(changes.events, events, strict=True)
    ]
    put(db, statements.ADD_EVENTS, rows)
    # The last event of each stream counts.
    heads = {event.stream: event.offset for event in events}
    put(db, statements.PUT_STREAMS, [*heads.items()])


def _write_states(db: sqlite3.Connection, changes: Changes, *, now_ms: int) -> None:
    plain: list[Row] = []
    others: list[Row] = []
    for transaction in changes.transactions.values():
        if is_plain(transaction):
            plain.append(plain_row(transaction))
        else:
            others.append(transaction_row(transaction))
    put(db, statements.PUT_PLAIN_TRANSACTIONS, plain)
    put(db, statements.PUT_TRANSACTIONS, others)
    put(db, statements.PUT_SALES, [sale_row(sale) for sale in changes.sales.values()])
    repeats = [(seq, count, now_ms) for seq, count in changes.repeats.items()]
    put(db, statements.PUT_REPEATS, repeats)
