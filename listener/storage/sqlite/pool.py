"""Share a few connections among many who read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from listener.storage.sqlite.connection import Connection


class Pool:
    """Connections, of which each serves one at a time."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.all = list(connections)
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for connection in connections:
            self._free.put_nowait(connection)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """Lend the first connection that is free."""
        connection = await self._free.get()
        try:
            yield connection
        finally:
            self._free.put_nowait(connection)
