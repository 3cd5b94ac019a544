"""Read and answer one HTTP connection, and end it when its time is over."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage

from listener.errors import let_go
from listener.web.address import network
from listener.web.chunks import Chunks, broken_chunks, too_many_chunks
from listener.web.connections import FULL, READ_BYTES_MAX, TOO_SLOW, Connections, is_head_late
from listener.web.head import notification_bytes
from listener.web.headers import harden
from listener.web.metrics import Cut
from listener.web.problem import ProblemError, nothing_here, problem

# The longest first line of a request. aiohttp looks for the route of a path slash by slash from its
# end, and copies the rest each time: 7,000 slashes cost 9 ms.
LINE_BYTES_MAX: Final = 2_048
# The longest value of a header.
FIELD_BYTES_MAX: Final = 8_190
# Longer than a proxy's (nginx: 60 s), so that it is the proxy that closes.
IDLE_SECONDS: Final = 75.0
# How long an answer may stay unread.
UNREAD_SECONDS: Final = 30.0
# How long the rest of a refused body is read after the answer.
LINGER_SECONDS: Final = 1.0
LINGER_BYTES_MAX: Final = 256 * 1024
# A refusal by aiohttp counts as this many of the fast path, since it costs as much.
ORDINARY_REFUSAL: Final = 20
# A shorter rest is not worth its cost.
REST_SECONDS_MIN: Final = 0.002
# The most parts of one segment; aiohttp queues as many requests.
CUTS_MAX: Final = 32

# Turns of the event loop between a request's arrival and its handler.
_TURNS_TO_START: Final = 3
_ERROR: Final = 400
_REFUSED: Final = range(400, 500)
_TOO_MANY: Final = 429


class HttpConnection(web.RequestHandler):
    """One HTTP connection: aiohttp's, with limits, and with answers that are all our own."""

    __slots__ = (
        "_answer_bytes",
        "_body",
        "_chunks",
        "_connections",
        "_early",
        "_heard",
        "_is_ended",
        "_is_resting",
        "_is_torn",
        "_left",
        "_stalled_since",
        "address",
        "is_proved",
        "made_at",
        "on_end",
        "since",
    )

    def __init__(
        self,
        server: web.Server,
        connections: Connections,
        early: Sequence[bytes] = (),
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # halves the throughput; aiohttp takes None
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            # What is sent compressed is decompressed in shapes/raw.py, within its limit.
            auto_decompress=False,
        )
        self._connections = connections
        # The segments that arrived before this connection was made.
        self._early = early
        self._heard = False
        self._is_ended = False
        # Whether nothing is read from the sender for a moment, after a refusal.
        self._is_resting = False
        # Whether the body came in too many chunks, or broken ones: nothing more is read.
        self._is_torn = False
        self._chunks = Chunks()
        # The body of the newest request, if it comes in chunks.
        self._body: StreamReader | None = None
        # After an answer: how much more of the request's body is read.
        self._left: int | None = None
        self._stalled_since: float | None = None
        self._answer_bytes = 0
        # Called when the sender stops sending, or has gone.
        self.on_end: Callable[[], object] | None = None
        self.is_proved = False
        self.address = ""
        self.made_at = self.since = loop.time()

    @property
    def is_websocket(self) -> bool:
        """Whether this has become a websocket, which has limits of its own."""
        return self._payload_parser is not None

    @property
    def is_idle(self) -> bool:
        """Whether every request that has arrived is answered, and the next one is awaited."""
        if self._is_resting:
            return False
        if self._waiter is None:
            return self._request_count == 0
        return not self._waiter.done()

    @property
    def is_ended(self) -> bool:
        """Whether the sender has stopped sending."""
        return self._is_ended

    @property
    def is_late(self) -> bool:
        """Whether the head of the first request, or of one that began, is overdue."""
        return self.is_idle and (self._heard or self._request_count == 0)

    @property
    def waits_for_peer(self) -> bool:
        """Whether the other side has to act: to send, to read its answer, or to prove itself."""
        if self.is_idle or self._is_resting or self.writing_paused or self.is_websocket:
            return True
        request = self._current_request
        return request is not None and not request.content.is_eof()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or refuse it."""
        self.address = network(transport.get_extra_info("peername"))
        if self._connections.admit(self):
            # Not documented; asyncio reads it before each read.
            vars(transport)["max_size"] = READ_BYTES_MAX
            super().connection_made(transport)
            early, self._early = self._early, ()
            for data in early:
                self.data_received(data)
            return
        self._force_close = True
        if isinstance(transport, asyncio.Transport):
            transport.write(FULL)
        transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection."""
        self._tell_end()
        self._connections.remove(self)
        transport = self.transport
        super().connection_lost(exc)
        # asyncio's transport holds one of its own methods: a cycle that keeps a KiB per connection.
        getattr(transport, "__dict__", {}).pop("_read_ready_cb", None)

    def pause_writing(self) -> None:
        """Wait for a sender that does not read its answer; a websocket has a limit of its own."""
        super().pause_writing()
        if not self.is_websocket:
            self._connections.stalls(self, self._answer_bytes)

    async def _drain_helper(self) -> None:
        """Wait until there is room to write, as aiohttp asks for."""
        try:
            await super()._drain_helper()
        except ConnectionError as error:
            # The error and what waited hold each other, and with them the answer.
            let_go(error)
            raise ConnectionResetError("the other side has gone") from None

    def resume_writing(self) -> None:
        """Write on."""
        super().resume_writing()
        self._connections.reads_on(self)

    def data_received(self, data: bytes) -> None:
        """Receive bytes; the time limit of a head runs from its first byte."""
        if self._is_torn:
            return
        if not self._heard:
            self._heard = True
            self.since = self._loop.time()
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.force_close()
                return
        body = self._body
        goes_on = body is not None and not body.is_eof()
        if self._chunks.are_too_many(data, goes_on=goes_on) and body is not None:
            self._tear(body, too_many_chunks())
            return
        # aiohttp drops all requests of a segment in which anything is wrong, even after them.
        for _ in range(CUTS_MAX):
            size = notification_bytes(data)
            if size == len(data):
                break
            self._parse(data[:size])
            data = data[size:]
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Pass a segment, or a part of one, to aiohttp's parser; refuse a body in broken chunks."""
        super().data_received(data)
        if not self._messages:
            return
        message, newest = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            self._body = newest if message.chunked else None
        elif self._body is not None and not self._body.is_eof():
            # aiohttp would answer only after a request that still waits for the rest of its body.
            self._tear(self._body, broken_chunks())

    def _tear(self, body: StreamReader, error: ProblemError) -> None:
        """Refuse the body that is arriving, and all behind it."""
        self._is_torn = self._close = True
        self._lingering_time = 0.0
        if self._left is None:
            body.set_exception(error)
        else:
            # The request was answered before.
            self.force_close()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads the result
        """Leave the connection open for answers that are due: only sending has ended."""
        if self.is_idle or self.is_websocket:
            return False
        self._is_ended = True
        self._tell_end()
        if not self._messages:
            # No request follows: close after this answer, even if it is being sent already.
            self._close = True
        self._end_body(_TURNS_TO_START)
        return True

    def _tell_end(self) -> None:
        if self.on_end is not None:
            self.on_end()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, hardened; the last one, if the sender has stopped sending."""
        # The status is checked first: testing the type of a class with an abstract base costs more.
        if resp.status >= _ERROR and isinstance(resp, web.HTTPError):
            # aiohttp's own, where a target has no path that a route could take: `OPTIONS *`.
            resp = problem(nothing_here())
        if not resp.prepared:
            harden(resp)
        # All of it stays in memory until its end is sent, though little waits in the transport.
        self._answer_bytes = resp.content_length or 0
        told = await super().finish_response(request, resp, start_time)
        self._answer_bytes = 0
        self._heard = False
        self._left = None if request.content.is_eof() else LINGER_BYTES_MAX
        if resp.status in _REFUSED and (not self.is_proved or resp.status == _TOO_MANY):
            self.rest(ORDINARY_REFUSAL)
        if self._is_ended and not self._messages:
            self.close()
        return told

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's, which quotes what was sent
    ) -> web.StreamResponse:
        """Answer what is not HTTP, and what failed, in our own words."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer has been sent")
        response = self._connections.unread.answer(status, exc, sender=request.remote)
        let_go(exc)
        return response

    def rest(self, refusals: int = 1) -> None:
        """Count a refusal as so many; above their rate, pause reading from the sender."""
        seconds = self._connections.refused(refusals)
        if seconds > REST_SECONDS_MIN and not self._is_resting:
            self._is_resting = True
            self._pause_transport_reading()
            self._loop.call_later(seconds, self._listen_again)

    def _listen_again(self) -> None:
        self._is_resting = False
        if not self._reading_paused and not self._buffer_paused:
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        """Read on, as aiohttp asks for, unless reading is paused after a refusal."""
        if not self._is_resting:
            super()._resume_transport_reading()

    def heard_out(self) -> None:
        """Stop counting this connection against its address: it waits for our answer."""
        self._connections.heard_out(self)

    def prove(self) -> bool:
        """Protect this connection from being crowded out; return whether there was a place."""
        self.is_proved = self._connections.trust(self)
        return self.is_proved

    def _end_body(self, turns: int) -> None:
        """End a body that will not be completed, once its request is being handled."""
        request = self._current_request
        if self._messages:
            payload = self._messages[-1][1]
        elif request is not None:
            payload = request.content
        else:
            if turns:
                self._loop.call_soon(self._end_body, turns - 1)
            return
        if not payload.is_eof():
            payload.set_exception(web.RequestPayloadError("cut off"))

    def look(self, now: float) -> Cut | None:
        """End a connection whose time is over; return why, or None if it is not over."""
        if self.is_websocket:
            return None
        if self.is_late and is_head_late(now, since=self.since):
            if self._heard and self.transport is not None:
                self.transport.write(TOO_SLOW)
            self.force_close()
            return Cut.SLOW_HEAD
        if not self.writing_paused:
            self._stalled_since = None
        elif self._stalled_since is None:
            self._stalled_since = now
        elif now - self._stalled_since >= UNREAD_SECONDS:
            self.cut()
            return Cut.SLOW_READER
        return None

    def cut(self) -> None:
        """Cut the connection off, with whatever was still to be sent."""
        if self.transport is not None:
            self.transport.abort()
