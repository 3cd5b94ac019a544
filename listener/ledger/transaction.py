"""Advance a transaction by one entry, and write the event that its tills get.

Pure, and the same for every back-end: the ledger stores what these functions return, in the
commit of the entry itself, and ``listener verify`` calls them again to check what is stored.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import orjson
from msgspec import Struct
from msgspec.structs import replace

from listener.ledger.belief import Belief
from listener.ledger.model import (
    NOTIFICATION,
    Cancel,
    CancelState,
    Entry,
    Evidence,
    Kind,
    Status,
    Transaction,
    rfc3339,
)
from listener.ledger.schedule import Confirm, next_ask, why_ask
from listener.ledger.status import WORDS, is_raised, why_held, wished_at_ms
from listener.ledger.summary import STORED_FROM, Summary

_SIGNATURE: Final = Evidence.SIGNATURE
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
    summary: Summary,
    entry: Entry,
    *,
    confirm: Confirm = "suspicious",
    sale: Entry | None = None,
) -> Step:
    """Return the state of a transaction after one more entry.

    Args:
        before: Where it stood one entry earlier, None for its first.
        summary: All of its entries, this one included.
        entry: The newest.
        confirm: The setting.
        sale: The entry that started it, or that judges it: ``summary.judge``.
    """
    belief = summary.believe()
    cancel = _cancel(before, summary, entry, belief)
    bound = sale if summary.is_bound else None
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
        reference=summary.known("reference"),
        store_no=summary.known("store_no"),
        terminal=summary.known("terminal"),
        amount=summary.known("amount"),
        currency=summary.known("currency"),
        settle_currency=summary.known("settle_currency"),
        sale_seq=bound.seq if bound else None,
        judge_seq=None if summary.is_bound else summary.judge,
        disputed=summary.contradictions,
        cancel=cancel,
        ask=next_ask(before, entry, why_ask(belief, cancel, bound, confirm), bound, cancel),
        summary=summary.text() if summary.count >= STORED_FROM else None,
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


def why_held_among(
    entry: Entry, sale: Entry | None, *, is_bound: bool, disputed: str | None
) -> str | None:
    """Return why an entry is not believed alone, given the others of its transaction.

    ``sale``, ``is_bound`` and ``disputed`` are what the transaction stores about the others.
    """
    alone = why_held(entry, sale, is_bound=is_bound)
    if alone or not disputed or entry.fact.kind is not NOTIFICATION:
        return alone
    names = [name for name in disputed.split(",") if getattr(entry.fact, name)]
    return f"{names[0]}_differs" if names else None


def begin(entry: Entry, *, confirm: Confirm) -> Step | None:
    """Return what :func:`advance` would, for a first entry in the common case.

    Nearly every transaction begins with a notification whose word we know and which nothing makes
    doubtful, and most end with it. In any other case this returns None, and ``advance`` is needed.
    """
    fact = entry.fact
    event_type = _BEGUN.get(fact.says)
    if (
        fact.says is None
        or event_type is None
        or fact.kind is not NOTIFICATION
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
        evidence=_SIGNATURE,
        held=False,
        state_version=1,
        created_at_ms=entry.recorded_at_ms,
        updated_at_ms=entry.recorded_at_ms,
    )
    return Step(transaction=transaction, event_type=event_type, reason=fact.kind)


def event_text(step: Step, entry: Entry, *, epoch: str) -> tuple[bytes, bytes]:
    """Write the event of a step as CloudEvents 1.0 in JSON; ``pos.events.Event`` is its schema.

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
    return b'{"specversion":"1.0","id":"%b-' % epoch.encode(), b'",' + rest[1:]


def _shown(transaction: Transaction) -> tuple[object, ...]:
    """Return what a till shows of a transaction; at another store's till all of it is new."""
    return (
        transaction.status,
        transaction.evidence,
        # Another spelling of a word is no news.
        (transaction.provider_status or "").strip().lower(),
        transaction.held,
        transaction.amount,
        transaction.currency,
        transaction.reference,
        transaction.store_no,
        transaction.terminal,
        # A till that saw a cancel, or silence, also sees its end, even under the same status.
        transaction.cancel.state if transaction.cancel else None,
        transaction.ask is not None and transaction.ask.is_raised,
    )


def _event_type(before: Transaction | None, after: Transaction, entry: Entry) -> str | None:
    """Return the type of the event that an entry makes; None where tills learn nothing new."""
    if entry.fact.kind is Kind.CANCEL_REQUEST:
        # The transaction may be cancelled already: then no event follows this one.
        is_open = after.is_being_cancelled
        return "transaction.cancelling" if is_open else f"transaction.{after.status}"
    if is_raised(entry):
        # The answer may have come while the silence was being raised: then nothing is raised.
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
    """Return why an event was made; ``is_cancel``: somebody waits, or just waited, for a cancel."""
    if event_type == "transaction.held" and belief.held:
        return belief.held
    if event_type == "transaction.unresolved":
        return "no_answer"
    if is_cancel and entry.fact.kind is not Kind.DECISION:
        return "cancel_requested"
    return entry.fact.kind


def _cancel(
    before: Transaction | None, summary: Summary, entry: Entry, belief: Belief
) -> Cancel | None:
    """Return the state of the newest cancel that was requested."""
    is_request = entry.fact.kind is Kind.CANCEL_REQUEST
    asked = before.cancel if before and not is_request else None
    if asked is None and not is_request:
        return None
    requested_at_ms = asked.requested_at_ms if asked else wished_at_ms(entry)
    state = _cancel_state(summary, belief)
    if state in (CancelState.REQUESTED, CancelState.UNRESOLVED):
        return Cancel(state=state, requested_at_ms=requested_at_ms)
    if asked and asked.state is state:
        return asked
    return Cancel(
        state=state,
        requested_at_ms=requested_at_ms,
        resolved_at_ms=entry.recorded_at_ms,
        evidence=belief.evidence,
    )


def _cancel_state(summary: Summary, belief: Belief) -> CancelState:
    """Return the state of a cancel.

    A signature never refuses it, since a query can. Nor does a signature from before the cashier's
    wish end it: Pockyt is asked whether it is true.
    """
    source = belief.source
    is_signed = belief.evidence is Evidence.SIGNATURE
    is_newer = source is not None and source.seq > summary.request
    asked_since = is_newer and not is_signed
    is_known = is_newer or not is_signed
    if belief.status is Status.REFUNDED and is_known:
        return CancelState.REFUNDED
    if belief.status is Status.CANCELLED and is_known:
        return CancelState.CONFIRMED
    if belief.status is Status.FAILED and asked_since:
        return CancelState.CONFIRMED
    if belief.status is Status.PAID and asked_since and not summary.refunds_if_paid:
        return CancelState.REFUSED
    is_unresolved = summary.raised > summary.request
    return CancelState.UNRESOLVED if is_unresolved else CancelState.REQUESTED
