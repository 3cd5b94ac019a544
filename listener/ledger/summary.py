"""Sum up what was said about one transaction, so that its entries need not be read again.

A :class:`Summary` is the left fold of a transaction's entries in seq order, of limited size however
many there are. Status, held and evidence follow from it, and are functions of the *set* of entries:
joining statuses does not depend on the order. Only the word that is shown with a status may: where
several of Pockyt's words mean the same, the newest is shown.

What a query means depends on what was believed when it was asked. So the summary stores what was
believed, and since when, instead of the entries behind it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Self

import orjson

from listener.ledger.belief import Belief, Voice
from listener.ledger.model import MONEY, Entry, Fact, Kind, Status
from listener.ledger.status import (
    DISPUTABLE,
    FINAL,
    gives,
    is_named_alike,
    is_of_sale,
    is_raised,
    join,
    lists_refunds,
    still_refunds,
    why_held,
)
from listener.suspects import REFUND_NOTICE

# With this many entries a transaction's summary is stored; a shorter one is summed up again.
STORED_FROM: Final = 16
# How many changes of what was believed are kept: one for each status that a join rises through,
# since several queries ago. A query that was under way for longer is taken as asked at the oldest.
PAST_MAX: Final = 32

_DESCRIBED: Final = ("reference", "store_no", "terminal", "amount", "currency", "settle_currency")
# What describes a transaction, the best first: its sale, Pockyt or a till, a notification, an entry
# that counts for nothing.
_SOLD, _TOLD, _NOTIFIED, _DOUBTFUL = range(4)


@dataclass(slots=True, kw_only=True)
class Summary:
    """What the entries of one transaction add up to so far.

    ``judge`` is the seq of the sale that judged them, None for none. ``is_bound`` is false where
    that sale's number is not known yet, so that only its reference leads to it. If another sale is
    to judge, everything has to be summed up again.
    """

    judge: int | None = None
    is_bound: bool = False
    count: int = 0
    horizon: int = 0
    settled: Voice | None = None
    # The newest voice of each status and kind that names the same things, past the horizon.
    voices: list[Voice] = field(default_factory=list)
    # What the notifications of a counted refund name; () for what nobody disputes.
    refunds: list[tuple[str, ...]] = field(default_factory=list)
    # What was believed from which seq on, and whether a refund had been counted.
    past: list[tuple[int, Status, bool]] = field(default_factory=list)
    # For amount, currency and reference: what the first notification that names it says, the seq of
    # the newest one that does, and which of the three are contradicted.
    named: dict[str, str] = field(default_factory=dict)
    named_at: dict[str, int] = field(default_factory=dict)
    disputed: list[str] = field(default_factory=list)
    # The seq of the newest notification that is held for each reason, and of one not understood.
    held_at: dict[str, int] = field(default_factory=dict)
    unread_at: int = 0
    word: str | None = None
    # The newest cancel that was asked for, whether it still gives money back, and the newest alarm
    # about silence.
    request: int = 0
    refunds_if_paid: bool = False
    raised: int = 0
    described: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def begin(cls, sale: Entry | None = None, *, is_bound: bool = False) -> Self:
        """Begin with nothing but the sale that judges."""
        if sale is None:
            # The sale that it is bound to is missing; verify reports that elsewhere.
            return cls(is_bound=is_bound)
        summary = cls(judge=sale.seq, is_bound=is_bound)
        summary._describe(sale.fact, _SOLD)
        return summary

    @classmethod
    def of(
        cls, entries: Iterable[Entry], *, sale: Entry | None = None, is_bound: bool = False
    ) -> Self:
        """Sum up entries, given in seq order."""
        summary = cls.begin(sale, is_bound=is_bound)
        for entry in entries:
            summary.hear(entry, sale=sale)
        return summary

    def hear(self, entry: Entry, *, sale: Entry | None) -> None:
        """Add the next entry; ``sale`` is the one that judges."""
        fact = entry.fact
        self.count += 1
        self.word = fact.provider_status or self.word
        self.refunds_if_paid = still_refunds(fact, before=self.refunds_if_paid)
        held = why_held(entry, sale, is_bound=self.is_bound)
        if fact.kind is Kind.NOTIFICATION:
            self._hear_notification(entry, held)
        elif fact.kind is Kind.CANCEL_REQUEST:
            self.request = entry.seq
        elif is_raised(entry):
            self.raised = entry.seq
        is_told = fact.kind is Kind.CANCEL_REQUEST
        if held is None and fact.says is not None and (sale is None or _concerns(fact, sale)):
            is_told = True
            meaning = self._meaning(fact)
            if meaning is not None:
                self._count(entry, meaning)
        rank = _DOUBTFUL if not is_told else _TOLD
        if fact.kind is Kind.NOTIFICATION and held is None:
            rank = _NOTIFIED
        self._describe(fact, rank)
        believed = (entry.seq, self._status(), self._is_refund_counted())
        if not self.past or self.past[-1][1:] != believed[1:]:
            self.past = [*self.past[1 - PAST_MAX :], believed]

    def believe(self) -> Belief:
        """Return what the entries add up to."""
        status = self._status()
        source = self._source(status)
        return Belief(
            status=status,
            source=source,
            word=source.word if source else self.word,
            horizon=self.horizon,
            held=self._held(),
            unread=self.unread_at > self.horizon,
        )

    def known(self, name: str) -> str | None:
        """Return the best description of the transaction."""
        found = self.described.get(name)
        return found[1] if found else None

    @property
    def contradictions(self) -> str | None:
        """Which of amount, currency and reference are contradicted, separated by commas."""
        return ",".join(self.disputed) or None if self.judge is None else None

    def text(self) -> str:
        """Write it as the text that a back-end stores."""
        return orjson.dumps(self).decode()

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what :meth:`text` wrote."""
        kept: dict[str, Any] = orjson.loads(text)
        kept["settled"] = Voice.read(kept["settled"]) if kept["settled"] else None
        kept["voices"] = [Voice.read(one) for one in kept["voices"]]
        kept["refunds"] = [tuple(names) for names in kept["refunds"]]
        kept["past"] = [(seq, Status(status), counted) for seq, status, counted in kept["past"]]
        kept["described"] = {
            name: (rank, value) for name, (rank, value) in kept["described"].items()
        }
        return cls(**kept)

    def _hear_notification(self, entry: Entry, held: str | None) -> None:
        fact = entry.fact
        if held is not None:
            self.held_at[held] = entry.seq
        if fact.provider_status and fact.says is None:
            self.unread_at = entry.seq
        # A refund has an amount and a reference of its own.
        if fact.suspect == REFUND_NOTICE:
            return
        for name in _named(fact):
            value: str = getattr(fact, name)
            self.named_at[name] = entry.seq
            first = self.named.setdefault(name, value)
            if name not in self.disputed and not is_named_alike(name, first, value):
                self.disputed = sorted([*self.disputed, name])

    def _meaning(self, fact: Fact) -> Status | None:
        """Return what a believed entry counts as; None where it counts for nothing."""
        says = fact.says
        if fact.kind not in (Kind.ANSWER, Kind.QUERY):
            return says
        if fact.as_of is None:
            return says if fact.kind is Kind.ANSWER else None
        believed, is_refund_counted = self._past_at(fact.as_of)
        if says is Status.CANCELLED:
            # A payment that is then closed was given back, one in conflict too.
            return Status.REFUNDED if believed in MONEY else Status.CANCELLED
        if says is Status.PAID and is_refund_counted and not lists_refunds(fact):
            return Status.CONFLICT
        return says if says in FINAL else None

    def _count(self, entry: Entry, status: Status) -> None:
        fact = entry.fact
        names = _named(fact) if fact.kind is Kind.NOTIFICATION else ()
        voice = Voice(entry.seq, fact.kind, status, fact.provider_status, names)
        settles = self._settles(entry)
        if fact.kind is Kind.DECISION and settles is not None:
            unseen = [one for one in self.voices if one.seq > settles]
            self.refunds = sorted({one.names for one in unseen if one.status is Status.REFUNDED})
        if status is Status.REFUNDED and names not in self.refunds:
            self.refunds = sorted([*self.refunds, names])
        if settles is None:
            key = voice.key
            self.voices = [*(one for one in self.voices if one.key != key), voice]
        elif fact.kind is Kind.DECISION or settles >= self._asked_since():
            self.settled, self.horizon = voice, settles
            self.voices = [one for one in self.voices if one.seq > settles]

    def _settles(self, entry: Entry) -> int | None:
        """Return the seq up to which an entry overrules what was said; None where it does not."""
        as_of = entry.fact.as_of
        if entry.fact.kind is Kind.QUERY:
            return as_of
        if entry.fact.kind is Kind.DECISION:
            # What the operator had not seen is joined with the decision, which is never older than
            # a query.
            return entry.seq if as_of is None else max(as_of, self.horizon)
        return None

    def _asked_since(self) -> int:
        """Return the seq at or after which a query must have been asked to settle anything."""
        if self.settled is not None and self.settled.kind is Kind.DECISION:
            # The decision itself is not overruled by what was asked before it.
            return self.settled.seq
        return self.horizon

    def _past_at(self, as_of: int) -> tuple[Status, bool]:
        """Return what was believed at a seq, and whether a refund had been counted."""
        for seq, status, is_refund_counted in reversed(self.past):
            if seq <= as_of:
                return status, is_refund_counted
        return self.past[0][1:] if len(self.past) == PAST_MAX else (Status.UNKNOWN, False)

    def _status(self) -> Status:
        settled = [self.settled.status] if self.settled else []
        return join([*settled, *(one.status for one in self._heard())])

    def _heard(self) -> list[Voice]:
        return [one for one in self.voices if not self._is_disputed(one.names)]

    def _is_disputed(self, names: tuple[str, ...]) -> bool:
        """Return whether notifications differ in one of these, and no sale judges."""
        return self.judge is None and any(name in self.disputed for name in names)

    def _is_refund_counted(self) -> bool:
        """Return whether money was seen going back since the last decision."""
        return any(not self._is_disputed(names) for names in self.refunds)

    def _source(self, status: Status) -> Voice | None:
        if self.settled and gives(self.settled.status, status):
            return self.settled
        giving = [one for one in self._heard() if gives(one.status, status)]
        return max(giving, key=Voice.weight, default=None)

    def _held(self) -> str | None:
        """Return the reason of the newest notification that is held."""
        found = {(at, why) for why, at in self.held_at.items() if at > self.horizon}
        for name in self.disputed if self.judge is None else ():
            if self.named_at[name] > self.horizon:
                found.add((self.named_at[name], f"{name}_differs"))
        return max(found)[1] if found else None

    def _describe(self, fact: Fact, rank: int) -> None:
        """Update the best description of the transaction; of equals the first stays."""
        for name in _DESCRIBED:
            value: str | None = getattr(fact, name)
            if not value:
                continue
            found = self.described.get(name)
            if found is None or (rank < found[0] and not _is_same(name, found, value, rank)):
                self.described[name] = (rank, value)


def _concerns(fact: Fact, sale: Entry) -> bool:
    """Return whether an entry may count, besides the recorded sale."""
    return fact.kind not in (Kind.ANSWER, Kind.QUERY) or is_of_sale(fact, sale.fact)


def _is_same(name: str, found: tuple[int, str], value: str, rank: int) -> bool:
    """Return whether Pockyt only repeats what a notification has said."""
    if (found[0], rank) != (_NOTIFIED, _TOLD) or name not in DISPUTABLE:
        return False
    return is_named_alike(name, found[1], value)


def _named(fact: Fact) -> tuple[str, ...]:
    return tuple(name for name in DISPUTABLE if getattr(fact, name))
