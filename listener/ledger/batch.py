"""Decide what a group of facts becomes. Pure, and the same for every back-end.

A back-end reads what :func:`listener.ledger.wanted.wanted` names, passes it to :func:`decide`, and
writes the :class:`Changes` in one transaction. ``listener verify`` replays :func:`next_step`.

New entries are numbered on from ``Seen.seq``. For a back-end that reads and writes under one
lock, these seqs are final. PostgreSQL decides before it takes the lock, then shifts each new seq by
the number of entries that others have added meanwhile; that is safe, because decisions depend only
on the order of the seqs. What depends on the end of the ledger is computed last, under the lock:
the hashes (:mod:`listener.ledger.chain`), and the numbers and offsets of the events. Here that is
:func:`number_events`; on PostgreSQL it is ``append_v1.sql``.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from listener.errors import ListenerError, NumberTakenError, ReferenceTakenError
from listener.ledger.history import History
from listener.ledger.model import NOTIFICATION, SALE, Entry, Event, Fact, Transaction
from listener.ledger.results import Recorded
from listener.ledger.sale import SaleState, begin_sale, follow_sale, is_taken
from listener.ledger.schedule import Confirm
from listener.ledger.summary import Summary
from listener.ledger.transaction import Step, advance, begin, event_text
from listener.ledger.wanted import Key, Seen, names_a_sale, reference_of

CANCELLATIONS: Final = frozenset({"transaction.cancelled", "transaction.refunded"})


class NewEvent(Struct, frozen=True, kw_only=True):
    """An event that a new entry makes, before it has its number and its offset."""

    stream: str
    seq: int
    is_cancellation: bool
    # The body up to the entry's seq, and from there on.
    before_seq: bytes
    after_seq: bytes

    def body(self, seq: int) -> bytes:
        """Return the event that tills get, as CloudEvents JSON, if its entry has this seq."""
        return b"%b%d%b" % (self.before_seq, seq, self.after_seq)


class Changes(Struct, frozen=True, kw_only=True):
    """What some facts became, and everything that a back-end writes for them.

    Attributes:
        recorded: For each fact, in order, where it was recorded, or why it was not.
        entries: New, and without their hashes.
        transactions: As they are after the last entry.
        begun: The transactions among them that are new.
        sales: The states of sales, as they are after the last entry.
        repeats: Deliveries to add, by the seq of the entry.
    """

    recorded: list[Recorded | ListenerError] = []
    entries: list[Entry] = []
    events: list[NewEvent] = []
    transactions: dict[Key, Transaction] = {}
    begun: set[Key] = set()
    repeats: dict[int, int] = {}
    sales: dict[int, SaleState] = {}


def decide(
    facts: Iterable[Fact], seen: Seen, *, epoch: str, now_ms: int, confirm: Confirm
) -> Changes:
    """Decide what facts become, in their order, each with those before it in view."""
    batch = _Batch(seen, epoch=epoch, now_ms=now_ms, confirm=confirm)
    for fact in facts:
        batch.changes.recorded.append(batch.add(fact))
    return batch.changes


def next_step(
    before: Transaction | None,
    history: History,
    entry: Entry,
    *,
    sales: Mapping[int, Entry],
    confirm: Confirm,
) -> Step:
    """Add the next entry to a transaction's history, and return its new state.

    Args:
        before: Where the transaction stood one entry earlier.
        history: The entries before.
        entry: The next, in seq order.
        sales: The sales that may judge it, by their seq.
        confirm: When Pockyt is asked before a status is believed.
    """
    if before is None:
        step = begin(entry, confirm=confirm)
        if step is not None:
            # Summed up only if another entry comes.
            history.entries.append(entry)
            return step
    summary = history.add(entry, sales=sales)
    sale = sales.get(summary.judge or 0)
    return advance(before, summary, entry, sale=sale, confirm=confirm)


def new_event(step: Step, entry: Entry, *, epoch: str) -> NewEvent | None:
    """Build the event that an entry makes; None where tills are told nothing."""
    if step.event_type is None:
        return None
    before_seq, after_seq = event_text(step, entry, epoch=epoch)
    return NewEvent(
        stream=step.transaction.stream,
        seq=entry.seq,
        # A till has to acknowledge it in time.
        is_cancellation=step.event_type in CANCELLATIONS,
        before_seq=before_seq,
        after_seq=after_seq,
    )


def number_events(
    events: Iterable[NewEvent], *, number: int, heads: Mapping[str, int]
) -> list[Event]:
    """Number events: all together after the newest of all, and in each stream after its head.

    A stream that ``heads`` does not name has no events yet.
    """
    offsets = dict(heads)
    numbered: list[Event] = []
    for event in events:
        number += 1
        offsets[event.stream] = offset = offsets.get(event.stream, 0) + 1
        numbered.append(
            Event(
                number=number,
                stream=event.stream,
                offset=offset,
                seq=event.seq,
                body=event.body(event.seq),
            )
        )
    return numbered


class _Known(Struct, kw_only=True):
    """The entries of one transaction number (or of none) so far, and what they lead to."""

    history: History = field(default_factory=History)
    by_fingerprint: dict[str, int] = {}
    transaction: Transaction | None = None

    def remember(self, entry: Entry) -> None:
        if entry.fact.fingerprint:
            self.by_fingerprint[entry.fact.fingerprint] = entry.seq


class _Batch:
    """The part of the ledger that some facts concern, moved on by each fact that is added."""

    def __init__(self, seen: Seen, *, epoch: str, now_ms: int, confirm: Confirm) -> None:
        self.changes = Changes()
        self._epoch = epoch
        self._now_ms = now_ms
        self._confirm = confirm
        self._seq = seen.seq
        self._sales = dict(seen.sales)
        self._sale_states = dict(seen.sale_states)
        self._references = set(seen.references)
        self._unbound = dict(seen.unbound)
        self._known: dict[Key, _Known] = {}
        for transaction in seen.transactions:
            key = (transaction.merchant_no, transaction.transaction_no)
            known = self._known[key] = _Known(transaction=transaction)
            if transaction.summary is not None:
                known.history.summary = Summary.read(transaction.summary)
        for entry in seen.entries:
            known = self._of(entry.fact)
            known.remember(entry)
            known.history.entries.append(entry)

    def _of(self, fact: Fact) -> _Known:
        key = (fact.merchant_no, fact.transaction_no)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known()
        return known

    def add(self, fact: Fact) -> Recorded | ListenerError:
        """Append an entry for a fact, or count it as a repeat of the existing one."""
        known = self._of(fact)
        original = known.by_fingerprint.get(fact.fingerprint) if fact.fingerprint else None
        if original is not None:
            repeats = self.changes.repeats
            repeats[original] = repeats.get(original, 0) + 1
            return Recorded(seq=original, is_new=False)
        if fact.kind is SALE and reference_of(fact) in self._references:
            return ReferenceTakenError()
        if _brings_a_number(fact):
            sale = self._sale_states[fact.sale_seq or 0]
            if is_taken(sale, fact.transaction_no, known.transaction):
                holder = known.transaction.reference if known.transaction else None
                return NumberTakenError(fact.transaction_no, holder=holder)
        self._seq += 1
        is_bound = known.transaction is not None and known.transaction.sale_seq is not None
        sale_seq = self._unbound.get((fact.merchant_no, fact.reference or ""))
        if sale_seq and names_a_sale(fact) and not is_bound:
            fact = replace(fact, sale_seq=sale_seq)
        entry = Entry(seq=self._seq, recorded_at_ms=self._now_ms, fact=fact)
        self.changes.entries.append(entry)
        known.remember(entry)
        self._follow_sale(entry)
        if not fact.transaction_no:
            return Recorded(seq=entry.seq, is_new=True)
        return self._advance(known, entry)

    def _advance(self, known: _Known, entry: Entry) -> Recorded:
        """Add an entry to its transaction, and make the event that follows."""
        key = (entry.fact.merchant_no, entry.fact.transaction_no)
        if known.transaction is None:
            self.changes.begun.add(key)
        step = next_step(
            known.transaction,
            known.history,
            entry,
            sales=self._sales,
            confirm=self._confirm,
        )
        known.transaction = self.changes.transactions[key] = step.transaction
        event = new_event(step, entry, epoch=self._epoch)
        if event is not None:
            self.changes.events.append(event)
        return Recorded(
            seq=entry.seq,
            is_new=True,
            transaction=step.transaction,
            event_type=step.event_type,
        )

    def _follow_sale(self, entry: Entry) -> None:
        """Update a sale until Pockyt has given its transaction number."""
        fact = entry.fact
        if fact.kind is SALE:
            self._sales[entry.seq] = entry
            sale = begin_sale(entry)
            self._references.add(reference_of(fact))
            self._unbound[fact.merchant_no, fact.reference or ""] = entry.seq
        elif fact.sale_seq is not None:
            began_ms = self._sales[fact.sale_seq].recorded_at_ms
            before = self._sale_states[fact.sale_seq]
            sale = follow_sale(before, entry, began_ms=began_ms)
            if sale == before:
                return
            if sale.is_refused:
                self._references.discard(reference_of(self._sales[sale.seq].fact))
            if sale.is_refused or sale.transaction_no:
                key = (fact.merchant_no, sale.reference)
                if self._unbound.get(key) == sale.seq:
                    del self._unbound[key]
        else:
            return
        self._sale_states[sale.seq] = self.changes.sales[sale.seq] = sale


def _brings_a_number(fact: Fact) -> bool:
    """Return whether a fact brings the transaction number of a sale."""
    is_ours = fact.kind is not NOTIFICATION
    return is_ours and fact.sale_seq is not None and bool(fact.transaction_no)
