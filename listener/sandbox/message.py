"""Write the notifications that Pockyt sends, damaged if a fault says so; pure.

Source: Pockyt, "Webhook Notification Format".
"""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from urllib.parse import urlencode

from listener.pockyt import signature
from listener.pockyt.signature import Token
from listener.sandbox.book import Sale, Word
from listener.sandbox.faults import Fault
from listener.sandbox.results import in_pockyt_zone

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
WRONG_TOKEN: Final = Token("a token that no merchant has")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedMessage:
    """A signed message ready to be sent: its type and its bytes."""

    content_type: str
    body: bytes


def notification_fields(sale: Sale, word: Word, *, now_seconds: float) -> dict[str, str]:
    """Return the seven fields of a payment notification, without a signature."""
    return {
        "transactionNo": sale.transaction_no,
        "status": word.value,
        "amount": f"{sale.amount}",
        "currency": sale.order.currency,
        "settleCurrency": sale.order.settle_currency,
        "reference": sale.order.reference,
        "time": f"{in_pockyt_zone(now_seconds):%Y%m%d%H%M%S}",
    }


def word_notification(
    fields: Mapping[str, str],
    *,
    token: Token,
    old_token: Token | None = None,
    faults: AbstractSet[Fault] = frozenset(),
) -> SignedMessage:
    """Sign a notification and write it as a form, or as the faults say.

    Without an ``old_token``, signing with the old token means signing with a wrong one.
    """
    said = dict(fields)
    if Fault.NOTIFICATION_WRONG_AMOUNT in faults:
        said["amount"] = f"{Decimal(said['amount']) + 1}"
    if Fault.NOTIFICATION_WRONG_CURRENCY in faults:
        said["currency"] = "GBP" if said["currency"] == "USD" else "USD"
    if Fault.NOTIFICATION_EMPTY_FIELDS in faults:
        said.update(note="", vendorId="")
    signer = token
    if Fault.NOTIFICATION_OLD_TOKEN in faults:
        signer = old_token or WRONG_TOKEN
    if Fault.NOTIFICATION_WRONG_TOKEN in faults:
        signer = WRONG_TOKEN
    said[signature.FIELD] = signature.sign(said, signer)
    if Fault.NOTIFICATION_AS_JSON in faults:
        # The amount as a number, which a reader must take from its source text: 13.00, not 13.0.
        amount = said["amount"]
        text = json.dumps(said).replace(f'"amount": "{amount}"', f'"amount": {amount}')
        return SignedMessage(content_type=JSON, body=text.encode())
    return SignedMessage(content_type=FORM, body=urlencode(said).encode())


def truncate(body: bytes) -> bytes:
    """Cut a body in half."""
    return body[: len(body) // 2]
