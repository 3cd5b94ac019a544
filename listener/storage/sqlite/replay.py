"""Read the transactions of a SQLite ledger with their entries and events, and replay each."""

import sqlite3
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

from msgspec import Struct

from listener.errors import DamagedError
from listener.ledger.chain import ENTRY_COLUMNS
from listener.ledger.model import Entry, Transaction
from listener.ledger.replay import Replay, StoredEvent, differs, epoch_in
from listener.ledger.schedule import Confirm
from listener.storage.checks import read_entry, read_transaction
from listener.storage.rows import PLAIN_COLUMNS, Row, entry_of, plain_values
from listener.storage.sqlite.bulk import read
from listener.storage.sqlite.faults import FAULTS
from listener.storage.sqlite.selects import TRANSACTIONS
from listener.storage.sqlite.statements import ENTRIES_AT, KEYS

# This many are read, then all their events, then each is replayed.
TRANSACTIONS_AT_ONCE: Final = 256
# So many rows are read, then checked. To change between SQLite and Python at every row takes a
# quarter longer.
ROWS_AT_ONCE: Final = 100

# Those that may be one plain notification: no sale, nothing beyond PLAIN_COLUMNS, no second entry.
_ALONE_BETWEEN: Final = (
    f"SELECT {', '.join(PLAIN_COLUMNS)} FROM transactions t"
    " WHERE first_seq BETWEEN ? AND ? AND transaction_no > ''"
    " AND sale_seq IS NULL AND cancel_state IS NULL AND ask_why IS NULL AND judge_seq IS NULL"
    " AND disputed IS NULL AND summary IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.transaction_no = t.transaction_no"
    " AND e.merchant_no = t.merchant_no AND e.seq <> t.first_seq)"
)
# One walk along the index that finds a transaction's entries, so that nothing is sorted.
_BY_NUMBER: Final = " ORDER BY transaction_no, merchant_no"
_OF_TRANSACTIONS: Final = (
    f"SELECT {', '.join(ENTRY_COLUMNS)} FROM entries WHERE transaction_no > ''"
)
_ENTRIES_BY_TRANSACTION: Final = f"{_OF_TRANSACTIONS}{_BY_NUMBER}"
# `replay` defines the function `settled`.
_OPEN_ENTRIES_BY_TRANSACTION: Final = f"{_OF_TRANSACTIONS} AND NOT settled(seq){_BY_NUMBER}"
_OPEN_TRANSACTIONS_BY_NUMBER: Final = f"{TRANSACTIONS} WHERE NOT settled(first_seq){_BY_NUMBER}"
# Rows: number.
_EVENTS_AT: Final = (
    f"SELECT t.seq, t.stream, t.cancelled, t.body FROM {KEYS} events t ON t.number = k.column1"
)

# The columns of a row of entries, and of a row of transactions.
_key_of_entry: Final = itemgetter(5, 3)
_key_of_stored: Final = itemgetter(2, 1)


class ReplayedTransaction(Struct, frozen=True):
    """The result for one transaction: how many entries it has, and its first fault."""

    entries: int
    damage: DamagedError | None


class _Found(Struct, frozen=True):
    """A transaction as its row has it, and its entries; one of the two may be missing."""

    transaction_no: str
    row: Row | None
    entries: list[Entry]


def chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield rows in chunks; if reading fails, yield the rows before the fault, then raise it."""
    while True:
        chunk: list[Row] = []
        try:
            chunk.extend(islice(rows, ROWS_AT_ONCE))
        except FAULTS:
            if chunk:
                yield chunk
            raise
        if not chunk:
            return
        yield chunk


def settle(
    db: sqlite3.Connection,
    entries: Iterable[Sequence[Row]],
    events: Iterator[Sequence[tuple[int, StoredEvent]]],
) -> bytearray:
    """Check the many transactions of one plain entry, while reading all entries once.

    Args:
        db: The ledger.
        entries: The rows of the entries 1, 2, 3 and so on, in chunks.
        events: All events in order, in chunks, each with the seq of its entry; they are used up.

    Returns:
        A byte for each seq from 0 on: 1 where that is the only entry of its transaction, and adds
        up to it. `replay` checks all others, and says what is wrong.
    """
    settled = bytearray(1)
    replaying = Replay()
    told: dict[int, StoredEvent] = {}
    told_upto = 0
    for rows in entries:
        first, last = rows[0][0], rows[-1][0]
        states = {state[0]: state for state in db.execute(_ALONE_BETWEEN, (first, last))}
        while told_upto < last and (some := next(events, None)):
            told.update(some)
            told_upto = some[-1][0]
        found = [(row, told.pop(row[0], None)) for row in rows]
        alone = [(read_entry(row), event) for row, event in found if row[0] in states]
        settled.extend(bytes(len(rows)))
        # Those of another epoch than the first are left to `replay`.
        epoch = epoch_in(alone[0][1], alone[0][0]) if alone else ""
        for entry, event in alone:
            begun = replaying.begun(entry, event, epoch=epoch)
            settled[entry.seq] = begun is not None and plain_values(begun) == states[entry.seq]
    deque(events, maxlen=0)
    return settled


def replay(
    db: sqlite3.Connection, *, settled: bytearray, event_seqs: "array[int]"
) -> Iterator[ReplayedTransaction]:
    """Replay every transaction that `settle` has left open.

    ``event_seqs`` are the entries of events 1, 2, 3 and so on.
    """
    ends = len(settled)
    db.create_function("settled", 1, lambda seq: 0 < seq < ends and settled[seq])
    replaying = Replay()
    everything = _everything(db)
    while found := [*islice(everything, TRANSACTIONS_AT_ONCE)]:
        entries = [entry for one in found for entry in one.entries]
        events = _events_of(db, entries, event_seqs)
        sales = _sales_of(db, entries)
        for one in found:
            yield ReplayedTransaction(len(one.entries), _check(replaying, one, events, sales))


def restate(
    db: sqlite3.Connection, *, event_seqs: "array[int]", confirm: Confirm
) -> Iterator[Transaction]:
    """Compute the state of every transaction from its entries, whatever is stored.

    Raises:
        DamagedError: An entry or event is not what was recorded.
    """
    replaying = Replay(first=confirm)
    grouped = groupby(db.execute(_ENTRIES_BY_TRANSACTION), key=_key_of_entry)
    groups = (_in_order(rows) for _, rows in grouped)
    while found := [*islice(groups, TRANSACTIONS_AT_ONCE)]:
        entries = [entry for group in found for entry in group]
        events = _events_of(db, entries, event_seqs)
        sales = _sales_of(db, entries)
        for group in found:
            yield replaying.restate(group, events=events, sales=sales)


def _everything(db: sqlite3.Connection) -> Iterator[_Found]:
    """Read the open transactions, and all entries of these, side by side."""
    stored = db.execute(_OPEN_TRANSACTIONS_BY_NUMBER)
    row: Row | None = stored.fetchone()
    entries_by_key = db.execute(_OPEN_ENTRIES_BY_TRANSACTION)
    for key, rows in groupby(entries_by_key, key=_key_of_entry):
        # A stored transaction without entries sorts before the next one that has some.
        while row is not None and _key_of_stored(row) < key:
            yield _Found(row[2], row, [])
            row = stored.fetchone()
        entries = _in_order(rows)
        if row is not None and _key_of_stored(row) == key:
            yield _Found(key[0], row, entries)
            row = stored.fetchone()
        else:
            yield _Found(key[0], None, entries)
    while row is not None:
        yield _Found(row[2], row, [])
        row = stored.fetchone()


def _in_order(rows: Iterable[Row]) -> list[Entry]:
    entries = [read_entry(one) for one in rows]
    if len(entries) > 1:
        entries.sort(key=lambda entry: entry.seq)
    return entries


def _check(
    replaying: Replay,
    found: _Found,
    events: Mapping[int, StoredEvent],
    sales: Mapping[int, Entry],
) -> DamagedError | None:
    """Return what is wrong with a transaction; None where its entries add up to it."""
    if found.row is None:
        return differs(found.entries[0].seq, f"transaction {found.transaction_no} is missing")
    if not found.entries:
        text = f"transaction {found.transaction_no} has no entries"
        return differs(found.row[0], text)
    try:
        stored = read_transaction(found.row)
    except DamagedError as error:
        return error
    return replaying.check(found.entries, stored=stored, events=events, sales=sales)


def _events_of(
    db: sqlite3.Connection, entries: Iterable[Entry], event_seqs: "array[int]"
) -> dict[int, StoredEvent]:
    """Read the events of some entries, by the seqs of these."""
    numbers: list[Row] = []
    for entry in entries:
        index = bisect_left(event_seqs, entry.seq)
        if index < len(event_seqs) and event_seqs[index] == entry.seq:
            numbers.append((index + 1,))
    return {
        seq: StoredEvent(stream=stream, is_cancellation=cancelled == 1, body=body)
        for seq, stream, cancelled, body in read(db, _EVENTS_AT, numbers)
    }


def _sales_of(db: sqlite3.Connection, entries: Iterable[Entry]) -> dict[int, Entry]:
    """Read the sales that some entries name, by their seq."""
    seqs = {(entry.fact.sale_seq,) for entry in entries if entry.fact.sale_seq}
    return {row[0]: entry_of(row) for row in read(db, ENTRIES_AT, seqs)}
