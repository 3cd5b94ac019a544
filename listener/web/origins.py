"""Which origins may come in: by a websocket, and those that a browser lets read our answers."""

from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from listener.origin import meant_origins, read_origin
from listener.pos.codes import KEY_HEADER
from listener.web.context import SETTINGS

# What a page of another origin may use: the API, and the client for it.
_API: Final = "/v1/"
_CLIENT: Final = "/static/pos-client.js"

_ALLOWED_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", KEY_HEADER)
# Beside those that a browser shows anyway.
EXPOSED_HEADERS: Final = (
    *("Allow", "Idempotent-Replayed", "Ledger-Epoch", "Ledger-Head", "Retry-After"),
    "WWW-Authenticate",
)
# Chromium remembers none for longer.
_MAX_AGE_SECONDS: Final = 7_200


def may_follow_from(text: str, request: web.Request) -> bool:
    """Return whether an ``Origin`` is our own, or one of the setting ``origins``.

    Our own are the host of ``public_url`` and the requested one, which a proxy may have changed.
    Either scheme is ours: the one that the browser sees is not known here, and some libraries
    always send ``http``. So a page that our own host sent in plain text may come in too.
    """
    settings = request.app[SETTINGS]
    hosts = [request.host]
    if settings.public_url:
        hosts.append(urlsplit(settings.public_url).netloc)
    own = {read_origin(f"{scheme}://{host}") for host in hosts for scheme in ("http", "https")}
    allowed = {*own, *settings.origins}
    return any(origin in allowed for origin in meant_origins(text))


async def add_cors(request: web.Request, response: web.StreamResponse) -> None:
    """Allow the pages of the setting ``origins`` to read an answer; others are told nothing.

    Never with credentials: a key is in a header that the page itself sets.

    Source: WHATWG, Fetch, "HTTP CORS protocol".
    """
    origin = _listed_origin(request)
    if origin is None or not _is_shared(request):
        return
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = origin
    headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED_HEADERS)
    headers["Vary"] = "Origin"


def preflight(request: web.Request, *, methods: str) -> web.Response | None:
    """Build the answer to a browser that asks what a page may send; None where it does not ask."""
    if (
        request.method != "OPTIONS"
        or "Access-Control-Request-Method" not in request.headers
        or not request.path.startswith(_API)
        or _listed_origin(request) is None
    ):
        return None
    headers = {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": ", ".join(_ALLOWED_HEADERS),
        "Access-Control-Max-Age": str(_MAX_AGE_SECONDS),
    }
    return web.Response(status=204, headers=headers)


def _is_shared(request: web.Request) -> bool:
    return request.path.startswith(_API) or request.path == _CLIENT


def _listed_origin(request: web.Request) -> str | None:
    """Return the origin of a request as it was sent, if the setting ``origins`` names it."""
    sent = request.headers.getall("Origin", ())
    if len(sent) != 1 or read_origin(sent[0]) not in request.app[SETTINGS].origins:
        return None
    return sent[0]
