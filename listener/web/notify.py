"""Answer Pockyt's notifications: ``success`` once the entry is on disk, and never before."""

import asyncio
import time
from typing import Final

from aiohttp import web

from listener.errors import ListenerError
from listener.pockyt.notification import BODY_BYTES_MAX
from listener.web.context import INGEST, METRICS
from listener.web.problem import ProblemError, of_error, problem

# Source: Pockyt, "Webhook Notification Format": anything else is sent again, 8 times in 2 hours.
ACKNOWLEDGEMENT: Final = b"success"
BODY_SECONDS: Final = 10.0

# All but JSON is read as a form: the header that Pockyt sends is unpublished.
_TYPES: Final = frozenset(
    {"", "application/x-www-form-urlencoded", "application/json", "text/plain"}
)


def routes() -> list[web.RouteDef]:
    """List the notify URLs; other methods than POST are answered here too, in the table's order."""
    return [
        web.route("*", "/notify/{merchantNo}", notify),
        web.route("*", "/notify/{merchantNo}/{storeNo}", notify),
    ]


async def notify(request: web.Request) -> web.Response:
    """Take one delivery of a notification."""
    started = time.perf_counter()
    app = request.app
    metrics = app[METRICS]
    try:
        merchant_no = request.match_info["merchantNo"]
        if not app[INGEST].knows(merchant_no):
            raise ProblemError(404, "unknown-merchant", "no such merchant is configured")
        body = await _body(request)
        recorded = await app[INGEST].receive(
            merchant_no=merchant_no,
            store_no=request.match_info.get("storeNo"),
            content_type=_content_type(request),
            body=body,
        )
    except (ProblemError, ListenerError) as error:
        answer = problem(error if isinstance(error, ProblemError) else of_error(error))
        metrics.notifications.labels(answer.status).inc()
        return answer
    if not recorded.is_new:
        metrics.repeats.inc()
    metrics.acknowledged(time.perf_counter() - started)
    return web.Response(body=ACKNOWLEDGEMENT, content_type="text/plain")


async def _body(request: web.Request) -> bytes:
    """Read a body, refusing what is not a notification before it is read."""
    if request.method != "POST":
        raise ProblemError(405, "not-post", "a notification is a POST", headers={"Allow": "POST"})
    too_large = ProblemError(413, "too-large", f"a body has at most {BODY_BYTES_MAX} bytes")
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise too_large
    if _content_type(request) not in _TYPES:
        raise ProblemError(
            415, "unsupported-type", "send a form (application/x-www-form-urlencoded) or JSON"
        )
    try:
        # A time-out costs more than the reading; a body that is here already needs none.
        if request.content.is_eof():
            return await request.read()
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None
    except (ConnectionError, web.RequestPayloadError):
        raise ProblemError(400, "cut-off", "the body was cut off") from None
    except TimeoutError:
        raise ProblemError(408, "too-slow", "the body did not arrive in time") from None


def _content_type(request: web.Request) -> str:
    """Return the type without its parameters, '' where there is none."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
