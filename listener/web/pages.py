"""Serve the pages: the dashboard, the reference till, and what they load, from here alone."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aiohttp import web

STATIC: Final = "/static/"
# Nothing from elsewhere, nothing inline, no frame around it, no form that sends a key away.
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
        # Kept, but asked about each time: a page and its scripts are of one version.
        "Cache-Control": "no-cache",
    }
)

_PAGES: Final = MappingProxyType({"/": "dashboard.html", "/till": "till.html"})
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file as it is served, and the tag that changes with its content."""

    body: bytes
    content_type: str
    tag: str


def routes() -> list[web.AbstractRouteDef]:
    """List the routes of the pages; their files are read here, once."""
    files = {found.name: _read(found) for found in _find()}
    loaded = {name: file for name, file in files.items() if not name.endswith(".html")}
    return [
        *(web.get(path, _Served(files[name]).answer) for path, name in _PAGES.items()),
        *(web.get(STATIC + name, _Served(file).answer) for name, file in sorted(loaded.items())),
    ]


class _Served:
    """Answers with one file."""

    def __init__(self, file: _File) -> None:
        self._file = file

    async def answer(self, request: web.Request) -> web.Response:
        """Answer with the file, or that the one the browser has is still good."""
        headers = {**HEADERS, "ETag": f'"{self._file.tag}"'}
        known = {tag.value for tag in request.if_none_match or ()}
        if known & {self._file.tag, "*"}:
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = self._file.content_type
        return web.Response(body=self._file.body, headers=headers)


def _find() -> list[Traversable]:
    """Find the files: all are packaged, but for a checkout's client, which has its own place."""
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
