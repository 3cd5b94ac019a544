"""The socket of one till, when it is closed with something still to be sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from listener.web.till.connection import BUFFER_BYTES_MAX, TillConnection

CLOSE_SECONDS = 0.3
# More than the system takes at once.
LEFT = b"." * (16 * BUFFER_BYTES_MAX)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[TillConnection, asyncio.StreamReader]]:
    """Give a till's connection, and what the till reads of it."""
    arrived: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    async with await asyncio.start_server(
        lambda _reader, writer: arrived.put_nowait(writer), "127.0.0.1", 0
    ) as server:
        reader, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        # Kept: a writer that nobody has closes its transport.
        writer = await arrived.get()
        one = TillConnection(writer.transport, connection_id="a", close_seconds=CLOSE_SECONDS)
        yield one, reader
        writer.close()
        client.close()


async def test_a_till_that_reads_the_rest_after_the_close_is_no_fault_in_the_log() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, told: faults.append(told))
    async with connected() as (one, reader):
        one.write(LEFT)
        assert one.buffered
        one.end()
        assert await reader.read() == LEFT
        await asyncio.sleep(2 * CLOSE_SECONDS)
    assert faults == []


async def test_a_till_that_does_not_read_the_rest_is_cut_off() -> None:
    # It is not read: nothing but the time ends it.
    async with connected() as (one, _reader):
        one.write(LEFT)
        one.end()
        async with asyncio.timeout(5):
            while one.buffered:
                await asyncio.sleep(0.02)
