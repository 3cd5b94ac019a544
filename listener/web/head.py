"""Read the head of a plain notification; any other head is aiohttp's to read."""

import re
from typing import Final

from msgspec import Struct

from listener.pockyt.notification import BODY_BYTES_MAX
from listener.web.notify import is_json

# Far below aiohttp's own limits, so that none of these is reached first.
HEAD_BYTES_MAX: Final = 2_048
HEADERS_MAX: Final = 32

# The strictest part of RFC 9112: what else a head may look like is aiohttp's to know.
_HEAD: Final = re.compile(
    rb"POST (/notify/([\w-]+)(?:/([\w-]+))?) HTTP/1\.1\r\n"
    rb"((?:[!#-'*+.^-`|~\w-]++:[\t -~]*+\r\n)*+)\r\n",
    re.ASCII,
)
_LENGTH: Final = re.compile("[0-9]{1,6}")
# Each of these asks for more than an answer.
_SPECIAL: Final = frozenset({"content-encoding", "expect", "transfer-encoding", "upgrade"})


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
        # A name that is given twice may be one that must not be.
        len(headers) < len(pairs)
        or len(pairs) > HEADERS_MAX
        or "host" not in headers
        or not _SPECIAL.isdisjoint(headers)
        or headers.get("connection", "keep-alive").lower() != "keep-alive"
        or kind is None
        or not _LENGTH.fullmatch(length)
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
