"""What floods cost: refusals are read at a limited rate, and what ends leaves no memory behind."""

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from listener.keys import Role
from listener.web import connections, http_connection, shares
from tests.support.deliveries import NOTIFY
from tests.support.service import FIELDS, FORM, Serving, serving, signed

WAIT_SECONDS = 5
RATE = 100
MANY = 11
LINES = 20

UPGRADE = (
    b"GET /v1/pos/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: pos.v1\r\n\r\n"
)


def asked(path: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *more, "", ""]).encode()


def sent(body: bytes, *more: str) -> bytes:
    lines = [f"POST {NOTIFY} HTTP/1.1", "Host: x", f"Content-Type: {FORM}", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


# Not for the fast path: its body is compressed, or says so.
REFUSED = sent(b"a=1", "Content-Encoding: gzip")


class Line:
    """A connection to a service under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> bytes:
        """Send a request, and return the first line of its answer."""
        self._writer.write(request)
        async with asyncio.timeout(WAIT_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await self._reader.readexactly(int(length or b"0"))
        return head.partition(b"\r")[0]

    async def time(self, request: bytes, status: bytes) -> float:
        """Send a request many times; return how long that takes, in seconds."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(MANY):
            assert status in await self.ask(request)
        return loop.time() - started

    def abort(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def line(service: Serving) -> AsyncIterator[Line]:
    port = int(service.url.rpartition(":")[2])
    one = Line(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield one
    finally:
        one.abort()


@pytest.fixture(name="rate")
def _rate(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long many refusals by aiohttp take at least, in seconds."""
    monkeypatch.setattr(connections, "REFUSALS_PER_SECOND", RATE)
    monkeypatch.setattr(http_connection, "ORDINARY_REFUSAL", 5)
    return (MANY - 1) * 5 / RATE


@pytest.mark.parametrize(
    ("request_", "status"),
    [(REFUSED, b" 400 "), (asked("/v1/ledger"), b" 401 "), (asked("/nowhere"), b" 404 ")],
    ids=["a body", "no key", "no route"],
)
async def test_refusals_of_strangers_are_read_at_a_limited_rate(
    tmp_path: Path, rate: float, request_: bytes, status: bytes
) -> None:
    async with serving(tmp_path / "ledger.db") as service, line(service) as stranger:
        assert await stranger.time(request_, status) > 0.9 * rate
        assert await stranger.time(asked("/healthz"), b" 200 ") < rate + WAIT_SECONDS


async def test_refusals_of_a_known_sender_are_not(tmp_path: Path, rate: float) -> None:
    async with serving(tmp_path / "ledger.db") as service, line(service) as known:
        assert b" 200 " in await known.ask(sent(signed(FIELDS)))
        for _ in range(10):
            if await known.time(REFUSED, b" 400 ") < rate / 2:
                break
        else:
            pytest.fail("a known sender had to wait each time")


async def test_who_goes_on_past_the_share_of_a_key_is_heard_at_a_limited_rate(
    tmp_path: Path, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "REQUESTS_AT_ONCE_MAX", 1)
    monkeypatch.setattr(shares, "REQUESTS_PER_SECOND", 0.001)
    async with serving(tmp_path / "ledger.db") as service, line(service) as till:
        request = asked("/v1/ledger", f"Authorization: Bearer {service.key(Role.LEDGER)}")
        assert b" 200 " in await till.ask(request)
        assert await till.time(request, b" 429 ") > 0.9 * rate


@asynccontextmanager
async def uncollected() -> AsyncIterator[Counter[str]]:
    """Count, by their type, the objects that only the garbage collector frees."""
    left: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield left
        # Until the last connections have been noticed to be gone.
        await asyncio.sleep(0.3)
        gc.collect()
        left.update(type(one).__name__ for one in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    "request_",
    [
        sent(signed(FIELDS)),
        sent(b"a=1"),
        REFUSED,
        asked("/v1/ledger"),
        asked("/healthz"),
        UPGRADE,
        b"TLS, perhaps\r\n\r\n",
    ],
    ids=["notification", "unsigned", "compressed", "no key", "health", "websocket", "no HTTP"],
)
async def test_a_connection_that_ended_leaves_nothing_for_the_garbage_collector(
    tmp_path: Path, request_: bytes
) -> None:
    async with serving(tmp_path / "ledger.db") as service, uncollected() as left:
        for _ in range(LINES):
            async with line(service) as one:
                await one.ask(request_)
    # What asyncio itself leaves of each connection: the transport of the test's own end.
    assert left["_SelectorSocketTransport"] <= LINES
    few = {"FastConnection", "Request", "WebSocketResponse", "StreamWriter", "frame", "traceback"}
    assert {name: left[name] for name in few if left[name] >= LINES} == {}


async def test_who_leaves_in_the_middle_of_an_answer_leaves_nothing_either(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with serving(tmp_path / "ledger.db") as service, uncollected() as left:
        for _ in range(LINES):
            with socket.socket() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                one.setblocking(False)
                parts = urlsplit(service.url)
                await loop.sock_connect(one, (parts.hostname, parts.port))
                # More than the system buffers.
                await loop.sock_sendall(one, asked("/openapi.json") * 16)
                assert await loop.sock_recv(one, 1)
    few = {"FastConnection", "Request", "Response", "StreamWriter", "frame", "traceback"}
    assert {name: left[name] for name in few if left[name] >= LINES} == {}
