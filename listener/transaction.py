"""Advance a transaction by one entry, and word the event that its tills are told.

Pure, and the same for every back-end: the ledger stores what these functions return, in the
commit of the entry itself, and ``listener verify`` calls them again to check what is stored.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from listener.model import (
    Alarm,
    Ask,
    Cancel,
    CancelState,
    Entry,
    Evidence,
    Fact,
    Kind,
    Status,
    Transaction,
    Why,
    rfc3339,
)
from listener.status import FINAL, Belief, believe, why_held

Confirm = Literal["off", "suspicious", "always"]

# Moments after the first doubt at which Pockyt is asked; then hourly, until the last.
ASK_SECONDS: Final = (3, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800)
ASK_EVERY_SECONDS: Final = 3_600
ASK_SECONDS_MAX: Final = 48 * 3_600
ASK_JITTER: Final = 0.1
RAISE_SECONDS: Final = 60
SALE_MINUTES: Final = 120

_SALE_OPEN: Final = frozenset({Status.UNKNOWN, Status.CREATED, Status.PENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A transaction after one more entry, and the event that the entry makes, if any."""

    transaction: Transaction
    event_type: str | None
    reason: str


def advance(
    before: Transaction | None,
    entries: Sequence[Entry],
    *,
    sale: Entry | None = None,
    confirm: Confirm = "suspicious",
) -> Step:
    """Take the last of a transaction's entries into account.

    ``before`` is where the transaction stood one entry earlier, ``entries`` all of its entries in
    seq order, ``sale`` the entry that started it, which has no transaction number of its own.
    """
    entry = entries[-1]
    belief = believe(entries, sale=sale)
    cancel = _cancel(before, entries, belief)
    known = _known(entries, sale)
    reference = _first(fact.reference for fact in known)
    terminal = _first(fact.terminal for fact in known)
    store_no = _first(fact.store_no for fact in known)
    amount = _first(fact.amount for fact in known)
    shown = (belief.status, belief.word, belief.held is not None, amount, reference, terminal)
    event_type = _event_type(before, entry, belief, shown == _shown(before))
    after = Transaction(
        merchant_no=entry.fact.merchant_no,
        transaction_no=entry.fact.transaction_no,
        first_seq=before.first_seq if before else entry.seq,
        status=belief.status,
        provider_status=belief.word,
        evidence=belief.evidence,
        held=belief.held is not None,
        state_version=(before.state_version if before else 0) + (event_type is not None),
        created_at_ms=before.created_at_ms if before else entry.recorded_at_ms,
        updated_at_ms=entry.recorded_at_ms,
        reference=reference,
        store_no=store_no,
        terminal=terminal,
        amount=amount,
        currency=_first(fact.currency for fact in known),
        settle_currency=_first(fact.settle_currency for fact in known),
        sale_seq=sale.seq if sale else None,
        cancel=cancel,
        ask=_ask(before, entry, _why(belief, cancel, sale, confirm), sale),
    )
    return Step(
        transaction=after, event_type=event_type, reason=_reason(event_type, entry, belief, cancel)
    )


def event_body(step: Step, entry: Entry, *, epoch: str) -> bytes:
    """Word the event of a step as CloudEvents 1.0 in JSON; ``pos.frames.Event`` is its schema."""
    transaction = step.transaction
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"{epoch}-{entry.seq}",
            "source": "/listener",
            "type": step.event_type,
            "subject": transaction.transaction_no,
            "time": rfc3339(entry.recorded_at_ms),
            "datacontenttype": "application/json",
            "data": {
                "transactionNo": transaction.transaction_no,
                "reference": transaction.reference,
                "merchantNo": transaction.merchant_no,
                "storeNo": transaction.store_no,
                "terminal": transaction.terminal,
                "status": transaction.status,
                "providerStatus": transaction.provider_status,
                "stateVersion": transaction.state_version,
                "amount": transaction.amount,
                "currency": transaction.currency,
                "reason": step.reason,
                "evidence": transaction.evidence,
            },
        }
    )


def _shown(transaction: Transaction | None) -> tuple[object, ...] | None:
    """Return what a till shows of a transaction."""
    if transaction is None:
        return None
    return (
        transaction.status,
        transaction.provider_status,
        transaction.held,
        transaction.amount,
        transaction.reference,
        transaction.terminal,
    )


def _event_type(
    before: Transaction | None, entry: Entry, belief: Belief, unchanged: bool
) -> str | None:
    """Name the event that an entry makes, None where a till would show nothing new."""
    kind = entry.fact.kind
    if kind is Kind.CANCEL_REQUEST:
        return "transaction.cancelling"
    if _is_raised(entry):
        return "transaction.unresolved"
    if unchanged:
        return None
    status_changed = before is None or before.status is not belief.status
    newly_held = belief.held is not None and (before is None or not before.held)
    if newly_held and (not status_changed or belief.status is Status.UNKNOWN):
        return "transaction.held"
    return f"transaction.{belief.status}"


def _reason(event_type: str | None, entry: Entry, belief: Belief, cancel: Cancel | None) -> str:
    """Say why an event was made."""
    if event_type == "transaction.held" and belief.held:
        return belief.held
    if event_type == "transaction.unresolved":
        return "no_answer"
    if cancel and entry.fact.kind is not Kind.DECISION:
        return "cancel_requested"
    return entry.fact.kind


def _cancel(before: Transaction | None, entries: Sequence[Entry], belief: Belief) -> Cancel | None:
    """Tell how the newest cancel that was asked for stands."""
    request = next((e for e in reversed(entries) if e.fact.kind is Kind.CANCEL_REQUEST), None)
    if request is None:
        return None
    state = _cancel_state(request, entries, belief)
    now_ms = entries[-1].recorded_at_ms
    if state in (CancelState.REQUESTED, CancelState.UNRESOLVED):
        return Cancel(state=state, requested_at_ms=request.recorded_at_ms)
    if before and before.cancel and before.cancel.state is state and entries[-1] is not request:
        return before.cancel
    return Cancel(
        state=state,
        requested_at_ms=request.recorded_at_ms,
        resolved_at_ms=now_ms,
        evidence=belief.evidence,
    )


def _cancel_state(request: Entry, entries: Sequence[Entry], belief: Belief) -> CancelState:
    """Tell how a cancel stands; a signature alone never refuses it, since a query can."""
    source = belief.source
    asked_since = source is not None and belief.evidence is not Evidence.SIGNATURE
    asked_since = asked_since and source is not None and source.seq > request.seq
    decided = source is not None and source.fact.kind is Kind.DECISION
    if belief.status is Status.REFUNDED:
        return CancelState.REFUNDED
    if belief.status is Status.CANCELLED or (belief.status is Status.FAILED and asked_since):
        return CancelState.CONFIRMED
    if belief.status is Status.PAID and asked_since and (decided or not _refunds(request)):
        return CancelState.REFUSED
    raised = any(_is_raised(e) and e.seq > request.seq for e in entries)
    return CancelState.UNRESOLVED if raised else CancelState.REQUESTED


def _is_raised(entry: Entry) -> bool:
    """Tell whether an entry raises the silence about its transaction."""
    return entry.fact.kind is Kind.ALARM and entry.fact.field("alarm") == Alarm.UNRESOLVED


def _refunds(request: Entry) -> bool:
    return request.fact.field("refundIfPaid") == "true"


def _known(entries: Sequence[Entry], sale: Entry | None) -> list[Fact]:
    """Order facts by how well they describe the transaction: sale, believed, held."""
    believed = [e.fact for e in entries if not why_held(e, sale)]
    held = [e.fact for e in entries if why_held(e, sale)]
    return [*([sale.fact] if sale else []), *believed, *held]


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value), None)


def _why(belief: Belief, cancel: Cancel | None, sale: Entry | None, confirm: Confirm) -> Why | None:
    """Tell why Pockyt is to be asked about a transaction; None where nothing is in doubt."""
    if cancel and cancel.resolved_at_ms is None:
        return Why.CANCEL
    if confirm != "off":
        if belief.status is Status.CONFLICT:
            return Why.CONFLICT
        if belief.held:
            return Why.HELD
        if belief.status is Status.UNKNOWN:
            return Why.UNKNOWN
    decided = belief.source is not None and belief.source.fact.kind is Kind.DECISION
    if confirm == "always" and belief.status in FINAL and not decided:
        return None if belief.evidence is Evidence.QUERY else Why.CONFIRM
    return Why.SALE if sale and belief.status in _SALE_OPEN else None


def _ask(
    before: Transaction | None, entry: Entry, why: Why | None, sale: Entry | None
) -> Ask | None:
    """Schedule the next question to Pockyt, on the ladder of the present doubt."""
    if why is None:
        return None
    now_ms = entry.recorded_at_ms
    asked = before.ask if before else None
    if asked is None or asked.why is not why or entry.fact.kind is Kind.CANCEL_REQUEST:
        return _first_ask(why, now_ms, sale)
    raised = _is_raised(entry)
    is_answer = entry.fact.kind is Kind.QUERY
    return Ask(
        why=why,
        since_ms=asked.since_ms,
        due_at_ms=next_due_ms(asked.since_ms, now_ms, entry.seq) if is_answer else asked.due_at_ms,
        raise_at_ms=None if raised else asked.raise_at_ms,
        attempt=asked.attempt + is_answer,
    )


def _first_ask(why: Why, now_ms: int, sale: Entry | None) -> Ask:
    if why is Why.SALE and sale is not None:
        minutes = int(sale.fact.field("timeout") or SALE_MINUTES)
        since_ms = due_ms = sale.recorded_at_ms + minutes * 60_000
    else:
        since_ms, due_ms = now_ms, now_ms + ASK_SECONDS[0] * 1_000
    raised = None if why is Why.CONFIRM else since_ms + RAISE_SECONDS * 1_000
    return Ask(why=why, since_ms=since_ms, due_at_ms=due_ms, raise_at_ms=raised)


def next_due_ms(since_ms: int, now_ms: int, seq: int) -> int | None:
    """Return when to ask again (Unix ms), jittered by the seq; None when it has been 48 hours."""
    waited = max(0, now_ms - since_ms) / 1_000
    if waited >= ASK_SECONDS_MAX:
        return None
    moment = next((s for s in ASK_SECONDS if s > waited + 0.5), waited + ASK_EVERY_SECONDS)
    spread = (seq * 2_654_435_761 % 2**32) / 2**32 * 2 - 1
    return now_ms + int((moment - waited) * 1_000 * (1 + ASK_JITTER * spread))
