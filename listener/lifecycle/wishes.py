"""Read from a transaction's entries what a cashier's wish to cancel still asks for; pure."""

from collections.abc import Sequence
from typing import Final

from listener.ledger.model import MONEY, CancelState, Entry, Kind, Status, Transaction
from listener.ledger.results import RecordedSale
from listener.ledger.sale import cancel_had_no_effect
from listener.ledger.status import refunds_if_paid, still_refunds

_OPEN: Final = frozenset({Status.CREATED, Status.PENDING})
_TAKEN_BACK: Final = frozenset({Status.CONFLICT, Status.REFUNDED})


def may_refund(entries: Sequence[Entry]) -> bool:
    """Return whether money is to be given back, if it was paid."""
    is_wished = False
    for entry in entries:
        is_wished = still_refunds(entry.fact, before=is_wished)
    return is_wished


def is_spent(entries: Sequence[Entry]) -> bool:
    """Return whether /cancel was sent for the newest wish, so that Pockyt may have done it.

    A cancel that was about to be sent counts: the listener may have been killed just after.
    """
    spent = False
    for entry in entries:
        fact = entry.fact
        if fact.kind is Kind.CANCEL_REQUEST:
            # A wish that came before the number was known may have been sent by the reference.
            spent = fact.field("next") == "cancel"
        elif fact.kind is Kind.QUERY and fact.field("next") == "cancel":
            spent = True
        elif fact.kind is Kind.ANSWER and fact.field("call") == "cancel":
            spent = not cancel_had_no_effect(fact)
    return spent


def allows_cancel(says: Status | None, *, status: Status, refunds: bool) -> bool:
    """Return whether /cancel may be sent, where Pockyt just said how a sale stands.

    Pockyt's /cancel refunds what is paid. So Pockyt must say that the sale is open; or that it is
    paid, and the cashier wants the money to go back.

    Args:
        says: What Pockyt said about this very sale; None where that settles nothing.
        status: What the ledger believes.
        refunds: Whether the cashier gives the money back if it is paid.
    """
    if says in _OPEN:
        return refunds or status not in MONEY
    # In a conflict a refund was counted already; giving money back twice is not ours to try.
    return says is Status.PAID and refunds and status not in _TAKEN_BACK


def allows_cancel_of_sale(sale: RecordedSale, says: Status | None) -> bool:
    """Return whether /cancel may be sent by a reference, where Pockyt gives no number."""
    if sale.wish is None or not sale.state.is_being_cancelled or sale.state.is_cancel_sent:
        return False
    refunds = refunds_if_paid(sale.wish)
    return allows_cancel(says, status=Status.UNKNOWN, refunds=refunds)


def is_heard(transaction: Transaction, *, sale_seq: int | None = None) -> bool:
    """Return whether a transaction may belong to a sale whose number is not known yet.

    Its notifications have the sale's reference, and one of them, or Pockyt, is believed.
    ``sale_seq`` is that sale's; None for any.
    """
    is_judged = transaction.sale_seq is None and transaction.judge_seq is not None
    is_its = sale_seq in (None, transaction.judge_seq)
    is_believed = not transaction.held or transaction.status is not Status.UNKNOWN
    return is_judged and is_its and is_believed


def is_new_at_sale(sale: RecordedSale, *, refund_if_paid: bool) -> bool:
    """Return whether a wish to cancel a sale without a number asks for more than before."""
    cancel = sale.state.cancel
    if sale.wish is None or cancel is None or cancel.state is CancelState.UNRESOLVED:
        return True
    is_waiting = sale.state.is_being_cancelled
    return is_waiting and refund_if_paid and not refunds_if_paid(sale.wish)


def changes_nothing(
    transaction: Transaction, entries: Sequence[Entry], *, refund_if_paid: bool
) -> bool:
    """Return whether a wish was recorded already, so that the present state is the answer.

    A wish that was raised as unresolved may be repeated: a person wants it tried once more.
    """
    cancel = transaction.cancel
    if cancel is None or cancel.state is CancelState.UNRESOLVED:
        return False
    ended = cancel.state in (CancelState.CONFIRMED, CancelState.REFUNDED)
    return ended or not refund_if_paid or may_refund(entries)
