"""Limit HTTP connections: how many there may be, and how long a request may take to arrive.

A connection that has proved nothing yet (no key, no verified notification) may be crowded out: the
oldest of an address that has too many goes first, and if all places are taken, the oldest of all. A
connection that only waits for our answer does not count against its address; one that has proved
itself is never crowded out. So thousands of tills behind one proxy's address are safe. Some places
are never given to proved ones: Pockyt's next connection has proved nothing either.
"""

import asyncio
import logging
import resource
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol

from listener import log
from listener.web.metrics import Cut, Metrics
from listener.web.problem import RETRY_SECONDS, ProblemError, raw_problem
from listener.web.unread import Unread

CONNECTIONS_MAX: Final = 24_576
# Connections that have proved themselves take at most this part of all places. If tills took all of
# them, no notification would get in.
PROVED_SHARE: Final = 5 / 6
# How many of one address may still have to send something; none is crowded out before the grace.
UNPROVEN_MAX: Final = 1_024
GRACE_SECONDS: Final = 2.0
# Descriptors that connections leave alone, or an eighth of all where that is more: for the ledger,
# for calls to Pockyt, and for what was just accepted.
DESCRIPTORS_KEPT: Final = 128
# What the process asks for: more than all connections and what they leave alone.
DESCRIPTORS_WANTED: Final = CONNECTIONS_MAX + 4_096

HEAD_SECONDS: Final = 10.0
# Read from one connection in one turn of the event loop. asyncio's own limit is 256 KiB: 40,000
# chunks or websocket frames, half a second in which no other connection is read.
READ_BYTES_MAX: Final = 16 * 1024

# Refusals per second, over all connections that have proved nothing, and of keys that ask for more
# than their share. Above this a refusal is still answered immediately, but its sender's next
# request is read later.
REFUSALS_PER_SECOND: Final = 1_000
# Shorter than the time for the rest of a refused body, so that the body can still end.
REST_SECONDS_MAX: Final = 0.75

# Bytes of unread answers, over all connections. Each answer may wait a while for its reader, but
# not thousands of long ones at a time.
STALLED_BYTES_MAX: Final = 128 * 1024 * 1024

_TICK_SECONDS: Final = 1.0
# How many of the oldest are examined when one must be cut off.
_CANDIDATES_MAX: Final = 32

_LOG: Final = logging.getLogger(__name__)
TOO_SLOW: Final = raw_problem(
    ProblemError(408, "too-slow", "the head of the request did not arrive in time")
)


def no_place(detail: str) -> ProblemError:
    """Build the refusal when there is no place for a connection, or for one more that waits."""
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return ProblemError(503, "too-many-connections", detail, headers=headers)


FULL: Final = raw_problem(no_place("come back in a moment"))


class Peer(Protocol):
    """Who is connected: speaking HTTP already, or in the lobby."""

    address: str
    made_at: float

    @property
    def waits_for_peer(self) -> bool: ...

    def look(self, now: float) -> Cut | None: ...

    def cut(self) -> None: ...


class Connections:
    """All HTTP connections of a listener, and the task that limits them."""

    def __init__(self, *, metrics: Metrics) -> None:
        self.unread = Unread(count=metrics.unread.inc)
        self._metrics = metrics
        self._max = connections_that_fit()
        self._unproven_max = min(UNPROVEN_MAX, max(1, self._max // 2))
        self._proved_max = int(self._max * PROVED_SHARE)
        # In the order of arrival; by address, those that still have to send something.
        self._all: dict[Peer, None] = {}
        self._unproven: dict[Peer, None] = {}
        self._of_address: dict[str, dict[Peer, None]] = {}
        # Those that do not read, the longest stalled first, and how many bytes wait for each.
        self._stalled: dict[Peer, int] = {}
        self._stalled_bytes = 0
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

    def trust(self, connection: Peer) -> bool:
        """Protect a connection from being crowded out; return False if too many are already."""
        if len(self._all) - len(self._unproven) >= self._proved_max:
            return False
        self._protect(connection)
        return True

    def heard_out(self, connection: Peer) -> None:
        """Stop counting a connection against its address: it only waits for our answer.

        Tills that all come back together must not be crowded out for being many: they would come
        again, and all work for them would be repeated.
        """
        own = self._of_address.get(connection.address, {})
        own.pop(connection, None)
        if not own:
            self._of_address.pop(connection.address, None)

    def refused(self, refusals: int) -> float:
        """Count refusals; return for how many seconds to read nothing from their sender."""
        now = self._clock()
        turn = max(now, self._refused_until)
        self._refused_until = min(turn + refusals / REFUSALS_PER_SECOND, now + REST_SECONDS_MAX)
        return turn - now

    def stalls(self, connection: Peer, waiting_bytes: int) -> None:
        """Count what a peer does not read; if the total is too much, cut off the first to stall."""
        self._stalled[connection] = waiting_bytes
        self._stalled_bytes += waiting_bytes
        while self._stalled_bytes > STALLED_BYTES_MAX:
            first = next(iter(self._stalled))
            self.reads_on(first)
            self._note(Cut.SLOW_READER, first)
            first.cut()

    def reads_on(self, connection: Peer) -> None:
        """Forget what a peer has not read: it reads again, or has gone."""
        self._stalled_bytes -= self._stalled.pop(connection, 0)

    def remove(self, connection: Peer) -> None:
        """Count a connection out."""
        self._all.pop(connection, None)
        self.reads_on(connection)
        self._protect(connection)

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

    def _protect(self, connection: Peer) -> None:
        self._unproven.pop(connection, None)
        self.heard_out(connection)

    def _crowd_out(self, some: Iterable[Peer], *, age: float) -> bool:
        """Cut off the oldest that has proved nothing, if allowed; return whether that was done."""
        youngest = self._clock() - age
        for connection in islice(some, _CANDIDATES_MAX):
            if connection.made_at > youngest:
                return False
            if connection.waits_for_peer:
                self._note(Cut.CROWDED_OUT, connection)
                self._protect(connection)
                connection.cut()
                return True
        return False

    def _note(self, why: Cut, connection: Peer) -> None:
        self._metrics.cuts.labels(why).inc()
        self._log.event(why, why=why, sender=connection.address, connections=len(self._all))


def is_head_late(now: float, *, since: float) -> bool:
    """Return whether a request's head, whose time began at ``since``, is overdue."""
    return now - since >= HEAD_SECONDS


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
