"""Read what the fields of a notification say.

Nothing here believes a message: ``ingest`` verifies the fields before it reads them here.

Source: Pockyt, "Webhook Notification Format".
"""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from listener.amounts import is_amount, plain_number, read_money
from listener.pockyt import signature
from listener.suspects import AMBIGUOUS, REFUND_NOTICE

# After any other answer Pockyt sends the notification again, 8 times in 2 hours.
ACKNOWLEDGEMENT: Final = b"success"
BODY_BYTES_MAX: Final = 64 * 1024

# The transactionType of a payment.
PAYMENT: Final = "payment"

# refundAmount, voidTransactionNo, hasRefund, originalTransactionNo; but not refundable.
_REFUND_FIELD: Final = re.compile(
    "(has)?([Rr]efund|[Vv]oid)([A-Z_].*)?|originalTransactionNo", re.DOTALL
)
# The fields that are read here.
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
    """What a notification says; None is what it does not say.

    ``transaction_no`` is '' if it is not about a payment (a consent, a payout). ``amount`` is
    decimal text as sent. ``suspect`` is why it is not believed on its signature alone.
    """

    transaction_no: str
    reference: str | None
    word: str | None
    amount: str | None
    currency: str | None
    settle_currency: str | None
    suspect: str | None


def read_notification(fields: Mapping[str, str], *, is_plain: bool = False) -> Notification:
    """Read what verified fields say. Nothing is refused, whatever they hold.

    An empty value counts as missing, because it can be added to a message unseen. ``is_plain`` is
    that of :class:`listener.pockyt.body.Fields`.
    """
    has_nul = False
    if not is_plain and "\0" in "".join(fields.values()):
        # No column can hold a NUL. In a field that is not read here it does no harm.
        has_nul = any("\0" in fields.get(name, "") for name in _SAID)
        fields = {name: value.replace("\0", "\ufffd") for name, value in fields.items()}
    said = fields.get
    # A payout has a transaction number too, but it is not a till's payment.
    invoice = said("invoiceId")
    # Trimmed like an answer's number, so that both name the same transaction.
    number = "" if invoice else (said("transactionNo") or said("yuansferId") or "").strip()
    amount = said("amount", "")
    is_readable = is_amount(amount)
    suspect = None
    if number and is_refund_notice(fields):
        suspect = REFUND_NOTICE
    elif not is_plain and signature.is_ambiguous(fields):
        suspect = AMBIGUOUS
    elif number and not is_readable:
        suspect = "amount_unreadable"
    elif has_nul:
        suspect = "control_character"
    return Notification(
        transaction_no=number,
        reference=said("reference") or invoice or None,
        word=said("status") or None,
        amount=amount if is_readable else None,
        currency=said("currency") or None,
        settle_currency=said("settleCurrency") or None,
        suspect=suspect,
    )


def is_refund_notice(fields: Mapping[str, str]) -> bool:
    """Return whether a notification is about money going back, and so not a payment.

    Its transactionType is another one, or a field of a refund or a void has a value that means
    something. The format of such notifications is unpublished, so all of these names count.
    """
    if (said := fields.get("transactionType")) and said.strip().lower() not in ("", PAYMENT):
        return True
    # Nearly no message has one of these; testing each name in turn is slow.
    names = " ".join(fields)
    if not ("efund" in names or "oid" in names or "original" in names):
        return False
    return any(
        value.strip().lower() not in _NOTHING and read_money(plain_number(value)) != 0
        for name, value in fields.items()
        if _REFUND_FIELD.fullmatch(name)
    )
