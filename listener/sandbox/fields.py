"""Read the fields of a signed call, and refuse them, as Pockyt does."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from listener.sandbox.book import (
    TIMEOUT_MINUTES,
    TIMEOUT_MINUTES_MAX,
    RefusalError,
    RetCode,
    SaleRequest,
    read_amount,
)

TEXT_CHARS_MAX: Final = 256
URL_CHARS_MAX: Final = 2_048
# In a store only this currency is accepted; a code that the customer scans may use others too.
IN_STORE_CURRENCIES: Final = frozenset({"USD"})
CURRENCIES: Final = frozenset(
    {"USD", "CNY", "PHP", "IDR", "KRW", "HKD", "THB", "MYR", "GBP", "BDT", "PKR"}
)
SETTLE_CURRENCIES: Final = frozenset({"USD", "GBP"})
VENDORS: Final = frozenset({"alipay", "wechatpay", "cashapppay"})


def need(fields: Mapping[str, str], name: str) -> str:
    """Return a required field.

    Raises:
        RefusalError: It is missing (000020) or too long (000023).
    """
    value = fields.get(name, "")
    if not value:
        raise RefusalError(RetCode.MISSING, f"{name} is required")
    if len(value) > TEXT_CHARS_MAX:
        raise RefusalError(RetCode.BAD_VALUE, name)
    return value


def read_url(fields: Mapping[str, str], *, required: bool) -> str | None:
    """Return the URL to notify; None where none is named, and none is required.

    Raises:
        RefusalError: It is missing (000020), or no URL (000023).
    """
    url = fields.get("ipnUrl", "")
    if not url and not required:
        return None
    if not url:
        raise RefusalError(RetCode.MISSING, "ipnUrl is required")
    if len(url) > URL_CHARS_MAX or not is_url(url):
        raise RefusalError(RetCode.BAD_VALUE, "ipnUrl")
    return url


def is_url(text: str) -> bool:
    """Return whether a notification could be sent to a URL."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def read_order(
    fields: Mapping[str, str], *, vendor: str | None, ipn_url: str | None
) -> SaleRequest:
    """Read what is sold, and how it may be paid.

    Raises:
        RefusalError: A field is missing (000020) or wrong (000023).
    """
    amount = need(fields, "amount")
    read_amount(amount)
    currencies = IN_STORE_CURRENCIES if vendor is None else CURRENCIES
    if need(fields, "currency") not in currencies:
        raise RefusalError(RetCode.BAD_VALUE, "currency")
    if need(fields, "settleCurrency") not in SETTLE_CURRENCIES:
        raise RefusalError(RetCode.BAD_VALUE, "settleCurrency")
    timeout = fields.get("timeout") or str(TIMEOUT_MINUTES)
    if not re.fullmatch(r"[0-9]{1,4}", timeout) or not 1 <= int(timeout) <= TIMEOUT_MINUTES_MAX:
        raise RefusalError(RetCode.BAD_VALUE, "timeout")
    return SaleRequest(
        merchant_no=fields["merchantNo"],
        store_no=fields["storeNo"],
        reference=need(fields, "reference"),
        amount=amount,
        currency=fields["currency"],
        settle_currency=fields["settleCurrency"],
        vendor=vendor,
        ipn_url=ipn_url,
        store_admin_no=fields.get("storeAdminNo"),
        timeout_minutes=int(timeout),
    )
