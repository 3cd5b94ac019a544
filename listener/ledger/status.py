"""What a set of entries says about a transaction: a join, whatever order they came in.

Status, held and evidence are functions of the set. Only the word that is shown beside a status
may depend on the order: where several words of Pockyt's mean the same, the newest speaks.

Source: Pockyt, "Webhook Notification Format" and "Cancel API" (the words); the tables are this
project's own, in docs/architecture.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from listener.ledger.model import MONEY, Entry, Evidence, Kind, Status, read_amount, same_amount

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
_REFUND_DONE: Final = frozenset({Status.PAID, Status.REFUNDED})
_REFUND_OFF: Final = frozenset({Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What a set of entries adds up to.

    ``source`` is the entry that gives the status, None where nothing does: the query that settled
    it, else the best evidence, and of equals the newest. ``word`` is Pockyt's for it. ``horizon``
    is the seq up to which a query or a decision has settled everything. ``held`` tells why a
    notification after it is not believed alone, None where all are; ``unread`` whether one after
    it says a word that we cannot read.
    """

    status: Status
    source: Entry | None
    word: str | None
    horizon: int
    held: str | None
    unread: bool

    @property
    def evidence(self) -> Evidence:
        """What the status rests on."""
        return _EVIDENCE.get(self.source.fact.kind, Evidence.NONE) if self.source else Evidence.NONE


@dataclass(frozen=True, slots=True)
class _Counted:
    """An entry that counts, and as what; ``settles`` is the seq up to which it overrules all."""

    entry: Entry
    status: Status
    settles: int | None


def read_word(word: str | None) -> Status | None:
    """Read a status word of Pockyt's, trimmed and in any case; None where it is not known."""
    return WORDS.get(word.strip().lower()) if word else None


def read_query(
    word: str | None, *, amount: str | None, refunds: Iterable[tuple[str, str | None]]
) -> Status | None:
    """Read what tran-query says: a success whose refunds cover its amount is refunded.

    ``refunds`` are pairs of amount and status word; one without a word is done. While one is
    under way nothing is final, and the answer says nothing: least of all that nobody has paid.
    """
    said = read_word(word)
    if said is not Status.PAID:
        return said
    known = [(read_amount(refunded), read_word(state or "success")) for refunded, state in refunds]
    if any(state not in _REFUND_DONE | _REFUND_OFF for _, state in known):
        return None
    back = sum((part for part, state in known if part and state in _REFUND_DONE), Decimal(0))
    paid = read_amount(amount)
    return Status.REFUNDED if paid is not None and 0 < paid <= back else Status.PAID


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
    counted: list[_Counted] = []
    for entry in entries:
        status = _meaning(entry, sale, counted)
        if status is not None:
            counted.append(_Counted(entry, status, _settles(entry)))
    base, joined = _joined(counted)
    status = join(one.status for one in joined)
    source = _source(base, joined, status)
    horizon = (base.settles or 0) if base else 0
    later = [e for e in entries if e.seq > horizon and e.fact.kind is Kind.NOTIFICATION]
    return Belief(
        status=status,
        source=source,
        word=_word(source, entries),
        horizon=horizon,
        held=next((why for e in later if (why := why_held(e, sale)) is not None), None),
        unread=any(e.fact.provider_status and e.fact.says is None for e in later),
    )


def _meaning(entry: Entry, sale: Entry | None, counted: Sequence[_Counted]) -> Status | None:
    """Tell what one entry counts as, None where it counts for nothing.

    ``counted`` are the entries before it; what a query means depends on what they said by then.
    """
    fact = entry.fact
    if fact.says is None or fact.kind is Kind.DECISION:
        return fact.says
    if fact.kind is Kind.NOTIFICATION:
        return None if why_held(entry, sale) else fact.says
    if fact.kind not in (Kind.ANSWER, Kind.QUERY) or _differs(entry, sale):
        return None
    if fact.as_of is None:
        return fact.says if fact.kind is Kind.ANSWER else None
    if fact.says is Status.CANCELLED:
        believed = join(one.status for one in _joined(_upto(counted, fact.as_of))[1])
        # A payment in conflict counts here: what was paid and then is closed has been given back.
        return Status.REFUNDED if believed in MONEY else Status.CANCELLED
    if fact.says is Status.PAID and not _lists_refunds(entry):
        refunded = _refund_counted(_upto(counted, fact.as_of))
        return Status.CONFLICT if refunded else Status.PAID
    return fact.says if fact.says in FINAL else None


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


def _lists_refunds(entry: Entry) -> bool:
    """Tell whether Pockyt itself lists refunds: then it knows of what was given back."""
    return entry.fact.field("refundInfo") not in (None, "", "[]")


def _settles(entry: Entry) -> int | None:
    """Return the seq up to which an entry overrules all others, None for what only joins them."""
    if entry.fact.kind is Kind.QUERY:
        return entry.fact.as_of
    return entry.seq if entry.fact.kind is Kind.DECISION else None


def _upto(counted: Sequence[_Counted], seq: int) -> list[_Counted]:
    return [one for one in counted if one.entry.seq <= seq]


def _joined(counted: Sequence[_Counted]) -> tuple[_Counted | None, list[_Counted]]:
    """Return the newest entry that settles, None where none does, and all that is to be joined."""
    base, horizon = None, 0
    for one in counted:
        if one.settles is not None and (base is None or one.settles >= horizon):
            base, horizon = one, one.settles
    joined = [one for one in counted if one.settles is None and one.entry.seq > horizon]
    return base, [*joined, base] if base else joined


def _refund_counted(counted: Sequence[_Counted]) -> bool:
    """Tell whether money was seen going back since the last decision."""
    decisions = [one.entry.seq for one in counted if one.entry.fact.kind is Kind.DECISION]
    decided = max(decisions, default=0)
    return any(one.status is Status.REFUNDED and one.entry.seq >= decided for one in counted)


def _source(base: _Counted | None, joined: Sequence[_Counted], status: Status) -> Entry | None:
    """Return the entry that gives the status."""
    if base is not None and _gives(base.status, status):
        return base.entry
    best = max((one for one in joined if _gives(one.status, status)), key=_weight, default=None)
    return best.entry if best else None


def _gives(meaning: Status, status: Status) -> bool:
    return meaning is status or (status is Status.CONFLICT and meaning in _TAKEN_BACK)


def _weight(one: _Counted) -> tuple[bool, bool, int]:
    # In a conflict the payment speaks, whichever came first: it is what has to be looked into.
    return one.status is Status.PAID, one.entry.fact.kind is Kind.ANSWER, one.entry.seq


def _word(source: Entry | None, entries: Sequence[Entry]) -> str | None:
    """Return Pockyt's word for the status, or the newest word that we could not read."""
    chosen = source or next((e for e in reversed(entries) if e.fact.provider_status), None)
    return chosen.fact.provider_status if chosen else None
