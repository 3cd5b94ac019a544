"""Read a notification: its fields as they were received, then what they say.

Nothing here believes a message; ``ingest`` verifies the fields before it asks what they say.

Source: Pockyt, "Webhook Notification Format".
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_plus

from listener.amounts import plain_number, read_amount, read_money
from listener.errors import UnreadableError
from listener.pockyt import signature
from listener.pockyt.texts import json_fields

# Anything else is sent again, 8 times in 2 hours.
ACKNOWLEDGEMENT: Final = b"success"
BODY_BYTES_MAX: Final = 64 * 1024
FIELDS_MAX: Final = 64

PAYMENT: Final = "payment"
# Why a notification about money going back is not believed: it is no payment.
REFUND_NOTICE: Final = "refund_notice"

# refundAmount, voidTransactionNo, hasRefund, originalTransactionNo; but not refundable.
_REFUND_FIELD: Final = re.compile(
    "(has)?([Rr]efund|[Vv]oid)([A-Z_].*)?|originalTransactionNo", re.S
)
_NOTHING: Final = frozenset({"", "null", "none", "[]", "{}", "false"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
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


def read_fields(body: bytes, *, is_json: bool) -> dict[str, str]:
    """Read a body into its fields, with values exactly as they were signed.

    Raises:
        UnreadableError: Not UTF-8, no JSON object, a repeated field, or more than FIELDS_MAX.
    """
    try:
        if is_json:
            fields = json_fields(body)
            count = len(fields)
        else:
            pairs = _pairs(body.decode())
            fields, count = dict(pairs), len(pairs)
    except UnicodeError:
        raise UnreadableError("the body is not UTF-8 text") from None
    except ValueError as error:
        raise UnreadableError(f"the body cannot be read: {error}") from None
    if count > FIELDS_MAX:
        raise UnreadableError(f"the body has more than {FIELDS_MAX} fields")
    if len(fields) < count:
        raise UnreadableError("the body names a field twice")
    names = "".join(fields)
    if "&" not in names and "=" not in names:
        return fields
    # Such an empty field can be added unseen, or hide its neighbour in the text that was signed.
    return {n: value for n, value in fields.items() if value or not ("&" in n or "=" in n)}


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
    elif "\0" in "".join(fields.values()):
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
    return any(
        value.strip().lower() not in _NOTHING and read_money(plain_number(value)) != 0
        for name, value in fields.items()
        if _REFUND_FIELD.fullmatch(name)
    )


def fingerprint(merchant_no: str, fields: Mapping[str, str]) -> str:
    """Return what makes a notification the same one: hex SHA-256 of merchant and fields.

    Names and values are length-prefixed, so that no two sets of fields share a text. verifySign
    and empty values are left out: either can be changed without the message being another.
    """
    parts = [
        f"{len(name)}:{name}{len(value)}:{value}"
        for name in sorted(fields)
        if (value := fields[name]) and name != signature.FIELD
    ]
    text = f"{len(merchant_no)}:{merchant_no}{''.join(parts)}"
    return hashlib.sha256(text.encode()).hexdigest()


def _said(fields: Mapping[str, str], name: str) -> str | None:
    """Return a field's value, None where it is empty; a NUL is replaced: no column can hold it."""
    value = fields.get(name)
    return value.replace("\0", "\ufffd") if value else None


def _pairs(text: str) -> list[tuple[str, str]]:
    """Split a form; most have nothing to decode."""
    pairs = [part.partition("=") for part in text.split("&") if part]
    if "%" not in text and "+" not in text:
        return [(name, value) for name, _, value in pairs]
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> str:
    return unquote_plus(text, errors="strict")
