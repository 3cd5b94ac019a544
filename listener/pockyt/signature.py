"""Sign and verify with Pockyt's ``verifySign``.

Source: Pockyt, "Signing API Calls"; every rule here is checked against published messages
(``tests/unit/vectors.json``).
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Final

FIELD: Final = "verifySign"


class Token:
    """One API token of a merchant, ready to sign with; its text is kept and shown by nothing."""

    __slots__ = ("_digest", "_secrets")

    def __init__(self, text: str) -> None:
        if not text.strip():
            raise ValueError("a token is empty")
        self._digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

        self._secrets = re.compile(f"{re.escape(text)}|{self._digest}", re.IGNORECASE)

    def hide(self, text: str) -> str:
        """Replace the token and its digest where a text quotes one of them."""
        return self._secrets.sub("[hidden]", text)

    def __repr__(self) -> str:
        return "Token(**********)"

    def sign(self, joined: str) -> str:
        """Return verifySign, 32 lower-case hex digits, of fields joined by :func:`join`."""
        return hashlib.md5(f"{joined}&{self._digest}".encode(), usedforsecurity=False).hexdigest()


def join(fields: Mapping[str, str]) -> str:
    """Join ``name=value`` pairs in the code-point order of their names, verifySign left out."""
    return "&".join([f"{name}={fields[name]}" for name in sorted(fields) if name != FIELD])


def sign(fields: Mapping[str, str], token: Token) -> str:
    """Sign fields as Pockyt's PHP, Java and Python code does: empty values are signed too."""
    return token.sign(join(fields))


def verify(fields: Mapping[str, str], tokens: Iterable[Token]) -> bool:
    """Tell whether one of the tokens signed these fields, exactly as they were received.

    Vendor code differs on empty values: some signs ``name=``, some leaves the pair out. Where
    there are any, both are computed, and compared in constant time, for every token, whatever
    matched before.
    """
    given = fields.get(FIELD, "").encode()
    variants = [join(fields)]
    if not all(fields.values()):
        variants.append(join({name: value for name, value in fields.items() if value}))
    matched = False
    for token in tokens:
        for joined in variants:
            matched |= hmac.compare_digest(token.sign(joined).encode(), given)
    return matched


def is_ambiguous(fields: Mapping[str, str]) -> bool:
    """Tell whether other fields would have the same signature.

    The joined text has no escapes: ``&`` in a name or a value, or ``=`` in a name, lets one
    pair absorb or release its neighbour unseen.
    """
    names = "".join(fields)
    return "&" in names or "=" in names or "&" in "".join(fields.values())
