"""Advance a transaction by one entry, and word the event that its tills are told.

Pure, and the same for every back-end: the ledger stores what these functions return, in the
commit of the entry itself, and ``listener verify`` calls them again to check what is stored.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import orjson
from msgspec import Struct
from msgspec.structs import replace

from listener.ledger.model import (
    Cancel,
    CancelState,
    Entry,
    Evidence,
    Fact,
    Kind,
    Status,
    Transaction,
    rfc3339,
)
from listener.ledger.schedule import Confirm, is_raised, next_ask, why_ask
from listener.ledger.status import WORDS, Belief, believe, why_held

# The event of a transaction that begins with a word for this status.
_BEGUN: Final[Mapping[Status | None, str]] = MappingProxyType(
    {status: f"transaction.{status}" for status in WORDS.values()}
)


class Step(Struct, frozen=True, kw_only=True):
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
    after = Transaction(
        merchant_no=entry.fact.merchant_no,
        transaction_no=entry.fact.transaction_no,
        first_seq=before.first_seq if before else entry.seq,
        status=belief.status,
        provider_status=belief.word,
        evidence=belief.evidence,
        held=belief.held is not None,
        state_version=(before.state_version if before else 0) + 1,
        created_at_ms=before.created_at_ms if before else entry.recorded_at_ms,
        updated_at_ms=entry.recorded_at_ms,
        reference=_first(known, "reference"),
        store_no=_first(known, "store_no"),
        terminal=_first(known, "terminal"),
        amount=_first(known, "amount"),
        currency=_first(known, "currency"),
        settle_currency=_first(known, "settle_currency"),
        sale_seq=sale.seq if sale else None,
        cancel=cancel,
        ask=next_ask(before, entry, why_ask(belief, cancel, sale, confirm), sale, cancel),
    )
    event_type = _event_type(before, after, entry)
    if event_type is None and before:
        after = replace(after, state_version=before.state_version)
    is_cancel = after.is_being_cancelled or (before is not None and before.is_being_cancelled)
    return Step(
        transaction=after,
        event_type=event_type,
        reason=_reason(event_type, entry, belief, is_cancel=is_cancel),
    )


def begin(entry: Entry, *, confirm: Confirm) -> Step | None:
    """Return what :func:`advance` would of a transaction's first entry, where that is plain.

    Nearly every transaction begins with a notification that says a word we know, and that nothing
    makes doubtful; most end with it. For all others this returns None: only ``advance`` knows.
    """
    fact = entry.fact
    event_type = _BEGUN.get(fact.says)
    if (
        fact.says is None
        or event_type is None
        or fact.kind is not Kind.NOTIFICATION
        or fact.suspect
        or fact.sale_seq
        or confirm == "always"
    ):
        return None
    transaction = Transaction(
        first_seq=entry.seq,
        merchant_no=fact.merchant_no,
        transaction_no=fact.transaction_no,
        store_no=fact.store_no or None,
        terminal=fact.terminal or None,
        reference=fact.reference or None,
        amount=fact.amount or None,
        currency=fact.currency or None,
        settle_currency=fact.settle_currency or None,
        status=fact.says,
        provider_status=fact.provider_status,
        evidence=Evidence.SIGNATURE,
        held=False,
        state_version=1,
        created_at_ms=entry.recorded_at_ms,
        updated_at_ms=entry.recorded_at_ms,
    )
    return Step(transaction=transaction, event_type=event_type, reason=fact.kind)


def refunds_if_paid(request: Entry) -> bool:
    """Tell whether a recorded cancel is to give money back."""
    return request.fact.field("refundIfPaid") == "true"


def event_text(step: Step, entry: Entry, *, epoch: str) -> tuple[str, str]:
    """Write the event of a step as CloudEvents 1.0 in JSON; ``pos.frames.Event`` is its schema.

    Returns:
        The text up to the entry's seq, which ends the event's id, and the text after it.
    """
    transaction = step.transaction
    rest = orjson.dumps(
        {
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
    return f'{{"specversion":"1.0","id":"{epoch}-', f'",{rest.decode()[1:]}'


def _shown(transaction: Transaction) -> tuple[object, ...]:
    """Return what a till shows of a transaction, and where: another store's till hears it anew."""
    return (
        transaction.status,
        transaction.provider_status,
        transaction.held,
        transaction.amount,
        transaction.currency,
        transaction.reference,
        transaction.store_no,
        transaction.terminal,
        # Who was told of a cancel, or of silence, is told of its end, be the status the same.
        transaction.cancel.state if transaction.cancel else None,
        transaction.ask is not None and transaction.ask.is_raised,
    )


def _event_type(before: Transaction | None, after: Transaction, entry: Entry) -> str | None:
    """Name the event that an entry makes, None where a till would show nothing new."""
    if entry.fact.kind is Kind.CANCEL_REQUEST:
        return "transaction.cancelling"
    if is_raised(entry):
        # The answer may have come while the silence was being raised: then there is none.
        asked = before.ask if before else None
        return "transaction.unresolved" if asked and asked.raise_at_ms is not None else None
    if before is not None and _shown(before) == _shown(after):
        return None
    status_changed = before is None or before.status is not after.status
    newly_held = after.held and (before is None or not before.held)
    if newly_held and (not status_changed or after.status is Status.UNKNOWN):
        return "transaction.held"
    return f"transaction.{after.status}"


def _reason(event_type: str | None, entry: Entry, belief: Belief, *, is_cancel: bool) -> str:
    """Say why an event was made; ``is_cancel``: somebody waits, or just waited, for a cancel."""
    if event_type == "transaction.held" and belief.held:
        return belief.held
    if event_type == "transaction.unresolved":
        return "no_answer"
    if is_cancel and entry.fact.kind is not Kind.DECISION:
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
    if belief.status is Status.PAID and asked_since and (decided or not refunds_if_paid(request)):
        return CancelState.REFUSED
    raised = any(is_raised(e) and e.seq > request.seq for e in entries)
    return CancelState.UNRESOLVED if raised else CancelState.REQUESTED


def _known(entries: Sequence[Entry], sale: Entry | None) -> list[Fact]:
    """Order facts by how well they describe the transaction: sale, believed, held."""
    believed: list[Fact] = []
    held: list[Fact] = []
    for entry in entries:
        (held if why_held(entry, sale) else believed).append(entry.fact)
    return [*([sale.fact] if sale else []), *believed, *held]


def _first(facts: Iterable[Fact], name: str) -> str | None:
    """Return the first value under a name; a plain loop, since this runs six times an entry."""
    for fact in facts:
        value: str | None = getattr(fact, name)
        if value:
            return value
    return None
