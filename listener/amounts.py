"""Read amounts of money: the one rule for notifications and answers."""

import re
from decimal import Decimal
from typing import Final

_MONEY: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?")
_AMOUNT: Final = re.compile(rf"(?=.*[1-9]){_MONEY.pattern}")
# A number as JSON libraries write it: 1E+1, 1.2E7, 13.000. No double is written with more digits.
_NUMBER: Final = re.compile(r"[0-9]{1,64}(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,3})?")
_CENT: Final = Decimal("0.01")
_DIGITS_MAX: Final = 12
# Also as taka and rupees are written: 12,34,567.89.
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(,[0-9]{2,3})*,[0-9]{3}(\.[0-9]+)?")


def read_money(text: str | None) -> Decimal | None:
    """Read an amount that may be zero; None where it is absent, or not plain decimal text."""
    return Decimal(text) if text and _MONEY.fullmatch(text) else None


def is_amount(text: str) -> bool:
    """Return whether a text is an amount, without the cost of reading it."""
    return _AMOUNT.fullmatch(text) is not None


def read_amount(text: str | None) -> Decimal | None:
    """Read an amount above zero: at most 12 digits and two decimals, in ASCII.

    Other ways to write a number (``1e3``, ``1_300``, ``-13``, full-width digits) are not amounts.
    """
    return Decimal(text) if text and is_amount(text) else None


def plain_number(text: str) -> str:
    """Write a number of Pockyt's without blanks and thousands separators, and with two decimals.

    Any text that is no such number is only trimmed.
    """
    plain = text.strip()
    if _THOUSANDS.fullmatch(plain):
        plain = plain.replace(",", "")
    if _MONEY.fullmatch(plain) or not _NUMBER.fullmatch(plain):
        return plain
    number = Decimal(plain)
    if number.adjusted() >= _DIGITS_MAX:
        return plain
    rounded = number.quantize(_CENT)
    # PHP and others write a double in full: 29.949999999999999 is how they say 29.95.
    is_same = number == rounded or (rounded and float(number) == float(rounded))
    return f"{rounded:f}" if is_same else plain


def plain_amount(text: str | None) -> str | None:
    """Write an amount of Pockyt's as plain decimal text; None where it is absent or invalid."""
    plain = plain_number(text) if text else ""
    return plain if read_amount(plain) is not None else None


def same_amount(one: str | None, other: str | None) -> bool:
    """Compare two amounts as numbers, so that ``13`` equals ``13.00``.

    An absent or unreadable amount equals nothing.
    """
    amount = read_amount(one)
    return amount is not None and (one == other or amount == read_amount(other))


def same_text(one: str | None, other: str | None) -> bool:
    """Compare two currencies or references, ignoring case and surrounding blanks."""
    return one == other or _plain(one) == _plain(other)


def _plain(text: str | None) -> str | None:
    return text.strip().lower() if text else None
