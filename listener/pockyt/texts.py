"""Read JSON as text: numbers as they were sent, nested values compact and in source order.

Source: Pockyt, "Signing API Calls": a signature covers the text that was sent, so ``13`` and
``13.00`` sign differently, and a nested value is signed as compact JSON text.
"""

import json
import re
from collections.abc import Callable, Mapping
from itertools import accumulate
from json.encoder import encode_basestring
from typing import Final

# Pockyt's own messages nest three deep. Python's parser has a limit as well, which differs between
# versions.
DEPTH_MAX: Final = 32
# Control characters except blanks, and halves of a surrogate pair, which UTF-8 cannot encode.
_UNFIT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

# A string that is not closed runs to the end, so that each byte is looked at once.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NOT_A_BRACKET: Final = re.compile(rb"[^\[\]{}]+")


class _Number(str):
    """A JSON number in its source text."""

    __slots__ = ()


def json_object(body: bytes) -> dict[str, object]:
    """Read a JSON object. Numbers become text; nested values stay as they are.

    Raises:
        ValueError: It is not UTF-8, not a JSON object, names a member twice, or nests too deeply.
    """
    opened = body.count(b"[") + body.count(b"{")
    if opened > DEPTH_MAX and _depth(body) > DEPTH_MAX:
        raise ValueError("nested too deeply")
    parsed = json.loads(
        body.decode("utf-8-sig"),
        parse_float=_Number,
        parse_int=_Number,
        parse_constant=_refuse_constant,
        object_pairs_hook=_refuse_repeats,
    )
    if not isinstance(parsed, dict):
        raise ValueError("not a JSON object")
    return parsed


def as_utf8(body: bytes) -> tuple[bytes, str]:
    """Return a text as UTF-8, and the encoding in which it came: that, or GB18030.

    Raises:
        UnicodeError: It is neither.
    """
    try:
        body.decode()
    except UnicodeError:
        return body.decode("gb18030").encode(), "gb18030"
    return body, "utf-8"


def _depth(body: bytes) -> int:
    """Return how deeply the brackets of a JSON text nest."""
    brackets = _NOT_A_BRACKET.sub(b"", _STRING.sub(b"", body))
    steps = (1 if bracket in b"[{" else -1 for bracket in brackets)
    return max(accumulate(steps), default=0)


def json_fields(body: bytes) -> dict[str, str]:
    """Read a JSON object as text fields; nulls are left out.

    Raises:
        ValueError: As for :func:`json_object`, or a text has half of a surrogate pair.
    """
    fields = texts(json_object(body))
    # JSON can write half of a surrogate pair, which is not a character and has no UTF-8.
    for part in (*fields, *fields.values()):
        part.encode()
    return fields


def json_source_fields(body: bytes) -> dict[str, str]:
    """Read a JSON object as text fields, the escapes in its nested values as they were sent.

    PHP escapes slashes and what is not ASCII, and signs what it wrote.

    Raises:
        ValueError: As for :func:`json_fields`.
    """

    def quoted(found: re.Match[bytes]) -> bytes:
        return json.dumps(found[0][1:-1].decode()).encode()

    # Each text of this is the source of one of the body's.
    source = json_object(_STRING.sub(quoted, body))
    fields = {
        _unescaped(name): _unescaped(value)
        if type(value) is str
        else _compact(value, '"{}"'.format)
        for name, value in source.items()
        if value is not None
    }
    if len(fields) < len(json_fields(body)):
        raise ValueError("a field comes twice")
    return fields


def _unescaped(source: str) -> str:
    return str(json.loads(f'"{source}"'))


def clean(text: str) -> str:
    """Replace what no column, log or page should receive: control characters, half a character."""
    return _UNFIT.sub("\ufffd", text)


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """Write the members of an object as text; nulls are left out."""
    written = {name: text(value) for name, value in values.items()}
    return {name: value for name, value in written.items() if value is not None}


def text(value: object) -> str | None:
    """Write a JSON value as text: a string as it is, a number as it was sent, null as None."""
    if value is None:
        return None
    return str(value) if isinstance(value, str) else _compact(value)


def _compact(value: object, quote: Callable[[str], str] = encode_basestring) -> str:
    """Write a nested JSON value without spaces, its numbers in their source text."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, dict):
        pairs = [f"{quote(name)}:{_compact(item, quote)}" for name, item in value.items()]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_compact(item, quote) for item in value]) + "]"
    return json.dumps(value)


def _refuse_constant(name: str) -> str:
    raise ValueError(f"{name} is not JSON")


def _refuse_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # The name is not in the error: refused text is never repeated, least of all the word that
        # acknowledges.
        raise ValueError("a field comes twice")
    return found
