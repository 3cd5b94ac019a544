"""The newest events in memory, limited in size, each framed once for all followers."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from listener.ledger.model import EVERY_STREAM, Event
from listener.pos.wire import event_frame, ws_text

# Limits for all streams together, in events and in bytes; older events are read from the ledger.
TAIL_EVENTS_MAX: Final = 8_192
TAIL_BYTES_MAX: Final = 16 * 1024 * 1024
# The most frames that one write joins, and the most events in a page of the ledger.
PAGE_EVENTS_MAX: Final = 256

# Frames joined once for all subscriptions at an offset: the offset, the frames, the last offset.
Joined = tuple[int, bytes, int]


class StreamTail:
    """The newest events of one stream: those with the offsets ``after`` + 1 … ``head``."""

    __slots__ = ("events", "head", "joined", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.head = 0
        self.events: deque[Event] = deque()
        self.joined: Joined | None = None

    @property
    def after(self) -> int:
        """The offset that the tail begins after."""
        return self.head - len(self.events)

    def holds(self, offset: int) -> bool:
        """Return whether all events after an offset are here."""
        return self.after <= offset < self.head

    def frames_after(self, offset: int) -> Joined | None:
        """Return the frames after an offset, joined; None if they are not all here."""
        joined = self.joined
        if joined is not None and joined[0] == offset:
            return joined
        if not self.holds(offset):
            return None
        chosen = self.events_after(offset, limit=PAGE_EVENTS_MAX)
        frames = b"".join([frame_of(self.name, event) for event in chosen])
        self.joined = joined = (offset, frames, offset + len(chosen))
        return joined

    def events_after(self, offset: int, *, limit: int) -> list[Event]:
        """Return the events after an offset."""
        begin = offset - self.after
        return [self.events[n] for n in range(begin, min(begin + limit, len(self.events)))]


class Tail:
    """The tails of all streams together; the oldest event of all is dropped first."""

    def __init__(self, *, events_max: int, bytes_max: int) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._bytes = 0
        # The stream of each event held, the oldest event first.
        self._order: deque[StreamTail] = deque()

    def add(self, tail: StreamTail, events: Sequence[Event], *, is_followed: bool = True) -> int:
        """Add events of a stream, in order, to its tail; skip those that are there already.

        A tail that nobody follows is not begun again after events were left out.

        Returns:
            The offset of the last event.
        """
        first, last = offset_in(tail.name, events[0]), offset_in(tail.name, events[-1])
        if not is_followed and tail.events and first > tail.head + 1:
            return last
        if first == tail.head + 1 and last == tail.head + len(events):
            self._append(tail, events)
        else:
            for event in events:
                self._add_apart(tail, event)
        while self._bytes > self._bytes_max or len(self._order) > self._events_max:
            self._drop(self._order.popleft())
        return last

    def _add_apart(self, tail: StreamTail, event: Event) -> None:
        """Add an event that may be there already, or may not follow the last one."""
        offset = offset_in(tail.name, event)
        if offset <= tail.head:
            return
        if offset != tail.head + 1:
            self._forget(tail)
            tail.head = offset - 1
        self._append(tail, [event])

    def _append(self, tail: StreamTail, events: Sequence[Event]) -> None:
        tail.events.extend(events)
        tail.head += len(events)
        tail.joined = None
        self._order.extend([tail] * len(events))
        for event in events:
            self._bytes += len(event.body)

    def _drop(self, tail: StreamTail) -> None:
        self._bytes -= len(tail.events.popleft().body)
        tail.joined = None

    def _forget(self, tail: StreamTail) -> None:
        """Drop a tail that the next event does not follow: a bell was lost."""
        if tail.events:
            self._order = deque(one for one in self._order if one is not tail)
        while tail.events:
            self._drop(tail)


def offset_in(name: str, event: Event) -> int:
    """Return an event's offset in a stream; the stream of all events has its own numbers."""
    return event.number if name == EVERY_STREAM else event.offset


def frame_of(name: str, event: Event) -> bytes:
    """Frame an event for the followers of a stream."""
    return ws_text(event_frame(name, offset_in(name, event), event.body))
