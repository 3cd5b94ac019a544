"""Read each transaction of a SQLite ledger with its entries and events, and replay it."""

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from listener.errors import DamagedError
from listener.ledger.model import Entry
from listener.ledger.replay import Replay, StoredEvent, differs
from listener.storage.rows import entry_of, transaction_of
from listener.storage.sqlite import statements


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found of one transaction: how many entries, and what is wrong first."""

    entries: int
    damage: DamagedError | None


def replay(db: sqlite3.Connection, *, event_seqs: "array[int]") -> Iterator[Outcome]:
    """Replay every transaction; ``event_seqs`` are the entries of events 1, 2, 3 and so on."""
    replaying = Replay()
    rows = db.execute(statements.ENTRIES_BY_TRANSACTION)
    stored = db.execute(statements.TRANSACTIONS_BY_NUMBER)
    row = stored.fetchone()
    for key, group in groupby(rows, key=lambda row: (row[5], row[3])):
        # What is stored without an entry sorts before the next that has some.
        while row is not None and (row[2], row[1]) < key:
            yield Outcome(0, differs(row[0], f"transaction {row[2]} has no entries"))
            row = stored.fetchone()
        entries = sorted((entry_of(one) for one in group), key=lambda entry: entry.seq)
        if row is not None and (row[2], row[1]) == key:
            damage = replaying.check(
                entries,
                stored=transaction_of(row),
                events=_events_of(db, entries, event_seqs),
                sales=_sales_of(db, entries),
            )
            yield Outcome(len(entries), damage)
            row = stored.fetchone()
        else:
            damage = differs(entries[0].seq, f"transaction {key[0]} is missing")
            yield Outcome(len(entries), damage)
    while row is not None:
        yield Outcome(0, differs(row[0], f"transaction {row[2]} has no entries"))
        row = stored.fetchone()


def _events_of(
    db: sqlite3.Connection, entries: Sequence[Entry], event_seqs: "array[int]"
) -> dict[int, StoredEvent]:
    """Read the events that entries made."""
    found: dict[int, StoredEvent] = {}
    for entry in entries:
        index = bisect_left(event_seqs, entry.seq)
        if index < len(event_seqs) and event_seqs[index] == entry.seq:
            stream, cancelled, body = db.execute(statements.EVENT, (index + 1,)).fetchone()
            found[entry.seq] = StoredEvent(
                stream=stream, is_cancellation=bool(cancelled), body=body
            )
    return found


def _sales_of(db: sqlite3.Connection, entries: Sequence[Entry]) -> dict[int, Entry]:
    """Read the sales that entries name."""
    seqs = {entry.fact.sale_seq for entry in entries if entry.fact.sale_seq}
    rows = [db.execute(statements.ENTRY, (seq,)).fetchone() for seq in sorted(seqs)]
    return {row[0]: entry_of(row) for row in rows if row}
