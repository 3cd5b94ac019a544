"""Turn the wishes of tills and operators into facts for the ledger, and build alarms; pure."""

from dataclasses import dataclass
from typing import Final

import orjson

from listener.ledger.model import Alarm, Fact, Kind, Status, Transaction, fields_text
from listener.ledger.results import RecordedSale
from listener.ledger.sale import SaleState
from listener.pockyt.texts import clean

VALUE_CHARS_MAX: Final = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A sale that a till wants to start. ``vendor`` is None where the till scans a code.

    ``amount`` is decimal text. With None, ``timeout_minutes`` is Pockyt's own.
    """

    merchant_no: str
    store_no: str
    terminal: str
    reference: str
    amount: str
    currency: str
    settle_currency: str
    vendor: str | None = None
    timeout_minutes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What an operator has found out; ``name`` is his own word, ``key_id`` that of his key.

    ``state_version`` is that of the transaction which he has seen; None where he does not say.
    """

    status: Status
    name: str
    reason: str
    key_id: str
    state_version: int | None = None


def sale_fact(order: Order) -> Fact:
    """Build the fact of a sale, before Pockyt hears of it."""
    minutes = order.timeout_minutes
    return Fact(
        kind=Kind.SALE,
        merchant_no=order.merchant_no,
        store_no=order.store_no,
        reference=order.reference,
        terminal=order.terminal,
        amount=order.amount,
        currency=order.currency,
        settle_currency=order.settle_currency,
        fields=fields_text(
            {"vendor": order.vendor, "timeout": None if minutes is None else str(minutes)}
        ),
    )


def order_of(fact: Fact) -> Order:
    """Read the order back from a recorded sale."""
    minutes = fact.field("timeout")
    return Order(
        merchant_no=fact.merchant_no,
        store_no=fact.store_no or "",
        terminal=fact.terminal or "",
        reference=fact.reference or "",
        amount=fact.amount or "",
        currency=fact.currency or "",
        settle_currency=fact.settle_currency or "",
        vendor=fact.field("vendor"),
        timeout_minutes=int(minutes) if minutes else None,
    )


def cancel_fact(
    transaction: Transaction, *, terminal: str | None, refund_if_paid: bool, key_id: str | None
) -> Fact:
    """Build the fact of a cashier's cancel, before Pockyt hears of it."""
    return Fact(
        kind=Kind.CANCEL_REQUEST,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        terminal=terminal,
        fields=fields_text({"refundIfPaid": "true" if refund_if_paid else None, "key": key_id}),
    )


def unresolved_fact(doubt: Transaction | RecordedSale) -> Fact:
    """Build the alarm that Pockyt is silent about a transaction, or a sale without a number."""
    fields = fields_text({"alarm": Alarm.UNRESOLVED})
    if isinstance(doubt, Transaction):
        return Fact(
            kind=Kind.ALARM,
            merchant_no=doubt.merchant_no,
            transaction_no=doubt.transaction_no,
            fields=fields,
        )
    return Fact(
        kind=Kind.ALARM,
        merchant_no=doubt.fact.merchant_no,
        store_no=doubt.fact.store_no,
        reference=doubt.fact.reference,
        sale_seq=doubt.seq,
        fields=fields,
    )


def decision_fact(
    transaction: Transaction, decision: Decision, *, as_of: int | None = None
) -> Fact:
    """Build the fact of an operator's decision; ``as_of`` is the seq up to which he has seen."""
    fields = {
        "status": decision.status,
        "name": cut(decision.name),
        "reason": cut(decision.reason),
        "key": decision.key_id,
    }
    return Fact(
        kind=Kind.DECISION,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        says=decision.status,
        as_of=as_of,
        fields=fields_text(fields),
    )


def sale_cancel_fact(
    sale: Fact, *, sale_seq: int, terminal: str | None, refund_if_paid: bool, key_id: str | None
) -> Fact:
    """Build the fact of a cashier's cancel of a sale whose number is not known yet."""
    return Fact(
        kind=Kind.CANCEL_REQUEST,
        merchant_no=sale.merchant_no,
        store_no=sale.store_no,
        reference=sale.reference,
        terminal=terminal,
        sale_seq=sale_seq,
        fields=fields_text({"refundIfPaid": "true" if refund_if_paid else None, "key": key_id}),
    )


def taken_over_fact(
    transaction: Transaction, wish: Fact, state: SaleState, *, is_spent: bool
) -> Fact:
    """Move a wish from a sale to its transaction: build the fact for the transaction.

    The cashier has waited since the wish was recorded at the sale, so its times are kept (Unix ms).

    Args:
        transaction: What takes the wish over.
        wish: As it was recorded at the sale.
        state: The state of the sale.
        is_spent: /cancel was sent for it already, by the reference.
    """
    since_ms = state.cancel.requested_at_ms if state.cancel else None
    raise_ms = state.raise_wish_ms
    return Fact(
        kind=Kind.CANCEL_REQUEST,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        terminal=wish.terminal,
        sale_seq=wish.sale_seq,
        fields=fields_text(
            {
                **orjson.loads(wish.fields),
                "next": "cancel" if is_spent else None,
                "requestedAt": None if since_ms is None else str(since_ms),
                "raiseAt": None if raise_ms is None else str(raise_ms),
            },
        ),
    )


def number_taken_fact(fact: Fact, *, holder: str | None) -> Fact:
    """Build the alarm that Pockyt gave a sale a number that belongs to another.

    ``holder`` is the reference of the sale that has the number. That may be another store's, so the
    alarm has no store.
    """
    return Fact(
        kind=Kind.ALARM,
        merchant_no=fact.merchant_no,
        reference=fact.reference,
        sale_seq=fact.sale_seq,
        fields=fields_text(
            {
                "alarm": Alarm.NUMBER_TAKEN,
                "transactionNo": fact.transaction_no,
                "reference": fact.reference,
                "holderReference": holder,
            }
        ),
    )


def cut(text: str | None) -> str | None:
    """Return a text without characters that a column cannot hold, cut to a length."""
    return None if text is None else clean(text[:VALUE_CHARS_MAX])
