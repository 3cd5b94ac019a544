"""Answer Pockyt's notifications: ``success`` once the entry is on disk, and never before."""

import time
from typing import Final

from aiohttp import web

from listener.errors import ListenerError
from listener.pockyt.notification import ACKNOWLEDGEMENT, BODY_BYTES_MAX
from listener.web.context import INGEST, METRICS
from listener.web.problem import ProblemError, of_error, problem
from listener.web.shapes.raw import read_raw, too_large

# All but JSON is read as a form: the header that Pockyt sends is unpublished.
_TYPES: Final = frozenset(
    {"", "application/x-www-form-urlencoded", "application/json", "text/plain"}
)


def routes() -> list[web.RouteDef]:
    """List the notify URLs; other methods than POST are answered here too, in the table's order."""
    return [
        web.route("*", "/notify/{merchantNo}/{storeNo}", notify),
        web.route("*", "/notify/{merchantNo}", notify),
    ]


async def notify(request: web.Request) -> web.Response:
    """Take one delivery of a notification."""
    started = time.perf_counter()
    app, place = request.app, request.match_info
    ingest, metrics = app[INGEST], app[METRICS]
    try:
        if not ingest.knows(place["merchantNo"]):
            raise ProblemError(404, "unknown-merchant", "no such merchant is configured")
        content_type, body = await _read(request)
        recorded = await ingest.receive(
            merchant_no=place["merchantNo"],
            store_no=place.get("storeNo"),
            content_type=content_type,
            body=body,
        )
    except (ProblemError, ListenerError) as error:
        answer = problem(error if isinstance(error, ProblemError) else of_error(error))
        metrics.notifications.labels(answer.status).inc()
        return answer
    metrics.acknowledged(time.perf_counter() - started, is_repeat=not recorded.is_new)
    return web.Response(body=ACKNOWLEDGEMENT, content_type="text/plain")


async def _read(request: web.Request) -> tuple[str, bytes]:
    """Return a notification's type, without parameters, and its body.

    Raises:
        ProblemError: It is not one; told before the body is read, where that is possible.
    """
    if request.method != "POST":
        raise ProblemError(405, "not-post", "a notification is a POST", headers={"Allow": "POST"})
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise too_large()
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type not in _TYPES:
        raise ProblemError(
            415, "unsupported-type", "send a form (application/x-www-form-urlencoded) or JSON"
        )
    return content_type, await read_raw(request)
