"""The stream without a websocket: the same ledger read by long-poll, and acks by POST."""

from typing import Final

import orjson
from aiohttp import web
from pydantic import ValidationError

from listener.errors import UnreadableError
from listener.keys import Key, Role
from listener.model import EVERY_STREAM, Event
from listener.pos.frames import AckBody, Position, ResyncMembers, StreamStart
from listener.pos.wire import parse_after
from listener.web.context import HUB, KEYS, LEDGER, SESSIONS, SETTINGS
from listener.web.guard import guarded, key_of
from listener.web.models import JSON
from listener.web.problem import ProblemError, unauthorized
from listener.web.raw import read_raw
from listener.web.starts import begin, lost

WAIT_SECONDS_MAX: Final = 60
PAGE_EVENTS: Final = 100
PAGE_EVENTS_MAX: Final = 500
PARAMETERS: Final = frozenset({"stream", "after", "wait", "limit"})


def routes() -> list[web.RouteDef]:
    """List the routes of the long-poll."""
    return [
        web.get("/v1/pos/events", guarded(events, Role.POS, Role.ADMIN)),
        web.post("/v1/pos/acks", guarded(acks, Role.POS)),
    ]


async def events(request: web.Request, key: Key) -> web.Response:
    """Answer the events of a stream past a position; where there is none, wait for one."""
    unknown = set(request.query) - PARAMETERS
    if unknown:
        raise ProblemError(400, "unknown-parameter", f"no parameter {min(unknown)[:80]!r} is known")
    repeated = [one for one in request.query if len(request.query.getall(one)) > 1]
    if repeated:
        raise ProblemError(400, "bad-parameter", f"{repeated[0]} is named twice")
    name = _stream(request, key)
    wait_seconds = _whole(request, "wait", default=0, least=0, most=WAIT_SECONDS_MAX)
    limit = _whole(request, "limit", default=PAGE_EVENTS, least=1, most=PAGE_EVENTS_MAX)
    ledger, hub = request.app[LEDGER], request.app[HUB]
    start = _start(name, request.query.get("after", "acked"))
    (begun,) = await begin([start], key=key, ledger=ledger, hub=hub)
    if begun.resync is not None:
        raise _gone(begun.resync)
    if request.app[SESSIONS].is_draining:
        wait_seconds = 0
    page = await hub.page(name, after=begun.after, limit=limit, wait_seconds=wait_seconds)
    # A revocation acts within a second, however long this has waited.
    if wait_seconds and await key_of(request, request.app[KEYS]) is None:
        raise unauthorized()
    head = (await hub.heads([name]))[name]
    return _page(name, page, epoch=begun.epoch, head=head, after=begun.after)


async def acks(request: web.Request, key: Key) -> web.Response:
    """Keep how far a terminal has come; durable once this answers 204."""
    try:
        body = AckBody.model_validate_json(await read_raw(request))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ProblemError(400, "bad-request", f"{where}: {first['msg']}") from None
    _check_stream(body.stream, key)
    ledger = request.app[LEDGER]
    head = (await request.app[HUB].heads([body.stream]))[body.stream]
    position = Position(epoch=body.epoch, offset=body.offset)
    resync = lost(StreamStart(stream=body.stream, after=position), epoch=ledger.epoch, head=head)
    if resync is not None and body.epoch != ledger.epoch:
        raise _gone(resync)
    if body.offset > head:
        raise ProblemError(400, "ack-ahead", "that offset is beyond the head of the stream")
    await ledger.ack(terminal=key.subscriber, stream=body.stream, offset=body.offset)
    return web.Response(status=204)


def _stream(request: web.Request, key: Key) -> str:
    """Return the stream that is asked for; without one, the only one of the key's scope."""
    name = request.query.get("stream")
    if name is None:
        merchant = request.app[SETTINGS].merchants.get(key.merchant_no or "")
        names = key.streams(merchant.stores if merchant else ())
        if len(names) > 1:
            raise ProblemError(
                400, "stream-missing", f"name a stream, one of {', '.join(names[:20])}"
            )
        return names[0]
    _check_stream(name, key)
    return name


def _check_stream(name: str, key: Key) -> None:
    if not key.may_follow(name):
        raise ProblemError(403, "stream-not-allowed", "the key may not follow this stream")


def _start(name: str, after: str) -> StreamStart:
    try:
        return StreamStart(stream=name, after=parse_after(after))
    except UnreadableError as error:
        raise ProblemError(400, "bad-parameter", str(error)) from None
    except ValidationError:
        advice = "a stream is <merchantNo>/<storeNo>, or * with an admin key"
        raise ProblemError(400, "bad-stream", advice) from None


def _whole(request: web.Request, name: str, *, default: int, least: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and least <= int(text) <= most):
        raise ProblemError(400, "bad-parameter", f"{name} is a whole number from {least} to {most}")
    return int(text)


def _gone(resync: ResyncMembers) -> ProblemError:
    return ProblemError(
        410,
        "position-lost",
        "read the snapshot, then go on from head",
        members=resync.model_dump(by_alias=True),
    )


def _page(name: str, page: list[Event], *, epoch: str, head: int, after: int) -> web.Response:
    """Write a page around the stored bytes of its events."""
    places = [(e.number if name == EVERY_STREAM else e.offset, e.body) for e in page]
    stream = orjson.dumps(name)
    listed = b",".join(
        b'{"stream":%b,"offset":%d,"event":%b}' % (stream, offset, body) for offset, body in places
    )
    following = places[-1][0] if places else after
    body = b'{"stream":%b,"epoch":%b,"head":%d,"next":%d,"events":[%b]}' % (
        stream,
        orjson.dumps(epoch),
        head,
        following,
        listed,
    )
    return web.Response(body=body, content_type=JSON)
