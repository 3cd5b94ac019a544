"""Verify a ledger: nothing in it was changed, lost or added since it was recorded.

Whoever can write the file can also write a whole new chain: store a hash from `GET /v1/ledger`
elsewhere, and compare.
"""

import sqlite3
from array import array
from collections import deque
from collections.abc import Iterator
from typing import Final

from listener.errors import DamagedError
from listener.ledger.chain import ENTRY_COLUMNS, GENESIS
from listener.ledger.model import Entry
from listener.ledger.replay import StoredEvent
from listener.ledger.sale import SaleState
from listener.storage.checks import (
    EventPlaces,
    Progress,
    Verified,
    check_entry,
    check_sales,
    read_entry,
    read_sale,
)
from listener.storage.rows import Row
from listener.storage.sqlite import reading
from listener.storage.sqlite.faults import FAULTS, find_damage, told_by
from listener.storage.sqlite.location import sqlite_path
from listener.storage.sqlite.opening import connect_read_only
from listener.storage.sqlite.replay import chunks, replay, settle
from listener.storage.statements import SALES_WITH_STATES, STRAYS

TOLD_EVERY: Final = 1_000
EVERY_ENTRY: Final = f"SELECT {', '.join(ENTRY_COLUMNS)} FROM entries ORDER BY seq"

_EVENTS_BY_NUMBER: Final = (
    'SELECT number, stream, "offset", seq, cancelled, body FROM events ORDER BY number'
)
_EVERY_STREAM_HEAD: Final = "SELECT stream, head FROM streams"
_REPEATS: Final = "SELECT coalesce(sum(count), 0) FROM repeats"


def verify(url: str, *, progress: Progress | None = None) -> Verified:
    """Check the ledger at a URL as it stands now, even while it is being served.

    This checks the hash chain, all numbers, the events, the states of transactions and sales, and
    the sums; but not acknowledgements and keys, which are in no chain, nor the times of repeats.
    While it runs, the log cannot shrink.

    Raises:
        DamagedError: Something is wrong; its ``seq`` is the first entry that shows it.
        LedgerError: There is no ledger, or none that this version can read.
    """
    db = connect_read_only(sqlite_path(url))
    try:
        db.execute("BEGIN")
        return Check(db, progress or (lambda _done, _total: None)).run()
    except FAULTS as error:
        raise DamagedError(f"the ledger's file is damaged: {told_by(error)}") from error
    finally:
        db.close()


class Check:
    """One pass over a ledger, within one transaction."""

    def __init__(self, db: sqlite3.Connection, progress: Progress) -> None:
        self._db = db
        self._progress = progress
        self._done = 0
        try:
            self._head = reading.head(db)
        except TypeError:
            raise DamagedError("the ledger's head is missing") from None
        self._total = 2 * self._head.seq + self._head.events

    def run(self) -> Verified:
        places = EventPlaces()
        try:
            self._check_pages()
            settled = settle(self._db, self.entries(), self.events(places))
        except (DamagedError, *FAULTS):
            # A fault in the chain is reported before any other.
            self.check_chain()
            raise
        self._check_heads(places)
        transactions = self._check_transactions(settled, places.seqs)
        check_sales(self._sales())
        self._check_sums(transactions)
        self._progress(self._total, self._total)
        return Verified(
            head=self._head,
            entries=self._head.seq,
            events=len(places.seqs),
            transactions=transactions,
        )

    def _step(self, count: int) -> None:
        before = self._done
        self._done += count
        if before // TOLD_EVERY < self._done // TOLD_EVERY:
            self._progress(min(self._done, self._total), self._total)

    def check_chain(self) -> None:
        """Check the number and the hash of every entry."""
        deque(self.entries(), maxlen=0)

    def entries(self) -> Iterator[list[Row]]:
        """Yield the rows of all entries, each after its number and its hash were checked."""
        seq, previous = 0, GENESIS
        try:
            for rows in chunks(self._db.execute(EVERY_ENTRY)):
                for row in rows:
                    seq += 1
                    previous = check_entry(row, seq=seq, previous=previous)
                self._step(len(rows))
                yield rows
        except FAULTS as error:
            text = f"entry {seq + 1} cannot be read: {told_by(error)}"
            raise DamagedError(text, seq=seq + 1) from error
        if seq != self._head.seq:
            first = min(seq, self._head.seq) + 1
            text = f"the head is at entry {self._head.seq}, and the last entry is {seq}"
            raise DamagedError(text, seq=first)
        if previous != self._head.hash:
            raise DamagedError(f"the head does not have the hash of entry {seq}", seq=seq)

    def _check_pages(self) -> None:
        """Run SQLite's own check of its pages and indexes."""
        fault = find_damage(self._db, quick=False)
        if fault:
            raise DamagedError(f"the ledger's file is damaged: {fault}")

    def event_places(self) -> EventPlaces:
        """Check the numbers of the events."""
        places = EventPlaces()
        deque(self.events(places), maxlen=0)
        return places

    def events(self, places: EventPlaces) -> Iterator[list[tuple[int, StoredEvent]]]:
        """Yield all events with the seqs of their entries, each after its place was checked."""
        for rows in chunks(self._db.execute(_EVENTS_BY_NUMBER)):
            for number, stream, offset, seq, _, _ in rows:
                places.add(number=number, stream=stream, offset=offset, seq=seq)
            self._step(len(rows))
            yield [
                (seq, StoredEvent(stream=stream, is_cancellation=cancelled == 1, body=body))
                for _, stream, _, seq, cancelled, body in rows
            ]

    def _check_heads(self, places: EventPlaces) -> None:
        """Check that the heads of the streams and the ledger are those of their last events."""
        if (
            places.heads != dict(self._db.execute(_EVERY_STREAM_HEAD))
            or len(places.seqs) != self._head.events
        ):
            raise DamagedError("the heads of the streams are not those of their events")

    def _check_transactions(self, settled: bytearray, event_seqs: "array[int]") -> int:
        """Add up every open transaction; return the number of all transactions."""
        first: DamagedError | None = None
        transactions = settled.count(1)
        self._step(transactions)
        for outcome in replay(self._db, settled=settled, event_seqs=event_seqs):
            transactions += 1
            self._step(outcome.entries)
            damage = outcome.damage
            if damage and (first is None or (damage.seq or 0) < (first.seq or 0)):
                first = damage
        if first:
            raise first
        return transactions

    def _sales(self) -> Iterator[tuple[Entry, SaleState | None]]:
        """Yield each sale with its state, then the entries that name it."""
        begin = len(ENTRY_COLUMNS)
        for row in self._db.execute(SALES_WITH_STATES):
            state = row[begin:]
            yield read_entry(row[:begin]), read_sale(state) if state[0] is not None else None

    def _check_sums(self, transactions: int) -> None:
        """Check the counts, and look for what must not exist."""
        for text, statement in STRAYS.items():
            (seq,) = self._db.execute(statement).fetchone()
            if seq is not None:
                raise DamagedError(f"at entry {seq}: {text}", seq=seq)
        (repeats,) = self._db.execute(_REPEATS).fetchone()
        if repeats != self._head.repeats:
            raise DamagedError("the number of repeats is not the sum of them")
        if transactions != self._head.transactions:
            raise DamagedError("the number of transactions is not how many there are")
