"""Serve the pages: the dashboard, the reference till, and their files, all from here."""

import asyncio
import hashlib
import io
from dataclasses import dataclass
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Final

import segno
from aiohttp import web

from listener.keys import Key
from listener.web.context import SHARES
from listener.web.problem import ProblemError
from listener.web.shapes.raw import read_raw

STATIC: Final = "/static/"
# Nothing from other hosts, nothing inline, no frame around it, no form that sends a key away.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        # Stored by the browser, but validated each time, so that a page and its scripts fit
        # together.
        "Cache-Control": "no-cache",
    }
)

_TYPES: Final = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
_CLIENT: Final = "pos-client.js"
_TAG_CHARS: Final = 32
# A phone's camera cannot read a code that holds more.
CODE_BYTES_MAX: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file as it is served, with a tag that changes with its content."""

    body: bytes
    content_type: str
    tag: str


class Files:
    """The files of the pages, read once."""

    def __init__(self) -> None:
        self._files = {found.name: _read(found) for found in _find()}

    def routes(self) -> list[web.RouteDef]:
        """List a route for each file that a page loads."""
        names = sorted(name for name in self._files if not name.endswith(".html"))
        return [web.get(STATIC + name, partial(self.answer, name)) for name in names]

    async def answer(self, name: str, request: web.Request) -> web.Response:
        """Answer with a file, or that the browser's copy is still valid."""
        file = self._files[name]
        headers = {**HEADERS, "ETag": f'"{file.tag}"'}
        known = {tag.value for tag in request.if_none_match or ()}
        if known & {file.tag, "*"}:
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = file.content_type
        return web.Response(body=file.body, headers=headers)


FILES = web.AppKey("files", Files)


async def code(request: web.Request, key: Key) -> web.Response:
    """Draw the QR code of a text, such as the link that a customer's wallet opens."""
    body = await read_raw(request)
    try:
        text = body.decode() if 0 < len(body) <= CODE_BYTES_MAX else ""
    except UnicodeDecodeError:
        text = ""
    if not text:
        advice = f"send the text of the code, 1 to {CODE_BYTES_MAX} bytes of UTF-8"
        raise ProblemError(422, "bad-code", advice)
    # A long one takes 30 ms, so a thread draws it, one for each key at a time.
    async with request.app[SHARES].searching(key.id):
        drawing = await asyncio.to_thread(_draw, text)
    return web.Response(body=drawing, content_type="image/svg+xml")


async def dashboard(request: web.Request) -> web.Response:
    """Answer with the dashboard."""
    return await request.app[FILES].answer("dashboard.html", request)


async def till(request: web.Request) -> web.Response:
    """Answer with the reference till."""
    return await request.app[FILES].answer("till.html", request)


def _draw(text: str) -> bytes:
    drawing = io.BytesIO()
    segno.make_qr(text, error="m", boost_error=False).save(
        drawing, kind="svg", omitsize=True, light="#fff", nl=False
    )
    return drawing.getvalue()


def _find() -> list[Traversable]:
    """Find the files: all are packaged, but a checkout has the client in a place of its own."""
    packaged = resources.files("listener.web").joinpath("static")
    found = [one for one in packaged.iterdir() if Path(one.name).suffix in _TYPES]
    if not packaged.joinpath(_CLIENT).is_file():
        found.append(Path(__file__).parents[2] / "clients" / "js" / _CLIENT)
    return found


def _read(found: Traversable) -> _File:
    body = found.read_bytes()
    return _File(
        body=body,
        content_type=_TYPES[Path(found.name).suffix],
        tag=hashlib.sha256(body).hexdigest()[:_TAG_CHARS],
    )
