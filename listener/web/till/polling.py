"""The stream without a websocket: the same ledger by long-poll, and acks by POST."""

from collections.abc import Mapping

import orjson
from aiohttp import web

from listener.keys import Key
from listener.ledger.model import EVERY_STREAM, Event
from listener.pos.events import AckBody, Position, ResyncMembers, StreamStart
from listener.settings import Merchant
from listener.web.connections import no_place
from listener.web.context import HUB, LEDGER, SESSIONS, SETTINGS, SHARES
from listener.web.guard import check_again
from listener.web.problem import ProblemError
from listener.web.sender import prove, while_heard
from listener.web.shapes.bodies import read_body
from listener.web.shapes.models import reply
from listener.web.shapes.parameters import EventsQuery, read_query
from listener.web.shares import EVENT_WAITS_MAX
from listener.web.till.resume import begin, lost, may_follow


async def events(request: web.Request, key: Key) -> web.Response:
    """Answer with the events of a stream after a position; if there are none, wait for one."""
    query = read_query(request, EventsQuery)
    name = query.stream or _only_stream(request, key)
    _check_stream(name, key, request.app[SETTINGS].merchants)
    ledger, hub = request.app[LEDGER], request.app[HUB]
    start = StreamStart(stream=name, after=query.after)
    (begun,) = await begin([start], key=key, ledger=ledger, hub=hub)
    if begun.resync is not None:
        raise _gone(begun.resync)
    wait_seconds = 0 if request.app[SESSIONS].is_draining else query.wait
    page = await hub.page(name, after=begun.after, limit=query.limit)
    if wait_seconds and not page:
        if not prove(request):
            raise no_place("too many tills are connected; come back in a moment")
        with request.app[SHARES].waiting(key.id, limit=EVENT_WAITS_MAX):
            waiting = hub.page(
                name, after=begun.after, limit=query.limit, wait_seconds=wait_seconds
            )
            page = await while_heard(request, waiting) or []
        # A revocation takes effect within a second, however long this has waited.
        await check_again(request)
    head = (await hub.heads([name]))[name]
    return _page(name, page, epoch=begun.epoch, head=head, after=begun.after)


async def acks(request: web.Request, key: Key) -> web.Response:
    """Store how far a terminal has come; durable once this answers 204."""
    body = await read_body(request, AckBody)
    _check_stream(body.stream, key, request.app[SETTINGS].merchants)
    ledger = request.app[LEDGER]
    head = (await request.app[HUB].heads([body.stream]))[body.stream]
    position = Position(epoch=body.epoch, offset=body.offset)
    resync = lost(body.stream, position, epoch=ledger.epoch, head=head)
    if resync is not None and body.epoch != ledger.epoch:
        raise _gone(resync)
    if body.offset > head:
        raise ProblemError(400, "ack-ahead", "that offset is beyond the head of the stream")
    await ledger.ack(terminal=key.subscriber, stream=body.stream, offset=body.offset)
    return web.Response(status=204)


def _only_stream(request: web.Request, key: Key) -> str:
    """Return the one stream of the key's scope; if there are several, the request must name one."""
    merchant = request.app[SETTINGS].merchants.get(key.merchant_no or "")
    names = key.streams(merchant.stores if merchant else ())
    if len(names) > 1:
        raise ProblemError(
            400,
            "stream-missing",
            f"name a stream, one of {', '.join(names[:20])}",
            members={"streams": names},
        )
    return names[0]


def _check_stream(name: str, key: Key, merchants: Mapping[str, Merchant]) -> None:
    if not may_follow(key, name, merchants):
        raise ProblemError(403, "stream-not-allowed", "the key may not follow this stream")


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
    return reply(body)
