"""Many tills come back at the same time, after their service was killed and while it works.

One that is cut off before it is ready comes again, as every client does: a machine that is slower
than so many tills takes longer, and must still lose and double nothing.
"""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

from listener.pos.codes import CloseCode
from listener.storage import open_reader
from tests.fault.lives import Life, Nursery
from tests.fault.load import SUCCESS, Shop, counter, make_key
from tests.support.service import STREAM
from tests.support.tills import PATH

SENDERS: Final = 2
EVENTS: Final = 60
TILLS_A_KEY: Final = 1_000
CATCH_UP_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.1
SELL_SECONDS: Final = 0.05

# What a storm may cost at its worst moment, for each till and for all that has to be imported.
TILL_BYTES_MAX: Final = 40 * 1024
MORE_BYTES_MAX: Final = 16 * 1024 * 1024

_OFFSET: Final = re.compile(rb'\{"type":"event","stream":"[^"]*","offset":(\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """How a storm went.

    ``arrived_seconds`` is from the first till's coming to the last one's ``ready``,
    ``slowest_seconds`` the longest from a till's coming until it had what it had missed.
    ``returns`` is how often one was cut off before it was ready, and came again. ``memory_bytes``
    is what the service needed more than before, at most.
    """

    tills: int
    returns: int
    arrived_seconds: float
    slowest_seconds: float
    events: int
    memory_bytes: int


class StormTill(asyncio.Protocol):
    """A till of few words, so that one process can be thousands of them."""

    def __init__(self, *, url: str, key: str, epoch: str, offset: int, missed_to: int) -> None:
        self._url = url
        self._key = key
        self._epoch = epoch
        self._missed_to = missed_to
        self._read = bytearray()
        self._is_upgraded = False
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._came_at = 0.0
        self.offset = offset
        self.returns = 0
        self.ready_at: float | None = None
        self.caught_up_seconds: float | None = None
        # The first thing that went wrong.
        self.trouble = ""

    async def stay(self, jitter: Callable[[], float]) -> None:
        """Come, and come again whenever the connection is lost; each time after so many seconds."""
        host, _, port = urlsplit(self._url).netloc.partition(":")
        loop = asyncio.get_running_loop()
        while not self.trouble:
            await asyncio.sleep(jitter())
            self._came_at = self._came_at or perf_counter()
            self._lost.clear()
            with suppress(OSError):
                await loop.create_connection(lambda: self, host, int(port))
                await self._lost.wait()
            self.returns += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._read, self._is_upgraded = bytearray(), False
        head = (
            f"GET {PATH} HTTP/1.1\r\nHost: {urlsplit(self._url).netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {self._key}\r\n\r\n"
        )
        transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        self._read += data
        if not self._is_upgraded:
            head, end, rest = bytes(self._read).partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._fail(head.decode())
                return
            self._is_upgraded, self._read = True, bytearray(rest)
        while (frame := self._next_frame()) is not None:
            self._take(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self.ready_at is not None:
            self._fail("the connection was lost after ready")
        self._lost.set()

    def close(self) -> None:
        """Disconnect."""
        if self._transport:
            self._transport.abort()

    def _next_frame(self) -> bytes | None:
        read = self._read
        if len(read) < 2:
            return None
        size, begin = read[1], 2
        if size == 126:
            size, begin = int.from_bytes(read[2:4], "big"), 4
        if len(read) < begin + size:
            return None
        frame = bytes(read[begin : begin + size])
        if read[0] != 0x81 and (code := int.from_bytes(frame[:2], "big")) != CloseCode.CONNECT_LATE:
            self._fail(f"closed with {code}")
        del read[: begin + size]
        return frame

    def _take(self, frame: bytes) -> None:
        if found := _OFFSET.match(frame):
            if int(found[1]) != self.offset + 1:
                self._fail(f"event {int(found[1])} came after {self.offset}")
            self.offset = int(found[1])
        elif frame.startswith(b'{"type":"hello"'):
            after = {"epoch": self._epoch, "offset": self.offset}
            self._say({"type": "connect", "streams": [{"stream": STREAM, "after": after}]})
        elif frame.startswith(b'{"type":"ready"'):
            self.ready_at = perf_counter()
            if b'"recovered":true' not in frame:
                self._fail("its position was not taken")
        elif frame.startswith(b'{"type":"ping"'):
            self._say({"type": "pong", "t": json.loads(frame)["t"]})
        if self.caught_up_seconds is None and self.ready_at and self.offset >= self._missed_to:
            self.caught_up_seconds = perf_counter() - self._came_at

    def _say(self, frame: dict[str, object]) -> None:
        assert self._transport
        payload = json.dumps(frame).encode()
        size = (
            bytes([0x80 | len(payload)])
            if len(payload) < 126
            else b"\xfe" + len(payload).to_bytes(2, "big")
        )
        # Masked with zeros, which leaves it as it is.
        self._transport.write(b"\x81" + size + bytes(4) + payload)

    def _fail(self, trouble: str) -> None:
        self.trouble = self.trouble or trouble


def memory_bytes_max(tills: int) -> int:
    """How much more memory a service may need while so many tills come back."""
    return tills * TILL_BYTES_MAX + MORE_BYTES_MAX


async def run(
    nursery: Nursery,
    directory: Path,
    *,
    tills: int,
    seconds: float,
    seed: int,
    database: str | None = None,
) -> Storm:
    """Make many tills come back within some seconds, each from a position of its own.

    Each has to get what it has missed and what comes meanwhile, in order and without a hole. The
    ledger is a file unless a database is named.
    """
    chance = random.Random(seed)
    async with counter(nursery, directory, database=database) as one:
        keys = [
            await asyncio.to_thread(make_key, one.database, terminal=None)
            for _ in range(-(-tills // TILLS_A_KEY))
        ]
        async with one.life():
            await asyncio.gather(*(one.send(count=EVENTS // SENDERS) for _ in range(SENDERS)))
        epoch = await asyncio.to_thread(_epoch, one.database)
        them = [
            StormTill(
                url=one.url,
                key=keys[number % len(keys)],
                epoch=epoch,
                offset=chance.randint(0, EVENTS),
                missed_to=EVENTS,
            )
            for number in range(tills)
        ]
        async with one.life() as life:
            storm = await _blow(one, life, them, seconds=seconds, chance=chance)
        await asyncio.to_thread(one.check)
        return storm


def _epoch(database: str) -> str:
    with open_reader(database) as reader:
        return reader.head().epoch


async def _blow(
    one: Shop, life: Life, them: list[StormTill], *, seconds: float, chance: random.Random
) -> Storm:
    starts = [till.offset for till in them]
    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        # The jitter that the protocol asks of a till that comes back.
        stays = [group.create_task(till.stay(lambda: chance.uniform(0, seconds))) for till in them]
        async with _watched(life) as grown, asyncio.timeout(CATCH_UP_SECONDS), _selling(one):
            await _all(them, lambda till: till.caught_up_seconds is not None)
            arrived = max(till.ready_at or 0.0 for till in them) - began
        head = len(one.outcome.acknowledged)
        async with asyncio.timeout(CATCH_UP_SECONDS):
            await _all(them, lambda till: till.offset >= head)
        for stay in stays:
            stay.cancel()
    assert {till.offset for till in them} == {head}
    for till in them:
        till.close()
    return Storm(
        tills=len(them),
        returns=sum(till.returns for till in them),
        arrived_seconds=arrived,
        slowest_seconds=max(till.caught_up_seconds or 0.0 for till in them),
        events=sum(head - start for start in starts),
        memory_bytes=max(grown),
    )


async def _all(them: list[StormTill], is_so: Callable[[StormTill], bool]) -> None:
    """Wait until something is so of every till."""
    while not all(is_so(till) for till in them):
        troubles = [till.trouble for till in them if till.trouble]
        assert not troubles, f"{len(troubles)} tills failed, the first one: {troubles[0]}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def _selling(one: Shop) -> AsyncIterator[None]:
    """Send a notification now and then, for as long as the block lasts."""
    is_over = asyncio.Event()

    async def sell() -> None:
        while not is_over.is_set():
            assert await one.send_one() == SUCCESS
            await asyncio.sleep(SELL_SECONDS)

    selling = asyncio.create_task(sell())
    try:
        yield
    finally:
        is_over.set()
        await selling


@asynccontextmanager
async def _watched(life: Life) -> AsyncIterator[list[int]]:
    """Yield a list of how much more memory a service needs than at first, now and then (bytes)."""
    before = life.memory_bytes
    grown = [0]

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            grown.append(life.memory_bytes - before)

    watching = asyncio.create_task(watch())
    try:
        yield grown
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
