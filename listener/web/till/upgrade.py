"""Decide whether a request may become a websocket; later refusals are close codes."""

import re
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict

from listener.pos.frames import PROTOCOL
from listener.web.context import SESSIONS
from listener.web.origins import may_follow_from
from listener.web.problem import ProblemError, draining

# The drafts, 8 and 7, name the origin in another header.
_VERSION: Final = "13"
# RFC 6455, section 4.1.
_KEY: Final = re.compile("[A-Za-z0-9+/]{22}==")
_OFFER: Final = {"Upgrade": "websocket", "Sec-WebSocket-Version": _VERSION}


def check_upgrade(request: web.Request) -> web.Request:
    """Return the request with its list headers joined, as aiohttp needs them.

    Raises:
        ProblemError: A foreign origin, other subprotocols, a restart, or not an upgrade.
    """
    if not all(may_follow_from(one, request) for one in request.headers.getall("Origin", ())):
        raise ProblemError(403, "foreign-origin", "this origin is not among the setting origins")
    named = _names(request, hdrs.SEC_WEBSOCKET_PROTOCOL)
    if named and PROTOCOL not in named:
        raise ProblemError(400, "unknown-subprotocol", f"the subprotocol is {PROTOCOL}")
    if request.app[SESSIONS].is_draining:
        raise draining()
    version = request.headers.get(hdrs.SEC_WEBSOCKET_VERSION, "").strip()
    # RFC 9110, section 7.8: an upgrade asked for over HTTP/1.0 is none.
    if (
        request.version < HttpVersion11
        or "websocket" not in _names(request, hdrs.UPGRADE, lower=True)
        or "upgrade" not in _names(request, hdrs.CONNECTION, lower=True)
        or version != _VERSION
    ):
        advice = "this is a websocket: over HTTP/1.1, in version 13"
        raise ProblemError(426, "no-upgrade", advice, headers=_OFFER)
    if not _KEY.fullmatch(request.headers.get(hdrs.SEC_WEBSOCKET_KEY, "").strip()):
        advice = "Sec-WebSocket-Key must be 16 bytes in Base64, new for each connection"
        raise ProblemError(400, "bad-handshake", advice)
    return _plain(request, subprotocol=PROTOCOL if named else None)


def _plain(request: web.Request, *, subprotocol: str | None) -> web.Request:
    """Build the request that aiohttp upgrades: it reads only the first line of each header."""
    headers = CIMultiDict(
        {
            hdrs.HOST: request.host,
            hdrs.UPGRADE: "websocket",
            hdrs.SEC_WEBSOCKET_VERSION: _VERSION,
            hdrs.SEC_WEBSOCKET_KEY: request.headers.get(hdrs.SEC_WEBSOCKET_KEY, ""),
        }
    )
    if subprotocol is not None:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = subprotocol
    if not all(value.isascii() for value in headers.values()):
        raise ProblemError(400, "bad-handshake", "the headers of the upgrade must be ASCII")
    return request.clone(headers=headers)


def _names(request: web.Request, header: str, *, lower: bool = False) -> list[str]:
    """Return the names that a header lists, over all of its lines.

    Source: RFC 9110, section 5.3; RFC 6455, sections 4.2.1 and 11.3.4.
    """
    text = ",".join(request.headers.getall(header, ()))
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [name.lower() for name in names] if lower else names
