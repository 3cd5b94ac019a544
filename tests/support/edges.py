"""Edges: what may be between a till and the listener, and what it answers in its place."""

import asyncio
import base64
import gzip
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Final

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Fault = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PAGE: Final = b"<html><title>Just a moment...</title></html>"
# Whoever holds something up lets the client's patience end it, and not our own.
FOREVER_SECONDS: Final = 3600.0


class Edge:
    """Passes bytes on to the listener or, while ``fault`` is set, answers itself."""

    def __init__(self, upstream: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._upstream = upstream
        # Shown instead of the certificate of the listener.
        self.tls: ssl.SSLContext | None = None
        if tls is not None:
            tls.sni_callback = self._choose
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.fault: Fault | None = None
        # Delays what the client sends and receives by this many seconds.
        self.stall_up_seconds = 0.0
        self.stall_down_seconds = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""
        self._open.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.fault is not None:
                await self.fault(reader, writer)
            else:
                await self._forward(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._open.add(ours)
        try:
            await asyncio.gather(
                self._pump(reader, ours, is_up=True), self._pump(theirs, writer, is_up=False)
            )
        finally:
            self._open.discard(ours)
            ours.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_up: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await asyncio.sleep(self.stall_up_seconds if is_up else self.stall_down_seconds)
                sink.write(data)
                await sink.drain()
        sink.close()

    def _choose(
        self, line: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _tls: ssl.SSLContext
    ) -> None:
        if self.tls is not None:
            line.context = self.tls

    def cut(self) -> None:
        """Cut every connection."""
        for writer in list(self._open):
            writer.transport.abort()

    async def end(self) -> None:
        """Cut every connection, and wait until nothing of them is left."""
        self.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def edge(upstream: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Edge]:
    """Run an edge in front of a listener on this machine."""
    one = Edge(upstream, tls=tls)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        await one.end()


def answers(status: str, *headers: str, body: bytes = PAGE, kind: str = "text/html") -> Fault:
    """Answer every request with a page, and close."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return sends("\r\n".join([*head, "Connection: close", *headers, "", ""]).encode() + body)


def sends(data: bytes) -> Fault:
    """Answer every request with bytes, and close."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return fault


def sends_and_stalls(data: bytes) -> Fault:
    """Answer every request with bytes, and say nothing more."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await asyncio.sleep(FOREVER_SECONDS)

    return fault


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection as soon as it is there."""
    writer.transport.abort()


async def reset_mid_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection once the request has come."""
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Close without a word once the request has come."""
    await reader.readuntil(b"\r\n\r\n")


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Accept the connection, and send nothing."""
    await asyncio.sleep(FOREVER_SECONDS)


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a page that never ends, a byte at a time."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 401 No\r\nContent-Type: application/problem+json\r\nContent-Length: 9999\r\n\r\n"
    )
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a page that never ends, as fast as it is read."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        writer.write(b"[" * 65536)
        await writer.drain()


def opens(then: bytes | None) -> Fault:
    """Accept the upgrade as expected, but without our subprotocol; then send bytes, or nothing."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        if found is None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        accept = base64.b64encode(hashlib.sha1(found[1] + _GUID).digest())
        writer.write(_UPGRADED + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        if then is None:
            await asyncio.sleep(FOREVER_SECONDS)
        else:
            writer.write(then)
            await writer.drain()

    return fault


def _problem(kind: str) -> bytes:
    return b'{"type":"%b","status":401,"code":"unauthorized","retry":false}' % kind.encode()


_UPGRADED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
)
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HTTP2: Final = b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18
_PROBLEM: Final = "application/problem+json"

# What edges really answer: nginx, Cloudflare, oauth2-proxy, Traefik, Kubernetes' ingress, hotels
# and firewalls; and what goes wrong below HTTP.
FAULTS: Final[Mapping[str, Fault]] = MappingProxyType(
    {
        "400 of nginx": answers("400 Bad Request", "Server: nginx"),
        "401 asking for a password": answers(
            "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"'
        ),
        "403 of a firewall": answers("403 Forbidden", "Server: cloudflare"),
        "403 sign-on page": answers("403 Forbidden", "Set-Cookie: _oauth2_proxy_csrf=x; Path=/"),
        "404 of a router": answers(
            "404 Not Found", body=b"404 page not found\n", kind="text/plain; charset=utf-8"
        ),
        "407 of a proxy": answers("407 Proxy Authentication Required", "Proxy-Authenticate: Basic"),
        "410 page": answers("410 Gone"),
        "422 of a gateway": answers(
            "422 Unprocessable Entity", body=b'{"code":"x"}', kind="application/json"
        ),
        "429 of a firewall": answers("429 Too Many Requests", "Retry-After: 1"),
        "502 of nginx": answers("502 Bad Gateway", "Server: nginx"),
        "503 of an ingress": answers(
            "503 Service Unavailable", body=b"default backend - 503", kind="text/plain"
        ),
        "302 to a sign-on": answers("302 Found", "Location: https://login.example/?rd=x"),
        "301 to https": answers("301 Moved Permanently", "Location: https://127.0.0.1:1/v1/pos"),
        "307 nowhere": answers("307 Temporary Redirect", "Location: http://["),
        "200 of a captive portal": answers("200 OK"),
        "200 with other json": answers("200 OK", body=b'{"reason":null}', kind="application/json"),
        "204 of a captive portal": sends(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
        "another's problem": answers(
            "401 Unauthorized",
            body=_problem("https://errors.cdn.example/1020"),
            kind=_PROBLEM,
        ),
        "a problem of no type": answers(
            "401 Unauthorized", body=_problem("about:blank"), kind=_PROBLEM
        ),
        "our words in another's page": answers(
            "401 Unauthorized", body=_problem("urn:pockyt-listener:problem:unauthorized")
        ),
        "gzip page": answers(
            "403 Forbidden", "Content-Encoding: gzip", body=gzip.compress(PAGE * 2000)
        ),
        "broken gzip": answers(
            "401 Unauthorized", "Content-Encoding: gzip", body=b"no gzip", kind=_PROBLEM
        ),
        "a page without an end": floods,
        "a page a byte at a time": trickles,
        "101 with a wrong accept": sends(_UPGRADED + b"Sec-WebSocket-Accept: x\r\n\r\n"),
        "101 without an upgrade": sends(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        "101 and silence": sends_and_stalls(_UPGRADED + b"Sec-WebSocket-Accept: x\r\n\r\n"),
        "another's websocket that closes with 4001": opens(b"\x88\x02" + (4001).to_bytes(2, "big")),
        "another's websocket that says hi": opens(b'\x81\x0b{"hi":"you"}'),
        "another's websocket that is silent": opens(None),
        "frames that are none": opens(b"\xff\xff\xff\xff"),
        "a frame too long": opens(b"\x81\x7f" + (2**40).to_bytes(8, "big") + b"x" * 999),
        "half a head": sends_and_stalls(b"HTTP/1.1 403 Forbid"),
        "http/2 only": sends_and_stalls(_HTTP2),
        "no http at all": sends(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "reset": reset,
        "reset mid-handshake": reset_mid_handshake,
        "hang-up": hang_up,
        "silence": silent,
    }
)
