"""Set the headers that every answer has, wherever it comes from."""

from aiohttp import web


def harden(response: web.StreamResponse) -> None:
    """Set the headers: no version of ours, no guessing of types, no caching."""
    headers = response.headers
    headers["Server"] = "listener"
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cache-Control", "no-store")
