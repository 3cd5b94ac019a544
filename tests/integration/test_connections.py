"""HTTP connections have a time for everything, and strangers make room for those who are known."""

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from listener.keys import Key, Role
from listener.pos.codes import CloseCode
from listener.web import connections, http_connection, lobby
from listener.web.address import network
from listener.web.connections import (
    CONNECTIONS_MAX,
    DESCRIPTORS_KEPT,
    DESCRIPTORS_WANTED,
    READ_BYTES_MAX,
    Connections,
    connections_that_fit,
    raise_descriptor_limit,
)
from listener.web.context import KEYS, SHARES
from listener.web.http_connection import LINE_BYTES_MAX, HttpConnection
from listener.web.lobby import Lobby
from listener.web.metrics import Metrics
from listener.web.shapes import raw
from tests.support.deliveries import NOTIFY, entries
from tests.support.service import FIELDS, FORM, STREAM, Serving, serving, signed
from tests.support.tills import till

WAIT_SECONDS = 5
# Of a long answer, so many are more than the buffers of the system hold.
ANSWERS = 16
EVENTS = "/v1/pos/events"
# How a client begins that takes this for HTTPS.
TLS = bytes.fromhex("16030100c5010000c10303")
HALF = f"POST {NOTIFY} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n".encode()


@asynccontextmanager
async def limited(
    path: Path, monkeypatch: pytest.MonkeyPatch, **limits: float
) -> AsyncIterator[Serving]:
    """Serve with other limits, which look after the connections ten times as often."""
    for name, value in {"_TICK_SECONDS": 0.05, "GRACE_SECONDS": 0.0, **limits}.items():
        module = http_connection if hasattr(http_connection, name) else connections
        monkeypatch.setattr(module, name, value)
    async with serving(path / "ledger.db") as running:
        yield running


class Line:
    """A connection to a service under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, path: str = "/healthz", *more: str) -> bytes:
        """Ask for something, and return the head of the answer; its body is read as well."""
        self.writer.write("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *more, "", ""]).encode())
        async with asyncio.timeout(WAIT_SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await self.reader.readexactly(int(length))
        return head

    async def rest(self) -> bytes:
        """Return what comes until the other side closes; fail if it does not."""
        with suppress(ConnectionError):
            async with asyncio.timeout(WAIT_SECONDS):
                return await self.reader.read()
        return b""

    def is_open(self) -> bool:
        return not self.reader.at_eof()


class Opens(Protocol):
    """Open a connection, and send something on it; it is closed after the test."""

    async def __call__(self, service: Serving, sent: bytes = b"", /) -> Line: ...


@pytest.fixture(name="line")
async def _line() -> AsyncIterator[Opens]:
    writers: list[asyncio.StreamWriter] = []

    async def opens(service: Serving, sent: bytes = b"", /) -> Line:
        parts = urlsplit(service.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writers.append(writer)
        writer.write(sent)
        return Line(reader, writer)

    yield opens
    for writer in writers:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [(HALF, b"HTTP/1.1 408 "), (b"P", b"HTTP/1.1 408 "), (b"", b"")],
    ids=["half a head", "one letter", "nothing"],
)
async def test_half_a_head_has_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes, answer: bytes, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, HEAD_SECONDS=0.1) as service:
        told = await (await line(service, sent)).rest()
        assert told.startswith(answer)
        assert bool(told) is bool(answer)
        assert (b"application/problem+json" in told) is bool(answer)


async def test_half_a_head_has_its_time_after_another_request_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, HEAD_SECONDS=0.2) as service:
        one = await line(service)
        assert b" 200 " in await one.ask()
        # Idle for longer than a head may take, which is no fault.
        await asyncio.sleep(0.5)
        assert b" 200 " in await one.ask()
        one.writer.write(HALF)
        assert (await one.rest()).startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_trickles_in_gains_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, HEAD_SECONDS=0.3) as service:
        one = await line(service, HALF)
        rest = asyncio.create_task(one.rest())
        while not rest.done():
            one.writer.write(b"X: y\r\n")
            await asyncio.sleep(0.05)
        assert rest.exception() is None


async def test_an_idle_connection_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, IDLE_SECONDS=0.2) as service:
        one = await line(service)
        assert b" 200 " in await one.ask()
        assert await one.rest() == b""


async def test_an_answer_that_nobody_reads_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, UNREAD_SECONDS=0.2) as service:
        one = await line(service)
        one.reader._transport.pause_reading()  # type: ignore[attr-defined]  # it has no other name
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(WAIT_SECONDS * 2):
                while True:
                    one.writer.write(asked)
                    await one.writer.drain()


async def unread_answers(service: Serving) -> socket.socket:
    """Ask for more than the buffers of the system hold, and read no more than a byte of it."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(service.url)
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    one.setblocking(False)
    await loop.sock_connect(one, (parts.hostname, parts.port))
    await loop.sock_sendall(one, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * ANSWERS)
    assert await loop.sock_recv(one, 1)
    return one


async def test_who_does_not_read_his_answers_makes_room_when_all_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "connections_that_fit", lambda: 4)
    async with limited(tmp_path, monkeypatch) as service, AsyncExitStack() as stack:
        for _ in range(4):
            stack.enter_context(await unread_answers(service))
        assert await service.notify() == (200, "success")


async def test_of_answers_that_nobody_reads_no_more_is_kept_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    async with limited(tmp_path, monkeypatch) as service, AsyncExitStack() as stack:
        async with service.client.get(f"{service.url}/openapi.json") as answer:
            size = len(await answer.read())
        monkeypatch.setattr(connections, "STALLED_BYTES_MAX", 2 * size)
        lines = [stack.enter_context(await unread_answers(service)) for _ in range(3)]

        async def read(one: socket.socket) -> int:
            count = 0
            async with asyncio.timeout(WAIT_SECONDS):
                while count < ANSWERS * size and (data := await loop.sock_recv(one, 65_536)):
                    count += len(data)
            return count

        # Who stalled first has to go.
        assert await read(lines[0]) < ANSWERS * size
        assert await read(lines[1]) >= ANSWERS * size
        assert await read(lines[2]) >= ANSWERS * size


async def test_strangers_of_one_address_make_room_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=3) as service:
        lines = [await line(service, HALF) for _ in range(3)]
        assert all(one.is_open() for one in lines)
        # One more than may be: the oldest goes.
        lines.append(await line(service, HALF))
        assert await lines[0].rest() == b""
        body = signed(FIELDS)
        for one in lines[2:]:
            one.writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            async with asyncio.timeout(WAIT_SECONDS):
                assert b" 200 " in await one.reader.readuntil(b"\r\n\r\n")
        (cut,) = [one.__dict__["fields"] for one in caplog.records if one.msg == "%s"]
        assert (cut["why"], cut["sender"]) == ("crowded-out", "127.0.0.1")


async def test_who_rests_after_a_refusal_makes_room_like_any_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    monkeypatch.setattr(connections, "REST_SECONDS_MAX", 60.0)
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=3, REFUSALS_PER_SECOND=0.1) as service:
        lines = [await line(service) for _ in range(3)]
        for one in lines:
            assert b" 401 " in await one.ask("/v1/ledger")
        # The first was refused without a rest; the others are not listened to for a minute.
        await line(service, HALF)
        await line(service, HALF)
        assert await lines[0].rest() == b""
        assert await lines[1].rest() == b""


@pytest.mark.parametrize(
    "sent",
    [HALF, HALF + b"Content-Length: 99\r\n\r\na=", b""],
    ids=["half a head", "half a body", "nothing"],
)
async def test_those_who_proved_themselves_are_not_crowded_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=2) as service, AsyncExitStack() as stack:
        key = {"Authorization": f"Bearer {service.key()}"}
        tills = []
        for _ in range(4):
            url = service.url.replace("http", "ws") + "/v1/pos/stream"
            pos = [Subprotocol("pos.v1")]
            till = await stack.enter_async_context(
                connect(url, additional_headers=key, subprotocols=pos)
            )
            tills.append(till)
            await till.recv()
            await till.send('{"type":"connect","id":1}')
            await till.recv()
        api = await line(service)
        asked = f"Authorization: {key['Authorization']}"
        assert b" 200 " in await api.ask("/v1/transactions", asked)
        sender = await line(service, HALF)
        body = signed(FIELDS)
        sender.writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await sender.reader.readuntil(b"success")).endswith(b"success")
        strangers = [await line(service, sent) for _ in range(6)]
        for stranger in strangers[:4]:
            await stranger.rest()
        assert b" 200 " in await api.ask("/v1/transactions", asked)
        assert b" 200 " in await sender.ask()
        for till in tills:
            await (await till.ping())


@pytest.mark.parametrize("is_fast", [True, False])
async def test_who_only_repeats_a_message_that_was_captured_has_proved_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens, *, is_fast: bool
) -> None:
    body = signed(FIELDS)
    # A head that is not plain leads to aiohttp.
    more = b"" if is_fast else b"Connection: Keep-Alive, x\r\n"
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=2) as service:
        lines = []
        for _ in range(4):
            one = await line(service, HALF)
            one.writer.write(more + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            async with asyncio.timeout(WAIT_SECONDS):
                assert (await one.reader.readuntil(b"success")).endswith(b"success")
            lines.append(one)
        # The first brought it: it stays; of the others two, and the newest, do.
        for one in lines[1:2]:
            assert await one.rest() == b""
        assert b" 200 " in await lines[0].ask()
        assert b" 200 " in await lines[3].ask()


async def test_the_young_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    limits = {"UNPROVEN_MAX": 2, "GRACE_SECONDS": 60.0}
    async with limited(tmp_path, monkeypatch, **limits) as service:
        lines = [await line(service) for _ in range(20)]
        for one in lines:
            assert b" 200 " in await one.ask()


async def test_when_all_are_taken_strangers_go_first_and_then_nobody_is_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    monkeypatch.setattr(connections, "connections_that_fit", lambda: 4)
    limits = {"UNPROVEN_MAX": 100, "GRACE_SECONDS": 60.0}
    async with limited(tmp_path, monkeypatch, **limits) as service:
        asked = f"Authorization: Bearer {service.key()}"
        known = [await line(service) for _ in range(3)]
        for one in known:
            assert b" 200 " in await one.ask("/v1/transactions", asked)
        stranger = await line(service, HALF)
        assert stranger.is_open()
        reader = f"Authorization: Bearer {service.key(role=Role.LEDGER)}"
        asking = f"GET /v1/entries?wait=30 HTTP/1.1\r\nHost: x\r\n{reader}\r\n\r\n"
        known.append(await line(service, asking.encode()))
        assert await stranger.rest() == b""
        async with asyncio.timeout(WAIT_SECONDS):
            while not service.service.app[SHARES].waits:
                await asyncio.sleep(0.005)
        told = await (await line(service)).rest()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in told
        known.pop().writer.close()
        async with asyncio.timeout(WAIT_SECONDS):
            while b" 200 " not in await _tried(service, line):
                await asyncio.sleep(0.02)


async def test_tills_that_take_all_places_they_may_have_shut_out_no_notification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    monkeypatch.setattr(connections, "connections_that_fit", lambda: 6)
    async with limited(tmp_path, monkeypatch) as service, AsyncExitStack() as stack:
        key = service.key()
        tills = []
        for _ in range(5):
            tills.append(await stack.enter_async_context(till(service.url, key)))
            await tills[-1].join()
        async with till(service.url, key) as sixth:
            await sixth.say(type="connect")
            assert await sixth.code() == CloseCode.TOO_MANY_CONNECTIONS
        assert (await service.notify())[0] == 200
        assert (await tills[0].hear("event"))["offset"] == 1
        asked = f"Authorization: Bearer {key}"
        poll = await line(service)
        assert b" 200 " in await poll.ask(f"{EVENTS}?stream={STREAM}&after=earliest&wait=25", asked)
        head = await poll.ask(f"{EVENTS}?stream={STREAM}&after=latest&wait=25", asked)
        assert b" 503 " in head
        assert b"Retry-After: 1\r\n" in head
        assert (await service.notify({"transactionNo": "2"}))[0] == 200


async def _tried(service: Serving, line: Opens) -> bytes:
    try:
        return await (await line(service)).ask()
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""


async def test_a_crowd_of_strangers_stops_no_notification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=10) as service:
        for number in range(20):
            for _ in range(10):
                await line(service, HALF)
            status, text = await service.notify({"transactionNo": f"{number}"})
            assert (status, text) == (200, "success")
        assert len(await entries(service)) == 20


async def test_of_one_connection_only_so_much_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    sizes: list[int] = []
    data_received = HttpConnection.data_received

    def counted(one: HttpConnection, data: bytes) -> None:
        sizes.append(len(data))
        data_received(one, data)

    monkeypatch.setattr(HttpConnection, "data_received", counted)
    async with limited(tmp_path, monkeypatch) as service:
        one = await line(service, HALF + b"Transfer-Encoding: chunked\r\n\r\n")
        # Of each chunk an extension is the most.
        one.writer.write((b"1;" + b"e" * 600 + b"\r\na\r\n") * 600 + b"0\r\n\r\n")
        async with asyncio.timeout(WAIT_SECONDS):
            assert b" 401 " in await one.reader.readuntil(b"\r\n")
    assert max(sizes) == READ_BYTES_MAX
    assert sum(sizes) > 360_000


async def in_chunks(
    line: Opens, service: Serving, path: str, chunks: Sequence[bytes]
) -> tuple[int, bytes]:
    """Send a body in chunks behind its head; return the status, and the answer's rest."""
    one = await line(service, f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode())
    one.writer.write(f"Content-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    # Only behind the first segment are they counted.
    await asyncio.sleep(0.05)
    one.writer.write(b"".join(b"%x\r\n%b\r\n" % (len(some), some) for some in chunks))
    one.writer.write(b"0\r\n\r\n")
    async with asyncio.timeout(WAIT_SECONDS):
        line_ = await one.reader.readuntil(b"\r\n")
        rest = await one.reader.readuntil(b"\r\n\r\n") + await one.reader.read(300)
    return int(line_.split()[1]), rest


async def test_a_body_in_too_many_chunks_is_refused_before_they_are_parsed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: Opens,
    caplog: pytest.LogCaptureFixture,
) -> None:
    parsed: list[int] = []
    receive = web.RequestHandler.data_received

    def counting(one: web.RequestHandler, data: bytes) -> None:
        parsed.append(len(data))
        receive(one, data)

    monkeypatch.setattr(web.RequestHandler, "data_received", counting)
    body = signed(FIELDS)
    async with limited(tmp_path, monkeypatch) as service:
        one_by_one = [body[place : place + 1] for place in range(len(body))]
        assert (await in_chunks(line, service, NOTIFY, one_by_one))[0] == 200
        assert await entries(service)
        parsed.clear()
        status, told = await in_chunks(line, service, NOTIFY, [b"a"] * 60_000)
        assert (status, b"too-many-chunks" in told) == (400, True)
        # Answered without its body.
        assert (await in_chunks(line, service, "/v1/transactions", [b"a"] * 60_000))[0] == 401
    assert sum(parsed) < READ_BYTES_MAX
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("chunks", [b"4\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\nzz\r\n"])
async def test_a_body_in_broken_chunks_is_refused_at_once_and_ends_its_connection(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: Opens,
    chunks: bytes,
    is_split: bool,
) -> None:
    async with limited(tmp_path, monkeypatch) as service:
        head = f"POST {NOTIFY} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        one = await line(service, head if is_split else head + chunks)
        if is_split:
            await asyncio.sleep(0.05)
            one.writer.write(chunks)
        async with asyncio.timeout(raw.BODY_SECONDS / 2):
            told = await one.reader.read()
        assert told.startswith(b"HTTP/1.1 400 ")
        assert told.count(b"HTTP/1.1 ") == 1
        assert b'"code":"broken-chunks"' in told


async def test_a_path_of_thousands_of_slashes_is_no_route_to_look_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch) as service:
        for slashes, status in ((LINE_BYTES_MAX - 100, b"404"), (LINE_BYTES_MAX + 1, b"400")):
            path = b"/" * slashes
            one = await line(service, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(WAIT_SECONDS):
                assert b" %b " % status in await one.reader.readuntil(b"\r\n")


def test_connections_leave_descriptors_for_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, fit in (
        (resource.RLIM_INFINITY, CONNECTIONS_MAX),
        (DESCRIPTORS_WANTED, CONNECTIONS_MAX),
        (8_000, 7_000),
        (1_024, 1_024 - DESCRIPTORS_KEPT),
        (1_000, 1_000 - DESCRIPTORS_KEPT),
        (100, 25),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _kind, soft=soft: (soft, soft))
        assert connections_that_fit() == fit


def test_the_limit_of_descriptors_is_raised_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = DESCRIPTORS_WANTED
    endless = resource.RLIM_INFINITY
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, both: asked.append(both))
    for soft, hard in ((1_024, 4_096), (1_024, endless), (endless, endless), (wanted, wanted)):
        monkeypatch.setattr(resource, "getrlimit", lambda _kind, both=(soft, hard): both)
        raise_descriptor_limit()
    assert asked == [(4_096, 4_096), (wanted, endless)]


class Exhausted(socket.socket):
    """A socket whose system has no descriptor left, for some calls."""

    failures = 3

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_no_descriptor_to_accept_with_is_one_line_and_a_pause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lobby, "PAUSE_SECONDS", 0.05)
    came = asyncio.Event()

    def make(_early: Sequence[bytes]) -> HttpConnection:
        came.set()
        raise ConnectionError

    with Exhausted() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        door = Lobby(
            listening, Connections(metrics=Metrics()), make=make, size=lambda _data, head: head
        )
        _, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(WAIT_SECONDS):
            await came.wait()
        await door.close()
        writer.close()
    (line_,) = caplog.records
    assert (line_.args, line_.levelno) == (("accept_failed",), logging.ERROR)
    assert listening.failures == 0


async def test_half_requests_are_no_connections_of_aiohttp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    made: list[HttpConnection] = []
    connection_made = HttpConnection.connection_made

    def counted(one: HttpConnection, transport: asyncio.BaseTransport) -> None:
        made.append(one)
        connection_made(one, transport)

    monkeypatch.setattr(HttpConnection, "connection_made", counted)
    body = signed(FIELDS)
    halves = (b"", b"P", HALF, HALF + b"Content-Length: %d\r\n\r\n" % len(body) + body[:9])
    async with limited(tmp_path, monkeypatch) as service:
        lines = [await line(service, half) for half in halves for _ in range(5)]
        # Those that came later have been answered, so that these have been read.
        assert (await service.notify())[0] == 200
        assert len(made) == 1
        for one in lines[-5:]:
            one.writer.write(body[9:])
            async with asyncio.timeout(WAIT_SECONDS):
                assert (await one.reader.readuntil(b"success")).endswith(b"success")
        assert len(made) == 6


async def test_half_a_body_is_aiohttps_to_wait_for_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    monkeypatch.setattr(lobby, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(raw, "BODY_SECONDS", 0.2)
    async with limited(tmp_path, monkeypatch) as service:
        one = await line(service, HALF + b"Content-Length: 99\r\n\r\na=")
        async with asyncio.timeout(WAIT_SECONDS):
            assert b" 408 " in await one.reader.readuntil(b"\r\n")


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02", b"get / HTTP/1.1\r\n", b"G" * 4_096, HALF + b"X: " + b"y" * 9_000],
    ids=["TLS", "lower case", "a long word", "a long head"],
)
async def test_what_is_no_beginning_of_a_request_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, HEAD_SECONDS=60.0) as service:
        assert (
            (await (await line(service, sent)).rest())
            .split(b"\r\n")[0]
            .endswith(b" 400 Bad Request")
        )


async def test_who_stops_sending_in_the_lobby_is_answered_as_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, HEAD_SECONDS=60.0) as service:
        half_body = HALF + b"Content-Length: 99\r\n\r\na="
        for sent, answer in ((HALF, b""), (b"", b""), (half_body, b"HTTP/1.1 400 ")):
            one = await line(service, sent)
            # Read by now, so that the end comes alone.
            await (await line(service)).ask()
            one.writer.write_eof()
            told = await one.rest()
            assert told.startswith(answer)
            assert bool(told) is bool(answer)


class Door:
    """The way out of a lobby, which is shut for everything but notifications."""

    def __init__(self) -> None:
        self._lobby: Lobby | None = None
        self._patch = pytest.MonkeyPatch()

        def hold(lobby: Lobby) -> None:
            self._lobby = lobby

        self._patch.setattr(Lobby, "_let_some_in", hold)

    async def reached(self, count: int) -> None:
        """Wait until so many have brought their whole request."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not self._lobby or sum(one.is_ready for one in self._lobby.guests) < count:
                await asyncio.sleep(0.005)

    def open(self) -> None:
        """Let in who waits, from now on."""
        self._patch.undo()
        shut, self._lobby = self._lobby, None
        if shut is not None:
            shut._let_some_in()


@pytest.fixture(name="door")
def _door() -> Iterator[Door]:
    door = Door()
    yield door
    door.open()


async def test_who_waits_to_be_let_in_is_not_one_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens, door: Door
) -> None:
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=3) as service:
        asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        lines = [await line(service, asked) for _ in range(8)]
        await door.reached(8)
        door.open()
        for one in lines:
            async with asyncio.timeout(WAIT_SECONDS):
                assert b" 200 " in await one.reader.readuntil(b"\r\n\r\n")


def _asked(head_bytes: int) -> bytes:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n"
    return head % (b"x" * (head_bytes - len(head % b"")))


@pytest.mark.parametrize(
    ("sent", "counts"),
    [
        (TLS, True),
        (_asked(lobby.GUEST_HEAD_BYTES_MAX), False),
        (_asked(lobby.GUEST_HEAD_BYTES_MAX + 1), True),
        (_asked(100) + b"more", True),
        (HALF + b"Content-Length: 9000\r\n\r\n", True),
    ],
    ids=["no HTTP", "a head at the limit", "one past it", "more than a request", "a large body"],
)
async def test_only_a_whole_short_request_counts_no_more_against_its_address(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: Opens,
    door: Door,
    sent: bytes,
    counts: bool,
) -> None:
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=3) as service:
        lines = []
        for number in range(1, 9):
            lines.append(await line(service, sent))
            await door.reached(min(number, 3) if counts else number)
        if counts:
            for one in lines[:-3]:
                assert await one.rest() == b""
        assert all(one.is_open() for one in lines[-3:])
        assert lines[0].is_open() is not counts


async def test_who_was_cut_off_takes_nobodys_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens, door: Door
) -> None:
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=3) as service:
        lines = []
        for number in range(1, 9):
            lines.append(await line(service, TLS))
            await door.reached(min(number, 3))
        await lines[4].rest()
        begun: list[lobby.Guest] = []
        monkeypatch.setattr(Lobby, "_begin", lambda _lobby, guest: begun.append(guest))
        door.open()
        assert len(begun) == lobby.ENTRIES_AT_ONCE


async def test_a_till_whose_key_is_being_looked_up_is_not_one_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch, UNPROVEN_MAX=3) as service:
        key, keys = service.key(), service.service.app[KEYS]
        find_key, is_asked, is_read = keys.find_key, asyncio.Event(), asyncio.Event()

        async def found_late(key_id: str) -> Key | None:
            is_asked.set()
            await is_read.wait()
            return await find_key(key_id)

        monkeypatch.setattr(keys, "find_key", found_late)
        async with till(service.url, key) as one:
            await one.say(type="connect")
            await is_asked.wait()
            for _ in range(6):
                await line(service, HALF)
            assert (await service.notify())[0] == 200
            is_read.set()
            await one.hear("hello")
            await one.hear("ready")


async def test_those_who_wait_make_room_when_all_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens, door: Door
) -> None:
    monkeypatch.setattr(connections, "connections_that_fit", lambda: 4)
    async with limited(tmp_path, monkeypatch, GRACE_SECONDS=60.0) as service:
        lines = [await line(service, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(4)]
        await door.reached(4)
        assert (await service.notify())[0] == 200
        assert await lines[0].rest() == b""


async def test_each_address_has_its_turn_however_many_of_another_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens, door: Door
) -> None:
    places = iter(["a crowd"] * 6 + ["a till"])
    order: list[str] = []
    async with limited(tmp_path, monkeypatch) as service:
        with monkeypatch.context() as placed:
            placed.setattr(lobby, "network", lambda _peer: next(places))
            for _ in range(7):
                await line(service, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            await door.reached(7)
        monkeypatch.setattr(Lobby, "_begin", lambda _lobby, guest: order.append(guest.address))
        door.open()
        async with asyncio.timeout(WAIT_SECONDS):
            while len(order) < 5:
                await asyncio.sleep(0.005)
    assert "a till" in order[:2]


async def test_the_lobby_is_empty_when_the_service_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Opens
) -> None:
    async with limited(tmp_path, monkeypatch) as service:
        lines = [await line(service, HALF) for _ in range(3)]
        await (await line(service)).ask()
    for one in lines:
        assert await one.rest() == b""


def test_an_address_of_ipv6_is_its_customers_network() -> None:
    assert network(("192.0.2.7", 1)) == "192.0.2.7"
    assert network(("2001:db8:1:2:3:4:5:6", 1, 0, 0)) == "2001:db8:1:2::/64"
    assert network(("fe80::1%eth0", 1, 0, 2)) == "fe80::/64"
    assert network(("::ffff:192.0.2.7", 1, 0, 0)) == "::ffff:192.0.2.7"
    assert network(("not:an:address", 1)) == "not:an:address"
    assert network("") == network(None) == ""
