"""Commit plain notifications that begin their transactions, in few steps.

Nearly every commit is of such notifications alone. The general way is the definition, and writes
the same rows (``tests/property/test_plain.py``); it is taken for everything else.
"""

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from listener.errors import ListenerError
from listener.ledger.batch import CANCELLATIONS
from listener.ledger.chain import columns, digest
from listener.ledger.model import NOTIFICATION, Entry, Event, Fact, stream_of
from listener.ledger.results import Recorded
from listener.ledger.schedule import Confirm
from listener.ledger.transaction import begin, event_text
from listener.ledger.wanted import Key
from listener.storage.rows import Row, event_row, plain_row
from listener.storage.sqlite import statements
from listener.storage.sqlite.bulk import put, read


class Committed(Struct, frozen=True):
    """What a batch became: for each fact, in order, its place or why it has none; the events.

    ``seq`` is that of the newest entry in the ledger, of this batch or an earlier one.
    """

    recorded: list[Recorded | ListenerError]
    events: list[Event]
    seq: int


def commit_plain(
    db: sqlite3.Connection, facts: Sequence[Fact], *, epoch: str, now_ms: int, confirm: Confirm
) -> Committed | None:
    """Append facts in one transaction, which the caller begins and ends.

    Returns:
        None, with nothing written, if a fact is not plain, or if something in the ledger or in
        another fact concerns it.
    """
    keys = [
        (fact.merchant_no, fact.transaction_no, fact.reference)
        for fact in facts
        if fact.kind is NOTIFICATION and fact.transaction_no
    ]
    if len(keys) < len(facts):
        return None
    first = stream_of(facts[0].merchant_no, facts[0].store_no)
    found = read(db, statements.PLACE, keys, before=(first,))
    if any(row[-1] for row in found):
        return None
    seq, entry_hash, number, head, _ = found[0]
    heads = {first: head or 0}
    begun: set[Key] = set()
    entries: list[Row] = []
    told: list[Row] = []
    states: list[Row] = []
    events: list[Event] = []
    recorded: list[Recorded | ListenerError] = []
    for fact in facts:
        seq += 1
        entry = Entry(seq=seq, recorded_at_ms=now_ms, fact=fact)
        step = begin(entry, confirm=confirm)
        key = (fact.merchant_no, fact.transaction_no)
        if step is None or key in begun:
            return None
        begun.add(key)
        row = columns(entry)
        entry_hash = digest(entry_hash, row)
        entries.append((*row, entry_hash))
        number += 1
        stream = stream_of(fact.merchant_no, fact.store_no)
        if stream not in heads:
            heads = {**_heads(db, facts), **heads}
        heads[stream] = offset = heads[stream] + 1
        before, after = event_text(step, entry, epoch=epoch)
        event = Event(number, stream, offset, seq, b"%b%d%b" % (before, seq, after))
        events.append(event)
        told.append(event_row(event, is_cancellation=step.event_type in CANCELLATIONS))
        states.append(plain_row(step.transaction))
        recorded.append(Recorded(seq, True, step.transaction, step.event_type))
    put(db, statements.ADD_ENTRIES, entries)
    put(db, statements.ADD_EVENTS, told)
    put(db, statements.PUT_STREAMS, heads.items())
    put(db, statements.ADD_PLAIN_TRANSACTIONS, states)
    db.execute(statements.PUT_HEAD, (seq, entry_hash, number, 0, len(facts)))
    return Committed(recorded, events, seq)


def _heads(db: sqlite3.Connection, facts: Sequence[Fact]) -> dict[str, int]:
    """Read the newest offsets of all streams that the facts belong to."""
    streams = {stream_of(fact.merchant_no, fact.store_no) for fact in facts}
    known = read(db, statements.STREAM_HEADS, [(stream,) for stream in streams])
    return {**dict.fromkeys(streams, 0), **dict(known)}
