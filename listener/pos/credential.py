"""Read a key as people provide it: from a file, a variable or a paste, with surrounding blanks."""

from typing import Final

from pydantic import SecretStr

from listener.pos.codes import CloseCode
from listener.pos.status import StoppedError

# What editors and copied text leave at the edges and str.strip does not remove: a byte order mark,
# and zero-width blanks.
_INVISIBLE: Final = "\ufeff\u200b\u200c\u200d\u2060"


def read_key(text: str | SecretStr) -> SecretStr:
    """Return a key without surrounding blanks and line breaks.

    Raises:
        StoppedError: Nothing is left, or it has characters that no key has. The key is not quoted.
    """
    given = text.get_secret_value() if isinstance(text, SecretStr) else text
    key = given
    while (stripped := key.strip().strip(_INVISIBLE)) != key:
        key = stripped
    if not key:
        raise _no_key("the key is empty; set one that `listener keys create` made")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise _no_key("inside the key is a blank or a letter that no key has; copy it anew")
    return SecretStr(key)


def _no_key(detail: str) -> StoppedError:
    # As if the listener had been asked: no listener knows such a key.
    return StoppedError(code=CloseCode.BAD_KEY, detail=detail)
