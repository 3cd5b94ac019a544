"""Send the events of the ledger to the subscriptions of its streams.

The ledger is the queue; publishing only rings a bell. Each subscription then moves on by itself,
from the tail in memory or from the ledger: see :class:`listener.hub.subscription.Subscription`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from listener.errors import OverloadedError
from listener.hub.reads import PageReads, Pages
from listener.hub.subscription import Sink, Stream, Subscription
from listener.hub.tail import PAGE_EVENTS_MAX, TAIL_BYTES_MAX, TAIL_EVENTS_MAX, Tail
from listener.ledger.model import EVERY_STREAM, Event
from listener.ledger.promise import Bell, Follows, Skip

# How soon a full socket is tried again, and how long a failed read waits.
RETRY_SECONDS: Final = 0.05
# How many callers may wait for a page at a time.
WAITERS_MAX: Final = 10_000


class Source(Pages, Protocol):
    """What the hub needs of a ledger."""

    def listen(self, bell: Bell, *, follows: Follows, skip: Skip) -> None: ...
    async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]: ...


class Hub:
    """The subscriptions of all streams, and the newest events in memory."""

    def __init__(
        self,
        ledger: Source,
        *,
        tail_events_max: int = TAIL_EVENTS_MAX,
        tail_bytes_max: int = TAIL_BYTES_MAX,
    ) -> None:
        self._ledger = ledger
        self._tail_events_max = tail_events_max
        self._tail_bytes_max = tail_bytes_max
        self._tail = Tail(events_max=tail_events_max, bytes_max=tail_bytes_max)
        self._streams: dict[str, Stream] = {}
        self._to_retry: set[Subscription] = set()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._reads = PageReads(ledger, on_read=lambda: self.on_read())  # noqa: PLW0108 - set below, and later
        self._waiting = 0
        self._is_closed = False
        self.on_publish: Callable[[int], None] = lambda _events: None
        self.on_read: Callable[[], None] = lambda: None
        ledger.listen(self._publish, follows=self._is_followed, skip=self._skip)

    @property
    def is_closed(self) -> bool:
        """Whether publishing has ended, so that waiting callers should stop."""
        return self._is_closed

    @property
    def streams(self) -> int:
        """How many streams are held in memory."""
        return len(self._streams)

    @property
    def waiting(self) -> int:
        """How many callers wait for something to happen."""
        return self._waiting

    @property
    def followers(self) -> int:
        """How many subscriptions there are."""
        return sum(len(stream.subscriptions) for stream in self._streams.values())

    async def start(self) -> None:
        """Fill the tail with the newest events, so that returning tills are served from memory."""
        newest = (await self._ledger.stream_heads([EVERY_STREAM]))[EVERY_STREAM]
        after = max(0, newest - self._tail_events_max)
        while events := await self._ledger.read_events(
            EVERY_STREAM, after=after, limit=PAGE_EVENTS_MAX
        ):
            for name, told in _by_stream(events).items():
                self._remember(name, told)
            after = events[-1].number

    async def heads(self, streams: Sequence[str]) -> dict[str, int]:
        """Return the newest offset of each stream."""
        if EVERY_STREAM in streams:
            # Create it before the ledger is read, so that nothing published meanwhile is missed.
            self._stream(EVERY_STREAM)
        heads = await self._ledger.stream_heads(list(streams))
        for name, head in heads.items():
            # A client may ask for any name; only streams with events are held in memory.
            stream = self._stream(name) if head else self._streams.get(name)
            if stream is not None:
                stream.head = heads[name] = max(stream.head, head)
        return heads

    def subscribe(self, name: str, *, after: int, sink: Sink) -> Subscription:
        """Follow a stream after an offset, which ``heads`` has shown not to be beyond its head."""
        stream = self._stream(name)
        subscription = Subscription(self, stream, after=after, sink=sink)
        stream.subscriptions[subscription] = None
        return subscription

    async def page(
        self, name: str, *, after: int, limit: int, wait_seconds: float = 0.0
    ) -> list[Event]:
        """Return the events of a stream after an offset; if there are none, wait for one.

        Ask for the stream's head with ``heads`` first.

        Raises:
            OverloadedError: Too many are waiting.
            LedgerUnavailableError: The ledger cannot be read now.
        """
        stream = self._stream(name)
        if stream.head <= after and wait_seconds > 0:
            await self._wait(stream, wait_seconds)
        if stream.head <= after:
            self.let_go(stream)
            return []
        if stream.tail.holds(after):
            return stream.tail.events_after(after, limit=limit)
        return await self._ledger.read_events(name, after=after, limit=limit)

    async def wait(self, name: str, *, wait_seconds: float) -> None:
        """Wait until something happens in a stream, or until the time is over.

        Raises:
            OverloadedError: Too many are waiting.
        """
        stream = self._stream(name)
        await self._wait(stream, wait_seconds)
        self.let_go(stream)

    def wake(self) -> None:
        """Wake every caller that waits for an event, to look again."""
        for stream in self._streams.values():
            _wake(stream)

    def reset(self) -> None:
        """Forget everything about the streams: the ledger has a new epoch."""
        self._tail = Tail(events_max=self._tail_events_max, bytes_max=self._tail_bytes_max)
        for name, stream in list(self._streams.items()):
            # Followers are being sent away; waiting readers look again.
            stream.subscriptions.clear()
            _wake(stream)
            self._streams[name] = Stream(name)

    async def close(self) -> None:
        """End every subscription, and wake every waiting caller."""
        self._is_closed = True
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        for stream in self._streams.values():
            stream.subscriptions.clear()
            _wake(stream)
        await self._reads.close()

    def let_go(self, stream: Stream) -> None:
        """Forget a stream without events that nobody follows: it may not even exist."""
        is_used = stream.head or stream.subscriptions or stream.waiters
        # A stream that was forgotten may exist again under its name, with followers.
        is_known = self._streams.get(stream.name) is stream
        if is_known and not is_used and stream.name != EVERY_STREAM:
            del self._streams[stream.name]

    def retry(self, subscription: Subscription) -> None:
        """Advance a subscription again in a moment: its socket is full, or a read failed."""
        self._to_retry.add(subscription)
        if self._retry_timer is None and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._retry_timer = loop.call_later(RETRY_SECONDS, self._retry)

    def read(self, subscription: Subscription) -> None:
        """Queue a read of a subscription's next page; only a few reads run at a time."""
        self._reads.add(subscription)

    def _retry(self) -> None:
        self._retry_timer = None
        waiting, self._to_retry = self._to_retry, set()
        for subscription in waiting:
            if subscription.is_followed:
                _advance(subscription)

    def _publish(self, events: Sequence[Event]) -> None:
        """Send the events of a commit to their subscriptions; called by the ledger."""
        grown = _by_stream(events)
        if events and EVERY_STREAM in self._streams:
            grown[EVERY_STREAM] = [*events]
        # Remember all events first, so that a follower of two streams finds both grown.
        for name, told in grown.items():
            self._remember(name, told)
        for name in grown:
            _ring(self._streams[name])
        self.on_publish(len(events))

    def _is_followed(self, name: str) -> bool:
        """Return whether somebody follows a stream, or waits for its next event."""
        stream = self._streams.get(name)
        return stream is not None and stream.is_followed

    def _skip(self, heads: Mapping[str, int], count: int) -> None:
        """Learn the newest offsets of streams whose events were left out; called by the ledger."""
        for name, head in heads.items():
            if name != EVERY_STREAM or name in self._streams:
                stream = self._stream(name)
                stream.head = max(stream.head, head)
                # A follower that has come meanwhile reads on in the ledger.
                _ring(stream)
        self.on_publish(count)

    def _remember(self, name: str, events: Sequence[Event]) -> None:
        stream = self._stream(name)
        last = self._tail.add(stream.tail, events, is_followed=stream.is_followed)
        stream.head = max(stream.head, last)

    def _stream(self, name: str) -> Stream:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Stream(name)
        return stream

    async def _wait(self, stream: Stream, wait_seconds: float) -> None:
        if self._is_closed:
            return
        if self._waiting >= WAITERS_MAX:
            raise OverloadedError("too many wait for events; ask again in a moment")
        waiter = asyncio.get_running_loop().create_future()
        stream.waiters.add(waiter)
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_seconds):
                await waiter
        except TimeoutError:
            return
        finally:
            stream.waiters.discard(waiter)
            self._waiting -= 1


def _by_stream(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Group events by stream, in the same order."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.stream, []).append(event)
    return found


def _advance(subscription: Subscription) -> None:
    """Advance a subscription; a broken socket must not disturb the others."""
    try:
        subscription.advance()
    except Exception:  # noqa: BLE001 - the bell is rung by the ledger's writer, which must live on
        subscription.fail()


def _ring(stream: Stream) -> None:
    """Advance the subscriptions of a stream, and wake the callers that wait for it."""
    for subscription in list(stream.subscriptions):
        _advance(subscription)
    if stream.waiters:
        _wake(stream)


def _wake(stream: Stream) -> None:
    for waiter in stream.waiters:
        if not waiter.done():
            waiter.set_result(None)
