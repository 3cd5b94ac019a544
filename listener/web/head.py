"""What the head of a notification says, read without aiohttp."""

import re
from functools import lru_cache
from typing import Final

from msgspec import Struct

from listener.pockyt.notification import BODY_BYTES_MAX

# Far below aiohttp's own limits, so that none of these is reached first.
HEAD_BYTES_MAX: Final = 2_048
HEADERS_MAX: Final = 32

HEAD_END: Final = b"\r\n\r\n"

# The strictest part of RFC 9112; aiohttp reads every other head.
_HEAD: Final = re.compile(
    rb"POST (/notify/([\w-]+)(?:/([\w-]+))?) HTTP/1\.1\r\n"
    rb"((?:[!#-'*+.^-`|~\w-]++:[\t -~]*+\r\n)*+)\r\n",
    re.ASCII,
)
_PLAIN_LENGTH: Final = re.compile("[0-9]{1,6}")
# Each of these asks for more than an answer.
_SPECIAL: Final = frozenset({"content-encoding", "expect", "transfer-encoding", "upgrade"})
# Whether a type is read as JSON first, or as a form; no other is taken.
_IS_JSON: Final = {
    "": False,
    "application/x-www-form-urlencoded": False,
    "text/plain": False,
    "application/json": True,
    "text/json": True,
}
_QUOTED: Final = re.compile(r'"[^"]*"')
_NOTIFICATION: Final = re.compile(rb"POST /{1,8}notify/")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,6})[ \t]*\r\n", re.IGNORECASE)


class RequestHead(Struct, frozen=True):
    """What the head of a notification says."""

    merchant_no: str
    store_no: str | None
    is_json: bool
    length: int
    path: str
    forwarded_for: str | None


def read_head(head: bytes) -> RequestHead | None:
    """Read the head of a request; None where it is not a plain notification's."""
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    path, merchant_no, store_no, lines = found.groups(b"")
    pairs = [line.partition(":") for line in lines.decode().split("\r\n")[:-1]]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length", "")
    kind = is_json(headers.get("content-type", ""))
    if (
        # A header that is given twice may be one that must not be.
        len(headers) < len(pairs)
        or len(pairs) > HEADERS_MAX
        or "host" not in headers
        or not _SPECIAL.isdisjoint(headers)
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or kind is None
        or not _PLAIN_LENGTH.fullmatch(length)
        or int(length) > BODY_BYTES_MAX
    ):
        return None
    return RequestHead(
        merchant_no=merchant_no.decode(),
        store_no=store_no.decode() or None,
        is_json=kind,
        length=int(length),
        path=path.decode(),
        forwarded_for=headers.get("x-forwarded-for"),
    )


@lru_cache(maxsize=64)
def is_json(content_type: str) -> bool | None:
    """Return whether a content type is JSON (True) or a form (False); None where it is neither.

    A type that a proxy set twice, joined by a comma, counts once. Parameters are ignored, even
    after a blank or a comma where a semicolon should be.
    """
    parts = [part.strip().lower() for part in _QUOTED.sub("", content_type).split(",")]
    kinds = [re.split(r"[;\s]", part, maxsplit=1)[0] for part in parts if part]
    kinds = [kind for place, kind in enumerate(kinds) if place == 0 or "/" in kind]
    found = [True if kind.endswith("+json") else _IS_JSON.get(kind) for kind in kinds or [""]]
    return None if None in found else found[0]


def notification_bytes(data: bytes) -> int:
    """Return the length of the notification that begins a segment; all of it if none does.

    Without a length, that is the head. A cut at the wrong place would change no request, since
    requests arrive in any segments.
    """
    end = data.find(HEAD_END) + len(HEAD_END)
    if end < len(HEAD_END) or not _NOTIFICATION.match(data):
        return len(data)
    length = _LENGTH.search(data, 0, end)
    return min(len(data), end + int(length[1]) if length else end)
