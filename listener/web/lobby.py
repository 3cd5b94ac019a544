"""Accept connections, and keep each in the lobby until its first request has arrived.

A connection that sends nothing, or half a request, costs a socket and a few bytes here, but no
transport, protocol, task or timer. So strangers can be accepted and cut off by the thousand a
second, and nobody waits long behind them. A whole notification goes in immediately; of all else, a
few go in each turn of the event loop, from each address in turn. Only time and number are judged
here: what is not the plain beginning of a request goes in too, and aiohttp answers it.
"""

import asyncio
import errno
import logging
import re
import selectors
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

from listener import log
from listener.web.address import network
from listener.web.connections import FULL, READ_BYTES_MAX, TOO_SLOW, Connections, is_head_late
from listener.web.head import HEAD_END
from listener.web.http_connection import HttpConnection
from listener.web.metrics import Cut

# Per turn of the event loop. Accepting one costs about 50 µs, admitting one about 500 µs, reading
# from one about 5 µs.
ACCEPTS_AT_ONCE: Final = 64
ENTRIES_AT_ONCE: Final = 2
HEARD_AT_ONCE: Final = 256
# Larger heads, and the bodies of larger requests, do not wait here.
GUEST_HEAD_BYTES_MAX: Final = 4_096
GUEST_BODY_BYTES_MAX: Final = 8_192
# How long to wait here for a body once its head has arrived; after that aiohttp waits for it.
BODY_SECONDS: Final = 2.0
# How long to pause when no descriptor is left to accept with.
PAUSE_SECONDS: Final = 1.0

_LOG: Final = logging.getLogger(__name__)
# A head never ends after a first line that ends without a carriage return.
_BEGIN: Final = re.compile(rb"[A-Z]+(?: [^\n]*+(?:(?<=\r)\n.*)?)?", re.DOTALL)
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# Makes the protocol of a connection that goes in, given the segments that arrived.
Make = Callable[[Sequence[bytes]], HttpConnection]
# Returns how many bytes a request has whose whole head is here, the head's included.
Size = Callable[[bytes, int], int]


class Guest:
    """A connection in the lobby: its socket, and what has arrived of its first request."""

    __slots__ = (
        "address",
        "came",
        "head_bytes",
        "is_notification",
        "is_ready",
        "is_whole",
        "lobby",
        "made_at",
        "segments",
        "since",
        "socket",
    )

    def __init__(self, accepted: socket.socket, peer: object, lobby: "Lobby") -> None:
        self.socket = accepted
        self.address = network(peer)
        self.lobby = lobby
        self.came = b""
        self.segments: list[bytes] = []
        self.head_bytes = 0
        # Whether all of the first request is here, and no more; whether it is a notification.
        self.is_whole = False
        self.is_notification = False
        # Whether it waits to be let in.
        self.is_ready = False
        self.made_at = self.since = lobby.clock()

    @property
    def waits_for_peer(self) -> bool:
        """Whether it has proved nothing yet: more has to arrive, or it is not its turn."""
        return self in self.lobby.guests

    def look(self, now: float) -> Cut | None:
        """Close a connection whose first head is late; let one in whose body is late."""
        if self.is_ready:
            return None
        if self.head_bytes:
            if now - self.since >= BODY_SECONDS:
                self.lobby.let_in(self)
            return None
        if not is_head_late(now, since=self.since):
            return None
        if self.came:
            self.tell(TOO_SLOW)
        self.cut()
        return Cut.SLOW_HEAD

    def tell(self, answer: bytes) -> None:
        """Send as much of an answer as there is room for now."""
        with suppress(OSError):
            self.socket.send(answer)

    def cut(self) -> None:
        """Close the line; its turn to be let in may still come."""
        self.lobby.leave(self)
        self.socket.close()
        self.came, self.segments = b"", []

    def receive(self) -> None:
        """Receive bytes; go in once a whole request, or something else, has arrived."""
        try:
            data = self.socket.recv(READ_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.cut()
            return
        if not data:
            # aiohttp answers a sender that stops in a body; half a head asks for nothing.
            if self.head_bytes:
                self.lobby.let_in(self)
            else:
                self.cut()
            return
        if not self.came:
            self.since = self.lobby.clock()
        self.came += data
        self.segments.append(data)
        if not self._is_to_wait():
            self.lobby.let_in(self)

    def _is_to_wait(self) -> bool:
        """Return whether this is the beginning of a request whose rest is still to come."""
        came = self.came
        if not self.head_bytes:
            end = came.find(HEAD_END)
            if end < 0:
                return len(came) < GUEST_HEAD_BYTES_MAX and _BEGIN.fullmatch(came) is not None
            self.head_bytes = end + len(HEAD_END)
        missing = self.lobby.size(came, self.head_bytes) - len(came)
        if missing == 0:
            # A whole request is passed on as one segment, anything else as it arrived.
            self.segments = [came]
            self.is_whole = True
            self.is_notification = len(came) > self.head_bytes
        return 0 < missing <= GUEST_BODY_BYTES_MAX


class Lobby:
    """Accepts the connections of a listener on its socket, until it is closed."""

    def __init__(
        self, listening: socket.socket, everyone: Connections, *, make: Make, size: Size
    ) -> None:
        self.size = size
        self._listening = listening
        self._everyone = everyone
        self._make = make
        self._loop = asyncio.get_running_loop()
        self.clock = self._loop.time
        self.guests: set[Guest] = set()
        # By address, the next turn first; each address's guests in the order of arrival. One that
        # is no longer among the guests was cut off meanwhile.
        self._ready: dict[str, deque[Guest]] = {}
        self._entering: set[asyncio.Task[None]] = set()
        self._log = log.Throttle(_LOG, "accept_failed", level=logging.ERROR)
        self._pause: asyncio.TimerHandle | None = None
        # For the guests alone: the loop's own selector costs a handle and four look-ups for each.
        self._hearing = selectors.DefaultSelector()
        self._loop.add_reader(self._hearing.fileno(), self._hear)
        listening.setblocking(False)
        self._open()

    async def close(self) -> None:
        """Accept no more, and send away those in the lobby."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for guest in [*self.guests]:
            guest.cut()
        self._loop.remove_reader(self._hearing.fileno())
        self._hearing.close()
        await asyncio.gather(*self._entering)

    def leave(self, guest: Guest) -> None:
        """Forget a guest; its socket is no longer listened to."""
        if guest in self.guests:
            self.guests.remove(guest)
            if not guest.is_ready:
                self._hearing.unregister(guest.socket)
        self._everyone.remove(guest)

    def let_in(self, guest: Guest) -> None:
        """Admit a guest when it is its turn, but a notification immediately."""
        if guest.is_notification:
            self._begin(guest)
            return
        guest.is_ready = True
        self._hearing.unregister(guest.socket)
        if guest.is_whole and guest.head_bytes <= GUEST_HEAD_BYTES_MAX:
            self._everyone.heard_out(guest)
        if not self._ready:
            self._loop.call_soon(self._let_some_in)
        self._ready.setdefault(guest.address, deque()).append(guest)

    def _hear(self) -> None:
        """Receive what some of the guests have sent; the next turn of the loop receives more."""
        for key, _ in islice(self._hearing.select(0), HEARD_AT_ONCE):
            guest: Guest = key.data
            if guest in self.guests:
                guest.receive()

    def _let_some_in(self) -> None:
        entries = 0
        while self._ready and entries < ENTRIES_AT_ONCE:
            guest = self._next()
            if guest in self.guests:
                self._begin(guest)
                entries += 1
        if self._ready:
            self._loop.call_soon(self._let_some_in)

    def _next(self) -> Guest:
        """Take the guest whose turn it is; its address goes behind the others."""
        address = next(iter(self._ready))
        queue = self._ready.pop(address)
        guest = queue.popleft()
        if queue:
            self._ready[address] = queue
        return guest

    def _begin(self, guest: Guest) -> None:
        """Make a connection from a guest; it reads what has arrived of the first request."""
        self.leave(guest)
        task = self._loop.create_task(self._enter(guest))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, guest: Guest) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make(guest.segments), guest.socket
            )
        except OSError:
            # The other side has gone.
            guest.socket.close()

    def _open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        """Accept some waiting connections; the next turn of the loop accepts more."""
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log.event(error.errno, cause=error.strerror)
                if error.errno in _EXHAUSTED:
                    # The socket stays ready, so trying again immediately would never end.
                    self._loop.remove_reader(self._listening)
                    self._pause = self._loop.call_later(PAUSE_SECONDS, self._open)
                return
            accepted.setblocking(False)
            self._take(Guest(accepted, peer, self))

    def _take(self, guest: Guest) -> None:
        if not self._everyone.admit(guest):
            guest.tell(FULL)
            guest.socket.close()
            return
        self.guests.add(guest)
        self._hearing.register(guest.socket, selectors.EVENT_READ, guest)
        # Most have sent their request by now.
        guest.receive()
