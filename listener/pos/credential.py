"""Read a key as people provide it: from a file, a variable or a paste, with surrounding blanks."""

from typing import Final

from pydantic import SecretStr

# What editors and copied text leave at the edges and str.strip does not remove: a byte order mark,
# and zero-width blanks.
_INVISIBLE: Final = "\ufeff\u200b\u200c\u200d\u2060"


def read_key(text: str | SecretStr) -> SecretStr:
    """Return a key without surrounding blanks and line breaks.

    Raises:
        ValueError: Nothing is left, or it contains what no key does. The key is not quoted.
    """
    given = text.get_secret_value() if isinstance(text, SecretStr) else text
    key = given
    while (stripped := key.strip().strip(_INVISIBLE)) != key:
        key = stripped
    if not key:
        raise ValueError("the key is empty; set one that `listener keys create` made")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("inside the key is a blank or a letter that no key has; copy it anew")
    return SecretStr(key)
