"""The words for a status, how statuses join, and when a message is not believed alone; pure.

Source: Pockyt, "Webhook Notification Format" and "Cancel API" (the words); the tables are this
project's own, in docs/architecture.md.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import orjson

from listener.amounts import (
    plain_amount,
    plain_number,
    read_amount,
    read_money,
    same_amount,
    same_text,
)
from listener.ledger.model import Alarm, Entry, Fact, Kind, Status
from listener.ledger.refunds import LIST, read_refunds

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
_TAKEN_BACK: Final = frozenset({Status.PAID, Status.CANCELLED})
# The fields in which two notifications may contradict each other.
DISPUTABLE: Final = ("amount", "currency", "reference")


# The same few words arrive again and again.
@lru_cache(maxsize=64)
def read_word(word: str | None) -> Status | None:
    """Read one of Pockyt's status words, trimmed, in any case; None where it is not known."""
    return WORDS.get(word.strip().lower()) if word else None


def read_success(
    fields: Mapping[str, str], *, amount: str | None, currency: str | None
) -> Status | None:
    """Read an answer that says success: where the refunds cover the amount, it is refunded.

    None where the refunds cannot be read, or one is still under way: then the answer says nothing,
    least of all that nobody has paid.

    Args:
        fields: The whole answer.
        amount: Of the answer, or of the sale where the answer names none.
        currency: Likewise.
    """
    back = read_refunds(fields, currency=currency)
    if back is None:
        return None
    paid = read_amount(amount)
    return Status.REFUNDED if paid is not None and paid <= back else Status.PAID


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


def is_raised(entry: Entry) -> bool:
    """Return whether an entry raises the silence about its transaction."""
    return entry.fact.kind is Kind.ALARM and entry.fact.field("alarm") == Alarm.UNRESOLVED


def refunds_if_paid(wish: Fact) -> bool:
    """Return whether a recorded cancel gives the money back if it was paid."""
    return wish.field("refundIfPaid") == "true"


def still_refunds(fact: Fact, *, before: bool) -> bool:
    """Return whether the newest wish gives the money back if it was paid, once a fact is known.

    A decision ends that: the operator may have given cash, and no later answer is to refund it.
    """
    if fact.kind is Kind.CANCEL_REQUEST:
        return refunds_if_paid(fact)
    return before and fact.kind is not Kind.DECISION


def wished_at_ms(wish: Entry) -> int:
    """Return when a cashier asked for a recorded cancel (Unix ms).

    That was before this entry, where the transaction has taken the wish over from its sale.
    """
    at = wish.fact.field("requestedAt")
    return int(at) if at else wish.recorded_at_ms


def is_charging(fact: Fact) -> bool:
    """Return whether a fact says that prepay is about to be sent, and not what came of it."""
    return fact.field("next") == "prepay"


def gives(meaning: Status, status: Status) -> bool:
    """Return whether something that means one status supports the joined one."""
    return meaning is status or (status is Status.CONFLICT and meaning in _TAKEN_BACK)


def why_held(entry: Entry, sale: Entry | None, *, is_bound: bool = True) -> str | None:
    """Return why a notification is not believed by itself; None where it is.

    ``sale`` judges it, and may have been recorded later. While the sale's number is not known
    (``is_bound`` is False) it judges by its reference: another reference is a reason too.
    """
    fact = entry.fact
    if fact.kind is not Kind.NOTIFICATION:
        return None
    if fact.suspect or sale is None:
        return fact.suspect
    if not same_amount(fact.amount, sale.fact.amount):
        return "amount_differs"
    if not same_text(fact.currency, sale.fact.currency):
        return "currency_differs"
    is_named = is_bound or same_text(fact.reference, sale.fact.reference)
    return None if is_named else "reference_differs"


def is_named_alike(name: str, one: str, other: str) -> bool:
    """Return whether two notifications name the same amount, currency or reference."""
    return same_amount(one, other) if name == "amount" else same_text(one, other)


def is_of_sale(said: Fact, sold: Fact) -> bool:
    """Return whether an answer is about the recorded sale: what it names is the sale's.

    A tip on top of the sale's amount is not a difference, if the answer names the tip too.
    """
    return (
        (said.amount is None or _is_amount_of(said, sold))
        and (said.currency is None or same_text(said.currency, sold.currency))
        and (said.reference is None or same_text(said.reference, sold.reference))
    )


def lists_refunds(fact: Fact) -> bool:
    """Return whether Pockyt itself lists refunds: then it knows what was given back."""
    fields: dict[str, str] = orjson.loads(fact.fields)
    # A list can be read only whole, and the ledger cuts a long one off.
    back = read_refunds(fields, currency=fact.currency)
    return bool(fields.get(LIST)) if back is None else back > 0


def refunded_by(fact: Fact) -> Decimal | None:
    """Return how much Pockyt said had gone back; None where it says nothing that can be read.

    What a query says is the sum of all refunds up to then, not of one.
    """
    # Nearly no answer names a refund, and reading all fields is slow.
    is_named = "efund" in fact.fields or "voidAmount" in fact.fields
    if fact.kind not in (Kind.QUERY, Kind.ANSWER) or not is_named:
        return None
    fields: dict[str, str] = orjson.loads(fact.fields)
    return read_refunds(fields, currency=fact.currency) or None


def _is_amount_of(said: Fact, sold: Fact) -> bool:
    if same_amount(said.amount, sold.amount):
        return True
    amount, asked = read_amount(plain_amount(said.amount)), read_amount(sold.amount)
    tip = read_money(plain_number(said.field("tip") or ""))
    return amount is not None and asked is not None and amount - (tip or Decimal(0)) == asked
