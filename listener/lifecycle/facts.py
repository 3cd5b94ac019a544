"""Turn Pockyt's answers into facts for the ledger; pure."""

import re
from collections.abc import Mapping
from typing import Final

import orjson
from msgspec.structs import replace

from listener.amounts import plain_amount
from listener.ledger.model import (
    Fact,
    Kind,
    Status,
    Transaction,
    fields_text,
)
from listener.ledger.status import is_of_sale, read_success, read_word
from listener.lifecycle.orders import Order, cut, sale_fact
from listener.pockyt.answer import (
    Answer,
    PockytError,
    PockytRefusedError,
    PockytUnavailableError,
    read_number,
)
from listener.pockyt.notification import PAYMENT
from listener.refusals import NO_RECORD

FIELDS_MAX: Final = 64
# Pockyt's have 18 digits. Others are accepted, if an address and a column can hold them.
_NUMBER: Final = re.compile(r"[!-~]{1,64}")
# Our own words about a call; nothing that Pockyt answers can be mistaken for them.
_OURS: Final = frozenset(
    {"call", "chargeSeq", "doubt", "error", "next", "retCode", "retMsg", "sent"}
)

# The outcome of a call: Pockyt's answer, or why there is none.
Outcome = Answer | PockytError


def query_fact(transaction: Transaction, outcome: Outcome, *, as_of: int) -> Fact:
    """Build the fact of a tran-query about a transaction."""
    says = _says(outcome, transaction.transaction_no, transaction.amount, transaction.currency)
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
    """Mark a query as the one that /cancel is sent after, before it is: once for each wish."""
    fields = {**orjson.loads(query.fields), "next": "cancel"}
    return replace(query, fields=fields_text(fields))


def answer_fact(
    transaction: Transaction, outcome: Outcome, *, call: str, as_of: int | None = None
) -> Fact:
    """Build the fact of an answer to prepay or cancel."""
    says = _says(outcome, transaction.transaction_no, transaction.amount, transaction.currency)
    return _outcome_fact(
        Kind.ANSWER,
        outcome,
        call=call,
        says=says,
        merchant_no=transaction.merchant_no,
        transaction_no=transaction.transaction_no,
        as_of=as_of,
    )


def charged_fact(
    transaction: Transaction, outcome: Outcome, *, charge: int, in_doubt: bool
) -> Fact:
    """Build the fact of an answer to prepay.

    Args:
        transaction: What was to be paid.
        outcome: The answer.
        charge: The seq under which the charge was first recorded.
        in_doubt: Whether Pockyt may have charged a code before, whatever this answer says.
    """
    fact = answer_fact(transaction, outcome, call="prepay")
    ours = {"chargeSeq": str(charge), **({"doubt": "true"} if in_doubt else {})}
    return replace(fact, fields=fields_text({**orjson.loads(fact.fields), **ours}))


def is_unpaid(transaction: Transaction, outcome: Outcome) -> bool:
    """Return whether a query just said of this very sale that nobody has paid, or is paying, it."""
    query = query_fact(transaction, outcome, as_of=0)
    return query.says is Status.CREATED and is_about(transaction, query)


def opened_fact(order: Order, outcome: Outcome, *, call: str, sale_seq: int) -> Fact:
    """Build the fact of the call that starts a sale; a number binds the two.

    An answer with a code to scan has no status: the sale exists, so it is created. One that names
    another reference, amount or currency is about another sale: its number binds nothing.
    """
    number = ""
    if isinstance(outcome, Answer) and _names_only(order, outcome):
        number = _number(outcome)
    says = _says(outcome, number, order.amount, order.currency) if number else None
    if isinstance(outcome, Answer) and number and not outcome.word:
        says = Status.CREATED
    fact = _outcome_fact(
        Kind.ANSWER,
        outcome,
        call=call,
        says=says,
        merchant_no=order.merchant_no,
        transaction_no=number,
        sale_seq=sale_seq,
    )
    return _of_order(fact, order)


def found_fact(order: Order, outcome: Outcome, *, sale_seq: int, as_of: int) -> Fact:
    """Build the fact of looking for a sale by its reference.

    If it was found, its number is bound to the sale. A final word counts as a query's; any other
    word counts as the missing answer to the call itself. Another's sale binds nothing.
    """
    number, says = "", None
    if isinstance(outcome, Answer) and _is_of(order, outcome):
        number = _number(outcome)
        says = _says(outcome, outcome.transaction_no or "", order.amount, order.currency)
    is_open = bool(number) and says in (Status.CREATED, Status.PENDING)
    fact = _outcome_fact(
        Kind.ANSWER if is_open else Kind.QUERY,
        outcome,
        call="tran-query",
        says=says,
        merchant_no=order.merchant_no,
        transaction_no=number,
        as_of=None if is_open else as_of,
        sale_seq=sale_seq,
    )
    return _of_order(fact, order)


def sale_answer_fact(order: Order, outcome: Outcome, *, sale_seq: int, as_of: int) -> Fact:
    """Build the fact of /cancel by reference; if it brings a number, that is bound to the sale."""
    number, says = "", None
    if isinstance(outcome, Answer) and _is_of(order, outcome):
        number = _number(outcome)
        says = _says(outcome, outcome.transaction_no or "", order.amount, order.currency)
    fact = _outcome_fact(
        Kind.ANSWER,
        outcome,
        call="cancel",
        says=says,
        merchant_no=order.merchant_no,
        transaction_no=number,
        as_of=as_of,
        sale_seq=sale_seq,
    )
    return _of_order(fact, order)


def without_number(fact: Fact) -> Fact:
    """Return what Pockyt said of a sale, but without a number that is not the sale's.

    Its fields still name that number, so the fact has no store: a store's key must not read another
    store's number.
    """
    kind = Kind.QUERY if fact.field("call") == "tran-query" else fact.kind
    store_no = None if fact.transaction_no else fact.store_no
    return replace(fact, kind=kind, transaction_no="", store_no=store_no, says=None)


def is_about(transaction: Transaction, query: Fact) -> bool:
    """Return whether a query is about a transaction.

    It must name the number and the amount, and every number, amount, currency and reference in it
    must be the transaction's. A tip on top of the amount is not a difference.
    """
    known = Fact(
        kind=Kind.SALE,
        merchant_no=transaction.merchant_no,
        amount=transaction.amount or query.amount,
        currency=transaction.currency or query.currency,
        reference=transaction.reference or query.reference,
    )
    # An answer without these may be about anything, such as one that a proxy made up.
    is_named = read_number(query.field("transactionNo") or "") == transaction.transaction_no
    return is_named and query.amount is not None and is_of_sale(query, known)


def is_refused(outcome: Outcome) -> bool:
    """Return whether Pockyt has said no, so that nothing happened."""
    return isinstance(outcome, PockytRefusedError) and not outcome.outcome_unknown


def is_unheard_of(outcome: Outcome) -> bool:
    """Return whether Pockyt has said that there is no such sale."""
    return isinstance(outcome, PockytRefusedError) and outcome.ret_code == NO_RECORD


def never_happened(outcome: Outcome) -> bool:
    """Return whether a call certainly had no effect: it was refused, or never sent."""
    unsent = isinstance(outcome, PockytUnavailableError) and not outcome.sent
    return unsent or is_refused(outcome)


def _of_order(fact: Fact, order: Order) -> Fact:
    """Name the sale in what was said when it was started, looked for or cancelled by reference.

    So its entries are found by its reference and store. What Pockyt itself named is in ``fields``.
    """
    return replace(fact, reference=order.reference, store_no=order.store_no)


def _number(answer: Answer) -> str:
    """Return the transaction number in an answer; empty where it is not one we can store."""
    number = answer.transaction_no or ""
    return number if _NUMBER.fullmatch(number) else ""


def _is_of(order: Order, answer: Answer) -> bool:
    """Return whether the sale that was found under a reference is the one that was ordered."""
    return plain_amount(answer.amount) is not None and _names_only(order, answer)


def _names_only(order: Order, answer: Answer) -> bool:
    """Return whether what an answer names of reference, amount and currency is the order's.

    A refund's record may name all three, with a number of its own.
    """
    if not _is_of_payment(answer):
        return False
    found = _outcome_fact(
        Kind.QUERY, answer, call="", says=None, merchant_no=order.merchant_no, transaction_no=""
    )
    return is_of_sale(found, sale_fact(order))


def _says(
    outcome: Outcome, transaction_no: str, amount: str | None, currency: str | None
) -> Status | None:
    """Return our reading of an answer about a payment of this amount and currency.

    None where it is about something else, has an unreadable amount, or does not say.
    """
    if not isinstance(outcome, Answer) or not _is_about(outcome, transaction_no):
        return None
    said = read_word(outcome.word)
    if said is not Status.PAID:
        return said
    return read_success(
        outcome.fields,
        amount=plain_amount(outcome.amount) or amount,
        currency=outcome.currency or currency,
    )


def _is_about(answer: Answer, transaction_no: str) -> bool:
    """Return whether an answer is about this payment, with a readable amount."""
    if answer.amount is not None and plain_amount(answer.amount) is None:
        return False
    return _is_of_payment(answer) and answer.transaction_no in (None, transaction_no)


def _is_of_payment(answer: Answer) -> bool:
    return answer.fields.get("transactionType", "").strip().lower() in ("", PAYMENT)


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
    return Fact(
        kind=kind,
        merchant_no=merchant_no,
        transaction_no=transaction_no,
        reference=cut(answer.reference),
        provider_status=cut(answer.word),
        says=says,
        amount=plain_amount(answer.amount),
        currency=cut(answer.currency),
        settle_currency=cut(answer.settle_currency),
        as_of=as_of,
        sale_seq=sale_seq,
        fields=fields_text({**_said(answer.fields), **_failure(outcome), "call": call}),
    )


def _said(fields: Mapping[str, str]) -> dict[str, str | None]:
    """Return the fields of an answer, cleaned, and cut if they are too long."""
    kept = [(cut(name) or "", cut(value)) for name, value in fields.items()][:FIELDS_MAX]
    return {name: value for name, value in kept if name not in _OURS}


def _failure(outcome: Outcome) -> dict[str, str | None]:
    """Describe why there is no answer; the message is short and holds no secret."""
    if isinstance(outcome, PockytRefusedError):
        return {
            "error": "refused" if is_refused(outcome) else "failed",
            "retCode": cut(outcome.ret_code),
            "retMsg": cut(outcome.ret_msg),
        }
    if isinstance(outcome, PockytUnavailableError):
        return {"error": outcome.reason, "sent": None if outcome.sent else "false"}
    return {}
