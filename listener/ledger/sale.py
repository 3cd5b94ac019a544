"""Follow a recorded sale until Pockyt has given its transaction number; pure.

A cashier may want to cancel it before that. The wish is then stored with the sale: Pockyt is
asked by the reference, and once the number is known the wish moves to the transaction.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from listener.amounts import same_text
from listener.ledger.model import (
    Alarm,
    Cancel,
    CancelState,
    Entry,
    Evidence,
    Fact,
    Kind,
    Status,
    Transaction,
)
from listener.ledger.schedule import ASK_SECONDS, RAISE_SECONDS, next_due_ms
from listener.refusals import NO_RECORD, NOT_CARRIED_OUT

# How long the call that starts a sale may take. Until then the sale is not looked for by its
# reference, and Pockyt's "no such record" does not mean that it will never exist.
SALE_ANSWER_MS: Final = 30_000

_ENDS: Final = {
    Status.CANCELLED: CancelState.CONFIRMED,
    Status.FAILED: CancelState.CONFIRMED,
    Status.REFUNDED: CancelState.REFUNDED,
}


class SaleState(Struct, frozen=True, kw_only=True, array_like=True):
    """The state of a recorded sale, as far as no transaction holds it.

    Attributes:
        due_ms: When to look for it by its reference, or to move its cancel to the transaction.
            A notification with its reference makes that now, if somebody wished to cancel the sale,
            or if the notification has no number.
        raise_ms: When to raise the silence about its cancel (Unix ms).
        is_refused: Whether Pockyt certainly did not start it, so that its reference is free.
        cancel: The state of the cancel that was wished before the number was known.
        cancel_seq: The entry of that wish.
        is_cancel_sent: Whether /cancel was sent for it, and may have had an effect.
    """

    seq: int
    merchant_no: str
    store_no: str
    reference: str
    transaction_no: str | None = None
    is_refused: bool = False
    due_ms: int | None = None
    raise_ms: int | None = None
    cancel_seq: int | None = None
    is_cancel_sent: bool = False
    cancel: Cancel | None = None

    @property
    def key(self) -> str:
        """Its store and reference as one text."""
        return f"{self.merchant_no}/{self.store_no}/{self.reference}"

    @property
    def has_ended(self) -> bool:
        """Whether Pockyt did not start it, or its cancel has ended: a number is not looked for."""
        is_over = self.cancel is not None and not self.is_being_cancelled
        return self.is_refused or is_over

    @property
    def raise_wish_ms(self) -> int | None:
        """When its transaction is to raise the wish; in the past if the sale has raised it."""
        if self.cancel is None or not self.is_being_cancelled:
            return None
        return self.raise_ms or self.cancel.requested_at_ms

    @property
    def is_being_cancelled(self) -> bool:
        """Whether somebody waits for a cancel that has not ended."""
        return self.cancel is not None and self.cancel.resolved_at_ms is None


def begin_sale(entry: Entry) -> SaleState:
    """Return the state of a sale that was just recorded."""
    fact = entry.fact
    return SaleState(
        seq=entry.seq,
        merchant_no=fact.merchant_no,
        store_no=fact.store_no or "",
        reference=fact.reference or "",
        due_ms=entry.recorded_at_ms + SALE_ANSWER_MS,
    )


def follow_sale(before: SaleState, entry: Entry, *, began_ms: int) -> SaleState:
    """Return the state of a sale after another entry that names it; it began at ``began_ms``."""
    fact, now_ms = entry.fact, entry.recorded_at_ms
    if fact.kind is Kind.NOTIFICATION:
        return _heard(before, entry)
    if fact.kind is Kind.CANCEL_REQUEST:
        return _wished(before, entry)
    if fact.kind is Kind.ALARM:
        return _raised(before, entry)
    if fact.transaction_no:
        due_ms = None if before.cancel is None else now_ms
        number = before.transaction_no or fact.transaction_no
        return replace(before, transaction_no=number, is_refused=False, due_ms=due_ms)
    if before.transaction_no is not None:
        return before
    if fact.kind is Kind.QUERY:
        return _asked(before, entry, began_ms=began_ms)
    if fact.field("call") == "cancel":
        after = replace(before, is_cancel_sent=not cancel_had_no_effect(fact))
        return _ended(after, _ENDS.get(fact.says) if fact.says else None, Evidence.ANSWER, now_ms)
    refused = _is_refused(fact)
    ended = CancelState.CONFIRMED if refused else None
    # Somebody may wait for its cancel: then it is looked for as before.
    due_ms = before.due_ms if before.is_being_cancelled and not refused else None
    after = replace(before, is_refused=refused, due_ms=due_ms)
    return _ended(after, ended, Evidence.ANSWER, now_ms)


def is_taken(sale: SaleState, number: str, known: Transaction | None) -> bool:
    """Return whether a transaction number already belongs to another sale, or another store.

    Args:
        sale: The sale that Pockyt gave the number for.
        number: The number.
        known: The transaction that the ledger has under it.
    """
    if sale.transaction_no not in (None, number):
        return True
    if known is None:
        return False
    if known.sale_seq is not None:
        return known.sale_seq != sale.seq
    is_elsewhere = known.store_no not in (None, sale.store_no)
    # A notification that counts for nothing (a refund's, say) may have a reference of its own.
    is_named = known.reference is not None and known.evidence is not Evidence.NONE
    return is_elsewhere or (is_named and not same_text(known.reference, sale.reference))


def cancel_had_no_effect(answer: Fact) -> bool:
    """Return whether Pockyt surely did not carry out a /cancel, or cannot have received it."""
    is_refused = answer.field("error") == "refused" and answer.field("retCode") in NOT_CARRIED_OUT
    return is_refused or answer.field("sent") == "false"


def _is_refused(answer: Fact) -> bool:
    """Return whether Pockyt refused a call, or cannot have received it."""
    return answer.field("error") == "refused" or answer.field("sent") == "false"


def _heard(before: SaleState, entry: Entry) -> SaleState:
    """Apply a notification with the sale's reference, while its number is not known.

    A signature alone binds no number. But where somebody wished to cancel the sale, it may exist
    after all: so it is looked at now, and what seemed to be the end of the cancel no longer is.
    A notification without a number says nothing by itself, so the sale is looked for now.
    """
    if before.transaction_no is not None or before.is_refused:
        return before
    now_ms = entry.recorded_at_ms
    if before.cancel is None and entry.fact.transaction_no:
        return before
    if before.cancel is None or before.is_being_cancelled:
        return replace(before, due_ms=now_ms)
    since_ms = before.cancel.requested_at_ms
    return replace(
        before,
        cancel=Cancel(state=CancelState.REQUESTED, requested_at_ms=since_ms),
        due_ms=now_ms,
        raise_ms=now_ms + RAISE_SECONDS * 1_000,
    )


def _wished(before: SaleState, entry: Entry) -> SaleState:
    now_ms = entry.recorded_at_ms
    if entry.fact.transaction_no:
        # The transaction has taken the wish over, and is the sale's from now on.
        number = before.transaction_no or entry.fact.transaction_no
        return replace(before, transaction_no=number, due_ms=None, raise_ms=None)
    raise_ms = now_ms + RAISE_SECONDS * 1_000
    after = replace(
        before,
        cancel_seq=entry.seq,
        cancel=Cancel(state=CancelState.REQUESTED, requested_at_ms=now_ms),
        is_cancel_sent=False,
        due_ms=now_ms + (0 if before.transaction_no else ASK_SECONDS[0] * 1_000),
        raise_ms=min(before.raise_ms or raise_ms, raise_ms),
    )
    if not before.is_refused:
        return after
    return _ended(replace(after, due_ms=None), CancelState.CONFIRMED, Evidence.ANSWER, now_ms)


def _raised(before: SaleState, entry: Entry) -> SaleState:
    if entry.fact.field("alarm") != Alarm.UNRESOLVED:
        # A sale found under its reference would be another one. But if somebody waits for its
        # cancel, it is looked for as before: Pockyt may have erred only once.
        return before if before.is_being_cancelled else replace(before, due_ms=None)
    after = replace(before, raise_ms=None)
    if before.cancel is None or not before.is_being_cancelled:
        return after
    return replace(after, cancel=replace(before.cancel, state=CancelState.UNRESOLVED))


def _asked(before: SaleState, entry: Entry, *, began_ms: int) -> SaleState:
    """Apply Pockyt's answer to a question by the reference that brought no number."""
    fact, now_ms = entry.fact, entry.recorded_at_ms
    since_ms = began_ms
    if before.cancel is not None and before.is_being_cancelled:
        since_ms = before.cancel.requested_at_ms
    after = replace(
        before,
        due_ms=next_due_ms(since_ms, now_ms, before.key),
        is_cancel_sent=before.is_cancel_sent or fact.field("next") == "cancel",
    )
    # Pockyt may still receive a call that is under way.
    is_gone = fact.field("retCode") == NO_RECORD and now_ms - began_ms >= SALE_ANSWER_MS
    ended = CancelState.CONFIRMED if is_gone else _ENDS.get(fact.says) if fact.says else None
    return _ended(after, ended, Evidence.QUERY, now_ms)


def _ended(
    sale: SaleState, state: CancelState | None, evidence: Evidence, now_ms: int
) -> SaleState:
    """End the cancel that somebody waits for; change nothing if there is none, or no end."""
    if state is None or sale.cancel is None or not sale.is_being_cancelled:
        return sale
    cancel = replace(sale.cancel, state=state, resolved_at_ms=now_ms, evidence=evidence)
    return replace(sale, cancel=cancel, raise_ms=None)
