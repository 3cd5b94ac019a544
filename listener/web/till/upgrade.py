"""Decide whether a request may become a websocket at all; the rest is refused by a close code."""

from urllib.parse import urlsplit

from aiohttp import web

from listener.pos.frames import PROTOCOL
from listener.web.context import SESSIONS, SETTINGS
from listener.web.problem import ProblemError, draining


def check_upgrade(request: web.Request) -> None:
    """Refuse what is not to become a websocket at all.

    Raises:
        ProblemError: A foreign origin, other subprotocols, a restart, or no upgrade.
    """
    origin = request.headers.get("Origin")
    if origin is not None and not _is_allowed(origin.lower(), request):
        raise ProblemError(403, "foreign-origin", "this origin is not among the setting origins")
    named = request.headers.get("Sec-WebSocket-Protocol")
    if named is not None and PROTOCOL not in [name.strip() for name in named.split(",")]:
        raise ProblemError(400, "unknown-subprotocol", f"the subprotocol is {PROTOCOL}")
    if request.app[SESSIONS].is_draining:
        raise draining()
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise ProblemError(
            426, "no-upgrade", "this is a websocket", headers={"Upgrade": "websocket"}
        )


def _is_allowed(origin: str, request: web.Request) -> bool:
    """Tell whether an origin is our own host, or one of the setting ``origins``."""
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        return False
    return origin in request.app[SETTINGS].origins or host == request.host.lower()
