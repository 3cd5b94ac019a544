"""Sign and verify with Pockyt's ``verifySign``.

Source: Pockyt, "Signing API Calls"; every rule here is checked against published messages
(``tests/unit/vectors.json``).
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from listener.errors import SignatureError

FIELD: Final = "verifySign"
# What may follow a body or a signature, although nobody signed it: a proxy or a tool has added it.
LINE_BREAKS: Final = "\r\n"


class Token:
    """One API token of a merchant, ready to sign with; its text is not kept and never shown."""

    __slots__ = ("_end", "_secrets")

    def __init__(self, text: str) -> None:
        if not text.strip():
            raise ValueError("a token is empty")
        digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        self._end = f"&{digest}".encode()
        self._secrets = re.compile(f"{re.escape(text)}|{digest}", re.IGNORECASE)

    def hide(self, text: str) -> str:
        """Replace the token and its digest where a text quotes one of them."""
        return self._secrets.sub("[hidden]", text)

    def __repr__(self) -> str:
        return "Token(**********)"

    def sign(self, joined: bytes) -> bytes:
        """Return verifySign, 32 lower-case hex digits, for fields joined by :func:`join`."""
        signed = hashlib.md5(joined + self._end, usedforsecurity=False)
        return signed.hexdigest().encode()


def join(fields: Mapping[str, str]) -> str:
    """Join ``name=value`` pairs in the code-point order of their names, without verifySign."""
    return "&".join([f"{name}={fields[name]}" for name in sorted(fields) if name != FIELD])


def sign(fields: Mapping[str, str], token: Token) -> str:
    """Sign fields as Pockyt's PHP, Java and Python code does: empty values are signed too."""
    return token.sign(join(fields).encode()).decode()


def verify(fields: Mapping[str, str], tokens: Iterable[Token]) -> bool:
    """Return whether one of the tokens signed these fields, exactly as they were received."""
    return signed_text(fields, tokens) is not None


def signed_text(
    fields: Mapping[str, str], tokens: Iterable[Token], *, encoding: str = "utf-8"
) -> bytes | None:
    """Return the bytes that one of the tokens signed; None where none of them did.

    Vendors' code differs on empty values: some signs ``name=``, some leaves the pair out. If there
    are any, both are tried. ``encoding`` turns the fields' text into the bytes that came.
    """
    variants = [join(fields).encode(encoding)]
    if not all(fields.values()):
        said = {name: value for name, value in fields.items() if value}
        variants.append(join(said).encode(encoding))
    return signed_by(tokens, variants, given=fields.get(FIELD, "").encode(encoding))


def signed_by(tokens: Iterable[Token], variants: Sequence[bytes], *, given: bytes) -> bytes | None:
    """Return the text that one of the tokens signed as ``given``; None where none of them did.

    Each token is tried on each text, in constant time, whatever matched before. Hex is compared in
    any case, without closing line breaks.
    """
    given = given.rstrip(LINE_BREAKS.encode()).lower()
    matched = None
    for token in tokens:
        for joined in variants:
            if hmac.compare_digest(token.sign(joined), given):
                matched = joined
    return matched


def fingerprint(merchant_no: str, signed: bytes) -> str:
    """Return the identity of a notification: hex SHA-256 of its merchant and signed text.

    The signed text does not show where a name or a value ends, so a captured message can be cut
    into other fields; it is still the same message. Empty pairs do not count, because they can be
    added unseen.
    """
    if b"=&" in signed or signed.endswith(b"="):
        signed = b"&".join([pair for pair in signed.split(b"&") if not _is_empty(pair)])
    return hashlib.sha256(f"{len(merchant_no)}:{merchant_no}".encode() + signed).hexdigest()


def missing() -> SignatureError:
    """Build the error for a message that no token of its merchant signed."""
    return SignatureError("verifySign is missing or wrong")


def is_ambiguous(fields: Mapping[str, str]) -> bool:
    """Return whether other fields would have the same signature.

    The joined text has no escapes: ``&`` in a name or a value, or ``=`` in a name, lets a pair
    absorb or release its neighbour unseen.
    """
    names = "".join(fields)
    return "&" in names or "=" in names or "&" in "".join(fields.values())


def _is_empty(pair: bytes) -> bool:
    """Return whether a pair is a name without a value; ``a==`` has one, and ``a`` is not a pair."""
    return pair.endswith(b"=") and pair.count(b"=") == 1
