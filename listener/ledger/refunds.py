"""Read from Pockyt's answer how much of a payment went back.

Source: Pockyt, "Tran Query" (``refundInfo``) and "Add" (the totals). Its own SDKs type
``refundInfo`` as a list, as one object, and as JSON text of either.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from listener.amounts import plain_number, read_money

LIST: Final = "refundInfo"
RMB: Final = "CNY"

_NOTHING: Final = ("", "null", "[]", "{}")
_DONE: Final = frozenset({"", "success", "refunded"})
# Pockyt's number of a refund. The shop's own, `refundReference`, may be one for several.
_NUMBERS: Final = ("refundTransactionNo", "refundTransactionId")
# The state of a refund.
_STATES: Final = ("refundStatus", "status", "transactionStatus")
# The words of `status.WORDS` for a refund that came to nothing.
_OFF: Final = frozenset({"failed", "fail", "closed", "reversed", "cancelled", "canceled"})


def read_refunds(fields: Mapping[str, str], *, currency: str | None) -> Decimal | None:
    """Return how much went back, in the sale's currency; 0 where nothing did.

    Where there is no list, the totals count.

    Returns:
        None if that cannot be read, or a refund is still under way: then nothing is final.
    """
    listed = fields.get(LIST, "").strip()
    currency = (currency or "").strip().upper()
    is_rmb = currency == RMB
    if listed not in _NOTHING:
        return _listed(listed, currency=currency)
    refunded = (is_rmb and fields.get("refundRmbAmount")) or fields.get("refundAmount")
    totals = [
        read_money(plain_number(text)) for text in (refunded, fields.get("voidAmount")) if text
    ]
    return None if None in totals else sum((part for part in totals if part), Decimal(0))


def _listed(text: str, *, currency: str) -> Decimal | None:
    """Add up the parts of a list; None where one of them cannot be read.

    A refund that is listed twice went back once.
    """
    try:
        found = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    parts = found if isinstance(found, list) else [found]
    back = Decimal(0)
    counted: dict[str, Decimal] = {}
    for part in parts:
        amount = _part(part, currency=currency) if isinstance(part, dict) else None
        if amount is None:
            return None
        if not amount:
            continue
        number = next((text for name in _NUMBERS if (text := _text(part, name))), "")
        if number not in counted:
            back += amount
        elif counted[number] != amount:
            return None
        if number:
            counted[number] = amount
    return back


def _part(part: Mapping[str, object], *, currency: str) -> Decimal | None:
    """Read one refund: its amount if it is done, 0 if it came to nothing, else None."""
    state = next((text for name in _STATES if (text := _text(part, name))), "").lower()
    if state in _OFF:
        return Decimal(0)
    if state not in _DONE:
        return None
    if currency == RMB and (amount := _text(part, "refundRmbAmount")):
        return read_money(plain_number(amount))
    named = _text(part, "currency").upper()
    if named and currency and named != currency:
        return None
    return read_money(plain_number(_text(part, "refundAmount") or _text(part, "amount")))


def _text(part: Mapping[str, object], name: str) -> str:
    """Return a member as text, '' where there is none."""
    value = part.get(name)
    return "" if value is None else str(value).strip()
