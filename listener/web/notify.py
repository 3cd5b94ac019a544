"""Answer Pockyt's notifications: ``success`` once the entry is on disk, and never before."""

import re
import time
from collections.abc import Awaitable
from functools import partial
from typing import Final
from urllib.parse import unquote

from aiohttp import hdrs, web

from listener.errors import ListenerError
from listener.ingest import Ingest
from listener.pockyt.notification import BODY_BYTES_MAX
from listener.web.acknowledgement import Acknowledgement, acknowledgement, is_for
from listener.web.guard import Handler, answering
from listener.web.head import is_json
from listener.web.metrics import Metrics
from listener.web.problem import ProblemError, of_error, problem
from listener.web.refusals import Refusals
from listener.web.sender import prove
from listener.web.shapes.raw import read_notification, too_large

_SEGMENT: Final = "notify"
_PLAIN_PATH: Final = re.compile(r"/notify/([\w-]+)(?:/([\w-]+))?", re.ASCII)


class Receiver:
    """Receives deliveries of notifications."""

    def __init__(self, *, ingest: Ingest, metrics: Metrics, refusals: Refusals) -> None:
        self._ingest = ingest
        self._metrics = metrics
        self._refusals = refusals
        self._acknowledgement = Acknowledgement()

    async def receive(
        self, request: web.Request, *, merchant_no: str, store_no: str | None
    ) -> web.StreamResponse:
        """Receive one delivery to the notify URL of a merchant or a store."""
        started = time.perf_counter()
        try:
            if not self._ingest.knows(merchant_no):
                raise ProblemError(404, "unknown-merchant", "no such merchant is configured")
            is_json = _check_head(request)
            recorded = await self._ingest.receive(
                merchant_no=merchant_no,
                store_no=store_no,
                is_json=is_json,
                body=await read_notification(request),
            )
        except ProblemError as error:
            return self.refuse(request, error, merchant_no=merchant_no)
        except ListenerError as error:
            return self.refuse(request, of_error(error), merchant_no=merchant_no)
        if recorded.is_new:
            # A repeat proves nothing: anybody who captured a message can send it again.
            prove(request)
        seconds = time.perf_counter() - started
        self._metrics.acknowledged(seconds, is_repeat=not recorded.is_new)
        return self._acknowledgement if is_for(request) else acknowledgement()

    def refuse(
        self, request: web.Request, error: ProblemError, *, merchant_no: str | None = None
    ) -> web.Response:
        """Build the answer to a refused notification; count and log it."""
        self._refusals.add(
            error,
            merchant_no=merchant_no,
            path=request.rel_url.raw_path,
            sender=request.remote,
            # A proxy may add another line to the sender's.
            forwarded_for=", ".join(request.headers.getall("X-Forwarded-For", [])) or None,
        )
        return problem(error)

    def before(self, router: Handler) -> Handler:
        """Return a handler that receives requests to plain notify URLs, and routes all others.

        The router would find the same merchant and store, but take a tenth of a notification's
        time.
        """

        def handle(request: web.Request) -> Awaitable[web.StreamResponse]:
            place = _PLAIN_PATH.fullmatch(request.rel_url.raw_path)
            if place is None or hdrs.EXPECT in request.headers:
                return router(request)
            receive = partial(self.receive, merchant_no=place[1], store_no=place[2])
            return answering(receive)(request)

        return handle


RECEIVER: Final = web.AppKey("receiver", Receiver)


def loose_route() -> web.RouteDef:
    """Return the route for all else under /notify: other methods, extra slashes, no merchant."""
    return web.route("*", f"/{{path:/*(?i:{_SEGMENT})(?:/.*)?}}", answering(notify_loosely))


async def notify(request: web.Request) -> web.StreamResponse:
    """Receive one delivery of a notification."""
    place = request.match_info
    return await request.app[RECEIVER].receive(
        request, merchant_no=place["merchantNo"], store_no=place.get("storeNo")
    )


async def notify_loosely(request: web.Request) -> web.StreamResponse:
    """Receive a delivery whose URL has extra slashes; refuse what is not a notify URL."""
    receiver = request.app[RECEIVER]
    first, *place = [unquote(part) for part in request.rel_url.raw_path.split("/") if part]
    if first != _SEGMENT or not 1 <= len(place) <= 2:
        return receiver.refuse(request, ProblemError(404, "no-route", "this is not a notify URL"))
    return await receiver.receive(
        request, merchant_no=place[0], store_no=place[1] if place[1:] else None
    )


def is_notify(request: web.Request) -> bool:
    """Return whether a request is under the notify URL, in any spelling."""
    return request.rel_url.raw_path.lstrip("/").partition("/")[0].lower() == _SEGMENT


def _check_head(request: web.Request) -> bool:
    """Check the head of a notification; return whether it declares JSON.

    Raises:
        ProblemError: It is not a notification; nothing of the body was read.
    """
    if request.method != "POST":
        raise ProblemError(405, "not-post", "a notification is a POST", headers={"Allow": "POST"})
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise too_large()
    kind = is_json(request.headers.get("Content-Type", ""))
    if kind is None:
        raise ProblemError(
            415, "unsupported-type", "send a form (application/x-www-form-urlencoded) or JSON"
        )
    return kind
