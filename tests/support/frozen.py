"""A line to a server that may freeze: connections stand, and nothing comes over them any more."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class Line:
    """Where to connect; ``thaw`` is set while it lets things through."""

    port: int = 0
    thaw: asyncio.Event = field(default_factory=asyncio.Event)

    def freeze(self) -> None:
        """Block everything from now on."""
        self.thaw.clear()


@asynccontextmanager
async def line_to(host: str, port: int) -> AsyncIterator[Line]:
    """Forward connections to a server, until the line is frozen."""
    line = Line()
    line.thaw.set()
    calls = set[asyncio.Task[None]]()

    async def pump(source: StreamReader, sink: StreamWriter) -> None:
        while chunk := await source.read(65_536):
            await line.thaw.wait()
            sink.write(chunk)
        sink.close()

    async def take(client: StreamReader, to_client: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        calls.add(task)
        task.add_done_callback(calls.discard)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await forward(client, to_client)
        finally:
            to_client.transport.abort()

    async def forward(client: StreamReader, to_client: StreamWriter) -> None:
        await line.thaw.wait()
        server, to_server = await asyncio.open_connection(host, port)
        try:
            await asyncio.gather(pump(client, to_server), pump(server, to_client))
        finally:
            to_server.transport.abort()

    forwarding = await asyncio.start_server(take, "127.0.0.1", 0)
    line.port = forwarding.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        forwarding.close()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
