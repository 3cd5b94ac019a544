"""What a set of entries says about a transaction: a join, whatever order they came in.

Source: Pockyt, "Webhook Notification Format" and "Cancel API" (the words); the tables are this
project's own, in docs/architecture.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from listener.model import Entry, Evidence, Kind, Status, same_amount

WORDS: Final[Mapping[str, Status]] = MappingProxyType(
    {
        "init": Status.CREATED,
        "dealing": Status.PENDING,
        "pending": Status.PENDING,
        "success": Status.PAID,
        "failed": Status.FAILED,
        "fail": Status.FAILED,
        "closed": Status.CANCELLED,
        "reversed": Status.CANCELLED,
        "cancelled": Status.CANCELLED,
        "canceled": Status.CANCELLED,
        "refunded": Status.REFUNDED,
    }
)
FINAL: Final = frozenset({Status.PAID, Status.FAILED, Status.CANCELLED, Status.REFUNDED})

_OPEN_RANK: Final = (Status.CANCELLED, Status.FAILED, Status.PENDING, Status.CREATED)
_EVIDENCE: Final = MappingProxyType(
    {
        Kind.NOTIFICATION: Evidence.SIGNATURE,
        Kind.ANSWER: Evidence.ANSWER,
        Kind.QUERY: Evidence.QUERY,
    }
)
_TAKEN_BACK: Final = frozenset({Status.PAID, Status.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What a set of entries adds up to.

    ``source`` is the entry that gives the status (the query that settled it, else the newest), None
    where nothing does; ``horizon``
    the seq up to which a query or a decision has settled everything; ``held`` why a notification
    after it is not believed alone, None where all are; ``refund_counted`` whether money was seen
    going back since the last decision.
    """

    status: Status
    source: Entry | None
    word: str | None
    horizon: int
    held: str | None
    refund_counted: bool

    @property
    def evidence(self) -> Evidence:
        """What the status rests on."""
        return _EVIDENCE.get(self.source.fact.kind, Evidence.NONE) if self.source else Evidence.NONE


def read_word(word: str | None) -> Status | None:
    """Read a status word of Pockyt's, trimmed and in any case; None where it is not known."""
    return WORDS.get(word.strip().lower()) if word else None


def join(statuses: Iterable[Status]) -> Status:
    """Join what several sources say into one status; the order does not matter."""
    said = set(statuses)
    if Status.REFUNDED in said:
        return Status.REFUNDED
    if Status.CONFLICT in said or said >= _TAKEN_BACK:
        return Status.CONFLICT
    if Status.PAID in said:
        return Status.PAID
    return next((status for status in _OPEN_RANK if status in said), Status.UNKNOWN)


def why_held(entry: Entry, sale: Entry | None) -> str | None:
    """Tell why a notification is not believable alone, None where it is.

    Worked out from the set: the sale may have been recorded after its notification.
    """
    fact = entry.fact
    if fact.kind is not Kind.NOTIFICATION:
        return None
    if fact.suspect or sale is None:
        return fact.suspect
    if not same_amount(fact.amount, sale.fact.amount):
        return "amount_differs"
    return None if fact.currency == sale.fact.currency else "currency_differs"


def believe(entries: Sequence[Entry], *, sale: Entry | None = None) -> Belief:
    """Join the entries of one transaction, given in seq order, with the sale that started it."""
    meanings: dict[int, Status] = {}
    for index, entry in enumerate(entries):
        believed = partial(_sum, entries[:index], meanings, sale)
        meaning = _meaning(entry, sale, believed)
        if meaning is not None:
            meanings[entry.seq] = meaning
    return _sum(entries, meanings, sale, None)


def _meaning(entry: Entry, sale: Entry | None, believed: Callable[[int], Belief]) -> Status | None:
    """Tell what one entry counts as, None where it counts for nothing."""
    fact = entry.fact
    if fact.says is None or fact.kind is Kind.DECISION:
        return fact.says
    if fact.kind is Kind.NOTIFICATION:
        return None if why_held(entry, sale) else fact.says
    if fact.as_of is None:
        return fact.says if fact.kind is Kind.ANSWER else None
    if fact.says not in FINAL or _differs(entry, sale):
        return None
    if fact.says is Status.CANCELLED:
        money = {Status.PAID, Status.CONFLICT, Status.REFUNDED}
        return Status.REFUNDED if believed(fact.as_of).status in money else Status.CANCELLED
    if fact.says is Status.PAID and believed(fact.as_of).refund_counted:
        return Status.CONFLICT
    return fact.says


def _differs(entry: Entry, sale: Entry | None) -> bool:
    """Tell whether an answer is about another sale than the one that was recorded."""
    if sale is None:
        return False
    said, sold = entry.fact, sale.fact
    return (
        (said.amount is not None and not same_amount(said.amount, sold.amount))
        or (said.currency is not None and said.currency != sold.currency)
        or (said.reference is not None and said.reference != sold.reference)
    )


def _settles(entry: Entry) -> int | None:
    """Return the seq up to which an entry overrules all others, None for what only joins them."""
    if entry.fact.kind is Kind.QUERY:
        return entry.fact.as_of
    return entry.seq if entry.fact.kind is Kind.DECISION else None


def _sum(
    entries: Sequence[Entry], meanings: Mapping[int, Status], sale: Entry | None, upto: int | None
) -> Belief:
    """Join the entries up to a seq, whose meanings are known."""
    known = [entry for entry in entries if upto is None or entry.seq <= upto]
    counted = [entry for entry in known if entry.seq in meanings]
    settling = [entry for entry in counted if _settles(entry) is not None]
    base = max(settling, key=lambda entry: (_settles(entry) or 0, entry.seq), default=None)
    horizon = (_settles(base) or 0) if base else 0
    joined = [e for e in counted if e.seq > horizon and _settles(e) is None]
    if base:
        joined.append(base)
    status = join(meanings[entry.seq] for entry in joined)
    gives = [entry for entry in joined if _gives(meanings[entry.seq], status)]
    source = base if base in gives else _newest(gives)
    decided = max((e.seq for e in counted if e.fact.kind is Kind.DECISION), default=0)
    return Belief(
        status=status,
        source=source,
        word=_word(source, known),
        horizon=horizon,
        held=next(
            (why for e in known if e.seq > horizon and (why := why_held(e, sale)) is not None), None
        ),
        refund_counted=any(
            e.seq >= decided and meanings[e.seq] is Status.REFUNDED for e in counted
        ),
    )


def _gives(meaning: Status, status: Status) -> bool:
    return meaning is status or (status is Status.CONFLICT and meaning in _TAKEN_BACK)


def _newest(entries: Iterable[Entry]) -> Entry | None:
    return max(entries, key=lambda entry: entry.seq, default=None)


def _word(source: Entry | None, known: Sequence[Entry]) -> str | None:
    """Return Pockyt's word for the status, or the newest word that we could not read."""
    chosen = source or _newest(e for e in known if e.fact.provider_status)
    return chosen.fact.provider_status if chosen else None
