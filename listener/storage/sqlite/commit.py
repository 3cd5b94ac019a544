"""Commit a batch of facts to SQLite: all that one sync to disk carries, or nothing.

Runs in the writer's thread. What the ledger holds of the facts' transactions is read at once, the
facts are taken in order against it in memory, and each table is written at once.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from listener.errors import ListenerError, ReferenceTakenError
from listener.ledger.chain import columns, link
from listener.ledger.model import Entry, Event, Fact, Kind, Transaction, stream_of
from listener.ledger.promise import Recorded
from listener.ledger.schedule import Confirm, next_due_ms
from listener.ledger.transaction import Step, advance, event_body
from listener.storage.sqlite import statements
from listener.storage.sqlite.bulk import Row, put, read
from listener.storage.sqlite.rows import entry_of, transaction_of, transaction_row

# How long the call that starts a sale may take before the sale is looked for by its reference.
SALE_ANSWER_MS: Final = 30_000

_CANCELLATIONS: Final = frozenset({"transaction.cancelled", "transaction.refunded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a batch became: for each fact, in order, its place or why it has none; the events."""

    recorded: list[Recorded | ListenerError]
    events: list[Event]


def commit(
    db: sqlite3.Connection, facts: Sequence[Fact], *, epoch: str, now_ms: int, confirm: Confirm
) -> Committed:
    """Append facts in one transaction, which the caller has begun and will end."""
    batch = _Batch(db, facts, epoch=epoch, now_ms=now_ms, confirm=confirm)
    recorded = [batch.add(fact) for fact in facts]
    batch.write()
    return Committed(recorded=recorded, events=batch.events)


def tells_of_cancellation(event_type: str | None) -> bool:
    """Tell whether a till has to acknowledge an event in time."""
    return event_type in _CANCELLATIONS


@dataclass(slots=True)
class _Known:
    """What the ledger holds of one transaction number (or of none), and this batch adds."""

    entries: list[Entry] = field(default_factory=list)
    by_fingerprint: dict[str, int] = field(default_factory=dict)
    transaction: Transaction | None = None

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.fact.fingerprint:
            self.by_fingerprint[entry.fact.fingerprint] = entry.seq


class _Batch:
    """The ledger as far as some facts touch it, ahead of their commit."""

    def __init__(
        self,
        db: sqlite3.Connection,
        facts: Sequence[Fact],
        *,
        epoch: str,
        now_ms: int,
        confirm: Confirm,
    ) -> None:
        self._db = db
        self._epoch = epoch
        self._now_ms = now_ms
        self._confirm = confirm
        self.events: list[Event] = []
        self._entry_rows: list[Row] = []
        self._event_rows: list[Row] = []
        self._changed: dict[tuple[str, str], Transaction] = {}
        self._begun = 0
        self._repeats: dict[int, int] = {}
        self._new_sales: list[Row] = []
        self._sale_updates: list[Row] = []
        self._seq, self._hash, self._number = db.execute(statements.READ_HEAD).fetchone()
        self._known = {(f.transaction_no, f.merchant_no): _Known() for f in facts}
        self._load_entries(facts)
        self._sales = self._load_sales(facts)
        self._references = self._load_references(facts)
        self._heads = self._load_heads(facts)

    def add(self, fact: Fact) -> Recorded | ListenerError:
        """Give a fact its entry, or count it as a repeat of the one that is there."""
        known = self._known[fact.transaction_no, fact.merchant_no]
        original = known.by_fingerprint.get(fact.fingerprint) if fact.fingerprint else None
        if original is not None:
            self._repeats[original] = self._repeats.get(original, 0) + 1
            return Recorded(seq=original, is_new=False)
        if fact.kind is Kind.SALE and (fact.merchant_no, fact.reference) in self._references:
            return ReferenceTakenError()
        entry = link(fact, seq=self._seq + 1, recorded_at_ms=self._now_ms, previous=self._hash)
        self._seq, self._hash = entry.seq, entry.hash
        self._entry_rows.append((entry.seq, self._now_ms, *columns(fact), entry.hash))
        known.add(entry)
        self._follow_sale(entry)
        if not fact.transaction_no:
            return Recorded(seq=entry.seq, is_new=True)
        return self._advance(known, entry)

    def _advance(self, known: _Known, entry: Entry) -> Recorded:
        """Take an entry into its transaction, and make the event that follows."""
        before = known.transaction
        sale_seq = (before.sale_seq if before else None) or entry.fact.sale_seq
        sale = self._sales.get(sale_seq) if sale_seq else None
        step = advance(before, known.entries, sale=sale, confirm=self._confirm)
        known.transaction = step.transaction
        self._changed[entry.fact.transaction_no, entry.fact.merchant_no] = step.transaction
        self._begun += before is None
        if step.event_type is not None:
            self._tell(step, entry)
        return Recorded(
            seq=entry.seq,
            is_new=True,
            transaction=step.transaction,
            event_type=step.event_type,
        )

    def _tell(self, step: Step, entry: Entry) -> None:
        """Number the event that an entry makes."""
        stream = step.transaction.stream
        # A sale's store may be none of those whose heads were read ahead.
        if stream not in self._heads:
            self._heads |= self._read_heads({stream})
        offset = self._heads[stream] = self._heads[stream] + 1
        self._number += 1
        body = event_body(step, entry, epoch=self._epoch)
        self.events.append(
            Event(number=self._number, stream=stream, offset=offset, seq=entry.seq, body=body)
        )
        is_cancellation = int(tells_of_cancellation(step.event_type))
        self._event_rows.append(
            (self._number, stream, offset, entry.seq, is_cancellation, body.decode())
        )

    def _follow_sale(self, entry: Entry) -> None:
        """Keep track of a sale until Pockyt has told its transaction number."""
        fact = entry.fact
        if fact.kind is Kind.SALE:
            self._sales[entry.seq] = entry
            self._references.add((fact.merchant_no, fact.reference))
            due_ms = self._now_ms + SALE_ANSWER_MS
            self._new_sales.append((entry.seq, fact.merchant_no, fact.reference, due_ms))
        elif fact.sale_seq is not None:
            sale = self._sales[fact.sale_seq]
            open_query = fact.kind is Kind.QUERY and not fact.transaction_no
            due = next_due_ms(sale.recorded_at_ms, self._now_ms, entry.seq) if open_query else None
            self._sale_updates.append((fact.transaction_no or None, due, fact.sale_seq))

    def write(self) -> None:
        """Write all that the facts changed."""
        put(self._db, statements.ADD_ENTRIES, self._entry_rows)
        put(self._db, statements.ADD_EVENTS, self._event_rows)
        rows = [transaction_row(transaction) for transaction in self._changed.values()]
        put(self._db, statements.PUT_TRANSACTIONS, rows)
        grown = {event.stream for event in self.events}
        put(self._db, statements.PUT_STREAMS, [(name, self._heads[name]) for name in grown])
        put(self._db, statements.ADD_SALES, self._new_sales)
        self._db.executemany(statements.PUT_SALE, self._sale_updates)
        repeats = [(seq, count, self._now_ms) for seq, count in self._repeats.items()]
        put(self._db, statements.PUT_REPEATS, repeats)
        head = (self._seq, self._hash, self._number, sum(self._repeats.values()), self._begun)
        self._db.execute(statements.PUT_HEAD, head)

    def _load_entries(self, facts: Sequence[Fact]) -> None:
        """Read what there is of the facts' transactions."""
        same = {("", f.merchant_no, f.fingerprint) for f in facts if not f.transaction_no}
        numbered = [key for key in self._known if key[0]]
        for row in (
            *read(self._db, statements.READ_ENTRIES, numbered),
            *read(self._db, statements.READ_SAME, same),
        ):
            entry = entry_of(row)
            self._known[entry.fact.transaction_no, entry.fact.merchant_no].add(entry)
        present = [key for key, known in self._known.items() if known.entries and key[0]]
        for row in read(self._db, statements.READ_TRANSACTIONS, present):
            found = transaction_of(row)
            self._known[found.transaction_no, found.merchant_no].transaction = found

    def _load_sales(self, facts: Sequence[Fact]) -> dict[int, Entry]:
        """Read the sales that the facts bring a number for, or that their transactions are of."""
        seqs = {f.sale_seq for f in facts if f.sale_seq}
        seqs |= {t.sale_seq for t in self._transactions() if t.sale_seq}
        rows = read(self._db, statements.READ_BY_SEQ, [(seq,) for seq in seqs])
        return {row[0]: entry_of(row) for row in rows}

    def _load_references(self, facts: Sequence[Fact]) -> set[tuple[str, str | None]]:
        """Read which references of new sales are used already."""
        wanted = {(f.merchant_no, f.reference) for f in facts if f.kind is Kind.SALE}
        return {(row[0], row[1]) for row in read(self._db, statements.READ_REFERENCES, wanted)}

    def _load_heads(self, facts: Sequence[Fact]) -> dict[str, int]:
        """Read the heads of the streams that the facts are likely to make events of."""
        streams = {stream_of(f.merchant_no, f.store_no) for f in facts if f.transaction_no}
        return self._read_heads(streams | {t.stream for t in self._transactions()})

    def _read_heads(self, streams: set[str]) -> dict[str, int]:
        rows = read(self._db, statements.READ_STREAMS, [(stream,) for stream in streams])
        return dict.fromkeys(streams, 0) | dict(rows)

    def _transactions(self) -> list[Transaction]:
        return [known.transaction for known in self._known.values() if known.transaction]
