"""A bad line between tills and their listener: it cuts, stalls and half-closes."""

import asyncio
import random
import socket
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

# How long a connection is good, and how long one that stalls says nothing before it is cut.
GOOD_SECONDS: Final = (0.1, 2.0)
STALL_SECONDS: Final = (0.5, 3.0)
CHUNK_BYTES: Final = 4_096


class Fate(StrEnum):
    """What becomes of a connection."""

    CUT = "cut"
    STALL = "stalled"
    # One side hears the end, and is still heard.
    CLOSE_TO_TILL = "half-closed towards the till"
    CLOSE_TO_LISTENER = "half-closed towards the listener"


@dataclass(slots=True)
class Line:
    """Where tills are to connect, and what became of those that did."""

    url: str
    fates: Counter[Fate] = field(default_factory=Counter)


@asynccontextmanager
async def bad_line(port: int, *, seed: int) -> AsyncIterator[Line]:
    """Forward connections to a port of this machine, each until its fate."""
    chance = random.Random(seed)
    calls = set[asyncio.Task[None]]()

    async def take(till: StreamReader, to_till: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        calls.add(task)
        task.add_done_callback(calls.discard)
        fate = chance.choice([*Fate])
        line.fates[fate] += 1
        try:
            await _forward(till, to_till, port=port, fate=fate, chance=chance)
        except OSError:
            pass  # Nobody listens there now.
        finally:
            to_till.transport.abort()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    line = Line(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield line
    finally:
        server.close()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _forward(
    till: StreamReader, to_till: StreamWriter, *, port: int, fate: Fate, chance: random.Random
) -> None:
    listener, to_listener = await asyncio.open_connection("127.0.0.1", port)
    pumps = [
        asyncio.create_task(_pump(till, to_listener)),
        asyncio.create_task(_pump(listener, to_till)),
    ]
    try:
        await asyncio.wait(
            pumps, timeout=chance.uniform(*GOOD_SECONDS), return_when=asyncio.FIRST_COMPLETED
        )
        if fate is Fate.STALL:
            for pump in pumps:
                pump.cancel()
            await asyncio.sleep(chance.uniform(*STALL_SECONDS))
        elif fate is not Fate.CUT:
            half = to_till if fate is Fate.CLOSE_TO_TILL else to_listener
            half.get_extra_info("socket").shutdown(socket.SHUT_WR)
            await asyncio.wait(pumps, timeout=chance.uniform(*STALL_SECONDS))
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        to_listener.transport.abort()


async def _pump(source: StreamReader, sink: StreamWriter) -> None:
    while chunk := await source.read(CHUNK_BYTES):
        sink.write(chunk)
        await sink.drain()
