"""What the hub is tested with: facts, a bell that can be delayed, sinks that record frames."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson
from msgspec.structs import replace

from listener.hub.hub import Hub
from listener.ledger.model import EVERY_STREAM, Event, Fact
from listener.ledger.promise import Bell, Follows, Skip, always, ignore
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support.told import MERCHANT, STORE, notification

DEADLINE_SECONDS = 10.0
STREAM = f"{MERCHANT}/{STORE}"


def fact(number: int, *, store_no: str | None = STORE, currency: str = "USD") -> Fact:
    """Build the notification of a transaction of its own, which makes one event."""
    return replace(
        notification("success", store_no=store_no, mark=str(number)),
        transaction_no=str(number),
        reference="ref",
        currency=currency,
    )


class HeldBell:
    """A ledger whose bell rings only when told to; everything else is the ledger's own."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger
        self._bell: Bell = lambda _events: None
        self._skip: Skip = ignore
        self.follows: Follows = always
        self.held: deque[Sequence[Event]] = deque()
        ledger.listen(self.held.append)

    def listen(self, bell: Bell, *, follows: Follows = always, skip: Skip = ignore) -> None:
        self._bell = bell
        self._skip = skip
        self.follows = follows

    def ring(self, times: int | None = None) -> None:
        """Ring for the oldest commits that were held back; without a number, for all."""
        for _ in range(len(self.held) if times is None else min(times, len(self.held))):
            self._bell(self.held.popleft())

    def leave_out(self) -> None:
        """Tell of the oldest commit that was held back only how far it brings its streams."""
        events = self.held.popleft()
        self._skip({event.stream: event.offset for event in events}, len(events))

    def lose(self) -> None:
        """Drop the oldest commit that was held back: its bell never rings."""
        if self.held:
            self.held.popleft()

    async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
        return await self._ledger.stream_heads(streams)

    async def read_events(self, stream: str, *, after: int, limit: int) -> list[Event]:
        return await self._ledger.read_events(stream, after=after, limit=limit)


@dataclass
class KeptFrames:
    """A sink that records what was written to it, and has room when told so."""

    room: bool = True
    is_failed: bool = False
    writes: list[bytes] = field(default_factory=list)

    def offer(self, frames: bytes) -> bool:
        if self.room:
            self.writes.append(frames)
        return self.room

    def has_room(self) -> bool:
        return self.room

    def fail(self) -> None:
        self.is_failed = True

    def told(self) -> list[tuple[str, int, bytes]]:
        """Parse the websocket frames: the stream, offset and event of each."""
        return [_told(payload) for payload in _payloads(b"".join(self.writes))]

    def offsets(self) -> list[int]:
        return [offset for _, offset, _ in self.told()]


async def record(ledger: SqliteLedger, *numbers: int, currency: str = "USD") -> None:
    """Record one event of each number, in order."""
    waiting = [ledger.record(fact(number, currency=currency)) for number in numbers]
    await asyncio.gather(*waiting)


async def follow(hub: Hub, sink: KeptFrames, *, after: int, name: str = STREAM) -> None:
    await hub.heads([name])
    hub.subscribe(name, after=after, sink=sink).advance()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():
            await asyncio.sleep(0.002)


async def reads(hub: Hub, *, after: int, name: str = STREAM) -> int:
    """Follow from an offset to the head; return how often the ledger was read for it."""
    counted: list[None] = []
    hub.on_read = lambda: counted.append(None)
    sink = KeptFrames()
    head = (await hub.heads([name]))[name]
    await follow(hub, sink, after=after, name=name)
    await until(lambda: len(sink.offsets()) == head - after)
    return len(counted)


def places(events: Sequence[Event], stream: str) -> list[tuple[str, int, bytes]]:
    """Return the stream, offset and event of what was read of a stream, as ``told`` does."""
    return [
        (stream, event.number if stream == EVERY_STREAM else event.offset, event.body)
        for event in events
    ]


def _payloads(frames: bytes) -> list[bytes]:
    payloads = []
    while frames:
        assert frames[0] == 0x81
        size, begin = frames[1], 2
        if size == 126:
            size, begin = int.from_bytes(frames[2:4], "big"), 4
        elif size == 127:
            size, begin = int.from_bytes(frames[2:10], "big"), 10
        payloads.append(frames[begin : begin + size])
        frames = frames[begin + size :]
    return payloads


def _told(payload: bytes) -> tuple[str, int, bytes]:
    frame = orjson.loads(payload)
    assert list(frame) == ["type", "stream", "offset", "event"]
    body = payload[payload.index(b',"event":') + len(b',"event":') : -1]
    return frame["stream"], frame["offset"], body
