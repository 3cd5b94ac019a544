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
# The words of `status.WORDS` for a refund that came to nothing.
_OFF: Final = frozenset({"failed", "fail", "closed", "reversed", "cancelled", "canceled"})


def read_refunds(fields: Mapping[str, str], *, currency: str | None) -> Decimal | None:
    """Return how much went back, in the sale's currency; 0 where nothing did.

    Where there is no list, the totals count.

    Returns:
        None where that cannot be read, or where a refund is still under way: nothing is final then.
    """
    listed = fields.get(LIST, "").strip()
    is_rmb = (currency or "").strip().upper() == RMB
    if listed not in _NOTHING:
        return _listed(listed, is_rmb=is_rmb)
    refunded = (is_rmb and fields.get("refundRmbAmount")) or fields.get("refundAmount")
    totals = [
        read_money(plain_number(text)) for text in (refunded, fields.get("voidAmount")) if text
    ]
    return None if None in totals else sum((part for part in totals if part), Decimal(0))


def _listed(text: str, *, is_rmb: bool) -> Decimal | None:
    """Add up the parts of a list; None where one of them cannot be read."""
    try:
        found = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    parts = found if isinstance(found, list) else [found]
    back = Decimal(0)
    for part in parts:
        amount = _part(part, is_rmb=is_rmb) if isinstance(part, dict) else None
        if amount is None:
            return None
        back += amount
    return back


def _part(part: Mapping[str, object], *, is_rmb: bool) -> Decimal | None:
    """Read one refund: its amount if it is done, 0 if it came to nothing, else None."""
    state = str(part.get("refundStatus") or part.get("status") or "").strip().lower()
    if state in _OFF:
        return Decimal(0)
    names = ("refundRmbAmount",) if is_rmb else ()
    names = (*names, "refundAmount", "amount")
    amount = next((part[name] for name in names if part.get(name) not in (None, "")), None)
    return read_money(plain_number(str(amount))) if state in _DONE else None
