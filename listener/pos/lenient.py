"""Read JSON as other languages write it.

Some JSON libraries have only one type of number and send the offset 7 as ``7.0`` or ``7E0``; some
serializers write ``null`` for what is absent; some put a byte order mark in front.
"""

import re
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, BeforeValidator, model_validator

# The largest whole number that JavaScript represents exactly.
NUMBER_MAX: Final = 2**53 - 1

_MARK: Final = "\ufeff"
_MARK_BYTES: Final = _MARK.encode()
_NUMBER_CHARS_MAX: Final = 32
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?", re.ASCII)


def without_mark(text: str | bytes) -> str | bytes:
    """Return a text without the byte order mark that it may begin with."""
    return text.removeprefix(_MARK) if isinstance(text, str) else text.removeprefix(_MARK_BYTES)


def whole(value: object) -> object:
    """Return the integer that a number with a zero fraction equals; anything else unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Runs before the field's own checks, which stay strict: half a number is not an integer.
WHOLE: Final = BeforeValidator(whole)


def whole_of(text: str) -> int | None:
    """Return the integer from 0 to NUMBER_MAX that a JSON number equals; None if it equals none."""
    if len(text) > _NUMBER_CHARS_MAX or not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    # Compared first: as an int, 1e999999 has a million digits.
    if number > NUMBER_MAX or number != number.to_integral_value():
        return None
    return int(number)


class LenientModel(BaseModel):
    """A model that treats a member that is ``null`` as absent."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        if isinstance(value, dict) and None in value.values():
            return {name: member for name, member in value.items() if member is not None}
        return value
