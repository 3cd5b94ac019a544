"""Escape each NUL in a text, which PostgreSQL cannot store, and restore it on reading.

Only text from outside needs this. JSON escapes a NUL by itself, so ``fields`` and ``body`` are
stored as they are.
"""

from typing import Final, overload

# The control character "substitute" replaces a NUL, and itself, together with the character after
# it.
_ESCAPE: Final = "\x1a"


@overload
def packed(text: str) -> str: ...
@overload
def packed(text: str | None) -> str | None: ...
def packed(text: str | None) -> str | None:
    """Return text as it is stored."""
    if text is None or ("\0" not in text and _ESCAPE not in text):
        return text
    return text.replace(_ESCAPE, f"{_ESCAPE}1").replace("\0", f"{_ESCAPE}0")


@overload
def unpacked(text: str) -> str: ...
@overload
def unpacked(text: str | None) -> str | None: ...
def unpacked(text: str | None) -> str | None:
    """Return text as it arrived."""
    if text is None or _ESCAPE not in text:
        return text
    return text.replace(f"{_ESCAPE}0", "\0").replace(f"{_ESCAPE}1", _ESCAPE)
