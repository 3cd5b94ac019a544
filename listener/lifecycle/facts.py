"""Word what tills and operators want, and what Pockyt answers, as facts for the ledger; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from msgspec.structs import replace

from listener.ledger.model import (
    Alarm,
    Fact,
    Kind,
    Status,
    Transaction,
    fields_text,
    read_amount,
    same_amount,
)
from listener.ledger.promise import RecordedSale
from listener.ledger.sale import NO_RECORD
from listener.ledger.status import read_query, read_word
from listener.pockyt.answer import Answer, PockytError, PockytRefusedError, PockytUnavailableError

FIELDS_MAX: Final = 64
VALUE_CHARS_MAX: Final = 2_048
# Pockyt's are 18 digits; others may come, but none that no address or column can hold.
_NUMBER: Final = re.compile(r"[!-~]{1,64}")
# Our own words about a call; nothing that Pockyt answers can take their place.
_OURS: Final = frozenset({"call", "error", "next", "retCode", "retMsg", "sent"})

# What came of a call: Pockyt's answer, or why there is none.
Outcome = Answer | PockytError


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The sale that a till wants to start. ``vendor`` is None where the till scans a code.

    ``amount`` is decimal text; ``timeout_minutes`` is Pockyt's own where it is None.
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


def sale_fact(order: Order) -> Fact:
    """Word a sale, before Pockyt hears of it."""
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
    """Read the order that a recorded sale was."""
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
    """Word a cashier's cancel, before Pockyt hears of it."""
    return Fact(
        kind=Kind.CANCEL_REQUEST,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        terminal=terminal,
        fields=fields_text({"refundIfPaid": "true" if refund_if_paid else None, "key": key_id}),
    )


def unresolved_fact(doubt: Transaction | RecordedSale) -> Fact:
    """Return the alarm that there is no answer about a transaction, or a sale without a number."""
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


def decision_fact(transaction: Transaction, *, status: Status, name: str, reason: str) -> Fact:
    """Word what an operator has settled."""
    return Fact(
        kind=Kind.DECISION,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        says=status,
        fields=fields_text({"status": status, "name": _clean(name), "reason": _clean(reason)}),
    )


def query_fact(transaction: Transaction, outcome: Outcome, *, as_of: int) -> Fact:
    """Word what came of a tran-query about a transaction."""
    says = _query_says(outcome, transaction_no=transaction.transaction_no)
    return _outcome_fact(
        Kind.QUERY,
        outcome,
        call="tran-query",
        says=says,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        as_of=as_of,
    )


def sending_cancel(query: Fact) -> Fact:
    """Mark a query as the one after which /cancel is sent, before it is: once for each wish."""
    fields = {**orjson.loads(query.fields), "next": "cancel"}
    return replace(query, fields=fields_text(fields))


def answer_fact(
    transaction: Transaction, outcome: Outcome, *, call: str, as_of: int | None = None
) -> Fact:
    """Word what came of prepay or cancel."""
    says = None
    if isinstance(outcome, Answer) and _is_about(outcome, transaction.transaction_no):
        says = read_word(outcome.word)
    return _outcome_fact(
        Kind.ANSWER,
        outcome,
        call=call,
        says=says,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        as_of=as_of,
    )


def opened_fact(order: Order, outcome: Outcome, *, call: str, sale_seq: int) -> Fact:
    """Word what came of the call that starts a sale; with a number, it binds the two.

    The answer with a code to scan has no status: the sale is there, so it is created.
    """
    number = _number(outcome) if isinstance(outcome, Answer) else ""
    says = None
    if isinstance(outcome, Answer) and number:
        says = read_word(outcome.word) if outcome.word else Status.CREATED
    return _outcome_fact(
        Kind.ANSWER,
        outcome,
        call=call,
        says=says,
        merchant_no=order.merchant_no,
        transaction_no=number,
        sale_seq=sale_seq,
    )


def found_fact(order: Order, outcome: Outcome, *, sale_seq: int, as_of: int) -> Fact:
    """Word what came of looking for a sale by its reference.

    What was found binds the number to the sale. A final word is a query's; one that is not
    final is the answer that the call itself did not bring. What is another's sale binds nothing.
    """
    number, says = "", None
    if isinstance(outcome, Answer) and _is_of(order, outcome):
        number = _number(outcome)
        says = _query_says(outcome, transaction_no=outcome.transaction_no or "")
    is_open = bool(number) and says in (Status.CREATED, Status.PENDING)
    return _outcome_fact(
        Kind.ANSWER if is_open else Kind.QUERY,
        outcome,
        call="tran-query",
        says=says,
        merchant_no=order.merchant_no,
        transaction_no=number,
        as_of=None if is_open else as_of,
        sale_seq=sale_seq,
    )


def sale_answer_fact(order: Order, outcome: Outcome, *, sale_seq: int, as_of: int) -> Fact:
    """Return what came of /cancel by a reference; a number that it tells is bound to the sale."""
    number, says = "", None
    if isinstance(outcome, Answer) and _is_of(order, outcome):
        number, says = _number(outcome), read_word(outcome.word)
    return _outcome_fact(
        Kind.ANSWER,
        outcome,
        call="cancel",
        says=says,
        merchant_no=order.merchant_no,
        transaction_no=number,
        as_of=as_of,
        sale_seq=sale_seq,
    )


def without_number(fact: Fact) -> Fact:
    """Return what Pockyt said of a sale, but for a number that is not the sale's."""
    kind = Kind.QUERY if fact.field("call") == "tran-query" else fact.kind
    return replace(fact, kind=kind, transaction_no="", says=None)


def number_taken_fact(fact: Fact) -> Fact:
    """Return the alarm that Pockyt gave a sale a number which is another's already."""
    return Fact(
        kind=Kind.ALARM,
        merchant_no=fact.merchant_no,
        sale_seq=fact.sale_seq,
        fields=fields_text({"alarm": Alarm.NUMBER_TAKEN, "transactionNo": fact.transaction_no}),
    )


def sale_cancel_fact(
    sale: Fact, *, sale_seq: int, terminal: str | None, refund_if_paid: bool, key_id: str | None
) -> Fact:
    """Return a cashier's cancel of a sale whose number is not known yet."""
    return Fact(
        kind=Kind.CANCEL_REQUEST,
        merchant_no=sale.merchant_no,
        store_no=sale.store_no,
        reference=sale.reference,
        terminal=terminal,
        sale_seq=sale_seq,
        fields=fields_text({"refundIfPaid": "true" if refund_if_paid else None, "key": key_id}),
    )


def taken_over_fact(transaction: Transaction, wish: Fact, *, is_spent: bool) -> Fact:
    """Return the wish at a sale as one at its transaction.

    ``is_spent``: /cancel was sent for it already, by the reference.
    """
    return Fact(
        kind=Kind.CANCEL_REQUEST,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        terminal=wish.terminal,
        sale_seq=wish.sale_seq,
        fields=fields_text(
            {**orjson.loads(wish.fields), "next": "cancel" if is_spent else None},
        ),
    )


def is_about(transaction: Transaction, query: Fact) -> bool:
    """Return whether a query speaks of the amount, currency and reference of a transaction."""
    known = transaction
    return (
        (query.amount is None or known.amount is None or same_amount(query.amount, known.amount))
        and (known.currency is None or query.currency in (None, known.currency))
        and (known.reference is None or query.reference in (None, known.reference))
    )


def is_refused(outcome: Outcome) -> bool:
    """Tell whether Pockyt has said no, so that nothing happened."""
    return isinstance(outcome, PockytRefusedError) and not outcome.outcome_unknown


def is_unheard_of(outcome: Outcome) -> bool:
    """Tell whether Pockyt has said that there is no such sale."""
    return isinstance(outcome, PockytRefusedError) and outcome.ret_code == NO_RECORD


def never_happened(outcome: Outcome) -> bool:
    """Tell whether a call surely had no effect: it was refused, or never left."""
    unsent = isinstance(outcome, PockytUnavailableError) and not outcome.sent
    return unsent or is_refused(outcome)


def _number(answer: Answer) -> str:
    """Return the transaction number in an answer; empty where it is none that could be kept."""
    number = answer.transaction_no or ""
    return number if _NUMBER.fullmatch(number) else ""


def _is_of(order: Order, answer: Answer) -> bool:
    """Tell whether what was found under a reference is the sale that was ordered."""
    amount = read_amount(answer.amount)
    return (
        amount == read_amount(order.amount)
        and answer.currency in (None, order.currency)
        and answer.reference in (None, order.reference)
    )


def _query_says(outcome: Outcome, *, transaction_no: str) -> Status | None:
    if not isinstance(outcome, Answer) or not _is_about(outcome, transaction_no):
        return None
    return read_query(outcome.word, amount=outcome.amount, refunds=outcome.refunds)


def _is_about(answer: Answer, transaction_no: str) -> bool:
    """Tell whether an answer is about this payment, and its amount can be read."""
    if answer.amount is not None and read_amount(answer.amount) is None:
        return False
    if answer.fields.get("transactionType", "payment") != "payment":
        return False
    return answer.transaction_no in (None, transaction_no)


def _outcome_fact(
    kind: Kind,
    outcome: Outcome,
    *,
    call: str,
    says: Status | None,
    merchant_no: str,
    transaction_no: str,
    as_of: int | None = None,
    sale_seq: int | None = None,
) -> Fact:
    answer = outcome if isinstance(outcome, Answer) else Answer()
    readable = read_amount(answer.amount) is not None
    return Fact(
        kind=kind,
        merchant_no=merchant_no,
        transaction_no=transaction_no,
        reference=_clean(answer.reference),
        provider_status=_clean(answer.word),
        says=says,
        amount=answer.amount if readable else None,
        currency=_clean(answer.currency),
        settle_currency=_clean(answer.settle_currency),
        as_of=as_of,
        sale_seq=sale_seq,
        fields=fields_text({**_said(answer.fields), **_failure(outcome), "call": call}),
    )


def _said(fields: Mapping[str, str]) -> dict[str, str | None]:
    """Return what an answer said, cleaned, and cut where it is more than an answer should be."""
    kept = [(_clean(name) or "", _clean(value)) for name, value in fields.items()][:FIELDS_MAX]
    return {name: value for name, value in kept if name not in _OURS}


def _failure(outcome: Outcome) -> dict[str, str | None]:
    """Word why there is no answer; its message has no secret, and is short."""
    if isinstance(outcome, PockytRefusedError):
        return {
            "error": "refused" if is_refused(outcome) else "failed",
            "retCode": _clean(outcome.ret_code),
            "retMsg": _clean(outcome.ret_msg),
        }
    if isinstance(outcome, PockytUnavailableError):
        return {"error": outcome.reason, "sent": None if outcome.sent else "false"}
    return {}


def _clean(text: str | None) -> str | None:
    """Return a text that every column can hold: no NUL, no half of a surrogate pair, not long."""
    if text is None:
        return None
    cut = text[:VALUE_CHARS_MAX].replace("\0", "\ufffd")
    return cut.encode("utf-8", "replace").decode()
