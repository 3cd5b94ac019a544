"""Tills for tests: one that speaks with the library `websockets`, and one that is a bare socket."""

import asyncio
import base64
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.typing import Origin, Subprotocol

from listener.ledger.promise import Ledger
from listener.web.context import HUB, SESSIONS
from tests.support.service import STREAM

PATH = "/v1/pos/stream"
DEADLINE_SECONDS = 10.0

# A frame of pos.v1 as it is on the wire.
Frame = dict[str, Any]


class Till:
    """One connection of a till, past its upgrade."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def frame(self) -> Frame:
        """Return the next frame."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            text = await self.ws.recv()
        assert isinstance(text, str)
        frame: Frame = json.loads(text)
        return frame

    async def hear(self, kind: str) -> Frame:
        """Return the next frame of this type, skipping pings."""
        while True:
            frame = await self.frame()
            if frame["type"] == kind:
                return frame
            assert frame["type"] == "ping", frame

    async def offsets(self, count: int) -> list[int]:
        """Return the offsets of the next events."""
        return [(await self.hear("event"))["offset"] for _ in range(count)]

    async def say(self, **frame: object) -> None:
        """Send a frame."""
        await self.ws.send(json.dumps(frame))

    async def join(self, *streams: object, **fields: object) -> Frame:
        """Receive the hello, send connect, and return the ready."""
        await self.hear("hello")
        if streams:
            fields["streams"] = list(streams)
        await self.say(type="connect", **fields)
        return await self.hear("ready")

    async def ack(self, stream: str, offset: int) -> None:
        """Acknowledge."""
        await self.say(type="ack", stream=stream, offset=offset)

    async def code(self) -> int | None:
        """Read to the end; return the code that the listener closed with."""
        code, _ = await self.close()
        return code

    async def close(self) -> tuple[int | None, str]:
        """Read to the end; return the code that the listener closed with, and the reason."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    await self.ws.recv()
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (None, "")

    async def nothing_more(self) -> None:
        """Check that no event is under way: the next frame is the answer to this."""
        await self.say(type="ack", id=77, stream="0/0", offset=0)
        assert (await self.hear("error"))["id"] == 77


@asynccontextmanager
async def till(
    url: str,
    key: str | None = None,
    *,
    subprotocols: Sequence[str] | None = ("pos.v1",),
    origin: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[Till]:
    """Open a connection with the library `websockets`, which answers pings of its own level."""
    wanted = dict(headers or {})
    if key is not None:
        wanted["Authorization"] = f"Bearer {key}"
    ws = await connect(
        url.replace("http", "ws", 1) + PATH,
        additional_headers=wanted,
        close_timeout=1,
        compression=None,
        max_size=None,
        origin=None if origin is None else Origin(origin),
        ping_interval=None,
        proxy=None,
        subprotocols=None if subprotocols is None else [Subprotocol(name) for name in subprotocols],
    )
    try:
        yield Till(ws)
    finally:
        await ws.close()


async def place(ledger: Ledger, *, terminal: str, stream: str) -> int | None:
    """Return the offset that ``acked`` means for a terminal."""
    found = await ledger.acked(terminal=terminal, stream=stream)
    return found.offset if found else None


async def acked(ledger: Ledger, *, terminal: str, stream: str, offset: int) -> None:
    """Wait until an acknowledgement is in the ledger."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await place(ledger, terminal=terminal, stream=stream) != offset:
            await asyncio.sleep(0.005)


async def gone(app: web.Application) -> None:
    """Wait until nothing of any till is left."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while app[SESSIONS].count or app[SESSIONS].online() or app[HUB].followers:
            await asyncio.sleep(0.005)


def upgrade_head(url: str, key: str) -> bytes:
    """Return the request that asks for a connection."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {PATH} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n"
        f"Authorization: Bearer {key}\r\n\r\n"
    ).encode()


class BareTill:
    """A till that is a bare socket with a small buffer: it reads only when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    @classmethod
    async def open(cls, url: str, key: str) -> "BareTill":
        """Upgrade; what comes after the answer's head stays in the socket."""
        parts = urlsplit(url)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (parts.hostname, parts.port))
        await loop.sock_sendall(sock, upgrade_head(url, key))
        answer = b""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not answer.endswith(b"\r\n\r\n"):
                answer += await loop.sock_recv(sock, 1)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return cls(sock)

    @classmethod
    async def follow(cls, url: str, key: str) -> "BareTill":
        """Connect, and follow a stream from its beginning; its events stay in the socket."""
        made = await cls.open(url, key)
        await made.say(type="connect", streams=[{"stream": STREAM, "after": "earliest"}])
        await made.read_until(b'"ready"')
        return made

    async def send(self, payload: bytes, *, opcode: Opcode = Opcode.TEXT) -> None:
        """Send one masked frame."""
        frame = WebSocketFrame(opcode, payload).serialize(mask=True)
        await asyncio.get_running_loop().sock_sendall(self.sock, frame)

    async def say(self, **frame: object) -> None:
        """Send a frame of the protocol."""
        await self.send(json.dumps(frame).encode())

    async def read(self) -> bytes:
        """Read to the end of the connection, whatever the end is like."""
        read = b""
        with suppress(ConnectionError, EOFError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    read += await self.some()
        return read

    async def read_until(self, part: bytes, *, at_once: int = 256) -> bytes:
        """Read until some bytes have come."""
        read = b""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while part not in read:
                read += await self.some(at_once)
        return read

    async def some(self, at_once: int = 65_536) -> bytes:
        """Read what is there."""
        part = await asyncio.get_running_loop().sock_recv(self.sock, at_once)
        if not part:
            raise EOFError("the listener closed")
        return part

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
