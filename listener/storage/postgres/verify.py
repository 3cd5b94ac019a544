"""Verify a ledger on PostgreSQL while it is served, in pages of a second that delay nobody.

Entries and events never change, so their pages fit together. A transaction is read with all of its
entries in one statement, so it is consistent whatever is recorded meanwhile.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from listener.errors import DamagedError
from listener.ledger.chain import ENTRY_COLUMNS, GENESIS
from listener.ledger.model import Entry
from listener.ledger.replay import Replay, StoredEvent, differs
from listener.ledger.results import Head
from listener.ledger.sale import SaleState
from listener.storage.checks import (
    EventPlaces,
    Progress,
    Verified,
    check_entry,
    check_sales,
    read_entry,
    read_sale,
    read_transaction,
)
from listener.storage.postgres import reading
from listener.storage.postgres.beside import BEGIN, Beside, beside
from listener.storage.postgres.rows import entry_of, plain
from listener.storage.postgres.selects import listed
from listener.storage.postgres.texts import unpacked
from listener.storage.rows import TRANSACTION_COLUMNS
from listener.storage.statements import SALES_WITH_STATES, STRAYS

PAGE_ROWS: Final = 1_000

_ENTRY: Final = listed(ENTRY_COLUMNS, "e")
_ENTRIES: Final = (
    f"SELECT {_ENTRY} FROM entries e WHERE e.seq > $1 AND e.seq <= $2 ORDER BY e.seq LIMIT $3"
)
_PLACES: Final = (
    'SELECT number, stream, "offset", seq FROM events WHERE number > $1 AND number <= $2'
    " ORDER BY number LIMIT $3"
)
_KEYS: Final = (
    "SELECT DISTINCT transaction_no, merchant_no FROM entries"
    " WHERE (transaction_no, merchant_no) > ($1, $2) ORDER BY 1, 2 LIMIT $3"
)
_ORPHAN: Final = (
    "SELECT first_seq, transaction_no FROM transactions t WHERE NOT EXISTS (SELECT 1"
    " FROM entries e WHERE e.transaction_no = t.transaction_no AND e.merchant_no = t.merchant_no)"
    " ORDER BY first_seq LIMIT 1"
)
# One statement for some transactions: their states, entries and sales are read at one moment.
_TRANSACTIONS: Final = (
    f"SELECT k.no, k.merchant, ROW({_ENTRY}) AS entry, CASE WHEN t.first_seq IS NULL THEN NULL"
    f" ELSE ROW({listed(TRANSACTION_COLUMNS, 't')}) END AS state,"
    f" CASE WHEN s.seq IS NULL THEN NULL ELSE ROW({listed(ENTRY_COLUMNS, 's')}) END AS sale"
    " FROM unnest($1::text[], $2::text[]) k(no, merchant)"
    " JOIN entries e ON e.transaction_no = k.no AND e.merchant_no = k.merchant"
    " LEFT JOIN transactions t ON t.transaction_no = k.no AND t.merchant_no = k.merchant"
    " LEFT JOIN entries s ON s.seq = e.sale_seq"
    " ORDER BY k.no, k.merchant, e.seq"
)
_EVENTS: Final = "SELECT seq, stream, cancelled, body FROM events WHERE number = ANY ($1::bigint[])"
# Events that were recorded since the check began.
_LATE_EVENTS: Final = (
    "SELECT seq, stream, cancelled, body FROM events WHERE number > $1 AND seq = ANY ($2::bigint[])"
)


def verify(url: str, *, progress: Progress | None = None) -> Verified:
    """Check the ledger at a URL as it stood when this began, even while it is being served.

    The checks are those of a file, except for the pages: those are for PostgreSQL's own checksums
    and `pg_amcheck`.

    Raises:
        DamagedError: Something is wrong; its ``seq`` is the first entry that shows it.
        LedgerError: There is no ledger, or none that this version can read.
    """
    with beside(url) as connected:
        return Check(connected, progress or (lambda _done, _total: None)).run()


def told_by_rows(
    rows: Sequence[Any], events: Mapping[int, StoredEvent]
) -> tuple[list[Entry], dict[int, StoredEvent], dict[int, Entry]]:
    """Return a transaction's entries, the events that they made, and the sales that they name."""
    entries = [read_entry(plain(row["entry"])) for row in rows]
    sales = [entry_of(row["sale"]) for row in rows if row["sale"] is not None]
    told = {entry.seq: events[entry.seq] for entry in entries if entry.seq in events}
    return entries, told, {sale.seq: sale for sale in sales}


class Check:
    """One pass over a ledger."""

    def __init__(self, connected: Beside, progress: Progress) -> None:
        self._connected = connected
        self._progress = progress
        self._done = 0
        self._head: Head = connected.run(reading.head)
        self._total = 2 * self._head.seq + self._head.events
        self._replay = Replay()
        self._places = EventPlaces()

    def run(self) -> Verified:
        self.check_chain()
        self.check_events()
        transactions = self._check_transactions()
        check_sales(self._sales())
        self._check_strays()
        self._progress(self._total, self._total)
        return Verified(
            head=self._head,
            entries=self._head.seq,
            events=len(self._places.seqs),
            transactions=transactions,
        )

    def _fetch(self, statement: str, *values: object) -> list[Any]:
        return self._connected.run(lambda db: db.fetch(statement, *values))

    def _step(self, count: int) -> None:
        self._done += count
        self._progress(min(self._done, self._total), self._total)

    def check_chain(self) -> None:
        """Check the number and the hash of every entry."""
        seq, previous, end = 0, GENESIS, self._head.seq
        while page := self._fetch(_ENTRIES, seq, end, PAGE_ROWS):
            for row in page:
                seq += 1
                previous = check_entry(plain(row), seq=seq, previous=previous)
            self._step(len(page))
        if seq != end:
            raise DamagedError(f"entry {seq + 1} is missing", seq=seq + 1)
        if previous != self._head.hash:
            raise DamagedError(f"the head does not have the hash of entry {seq}", seq=seq)

    def check_events(self) -> None:
        """Check the numbers of events and streams."""
        number = 0
        while page := self._fetch(_PLACES, number, self._head.events, PAGE_ROWS):
            for number, stream, offset, seq in page:
                self._places.add(number=number, stream=stream, offset=offset, seq=seq)
            self._step(len(page))
        if len(self._places.seqs) != self._head.events:
            raise DamagedError("an event at the end is missing")

    def transactions(self) -> Iterator[tuple[Sequence[Any], dict[int, StoredEvent]]]:
        """Yield the rows of each transaction's entries, with its state and sales, and events."""
        after = ("", "\U0010ffff")
        while keys := self._fetch(_KEYS, *after, PAGE_ROWS):
            after = (keys[-1][0], keys[-1][1])
            rows = self._fetch(_TRANSACTIONS, [key[0] for key in keys], [key[1] for key in keys])
            events = self._events_of([row["entry"][0] for row in rows])
            for _, group in groupby(rows, key=lambda row: (row["no"], row["merchant"])):
                yield [*group], events
            self._step(len(rows))

    def _check_transactions(self) -> int:
        """Add up every transaction again; return how many there are."""
        first: DamagedError | None = None
        transactions = 0
        for group, events in self.transactions():
            transactions += 1
            damage = self._check_one(group, events)
            if damage and (first is None or (damage.seq or 0) < (first.seq or 0)):
                first = damage
        for seq, number in self._fetch(_ORPHAN):
            if first is None or seq < (first.seq or 0):
                first = differs(seq, f"transaction {unpacked(number)} has no entries")
        if first:
            raise first
        return transactions

    def _check_one(
        self, rows: Sequence[Any], events: dict[int, StoredEvent]
    ) -> DamagedError | None:
        entries, told, sales = told_by_rows(rows, events)
        state = rows[0]["state"]
        if state is None:
            number = entries[0].fact.transaction_no
            return differs(entries[0].seq, f"transaction {number} is missing")
        try:
            stored = read_transaction(plain(state))
        except DamagedError as error:
            return error
        return self._replay.check(entries, stored=stored, events=told, sales=sales)

    def _events_of(self, seqs: Sequence[int]) -> dict[int, StoredEvent]:
        """Read the events of some entries."""
        known = self._places.seqs
        numbers = []
        for seq in seqs:
            index = bisect_left(known, seq)
            if index < len(known) and known[index] == seq:
                numbers.append(index + 1)
        found = self._fetch(_EVENTS, numbers)
        late = [seq for seq in seqs if seq > self._head.seq]
        found += self._fetch(_LATE_EVENTS, self._head.events, late) if late else []
        return {
            seq: StoredEvent(stream=unpacked(stream), is_cancellation=bool(cancelled), body=body)
            for seq, stream, cancelled, body in found
        }

    def _sales(self) -> Iterator[tuple[Entry, SaleState | None]]:
        """Yield each sale with its state, then the entries that name it; all of one moment."""
        begin = len(ENTRY_COLUMNS)
        self._connected.run(lambda db: db.execute(BEGIN))
        for row in map(plain, self._connected.rows(SALES_WITH_STATES)):
            state = row[begin:]
            yield read_entry(row[:begin]), read_sale(state) if state[0] is not None else None
        self._connected.run(lambda db: db.execute("COMMIT"))

    def _check_strays(self) -> None:
        for text, statement in STRAYS.items():
            ((seq,),) = self._fetch(statement)
            if seq is not None:
                raise DamagedError(f"at entry {seq}: {text}", seq=seq)
