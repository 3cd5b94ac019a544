"""Seal the place where a page ended, so that only the listener can write a cursor.

A cursor is valid only for its ledger, its route and its filters.
"""

import base64
import hashlib
import hmac
from typing import Final

from listener.ledger.promise import Ledger
from listener.web.problem import ProblemError
from listener.web.shapes.parameters import Query

_SEAL_BYTES: Final = 16
# Filters that came after 0.2.0: a cursor without them is good for both versions, which may run side
# by side.
_ADDED: Final = ("cancel_state", "held")


def seal_cursor(place: bytes, query: Query, *, ledger: Ledger) -> str:
    """Write a place as the cursor of a query."""
    return base64.urlsafe_b64encode(_seal(place, query, ledger) + place).decode()


def open_cursor(text: str, query: Query, *, ledger: Ledger) -> bytes:
    """Return the place of a query's cursor.

    Raises:
        ProblemError: It was changed, or belongs to other filters or another ledger.
    """
    try:
        packed = base64.urlsafe_b64decode(text)
    except ValueError:
        packed = b""
    seal, place = packed[:_SEAL_BYTES], packed[_SEAL_BYTES:]
    # Each place has only one valid spelling.
    is_plain = base64.urlsafe_b64encode(packed).decode() == text
    if not is_plain or not hmac.compare_digest(seal, _seal(place, query, ledger)):
        advice = "this cursor is not from this query: begin again without it"
        raise ProblemError(400, "bad-cursor", advice)
    return place


def _seal(place: bytes, query: Query, ledger: Ledger) -> bytes:
    unused = {name for name in _ADDED if getattr(query, name, None) is None}
    filters = query.model_dump_json(exclude={"cursor", "limit", *unused})
    bound = f"{ledger.epoch}\n{type(query).__name__}\n{filters}".encode()
    return hmac.digest(ledger.secret, bound + b"\n" + place, hashlib.sha256)[:_SEAL_BYTES]
