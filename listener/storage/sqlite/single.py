"""Commit one plain notification that begins its transaction, in fewer steps than any batch takes.

While few notifications come, nearly every commit is this one. The general way is the definition,
and writes the same rows (``tests/property/test_single.py``); it is taken for everything else.
"""

import sqlite3

from listener.ledger.batch import new_event
from listener.ledger.chain import columns, digest
from listener.ledger.model import NOTIFICATION, Entry, Event, Fact, stream_of
from listener.ledger.results import Recorded
from listener.ledger.schedule import Confirm
from listener.ledger.transaction import begin
from listener.storage.rows import event_row, plain_row
from listener.storage.sqlite import statements
from listener.storage.sqlite.bulk import put


def commit_single(
    db: sqlite3.Connection, fact: Fact, *, epoch: str, now_ms: int, confirm: Confirm
) -> tuple[Recorded, Event] | None:
    """Append a fact in one transaction, which the caller begins and ends.

    Returns:
        Its place and its event; None, with nothing written, where it is not plain, or where the
        ledger knows something that concerns it.
    """
    merchant_no, number = fact.merchant_no, fact.transaction_no
    if not number or fact.kind is not NOTIFICATION:
        return None
    stream = stream_of(merchant_no, fact.store_no)
    keys = (stream, merchant_no, number, merchant_no, fact.reference)
    seq, previous, event_number, head, is_known = db.execute(statements.SINGLE, keys).fetchone()
    if is_known:
        return None
    entry = Entry(seq=seq + 1, recorded_at_ms=now_ms, fact=fact)
    step = begin(entry, confirm=confirm)
    new = new_event(step, entry, epoch=epoch) if step is not None else None
    if step is None or new is None:
        return None
    row = columns(entry)
    entry_hash = digest(previous, row)
    event = Event(
        number=event_number + 1,
        stream=stream,
        offset=(head or 0) + 1,
        seq=entry.seq,
        body=new.body.encode(),
    )
    told = event_row(event, is_cancellation=new.is_cancellation)
    put(db, statements.ADD_ENTRIES, [(*row, entry_hash)])
    put(db, statements.ADD_EVENTS, [told])
    put(db, statements.PUT_STREAMS, [(stream, event.offset)])
    put(db, statements.PUT_PLAIN_TRANSACTIONS, [plain_row(step.transaction)])
    db.execute(statements.PUT_HEAD, (entry.seq, entry_hash, event.number, 0, 1))
    recorded = Recorded(
        seq=entry.seq, is_new=True, transaction=step.transaction, event_type=step.event_type
    )
    return recorded, event
