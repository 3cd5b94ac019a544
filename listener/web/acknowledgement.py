"""Answer ``success``: the same bytes each time, but for the date."""

from functools import lru_cache

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11

from listener.pockyt.notification import ACKNOWLEDGEMENT
from listener.web.headers import harden


class Acknowledgement(web.StreamResponse):
    """The acknowledgement of any request over HTTP/1.1 that keeps its connection.

    aiohttp would build a response for each one, always with the same bytes. This one has no state.
    """

    @property
    def prepared(self) -> bool:
        """Whether its headers are set."""
        return True

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send it."""
        writer = request.writer
        await writer.write_eof(success())
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: it has been sent."""


def is_for(request: web.BaseRequest) -> bool:
    """Return whether :class:`Acknowledgement` answers a request as aiohttp would."""
    return request.version == HttpVersion11 and request.keep_alive


def acknowledgement() -> web.Response:
    """Build the acknowledgement of any request."""
    return web.Response(body=ACKNOWLEDGEMENT, content_type="text/plain")


def success() -> bytes:
    """Return the acknowledgement as aiohttp sends it, with the date of this second."""
    return _dated(rfc822_formatted_time())


def written(response: web.Response, date: str) -> bytes:
    """Write a response as aiohttp sends it over HTTP/1.1, where the connection is kept."""
    harden(response)
    body = response.body
    if not isinstance(body, bytes):
        raise TypeError("a written answer is bytes")
    own = (("Content-Length", str(len(body))), ("Date", date))
    lines = [f"{name}: {value}" for name, value in (*response.headers.items(), *own)]
    status = f"HTTP/1.1 {response.status} {response.reason}"
    return "\r\n".join([status, *lines, "", ""]).encode() + body


@lru_cache(maxsize=1)
def _dated(date: str) -> bytes:
    return written(acknowledgement(), date)
