"""Set the headers that every answer has, whoever made it."""

from aiohttp import web


def harden(response: web.StreamResponse) -> None:
    """Tell no version of what answers; let nobody guess a type or keep what may be money's."""
    headers = response.headers
    headers["Server"] = "listener"
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cache-Control", "no-store")
