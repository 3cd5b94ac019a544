"""The Python POS client against a listener that follows a script, whatever it says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web

from listener.errors import UnreadableError
from listener.pos.client import (
    SNAPSHOT,
    Event,
    FilePositions,
    Follower,
    FollowStatus,
    MemoryPositions,
    Position,
    StoppedError,
    Timing,
    follow,
)
from listener.pos.codes import CloseCode, Duty
from listener.pos.frames import PROTOCOL, ResyncMembers

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
    """Word the event of a transaction of its own, or of ``no``."""
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
    """Word a transaction as the API shows it."""
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
        """Read until a frame of a type came."""
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
        """Say hello, take the connect frame, say ready."""
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
        """Read on until the client is gone; return its close code."""
        async for message in self.ws:
            self.received.append(json.loads(message.data))
        return self.ws.close_code or CloseCode.CUT

    def acks(self) -> list[object]:
        return [frame["offset"] for frame in self.received if frame["type"] == "ack"]


class Scripted:
    """A listener whose connections follow scripts, one each; the last one again and again."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.calls: list[Call] = []
        self.polls: list[dict[str, str]] = []
        self.acks: list[dict[str, object]] = []
        self.snapshots: list[dict[str, str]] = []
        self.pages: list[web.Response] = []
        self.answers: dict[str, list[web.Response]] = {"ack": [], "snapshot": [], "upgrade": []}
        self.upgrades = 0
        self.failures: list[AssertionError] = []
        self.changed = asyncio.Event()
        self.url = ""

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.upgrades += 1
        self._note()
        assert request.headers["Authorization"] == f"Bearer {KEY}"
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
        self.snapshots.append(dict(request.query))
        return self.answers["snapshot"].pop(0)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until something shows here."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    def _note(self) -> None:
        self.changed.set()


def _copy(answer: web.Response) -> web.Response:
    return web.Response(status=answer.status)


def page(*offsets: int, next_: int = 0, epoch: str = EPOCH, stream: str = STREAM) -> web.Response:
    """Answer a long-poll."""
    events = [{"stream": stream, "offset": n, "event": event(n)} for n in offsets]
    last = offsets[-1] if offsets else next_
    return web.json_response(
        {"stream": stream, "epoch": epoch, "head": last, "next": last, "events": events}
    )


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
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
    yield scripted
    await runner.cleanup()
    assert not scripted.failures


def follower(server: Scripted, **options: object) -> Follower:
    settings: dict[str, object] = {"key": KEY, "streams": STREAM, "timing": FAST} | options
    return Follower(server.url, **settings)  # type: ignore[arg-type]  # Options of a test.


async def take(client: Follower, count: int) -> list[str]:
    """Take events; return their transaction numbers."""
    async with asyncio.timeout(WAIT_SECONDS):
        return [(await anext(client)).data.transaction_no for _ in range(count)]


async def stop(client: Follower) -> StoppedError:
    """Take until the client stops; return why."""
    with pytest.raises(StoppedError) as stopped:
        async with asyncio.timeout(WAIT_SECONDS):
            async for _ in client:
                pass
    return stopped.value


async def stay(call: Call) -> None:
    await call.begin()
    await call.until_closed()


async def test_events_come_in_order_and_each_is_acked_once_the_next_is_asked_for(
    server: Scripted,
) -> None:
    acked = asyncio.Event()

    async def script(call: Call) -> None:
        connect = await call.begin()
        assert connect["streams"] == [{"stream": STREAM, "after": "acked"}]
        assert "key" not in connect
        for offset in (1, 2):
            await call.event(offset)
        ack = await call.expect("ack")
        assert ack == {"type": "ack", "stream": STREAM, "offset": 1}
        acked.set()
        assert await call.until_closed() == CloseCode.DONE
        assert call.acks() == [1]

    server.scripts = [script]
    async with follower(server) as client:
        assert await take(client, 1) == ["t1"]
        assert client.positions == {}
        assert await take(client, 1) == ["t2"]
        async with asyncio.timeout(WAIT_SECONDS):
            await acked.wait()
        assert client.positions[STREAM].offset == 1
    assert client.status.state == "stopped"
    await client.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(client)


async def test_closing_sends_the_ack_that_waits_but_not_for_the_event_in_hand(
    server: Scripted,
) -> None:
    gone = asyncio.Event()

    async def script(call: Call) -> None:
        await call.begin()
        for offset in (1, 2, 3):
            await call.event(offset)
        await call.until_closed()
        gone.set()

    server.scripts = [script]
    async with follower(server, timing=Timing(ack_seconds=60)) as client:
        await take(client, 2)
        await server_saw(server, "ack")
        await take(client, 1)
    async with asyncio.timeout(WAIT_SECONDS):
        await gone.wait()
    assert server.calls[0].acks() == [1, 2]


async def test_closing_from_elsewhere_ends_the_wait_for_an_event(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client, asyncio.timeout(WAIT_SECONDS):
        await take(client, 1)
        waiting = asyncio.create_task(take(client, 1))
        await server_saw(server, "ack")
        await client.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        with pytest.raises(StopAsyncIteration):
            await anext(client)


async def test_nothing_is_acked_while_the_handler_runs(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1)
        # Pings are answered meanwhile.
        await call.send(type="ping", t=5, heads={STREAM: 1})
        assert await call.expect("pong") == {"type": "pong", "t": 5}
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        await take(client, 1)
        await server_saw(server, "pong")
    assert server.calls[0].acks() == []


async def server_saw(server: Scripted, kind: str) -> None:
    """Poll until the first connection received a frame of a type."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not any(f["type"] == kind for call in server.calls for f in call.received):
            await asyncio.sleep(0.005)


async def test_the_function_follows_and_lets_go_when_the_loop_is_left(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.event(2)
        await call.until_closed()

    server.scripts = [script]
    seen = []
    url = server.url.replace("http", "ws") + "/v1/pos/stream"
    events = follow(url, key=KEY, streams=[STREAM], timing=FAST)
    async for got in events:
        seen.append(got.data.transaction_no)
        if len(seen) == 2:
            break
    await events.aclose()
    assert seen == ["t1", "t2"]
    assert server.calls[0].ws.close_code in (CloseCode.DONE, None)


@pytest.mark.parametrize(
    "code",
    [code for code in CloseCode if code.duty is Duty.STOP] + [4055],
)
async def test_it_stops_for_good_and_says_what_to_do(server: Scripted, code: int) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.ws.close(code=code)

    server.scripts = [script]
    states: list[str] = []
    async with follower(server, on_status=lambda status: states.append(status.state)) as client:
        error = await stop(client)
        assert await stop(client) is error
    assert error.code == code
    assert str(code) in str(error)
    assert KEY not in str(error)
    assert server.upgrades == 1
    assert states == ["live", "stopped"]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3999, 4102, 4108, 4200, 4201])
async def test_it_comes_back_from_its_own_position(server: Scripted, code: int) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.ws.close(code=code)

    async def second(call: Call) -> None:
        connect = await call.begin(after=1)
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 1}}]
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    began = asyncio.get_running_loop().time()
    async with follower(server) as client:
        assert await take(client, 2) == ["t1", "t2"]
    waited = asyncio.get_running_loop().time() - began
    # 41xx: not before a second has passed.
    assert (waited >= 1.0) is (code // 100 == 41)


async def test_a_connection_that_brought_something_makes_the_next_wait_short(
    server: Scripted,
) -> None:
    async def script(call: Call) -> None:
        await call.begin(after=len(server.calls) - 1)
        await call.event(len(server.calls))
        await call.ws.close(code=CloseCode.COME_BACK)

    server.scripts = [script]
    timing = Timing(retry_first_seconds=0.01, chance=lambda: 1.0)
    async with follower(server, timing=timing) as client:
        async with asyncio.timeout(1.5):
            # Growing waits would take 0.01 s · 2¹⁰ = 10 s.
            assert await take(client, 10) == [f"t{n}" for n in range(1, 11)]


async def test_a_cut_connection_is_resumed_and_its_acks_are_sent_again(server: Scripted) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.event(2)
        assert call.request.transport is not None
        await call.expect("ack")
        call.request.transport.abort()

    async def second(call: Call) -> None:
        await call.begin(after=2)
        assert (await call.expect("ack"))["offset"] == 1
        await call.event(3)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server) as client:
        assert await take(client, 2) == ["t1", "t2"]
        async with asyncio.timeout(WAIT_SECONDS):
            while len(server.calls) < 2 or not server.calls[1].acks():
                await asyncio.sleep(0.005)
        assert await take(client, 1) == ["t3"]


async def test_a_restart_is_waited_for_as_long_as_was_asked(server: Scripted) -> None:
    async def first(call: Call) -> None:
        await call.begin(reconnectJitterMs=0)
        await call.send(type="reconnect", afterMs=300)
        await call.ws.close(code=CloseCode.RESTART)

    server.scripts = [first, stay]
    loop = asyncio.get_running_loop()
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: server.upgrades == 1)
        began = loop.time()
        await server.until(lambda: server.upgrades == 2)
        assert 0.25 <= loop.time() - began < 2.0
        waiting.cancel()


async def test_a_hole_makes_it_come_back_and_nothing_is_skipped(server: Scripted) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.event(3)
        await call.until_closed()

    async def second(call: Call) -> None:
        await call.begin(after=1)
        for offset in (1, 2, 3):
            await call.event(offset)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server) as client:
        assert await take(client, 3) == ["t1", "t2", "t3"]


async def test_a_silent_listener_is_given_up_with_4201(server: Scripted) -> None:
    codes: list[int] = []

    async def first(call: Call) -> None:
        await call.begin(deadSeconds=0.1)
        codes.append(await call.until_closed())

    server.scripts = [first, stay]
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: server.upgrades == 2)
        waiting.cancel()
    assert codes == [CloseCode.DEAD]


async def test_heads_that_stay_ahead_make_it_come_back(server: Scripted) -> None:
    codes: list[int] = []

    async def first(call: Call) -> None:
        await call.begin()
        await call.send(type="ping", t=1, heads={STREAM: 0, "x/y": 7})
        await call.send(type="ping", t=2, heads={STREAM: 2})
        await call.event(1)
        await call.send(type="ping", t=3, heads={STREAM: 2})
        codes.append(await call.until_closed())

    async def second(call: Call) -> None:
        await call.begin(after=1)
        await call.send(type="ping", t=1, heads={STREAM: 2})
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server) as client:
        assert await take(client, 2) == ["t1", "t2"]
        await asyncio.sleep(FAST.behind_seconds * 2)
        assert server.upgrades == 2
    assert codes == [CloseCode.DEAD]


async def test_heads_that_stay_ahead_without_any_event_make_it_come_back(
    server: Scripted,
) -> None:
    codes: list[int] = []

    async def first(call: Call) -> None:
        await call.begin()
        await call.send(type="ping", t=2, heads={STREAM: 1})
        codes.append(await call.until_closed())

    server.scripts = [first, stay]
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: server.upgrades == 2)
        waiting.cancel()
    assert codes == [CloseCode.DEAD]


async def test_a_listener_that_goes_on_talking_is_not_given_up(server: Scripted) -> None:
    """Behind for longer than allowed, but never without an event; then never without a ping."""

    async def script(call: Call) -> None:
        await call.begin(deadSeconds=0.15)
        await call.send(type="ping", t=1, heads={STREAM: 6})
        for offset in range(1, 7):
            await asyncio.sleep(FAST.behind_seconds * 0.5)
            await call.event(offset)
        for t in range(4):
            await asyncio.sleep(0.08)
            await call.send(type="ping", t=t, heads={STREAM: 6})
        await call.event(7)
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        assert await take(client, 7) == [f"t{n}" for n in range(1, 8)]
    assert server.upgrades == 1


async def test_a_listener_that_never_says_hello_or_ready_is_left(server: Scripted) -> None:
    async def mute(call: Call) -> None:
        await call.until_closed()

    async def not_ready(call: Call) -> None:
        await call.hello()
        await call.send(type="ping", t=1)
        await call.until_closed()

    async def good(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()

    server.scripts = [mute, not_ready, good]
    timing = Timing(connect_seconds=0.1, retry_first_seconds=0.01, close_seconds=0.1)
    async with follower(server, timing=timing) as client:
        assert client.status == FollowStatus(state="connecting", transport=None, age_seconds=None)
        assert await take(client, 1) == ["t1"]
        assert client.age_seconds is not None
        assert client.age_seconds < WAIT_SECONDS


@pytest.mark.parametrize("text", ["{", "[]", '{"type":"ready","streams":5}'])
async def test_an_unreadable_frame_ends_the_connection(server: Scripted, text: str) -> None:
    codes: list[int] = []

    async def first(call: Call) -> None:
        await call.begin()
        await call.ws.send_str(text)
        codes.append(await call.until_closed())

    async def second(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server) as client:
        assert await take(client, 1) == ["t1"]
    assert codes == [CloseCode.MALFORMED]


async def test_what_it_does_not_know_is_ignored(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin(colour="red")
        await call.send(type="weather", t=1)
        await call.send(type="error", code="ack-ahead", message="beyond the head")
        await call.ws.send_bytes(b"\x00")
        await call.event(1)
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        assert await take(client, 1) == ["t1"]


async def test_only_a_higher_state_version_is_shown_but_every_offset_is_acked(
    server: Scripted,
) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1, no="t", version=2)
        await call.event(2, no="t", version=2)
        await call.event(3, no="t", version=1)
        await call.event(4, no="t", version=3)
        while (await call.expect("ack"))["offset"] != 3:
            pass
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        async with asyncio.timeout(WAIT_SECONDS):
            assert [(await anext(client)).data.state_version for _ in range(2)] == [2, 3]
            while server.calls[0].acks()[-1:] != [3]:
                await asyncio.sleep(0.005)
        assert client.positions[STREAM].offset == 3


async def test_without_streams_it_follows_those_of_the_key(server: Scripted) -> None:
    async def first(call: Call) -> None:
        connect = await call.begin(STREAM, OTHER)
        assert "streams" not in connect
        await call.event(1)
        await call.event(1, stream=OTHER, no="o1")
        await call.ws.close(code=CloseCode.COME_BACK)

    async def second(call: Call) -> None:
        connect = await call.begin(STREAM, OTHER, after=1)
        assert [s["after"]["offset"] for s in connect["streams"]] == [1, 1]  # type: ignore[attr-defined]  # JSON.
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, streams=None) as client:
        assert await take(client, 3) == ["t1", "o1", "t2"]


async def test_a_listener_that_begins_past_our_position_is_asked_again(server: Scripted) -> None:
    async def first(call: Call) -> None:
        connect = await call.begin(after=4)
        assert "streams" not in connect
        await call.until_closed()

    async def second(call: Call) -> None:
        connect = await call.begin(after=3)
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 3}}]
        await call.event(4)
        await call.until_closed()

    server.scripts = [first, second]
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=3)})
    async with follower(server, streams=None, position=store) as client:
        assert await take(client, 1) == ["t4"]


async def test_the_position_survives_a_restart_in_a_file(server: Scripted, tmp_path: Path) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        for offset in (1, 2):
            await call.event(offset)
        await call.until_closed()

    async def second(call: Call) -> None:
        connect = await call.begin(after=1)
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 1}}]
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    path = tmp_path / "positions.json"
    async with follower(server, position=FilePositions(path)) as client:
        await take(client, 2)
    async with follower(server, position=FilePositions(path)) as client:
        assert await take(client, 1) == ["t2"]


async def test_a_store_that_fails_is_heard_and_nothing_is_acked(
    server: Scripted, tmp_path: Path
) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        for offset in (1, 2):
            await call.event(offset)
        await call.until_closed()

    server.scripts = [script]
    store = FilePositions(tmp_path / "missing" / "positions.json")
    async with follower(server, position=store) as client:
        await take(client, 1)
        with pytest.raises(OSError, match="missing"):
            await take(client, 1)
    assert server.calls[0].acks() == []
    (tmp_path / "bad").write_text("[]")
    with pytest.raises(UnreadableError, match="bad"):
        await anext(follower(server, position=FilePositions(tmp_path / "bad")))


def rows(*numbers: int, cursor: str | None = None) -> web.Response:
    data = [transaction(n, version=5) for n in numbers]
    return web.json_response({"data": data, "nextCursor": cursor})


async def lost(call: Call) -> None:
    """Tell that the position is lost, then go on from 40."""
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


async def test_a_lost_position_is_replaced_by_a_snapshot(server: Scripted) -> None:
    server.scripts = [lost]
    server.answers["snapshot"] = [
        web.Response(status=503),
        web.json_response({"data": [{"transactionNo": 5}]}),
        rows(9, 8, cursor="c/1"),
        rows(8, 7),
    ]
    told: list[ResyncMembers] = []
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=3)})
    client = follower(server, position=store, on_resync=told.append)
    async with client:
        async with asyncio.timeout(WAIT_SECONDS):
            events = [await anext(client) for _ in range(3)]
        assert [e.data.transaction_no for e in events] == ["t9", "t8", "t7"]
        assert {e.type for e in events} == {SNAPSHOT}
        assert {e.data.reason for e in events} == {"resync"}
        # Until all of it is handled, the old position is kept: a crash reads it again.
        assert (await store.load())[STREAM].epoch == EPOCH
        async with asyncio.timeout(WAIT_SECONDS):
            live = await anext(client)
        assert (live.type, live.data.state_version) == ("transaction.cancelled", 6)
        assert (await store.load())[STREAM] == Position(epoch="e2", offset=41)
        async with asyncio.timeout(WAIT_SECONDS):
            while 41 not in server.calls[0].acks():
                await asyncio.sleep(0.005)
    assert told[0].reason == "epoch_changed"
    assert server.snapshots[-1]["cursor"] == "c/1"
    assert server.snapshots[-1]["storeNo"] == "303660"


async def test_state_versions_are_forgotten_with_the_position(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1, no="t7", version=9)
        await call.send(
            type="resync",
            stream=STREAM,
            reason="epoch_changed",
            epoch="e2",
            head=4,
            snapshot="/v1/transactions",
        )
        await call.event(5, no="t7", version=6)
        await call.until_closed()

    server.scripts = [script]
    server.answers["snapshot"] = [rows(7)]
    async with follower(server) as client:
        async with asyncio.timeout(WAIT_SECONDS):
            versions = [(await anext(client)).data.state_version for _ in range(3)]
        assert versions == [9, 5, 6]


async def test_a_snapshot_that_is_refused_stops_it(server: Scripted) -> None:
    server.scripts = [lost]
    server.answers["snapshot"] = [web.Response(status=401)]
    async with follower(server) as client:
        assert (await stop(client)).code == CloseCode.BAD_KEY


@pytest.mark.parametrize(
    "snapshot", ["@elsewhere.example/", "//elsewhere.example/", "http://elsewhere.example/"]
)
async def test_the_key_is_not_taken_to_another_host(server: Scripted, snapshot: str) -> None:
    async def script(call: Call) -> None:
        await call.hello()
        await call.expect("connect")
        await call.ready()
        await call.send(
            type="resync",
            stream=STREAM,
            reason="offset_ahead",
            epoch=EPOCH,
            head=1,
            snapshot=snapshot,
        )
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(client)
    assert server.snapshots == []


async def test_a_redirect_is_not_followed_with_the_key(server: Scripted) -> None:
    server.scripts = [lost]
    moved = {"Location": f"{server.url}/v1/transactions?moved=1"}
    server.answers["snapshot"] = [web.Response(status=302, headers=moved), rows(7)]
    async with follower(server) as client:
        assert await take(client, 1) == ["t7"]
    assert not any("moved" in query for query in server.snapshots)


@pytest.fixture
def blocked(server: Scripted) -> Scripted:
    """A listener behind something that lets no WebSocket through."""
    server.answers["upgrade"] = [web.Response(status=404)]
    return server


async def test_where_websocket_is_blocked_it_polls_and_acks_by_post(blocked: Scripted) -> None:
    blocked.pages = [page(1, 2), page(2, 3)]
    blocked.answers["ack"] = [web.Response(status=503)]
    statuses: list[FollowStatus] = []
    async with follower(blocked, on_status=statuses.append) as client:
        assert await take(client, 3) == ["t1", "t2", "t3"]
        await blocked.until(lambda: bool(blocked.acks) and blocked.acks[-1]["offset"] == 2)
        # The one that failed is sent again.
        await blocked.until(lambda: len(blocked.acks) >= 2)
        assert client.status.transport == "long-poll"
    assert blocked.acks[-1] == {"stream": STREAM, "epoch": EPOCH, "offset": 2}
    assert blocked.polls[0] == {"stream": STREAM, "wait": "0"}
    assert {"stream": STREAM, "after": f"{EPOCH}:2", "wait": "1"} in blocked.polls or {
        "stream": STREAM,
        "after": f"{EPOCH}:2",
        "wait": "0",
    } in blocked.polls
    assert statuses[0].transport == "long-poll"


async def test_long_poll_without_a_named_stream_learns_it(blocked: Scripted) -> None:
    blocked.pages = [page(4), page(5)]
    async with follower(blocked, streams=None) as client:
        assert await take(client, 2) == ["t4", "t5"]
    assert "stream" not in blocked.polls[0]
    assert blocked.polls[1]["stream"] == STREAM
    assert blocked.polls[1]["after"] == f"{EPOCH}:4"


async def test_long_poll_follows_several_streams_at_once(blocked: Scripted) -> None:
    timing = Timing(
        retry_first_seconds=0.01, retry_max_seconds=0.01, blocked_tries=1, ack_seconds=0.01
    )
    blocked.pages = [page(1), page(1, stream=OTHER)]
    async with follower(blocked, streams=[STREAM, OTHER], timing=timing) as client:
        # One of the two may be asked a second time before the other, hence a hole or a repeat.
        blocked.pages = [page(1, stream=STREAM)]
        assert await take(client, 1) == ["t1"]
        await blocked.until(lambda: {p["stream"] for p in blocked.polls} == {STREAM, OTHER})


async def test_long_poll_resyncs_on_410(blocked: Scripted) -> None:
    gone = {
        "type": "about:blank",
        "status": 410,
        "stream": STREAM,
        "reason": "offset_ahead",
        "epoch": EPOCH,
        "head": 40,
        "snapshot": "/v1/transactions?storeNo=303660",
    }
    blocked.pages = [
        web.json_response(gone, status=410, content_type="application/problem+json"),
        page(41),
    ]
    blocked.answers["snapshot"] = [rows(7)]
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=99)})
    async with follower(blocked, position=store) as client:
        assert await take(client, 2) == ["t7", "t41"]
    assert blocked.polls[0]["after"] == f"{EPOCH}:99"
    assert blocked.polls[1]["after"] == f"{EPOCH}:40"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, CloseCode.MALFORMED),
        (401, CloseCode.BAD_KEY),
        (403, CloseCode.STREAM_NOT_ALLOWED),
    ],
)
async def test_long_poll_stops_where_it_is_refused(
    blocked: Scripted, status: int, code: int
) -> None:
    blocked.pages = [web.Response(status=status)]
    async with follower(blocked) as client:
        assert (await stop(client)).code == code


async def test_a_key_of_several_stores_without_websocket_is_told_to_name_streams(
    blocked: Scripted,
) -> None:
    problem = {"status": 400, "code": "stream-missing", "streams": [STREAM, OTHER]}
    blocked.pages = [web.json_response(problem, status=400)]
    async with follower(blocked, streams=None) as client:
        stopped = await stop(client)
    assert stopped.code == CloseCode.MALFORMED
    assert "several stores has to name `streams`" in str(stopped)


@pytest.mark.parametrize("body", [b"", b"<html>", b"5", b"[]", b"{}", b'{"code":5}', b"\xff"])
async def test_a_refusal_without_a_problem_is_told_by_its_status(
    blocked: Scripted, body: bytes
) -> None:
    blocked.pages = [web.Response(status=400, body=body)]
    async with follower(blocked) as client:
        assert "the request was malformed" in str(await stop(client))


async def test_long_poll_goes_on_after_faults_and_broken_pages(blocked: Scripted) -> None:
    blocked.pages = [
        web.Response(status=500),
        web.Response(text="<html>"),
        web.json_response(5),
        page(1),
        page(3),
        page(2, epoch="e9"),
        page(2),
    ]
    async with follower(blocked) as client:
        assert await take(client, 2) == ["t1", "t2"]


async def test_an_ack_that_failed_is_sent_again(blocked: Scripted) -> None:
    # By the third page long-poll has settled: no change of the link brings the ack again.
    blocked.pages = [page(next_=0), page(next_=0), page(1, 2)]
    blocked.answers["ack"] = [web.Response(status=503)]
    async with follower(blocked) as client:
        assert await take(client, 2) == ["t1", "t2"]
        await blocked.until(lambda: len(blocked.acks) == 2)
    assert [ack["offset"] for ack in blocked.acks] == [1, 1]


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_a_refused_ack_is_not_sent_for_ever(blocked: Scripted, status: int) -> None:
    blocked.pages = [page(1, 2)]
    blocked.answers["ack"] = [web.Response(status=status) for _ in range(20)]
    async with follower(blocked) as client:
        await take(client, 2)
        await blocked.until(lambda: len(blocked.acks) == 1)
        await asyncio.sleep(FAST.ack_seconds * 10)
    assert len(blocked.acks) <= 2


async def test_a_client_may_follow_without_acks(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        for offset in (1, 2):
            await call.event(offset)
        await call.until_closed()

    server.scripts = [script]
    async with follower(server, acks=False) as client:
        await take(client, 2)
        await asyncio.sleep(FAST.ack_seconds * 3)
    assert server.calls[0].acks() == []


async def test_websocket_is_tried_again_and_taken_when_it_is_back(blocked: Scripted) -> None:
    async def back(call: Call) -> None:
        await call.begin(after=1)
        await call.event(2)
        await call.until_closed()

    blocked.scripts = [back]
    blocked.pages = [page(1)]
    timing = Timing(
        retry_first_seconds=0.01,
        retry_max_seconds=0.01,
        blocked_tries=1,
        poll_seconds=1,
        websocket_again_seconds=0.2,
    )
    async with follower(blocked, timing=timing) as client:
        assert await take(client, 1) == ["t1"]
        waiting = asyncio.create_task(anext(client))
        await blocked.until(lambda: blocked.upgrades >= 3)
        blocked.answers["upgrade"] = []
        assert (await asyncio.wait_for(waiting, WAIT_SECONDS)).data.transaction_no == "t2"
        assert client.status.transport == "websocket"


async def test_a_listener_that_was_only_down_is_not_taken_for_a_blocked_one(
    blocked: Scripted,
) -> None:
    async def back(call: Call) -> None:
        await call.begin(after=1)
        await call.event(2)
        await call.until_closed()

    blocked.scripts = [back]
    blocked.pages = [page(1)]
    async with follower(blocked) as client:
        waiting = asyncio.create_task(take(client, 2))
        await blocked.until(lambda: bool(blocked.polls))
        blocked.answers["upgrade"] = []
        assert await waiting == ["t1", "t2"]
        assert client.status.transport == "websocket"
    assert len(blocked.polls) == 1


async def test_a_draining_listener_is_not_taken_for_a_blocked_one(server: Scripted) -> None:
    server.answers["upgrade"] = [web.Response(status=503)]
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: server.upgrades > FAST.blocked_tries + 2)
        waiting.cancel()
    assert server.polls == []


async def test_nobody_there_is_tried_for_ever(unused_tcp_port: int) -> None:
    statuses: list[FollowStatus] = []
    url = f"http://127.0.0.1:{unused_tcp_port}/"
    client = Follower(url, key=KEY, timing=FAST, on_status=statuses.append)
    assert client.status.state == "connecting"
    async with client:
        assert client.status == FollowStatus(state="connecting", transport=None, age_seconds=None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(client)
    assert statuses == []


async def test_a_fault_of_the_programs_own_callback_reaches_the_program(server: Scripted) -> None:
    server.scripts = [stay]

    def broken(status: FollowStatus) -> None:
        raise RuntimeError(status.state)

    async with follower(server, on_status=broken) as client:
        with pytest.raises(RuntimeError, match="live"):
            async with asyncio.timeout(WAIT_SECONDS):
                await anext(client)


async def test_a_slow_program_reads_no_further_than_it_can_hold(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin(deadSeconds=0.2)
        for offset in range(1, 601):
            await call.event(offset)
        await call.expect("ack")
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        first: Event = await anext(client)
        assert first.data.transaction_no == "t1"
        # Longer than deadSeconds: while the program is busy, nobody is taken for dead.
        await asyncio.sleep(0.4)
        assert await take(client, 599) == [f"t{n}" for n in range(2, 601)]
    assert server.upgrades == 1


async def test_a_program_may_begin_elsewhere_than_at_its_acks(server: Scripted) -> None:
    async def first(call: Call) -> None:
        connect = await call.begin()
        assert connect["streams"] == [{"stream": STREAM, "after": "earliest"}]
        await call.event(1)
        await call.ws.close(code=CloseCode.COME_BACK)

    async def second(call: Call) -> None:
        connect = await call.begin(after=1)
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 1}}]
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, start="earliest") as client:
        assert await take(client, 2) == ["t1", "t2"]


async def test_to_begin_elsewhere_the_keys_streams_are_learnt_first(server: Scripted) -> None:
    async def first(call: Call) -> None:
        assert "streams" not in await call.begin(STREAM, OTHER, after=7)
        # Sent from where nobody wanted to begin.
        await call.event(8)
        assert await call.until_closed() == CloseCode.DONE

    async def second(call: Call) -> None:
        connect = await call.begin(STREAM, OTHER)
        assert connect["streams"] == [
            {"stream": STREAM, "after": "earliest"},
            {"stream": OTHER, "after": "earliest"},
        ]
        await call.event(1)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, streams=None, start="earliest") as client:
        assert await take(client, 1) == ["t1"]


@pytest.mark.parametrize("streams", [STREAM, None])
async def test_long_poll_begins_where_it_is_told_to(blocked: Scripted, streams: str | None) -> None:
    blocked.pages = [page(1), page(2)]
    async with follower(blocked, streams=streams, start="earliest") as client:
        assert await take(client, 2) == ["t1", "t2"]
    assert blocked.polls[0]["after"] == "earliest"
    assert blocked.polls[1]["after"] == f"{EPOCH}:1"


async def test_every_event_of_the_ledger_is_followed_and_never_acked(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin("*")
        await call.event(1, stream="*")
        await call.event(2, stream="*")
        await call.until_closed()
        assert call.acks() == []

    server.scripts = [script]
    async with follower(server, streams="*") as client:
        assert await take(client, 2) == ["t1", "t2"]
        assert client.positions["*"].offset == 1
