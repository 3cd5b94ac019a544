"""Limit HTTP connections: how many there may be, and how long a request may take to arrive.

A connection that has proved nothing yet (no key, no verified notification) may be cut off: under
pressure the oldest of these go first, beginning with those of an address that has many. A
connection that has proved itself is never crowded out, so that thousands of tills behind one
proxy's address are safe.
"""

import asyncio
import logging
import resource
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol

from aiohttp import web

from listener import log
from listener.errors import let_go
from listener.web.address import network
from listener.web.headers import harden
from listener.web.metrics import Cut, Metrics
from listener.web.problem import RETRY_SECONDS, ProblemError, nothing_here, problem, raw_problem
from listener.web.unread import Unread

CONNECTIONS_MAX: Final = 24_576
# Of one address, and unproven for longer than the grace.
UNPROVEN_MAX: Final = 1_024
GRACE_SECONDS: Final = 2.0
# Descriptors that connections leave alone, or an eighth of all where that is more: for the ledger,
# for calls to Pockyt, and for what was just accepted.
DESCRIPTORS_KEPT: Final = 128
# What the process asks for: more than all connections and what they leave alone.
DESCRIPTORS_WANTED: Final = CONNECTIONS_MAX + 4_096

HEAD_SECONDS: Final = 10.0
# Of a request's first line. aiohttp looks for the route of a path slash by slash from its end, and
# copies the rest each time: 7,000 slashes cost 9 ms.
LINE_BYTES_MAX: Final = 2_048
# Longer than a proxy's (nginx: 60 s), so that it is the proxy that closes.
IDLE_SECONDS: Final = 75.0
# For how long somebody may not read his answer.
UNREAD_SECONDS: Final = 30.0
# How long the rest of a refused body is read after the answer.
LINGER_SECONDS: Final = 1.0
LINGER_BYTES_MAX: Final = 256 * 1024
# In one turn of the event loop, of one connection. asyncio's own is 256 KiB: 40,000 chunks or
# websocket frames, for half a second in which nobody else is heard.
READ_BYTES_MAX: Final = 16 * 1024

# Refusals per second, over all connections that have proved nothing, and of keys that ask for more
# than their share. Above this a refusal is still answered at once, but its sender's next request is
# read later. One that aiohttp has read costs as much as many that the fast path has.
REFUSALS_PER_SECOND: Final = 1_000
ORDINARY_REFUSAL: Final = 20
REST_SECONDS_MAX: Final = 1.0
# A shorter rest is not worth its cost.
REST_SECONDS_MIN: Final = 0.002

# Of the event loop, between a request's arrival and its handler.
_TURNS_TO_START: Final = 3
_TICK_SECONDS: Final = 1.0
_REFUSED: Final = range(400, 500)
_TOO_MANY: Final = 429
# How many of the oldest are examined when one must be cut off.
_CANDIDATES_MAX: Final = 32

_LOG: Final = logging.getLogger(__name__)
TOO_SLOW: Final = raw_problem(
    ProblemError(408, "too-slow", "the head of the request did not arrive in time")
)
FULL: Final = raw_problem(
    ProblemError(
        503,
        "too-many-connections",
        "come back in a moment",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )
)


class Peer(Protocol):
    """Who is connected: to speak HTTP already, or in the lobby."""

    address: str
    made_at: float

    @property
    def waits_for_peer(self) -> bool: ...

    def look(self, now: float) -> Cut | None: ...

    def cut(self) -> None: ...


class HttpConnection(web.RequestHandler):
    """One HTTP connection: aiohttp's, with limits, and with answers that are all our own."""

    __slots__ = (
        "_connections",
        "_early",
        "_heard",
        "_is_ended",
        "_is_resting",
        "_left",
        "_stalled_since",
        "address",
        "is_proved",
        "made_at",
        "since",
    )

    def __init__(
        self,
        server: web.Server,
        connections: "Connections",
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
            # What is sent compressed is decompressed in shapes/raw.py, within its limit.
            auto_decompress=False,
        )
        self._connections = connections
        # What came before this was made, in its segments.
        self._early = early
        self._heard = False
        self._is_ended = False
        # Whether the sender is not listened to for a moment, after a refusal.
        self._is_resting = False
        # After an answer: how much more of the request's body is read.
        self._left: int | None = None
        self._stalled_since: float | None = None
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
    def is_late(self) -> bool:
        """Whether the head of the first request, or of one that began, is overdue."""
        return self.is_idle and (self._heard or self._request_count == 0)

    @property
    def waits_for_peer(self) -> bool:
        """Whether it is the other side's turn: to send, or to prove itself."""
        request = self._current_request
        is_sending = request is not None and not request.content.is_eof()
        return self.is_idle or is_sending or self.is_websocket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or refuse it."""
        self.address = network(transport.get_extra_info("peername"))
        if self._connections.admit(self):
            # Not documented, and looked at by asyncio before each read.
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
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive bytes; the time limit of a head runs from its first byte."""
        if not self._heard:
            self._heard = True
            self.since = self._loop.time()
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.force_close()
                return
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio reads the result
        """Leave the connection open for answers that are due: only sending has ended."""
        if self.is_idle or self.is_websocket:
            return False
        self._is_ended = True
        if not self._messages:
            # No request follows: close after this answer, even if it is being sent already.
            self._close = True
        self._end_body(_TURNS_TO_START)
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, hardened; the last one, if the sender has stopped sending."""
        if isinstance(resp, web.HTTPError):
            # aiohttp's own, where a target has no path that a route could take: `OPTIONS *`.
            resp = problem(nothing_here())
        if not resp.prepared:
            harden(resp)
        told = await super().finish_response(request, resp, start_time)
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
        """Count a refusal, as so many; above their rate, do not hear the sender for a moment."""
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
        """Read on, as aiohttp asks for; but not while the sender is not to be listened to."""
        if not self._is_resting:
            super()._resume_transport_reading()

    def prove(self) -> None:
        """Protect this connection from being crowded out."""
        self.is_proved = True
        self._connections.trust(self)

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
        """End a connection whose time is over; return why, None where it is not."""
        if self.is_websocket:
            return None
        if self.is_late and now - self.since >= HEAD_SECONDS:
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


class Connections:
    """All HTTP connections of a listener, and the task that limits them."""

    def __init__(
        self,
        *,
        metrics: Metrics,
    ) -> None:
        self.unread = Unread(count=metrics.unread.inc)
        self._metrics = metrics
        self._max = connections_that_fit()
        self._unproven_max = min(UNPROVEN_MAX, max(1, self._max // 2))
        # In the order in which they came; by address, those that have proved nothing.
        self._all: dict[Peer, None] = {}
        self._unproven: dict[Peer, None] = {}
        self._of_address: dict[str, dict[Peer, None]] = {}
        self._clock = asyncio.get_running_loop().time
        self._refused_until = 0.0
        self._log = log.Throttle(_LOG, "connection_cut", level=logging.WARNING)

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: Peer) -> bool:
        """Count a connection in; return False if none can be cut off to make room for it."""
        own = self._of_address.setdefault(connection.address, {})
        if len(own) >= self._unproven_max:
            self._crowd_out(own, age=GRACE_SECONDS)
        if len(self._all) >= self._max and not self._crowd_out(self._unproven, age=0.0):
            self._note(Cut.FULL, connection)
            if not own:
                del self._of_address[connection.address]
            return False
        self._all[connection] = self._unproven[connection] = None
        self._of_address.setdefault(connection.address, own)[connection] = None
        return True

    def trust(self, connection: Peer) -> None:
        """Remove a connection from the list of those that may be crowded out."""
        self._unproven.pop(connection, None)
        own = self._of_address.get(connection.address, {})
        own.pop(connection, None)
        if not own:
            self._of_address.pop(connection.address, None)

    def refused(self, refusals: int) -> float:
        """Count refusals; return for how many seconds their sender is not listened to."""
        now = self._clock()
        seconds = refusals / REFUSALS_PER_SECOND
        self._refused_until = min(max(now, self._refused_until) + seconds, now + REST_SECONDS_MAX)
        return self._refused_until - now

    def remove(self, connection: Peer) -> None:
        """Count a connection out."""
        self._all.pop(connection, None)
        self.trust(connection)

    async def run(self) -> None:
        """End overdue connections until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.tick()

    def tick(self) -> None:
        """End the connections whose time is over."""
        self._metrics.connections.set(len(self._all))
        now = self._clock()
        for connection in list(self._all):
            why = connection.look(now)
            if why is not None:
                self._note(why, connection)

    def _crowd_out(self, some: Iterable[Peer], *, age: float) -> bool:
        """Cut off the oldest connection that we wait for; return whether there was one."""
        youngest = self._clock() - age
        for connection in islice(some, _CANDIDATES_MAX):
            if connection.made_at > youngest:
                return False
            if connection.waits_for_peer:
                self._note(Cut.CROWDED_OUT, connection)
                self.trust(connection)
                connection.cut()
                return True
        return False

    def _note(self, why: Cut, connection: Peer) -> None:
        self._metrics.cuts.labels(why).inc()
        self._log.event(why, why=why, sender=connection.address, connections=len(self._all))


def prove(request: web.BaseRequest) -> None:
    """Record that a request has brought a valid key, or a notification that verified."""
    connection = request.protocol
    if isinstance(connection, HttpConnection) and not connection.is_proved:
        connection.prove()


def connections_that_fit() -> int:
    """Return how many connections the process's descriptors leave room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, max(soft - max(DESCRIPTORS_KEPT, soft // 8), soft // 4))


def raise_descriptor_limit() -> None:
    """Raise the limit of open descriptors as far as allowed and useful."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
