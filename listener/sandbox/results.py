"""Build the results of calls, with the names, types and nulls of Pockyt's samples.

Source: Pockyt, "Add", "Prepay" and "Tran Query".
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from listener.sandbox.book import Refund, Sale

_POCKYT_ZONE: Final = timezone(timedelta(hours=8))


def json_body(answer: Mapping[str, object]) -> bytes:
    """Write an answer as it is sent."""
    return json.dumps(answer, ensure_ascii=False).encode()


def named(sale: Sale) -> dict[str, object]:
    """Build what most results say about their sale."""
    return {
        "transactionNo": sale.transaction_no,
        "reference": sale.order.reference,
        "currency": sale.order.currency,
        "settleCurrency": sale.order.settle_currency,
    }


def sale_result(sale: Sale) -> dict[str, object]:
    """Build the result of add and prepay."""
    return {
        **named(sale),
        "amount": f"{sale.amount}",
        "merchantNo": sale.order.merchant_no,
        "storeNo": sale.order.store_no,
        "storeAdminNo": sale.order.store_admin_no,
        "transactionStatus": sale.word,
        "transactionType": "payment",
        "createTime": _time(sale.opened_seconds),
        "paymentTime": None if sale.paid_seconds is None else _time(sale.paid_seconds),
        "originalTransactionNo": None,
        "refundAmount": "0.00",
        "voidAmount": "0.00",
    }


def refund_result(refund: Refund, sale: Sale) -> dict[str, object]:
    """Build one of the refunds that tran-query lists; it has no status of its own."""
    return {
        "refundTransactionId": refund.transaction_no,
        "refundReference": refund.reference,
        "refundAmount": f"{refund.amount}",
        "currency": sale.order.currency,
        "settleCurrency": sale.order.settle_currency,
    }


def _time(at_seconds: float) -> str:
    return f"{in_pockyt_zone(at_seconds):%Y-%m-%d %H:%M:%S}"


def in_pockyt_zone(at_seconds: float) -> datetime:
    """Return a Unix time in China's zone, which Pockyt uses in answers and notifications."""
    return datetime.fromtimestamp(at_seconds, UTC).astimezone(_POCKYT_ZONE)
