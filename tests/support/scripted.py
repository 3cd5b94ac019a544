"""A listener that follows a script, whatever it says, for the tests of the POS client."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSMsgType, web

from listener.pos.client import Follower, StoppedError, Timing
from listener.pos.codes import PROBLEM_TYPES, CloseCode
from listener.pos.frames import PROTOCOL

STREAM = "200043/303660"


OTHER = "200043/300014"


KEY = "lk_test_0123456789"


EPOCH = "e1"


WAIT_SECONDS = 5.0


FAST = Timing(
    connect_seconds=0.5,
    close_seconds=0.2,
    retry_first_seconds=0.01,
    retry_max_seconds=0.02,
    behind_seconds=0.1,
    ack_seconds=0.01,
    poll_seconds=1,
    blocked_tries=2,
    websocket_again_seconds=30.0,
)


class GoneError(Exception):
    """The client left while its script waited for it."""


Script = Callable[["Call"], Awaitable[None]]


def event(number: int, *, version: int | None = None, no: str | None = None) -> dict[str, object]:
    """Build the event of a transaction of its own, or of ``no``."""
    return {
        "specversion": "1.0",
        "id": f"{EPOCH}-{number}",
        "source": "/listener",
        "type": "transaction.cancelled",
        "subject": no or f"t{number}",
        "time": "2026-11-23T10:11:12.345Z",
        "datacontenttype": "application/json",
        "data": transaction(number, version=version, no=no),
    }


def transaction(
    number: int, *, version: int | None = None, no: str | None = None
) -> dict[str, object]:
    """Build a transaction as the API shows it."""
    return {
        "transactionNo": no or f"t{number}",
        "reference": None,
        "merchantNo": "200043",
        "storeNo": "303660",
        "terminal": None,
        "status": "cancelled",
        "providerStatus": "closed",
        "stateVersion": version or 1,
        "amount": "13.00",
        "currency": "USD",
        "updatedAt": "2026-11-23T10:11:12.345Z",
    }


class Call:
    """One connection, as its script sees it."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request) -> None:
        self.ws = ws
        self.request = request
        self.received: list[dict[str, object]] = []

    async def send(self, **frame: object) -> None:
        await self.ws.send_str(json.dumps(frame))

    async def hello(self, **changes: object) -> None:
        frame = {"protocol": PROTOCOL, "session": "s", "pingSeconds": 20, "deadSeconds": 35}
        await self.send(type="hello", **(frame | {"reconnectJitterMs": 10} | changes))

    async def expect(self, kind: str) -> dict[str, object]:
        """Read until a frame of a type arrives."""
        while True:
            message = await self.ws.receive(timeout=WAIT_SECONDS)
            if message.type is not WSMsgType.TEXT:
                raise GoneError
            frame: dict[str, object] = json.loads(message.data)
            self.received.append(frame)
            if frame["type"] == kind:
                return frame

    async def ready(self, *names: str, epoch: str = EPOCH, head: int = 9, after: int = 0) -> None:
        streams = [
            {"stream": name, "epoch": epoch, "head": head, "after": after, "recovered": True}
            for name in names or (STREAM,)
        ]
        await self.send(type="ready", id=1, streams=streams)

    async def begin(self, *names: str, after: int = 0, **changes: object) -> dict[str, object]:
        """Send hello, read the connect frame, send ready."""
        await self.hello(**changes)
        connect = await self.expect("connect")
        await self.ready(*names, after=after)
        return connect

    async def event(
        self,
        offset: int,
        *,
        stream: str = STREAM,
        version: int | None = None,
        no: str | None = None,
    ) -> None:
        await self.send(
            type="event", stream=stream, offset=offset, event=event(offset, version=version, no=no)
        )

    async def until_closed(self) -> int:
        """Read until the client is gone; return its close code."""
        async for message in self.ws:
            self.received.append(json.loads(message.data))
        return self.ws.close_code or CloseCode.CUT

    def acks(self) -> list[object]:
        return [frame["offset"] for frame in self.received if frame["type"] == "ack"]


class Scripted:
    """A listener whose connections follow one script each; the last script is repeated."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.calls: list[Call] = []
        self.polls: list[dict[str, str]] = []
        self.acks: list[dict[str, object]] = []
        self.snapshots: list[dict[str, str]] = []
        self.pages: list[web.Response] = []
        self.answers: dict[str, list[web.Response]] = {"ack": [], "snapshot": [], "upgrade": []}
        self.may_read_snapshot = asyncio.Event()
        self.may_read_snapshot.set()
        self.upgrades = 0
        self.failures: list[AssertionError] = []
        self.changed = asyncio.Event()
        self.url = ""

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.upgrades += 1
        self._note()
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.headers["X-Listener-Key"] == KEY
        assert KEY not in str(request.url)
        if self.answers["upgrade"]:
            answers = self.answers["upgrade"]
            return answers.pop(0) if len(answers) > 1 else _copy(answers[0])
        ws = web.WebSocketResponse(protocols=[PROTOCOL], compress=False)
        await ws.prepare(request)
        call = Call(ws, request)
        self.calls.append(call)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        try:
            await script(call)
        except GoneError:
            pass
        except AssertionError as error:
            self.failures.append(error)
            raise
        return ws

    async def events(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.headers["X-Listener-Key"] == KEY
        self.polls.append(dict(request.query))
        self._note()
        if self.pages:
            return self.pages.pop(0)
        await asyncio.sleep(float(request.query["wait"]))
        after = request.query.get("after", f"{EPOCH}:0")
        return page(next_=int(after.rpartition(":")[2]))

    async def ack(self, request: web.Request) -> web.Response:
        self.acks.append(await request.json())
        self._note()
        answers = self.answers["ack"]
        return answers.pop(0) if answers else web.Response(status=204)

    async def transactions(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.headers["X-Listener-Key"] == KEY
        self.snapshots.append(dict(request.query))
        self._note()
        await self.may_read_snapshot.wait()
        # Without an answer, somebody in between refuses.
        answers = self.answers["snapshot"]
        return answers.pop(0) if answers else web.Response(status=403)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until something is the case here."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    def _note(self) -> None:
        self.changed.set()


def page(*offsets: int, next_: int = 0, epoch: str = EPOCH, stream: str = STREAM) -> web.Response:
    """Answer a long-poll."""
    events = [{"stream": stream, "offset": n, "event": event(n)} for n in offsets]
    last = offsets[-1] if offsets else next_
    return web.json_response(
        {"stream": stream, "epoch": epoch, "head": last, "next": last, "events": events}
    )


def follower(server: Scripted, **options: object) -> Follower:
    settings: dict[str, object] = {"key": KEY, "streams": STREAM, "timing": FAST} | options
    return Follower(server.url, **settings)  # type: ignore[arg-type]  # Options of a test.


async def take(client: Follower, count: int) -> list[str]:
    """Receive events; return their transaction numbers."""
    async with asyncio.timeout(WAIT_SECONDS):
        return [(await anext(client)).data.transaction_no for _ in range(count)]


async def stop(client: Follower) -> StoppedError:
    """Read until the client stops; return why."""
    with pytest.raises(StoppedError) as stopped:
        async with asyncio.timeout(WAIT_SECONDS):
            async for _ in client:
                pass
    return stopped.value


async def stay(call: Call) -> None:
    await call.begin()
    await call.until_closed()


async def server_saw(server: Scripted, kind: str) -> None:
    """Poll until the first connection received a frame of a type."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not any(f["type"] == kind for call in server.calls for f in call.received):
            await asyncio.sleep(0.005)


def rows(*numbers: int, cursor: str | None = None) -> web.Response:
    data = [transaction(n, version=5) for n in numbers]
    return web.json_response({"data": data, "nextCursor": cursor})


async def lost(call: Call) -> None:
    """Send that the position is lost, then go on from 40."""
    await call.hello()
    await call.expect("connect")
    stream = {"stream": STREAM, "epoch": "e2", "head": 40, "after": 40, "recovered": False}
    await call.send(type="ready", id=1, streams=[stream])
    await call.send(
        type="resync",
        stream=STREAM,
        reason="epoch_changed",
        epoch="e2",
        head=40,
        snapshot="/v1/transactions?merchantNo=200043&storeNo=303660",
    )
    await call.event(41, no="t8", version=5)
    await call.event(42, no="t8", version=6)
    while (await call.expect("ack"))["offset"] != 41:
        pass
    await call.until_closed()


@asynccontextmanager
async def scripted_listener() -> AsyncIterator[Scripted]:
    """Serve a listener whose connections follow scripts."""
    scripted = Scripted()
    app = web.Application()
    app.router.add_get("/v1/pos/stream", scripted.stream)
    app.router.add_get("/v1/pos/events", scripted.events)
    app.router.add_post("/v1/pos/acks", scripted.ack)
    app.router.add_get("/v1/transactions", scripted.transactions)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield scripted
    finally:
        await runner.cleanup()
    assert not scripted.failures


def problem(status: int, code: str, *, retry: bool = False, **members: object) -> web.Response:
    """Answer with a refusal as the listener itself sends it."""
    body = {"type": f"{PROBLEM_TYPES}{code}", "status": status, "code": code, "retry": retry}
    return web.json_response(body | members, status=status, content_type="application/problem+json")


def _copy(answer: web.Response) -> web.Response:
    return web.Response(status=answer.status)
