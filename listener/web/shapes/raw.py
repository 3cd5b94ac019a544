"""Read the body of a request as it arrived, within the limits of every body."""

import asyncio
import zlib
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http import HttpVersion11

from listener.pockyt.notification import BODY_BYTES_MAX
from listener.web.problem import ProblemError

BODY_SECONDS: Final = 10.0
# A gzip file may consist of several, one after the other.
MEMBERS_MAX: Final = 8

_GZIP: Final = frozenset({"gzip", "x-gzip"})
_DEFLATE: Final = "deflate"
# Codings that exist but are not read here. Any other word, such as a charset, is not a coding.
_OTHERS: Final = frozenset(
    {"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "aes128gcm", "pack200-gzip"}
)
# Refusals of a body whose coding is not the one it names, or not one that is read here.
_MISNAMED: Final = frozenset({"bad-coding", "unsupported-coding"})
_SIGNED: Final = b"verifySign"
_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_RAW_BITS: Final = -15


async def read_notification(request: web.Request) -> bytes:
    """Read the body of a notification, even if it is plain but labelled as compressed.

    A proxy that decompresses a body may leave the header that says how it was compressed. The
    body can be read once; raises as :func:`read_raw` does.
    """
    body = await _read(request, again=False)
    if "Content-Encoding" not in request.headers:
        return body
    try:
        return _decoded(body, _coding(request))
    except ProblemError as error:
        if error.code in _MISNAMED and _SIGNED in body:
            return body
        raise


async def read_raw(request: web.Request) -> bytes:
    """Read the body of a request, decompressed if it is labelled as compressed.

    Raises:
        ProblemError: It is cut off or not encoded as labelled (400), late (408), too large before
            or after decompression (413), in a coding that is not read here (415).
    """
    coding = _coding(request) if "Content-Encoding" in request.headers else None
    return _decoded(await _read(request, again=True), coding)


def too_large() -> ProblemError:
    """Build the refusal of a body that is too large."""
    return ProblemError(413, "too-large", f"a body has at most {BODY_BYTES_MAX} bytes")


async def _read(request: web.Request, *, again: bool) -> bytes:
    """Read the body; ``again`` is whether it may be read another time."""
    try:
        # A time-out costs more than the reading; a body that has arrived already needs none.
        if request.content.is_eof():
            return await request.read() if again else _arrived(request.content)
        # HTTP/1.0 has no interim answers: its sender would take this one for the answer.
        if "Expect" in request.headers and request.version >= HttpVersion11:
            await _ask_for(request)
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large() from None
    except (ConnectionError, web.RequestPayloadError):
        raise ProblemError(400, "cut-off", "the body was cut off") from None
    except TimeoutError:
        raise ProblemError(408, "too-slow", "the body did not arrive in time") from None


def _arrived(content: StreamReader) -> bytes:
    """Take a body that has arrived, in one step where aiohttp's own reading takes many."""
    body = content.read_nowait()
    if len(body) > BODY_BYTES_MAX:
        raise too_large()
    return body


async def _ask_for(request: web.Request) -> None:
    """Send 100 Continue: only now is it known that the body is wanted."""
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0


def _coding(request: web.Request) -> str | None:
    """Return the coding of a body; None if there is none."""
    named = ",".join(request.headers.getall("Content-Encoding")).lower().split(",")
    codings = [word for name in named if (word := name.strip()) in {*_GZIP, _DEFLATE, *_OTHERS}]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] in _OTHERS:
        headers = {"Accept-Encoding": "gzip, deflate"}
        raise ProblemError(
            415, "unsupported-coding", "send it plain, or as gzip or deflate", headers=headers
        )
    return codings[0]


def _decoded(body: bytes, coding: str | None) -> bytes:
    """Decompress a body that is compressed, up to the size that a body may have."""
    if coding is None:
        return body
    bits = _GZIP_BITS if coding in _GZIP else _deflate_bits(body)
    text = b""
    for _ in range(MEMBERS_MAX):
        if not body:
            return text
        stream = zlib.decompressobj(bits)
        try:
            text += stream.decompress(body, BODY_BYTES_MAX + 1 - len(text))
        except zlib.error:
            break
        if len(text) > BODY_BYTES_MAX:
            raise too_large()
        if not stream.eof or (coding == _DEFLATE and stream.unused_data):
            break
        body = stream.unused_data
    if not body:
        return text
    raise ProblemError(400, "bad-coding", "the body is not encoded as Content-Encoding says")


def _deflate_bits(body: bytes) -> int:
    """Return how to read ``deflate``: as in RFC 9110, or without its header, as many send it."""
    is_zlib = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return _ZLIB_BITS if is_zlib else _RAW_BITS
