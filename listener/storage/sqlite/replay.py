"""Replay transactions from their entries, and compare with what the ledger holds of them.

What Pockyt is to be asked, and when, follows from the setting ``confirm`` at the time, and an event
may follow from what was asked. So each setting is tried, first for a whole transaction, then for
each of its entries; the columns of ``ask`` themselves are not compared.
"""

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import orjson

from listener.errors import DamagedError
from listener.ledger.model import Entry, Transaction
from listener.ledger.schedule import Confirm
from listener.ledger.transaction import Step, advance, event_body
from listener.storage.sqlite.commit import tells_of_cancellation
from listener.storage.sqlite.rows import (
    ENTRY_COLUMNS,
    TRANSACTION_COLUMNS,
    entry_of,
    transaction_of,
)

# One walk along the index that finds a transaction's entries, so that nothing is sorted.
_BY_TRANSACTION: Final = (
    f"SELECT {ENTRY_COLUMNS} FROM entries WHERE transaction_no > ''"
    " ORDER BY transaction_no, merchant_no"
)
_TRANSACTIONS: Final = (
    f"SELECT {TRANSACTION_COLUMNS} FROM transactions ORDER BY transaction_no, merchant_no"
)
_ENTRY: Final = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE seq = ?"
_EVENT: Final = "SELECT stream, cancelled, body FROM events WHERE number = ?"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found of one transaction: how many entries and events, and what is wrong first."""

    entries: int
    events: int
    damage: DamagedError | None


def replay(db: sqlite3.Connection, *, event_seqs: "array[int]") -> Iterator[Outcome]:
    """Replay every transaction; ``event_seqs`` are the entries of events 1, 2, 3 and so on."""
    replaying = _Replay(db, event_seqs)
    rows = db.execute(_BY_TRANSACTION)
    stored = db.execute(_TRANSACTIONS)
    row = stored.fetchone()
    for key, group in groupby(rows, key=lambda row: (row[5], row[3])):
        # What is stored without an entry sorts before the next that has some.
        while row is not None and (row[2], row[1]) < key:
            yield Outcome(0, 0, _differs(row[0], f"transaction {row[2]} has no entries"))
            row = stored.fetchone()
        entries = sorted((entry_of(one) for one in group), key=lambda entry: entry.seq)
        if row is not None and (row[2], row[1]) == key:
            yield replaying.check(entries, transaction_of(row))
            row = stored.fetchone()
        else:
            seq = entries[0].seq
            yield Outcome(len(entries), 0, _differs(seq, f"transaction {key[0]} is missing"))
    while row is not None:
        yield Outcome(0, 0, _differs(row[0], f"transaction {row[2]} has no entries"))
        row = stored.fetchone()


def _differs(seq: int, text: str) -> DamagedError:
    return DamagedError(f"at entry {seq}: {text}", seq=seq)


class _Replay:
    """Replays one transaction at a time."""

    def __init__(self, db: sqlite3.Connection, event_seqs: "array[int]") -> None:
        self._db = db
        self._event_seqs = event_seqs
        # The one that fitted last comes first.
        self._settings: list[Confirm] = ["suspicious", "always", "off"]

    def check(self, entries: Sequence[Entry], stored: Transaction) -> Outcome:
        """Compare one transaction with what its entries add up to."""
        told = {entry.seq: self._event_of(entry.seq) for entry in entries}
        sales = self._sales_of(entries)
        events = sum(event is not None for event in told.values())
        for confirm in self._settings:
            states, bad = _walk(entries, told, sales, settings=[confirm])
            if bad is None and _is_among(stored, states):
                self._settings.sort(key=lambda one: one != confirm)
                return Outcome(len(entries), events, None)
        # The setting may have been changed between any two of the entries.
        states, bad = _walk(entries, told, sales, settings=self._settings)
        if bad is not None:
            text = f"transaction {stored.transaction_no}: its event is not what its entries tell"
            return Outcome(len(entries), events, _differs(bad, text))
        if not _is_among(stored, states):
            text = f"transaction {stored.transaction_no} is not what its entries add up to"
            return Outcome(len(entries), events, _differs(entries[-1].seq, text))
        return Outcome(len(entries), events, None)

    def _event_of(self, seq: int) -> tuple[str, int, str] | None:
        """Read the event that an entry made; None where it made none."""
        index = bisect_left(self._event_seqs, seq)
        if index == len(self._event_seqs) or self._event_seqs[index] != seq:
            return None
        found: tuple[str, int, str] | None = self._db.execute(_EVENT, (index + 1,)).fetchone()
        return found

    def _sales_of(self, entries: Sequence[Entry]) -> dict[int, Entry]:
        seqs = {entry.fact.sale_seq for entry in entries if entry.fact.sale_seq}
        rows = [self._db.execute(_ENTRY, (seq,)).fetchone() for seq in sorted(seqs)]
        return {row[0]: entry_of(row) for row in rows if row}


def _walk(
    entries: Sequence[Entry],
    told: dict[int, tuple[str, int, str] | None],
    sales: dict[int, Entry],
    *,
    settings: Sequence[Confirm],
) -> tuple[list[Transaction], int | None]:
    """Return how the transaction may stand after its entries, or the seq that told otherwise."""
    states: list[Transaction | None] = [None]
    for count, entry in enumerate(entries, 1):
        after: list[Transaction] = []
        for before in states:
            sale_seq = (before.sale_seq if before else None) or entry.fact.sale_seq
            sale = sales.get(sale_seq) if sale_seq else None
            for confirm in settings:
                step = advance(before, entries[:count], sale=sale, confirm=confirm)
                if step.transaction not in after and _tells(step, entry, told[entry.seq]):
                    after.append(step.transaction)
        if not after:
            return [], entry.seq
        states = [*after]
    return [state for state in states if state], None


def _tells(step: Step, entry: Entry, event: tuple[str, int, str] | None) -> bool:
    """Tell whether an entry's step makes just the event that is stored."""
    if step.event_type is None or event is None:
        return step.event_type is None and event is None
    stream, cancelled, body = event
    # A backup that was restored went on under a new epoch; what was told before keeps its own.
    epoch = _epoch_in(body)
    return (
        stream == step.transaction.stream
        and bool(cancelled) is tells_of_cancellation(step.event_type)
        and body == event_body(step, entry, epoch=epoch).decode()
    )


def _epoch_in(body: str) -> str:
    try:
        return str(orjson.loads(body)["id"]).rpartition("-")[0]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def _is_among(stored: Transaction, states: Sequence[Transaction]) -> bool:
    if stored in states:
        return True
    plain = replace(stored, ask=None)
    return any(replace(state, ask=None) == plain for state in states)
