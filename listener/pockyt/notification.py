"""Read what the fields of a notification say.

Nothing here believes a message; ``ingest`` verifies the fields before it asks what they say.

Source: Pockyt, "Webhook Notification Format".
"""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from listener.amounts import plain_number, read_amount, read_money
from listener.pockyt import signature

# Anything else is sent again, 8 times in 2 hours.
ACKNOWLEDGEMENT: Final = b"success"
BODY_BYTES_MAX: Final = 64 * 1024

PAYMENT: Final = "payment"
# Why a notification about money going back is not believed: it is no payment.
REFUND_NOTICE: Final = "refund_notice"

# refundAmount, voidTransactionNo, hasRefund, originalTransactionNo; but not refundable.
_REFUND_FIELD: Final = re.compile(
    "(has)?([Rr]efund|[Vv]oid)([A-Z_].*)?|originalTransactionNo", re.DOTALL
)
# One of these is in every such name.
_REFUND_PARTS: Final = ("efund", "oid", "original")
# The fields that `_said` reads.
_SAID: Final = (
    "transactionNo",
    "yuansferId",
    "invoiceId",
    "reference",
    "status",
    "currency",
    "settleCurrency",
)
_NOTHING: Final = frozenset({"", "null", "none", "[]", "{}", "false"})


class Notification(Struct, frozen=True, kw_only=True):
    """What a notification says; None is what it does not.

    ``transaction_no`` is '' for what is about no payment: a consent, a payout. ``amount`` is
    decimal text as sent. ``suspect`` tells why it is not to be believed on its signature alone.
    """

    transaction_no: str
    reference: str | None
    word: str | None
    amount: str | None
    currency: str | None
    settle_currency: str | None
    suspect: str | None


def read_notification(fields: Mapping[str, str]) -> Notification:
    """Read what verified fields say; this refuses nothing, whatever they hold.

    An empty value says as much as a missing one: it can be added to a message unseen.
    """
    # A payout has a transaction number too, but it is no payment of a till's.
    invoice = _said(fields, "invoiceId")
    number = "" if invoice else _said(fields, "transactionNo") or _said(fields, "yuansferId") or ""
    amount = fields.get("amount", "")
    readable = read_amount(amount) is not None
    suspect = None
    if number and is_refund_notice(fields):
        suspect = REFUND_NOTICE
    elif signature.is_ambiguous(fields):
        suspect = "ambiguous"
    elif number and not readable:
        suspect = "amount_unreadable"
    elif any("\0" in fields.get(name, "") for name in _SAID):
        # It was replaced in what is read here; anywhere else it says as little as any other text.
        suspect = "control_character"
    return Notification(
        transaction_no=number,
        reference=_said(fields, "reference") or invoice,
        word=_said(fields, "status"),
        amount=amount if readable else None,
        currency=_said(fields, "currency"),
        settle_currency=_said(fields, "settleCurrency"),
        suspect=suspect,
    )


def is_refund_notice(fields: Mapping[str, str]) -> bool:
    """Return whether a notification is about money going back, so that it is no payment.

    Its transactionType is another, or it has a field of a refund or a void, which says more than
    nothing. What such a notification holds is unpublished, so all of these names count.
    """
    if fields.get("transactionType", "").strip().lower() not in ("", PAYMENT):
        return True
    names = " ".join(fields)
    # Nearly no message has one; to look at each name in turn costs a tenth of all reading.
    if not any(part in names for part in _REFUND_PARTS):
        return False
    return any(
        value.strip().lower() not in _NOTHING and read_money(plain_number(value)) != 0
        for name, value in fields.items()
        if _REFUND_FIELD.fullmatch(name)
    )


def _said(fields: Mapping[str, str], name: str) -> str | None:
    """Return a field's value, None where it is empty; a NUL is replaced: no column can hold it."""
    value = fields.get(name)
    return value.replace("\0", "\ufffd") if value else None
