"""Follow one stream, from the tail in memory if it reaches back far enough, else from the ledger.

Catching up and staying live are the same step. It is taken again whenever the bell rings, the
socket has room, or a page of the ledger has been read.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from listener.hub.tail import StreamTail, frame_of, offset_in
from listener.ledger.model import Event

_LOG: Final = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the frames of a subscription go: the socket of a till."""

    def offer(self, frames: bytes) -> bool:
        """Accept all frames, or return False and accept none because there is no room."""

    def has_room(self) -> bool:
        """Return whether there is room now."""

    def fail(self) -> None:
        """Close the connection, so that the till comes back: this one cannot be continued."""


class Pacer(Protocol):
    """Continues a subscription later; this is the hub."""

    def read(self, subscription: "Subscription") -> None:
        """Queue a read of a subscription's next page."""

    def retry(self, subscription: "Subscription") -> None:
        """Advance a subscription again in a moment."""

    def let_go(self, stream: "Stream") -> None:
        """Forget a stream if nobody needs it."""


class Stream:
    """A stream as the hub knows it: its newest offset, its newest events, its subscriptions."""

    __slots__ = ("head", "name", "subscriptions", "tail", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        # May be ahead of the tail: the ledger was read, and the bell has not rung yet.
        self.head = 0
        self.tail = StreamTail(name)
        self.subscriptions: dict[Subscription, None] = {}
        self.waiters: set[asyncio.Future[None]] = set()

    @property
    def is_followed(self) -> bool:
        """Whether somebody follows it or waits for its next event."""
        return bool(self.subscriptions or self.waiters)


class Subscription:
    """One follower of one stream. ``offset`` is the last event that its sink accepted."""

    __slots__ = ("_hub", "_is_reading", "_sink", "_stream", "offset")

    def __init__(self, hub: Pacer, stream: Stream, *, after: int, sink: Sink) -> None:
        self._hub = hub
        self._stream = stream
        self._sink = sink
        self._is_reading = False
        self.offset = after

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return self._stream.name

    @property
    def head(self) -> int:
        """The newest offset of its stream."""
        return self._stream.head

    @property
    def is_followed(self) -> bool:
        """Whether it has not ended."""
        return self in self._stream.subscriptions

    def end(self) -> None:
        """Stop following."""
        self._stream.subscriptions.pop(self, None)
        self._hub.let_go(self._stream)

    def fail(self) -> None:
        """Stop following after a fault, and make the till come back instead of waiting for ever.

        Call it where the fault is caught: it is logged.
        """
        _LOG.exception("subscription_failed", extra={"fields": {"stream": self.stream}})
        self.end()
        with suppress(Exception):
            self._sink.fail()

    def advance(self) -> None:
        """Send the events after the offset that are in memory, as far as there is room."""
        stream = self._stream
        while self.offset < stream.head and not self._is_reading:
            found = stream.tail.frames_after(self.offset)
            if found is None and self._sink.has_room():
                self._is_reading = True
                self._hub.read(self)
                return
            if found is None or not self._sink.offer(found[1]):
                self._hub.retry(self)
                return
            self.offset = found[2]

    def take(self, events: Sequence[Event]) -> None:
        """Send a page that was read for it; an empty page means that the read failed."""
        self._is_reading = False
        if not self.is_followed:
            return
        name = self._stream.name
        # Another of the till's streams may have filled its socket meanwhile.
        if events and self._sink.offer(b"".join([frame_of(name, event) for event in events])):
            # Nothing else was sent during the read, so the page follows on.
            self.offset = offset_in(name, events[-1])
            # A page may hold events of another node, whose bell has not rung yet.
            self._stream.head = max(self._stream.head, self.offset)
            self.advance()
        else:
            self._hub.retry(self)
