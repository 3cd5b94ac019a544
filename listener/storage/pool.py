"""Share a few connections among many readers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

C = TypeVar("C")


class Pool(Generic[C]):
    """Connections that each serve one reader at a time."""

    def __init__(self, connections: Sequence[C]) -> None:
        self.all = list(connections)
        self._free: asyncio.LifoQueue[C] = asyncio.LifoQueue()
        for connection in self.all:
            self._free.put_nowait(connection)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[C]:
        """Lend the first connection that is free."""
        connection = await self._free.get()
        try:
            yield connection
        finally:
            self._free.put_nowait(connection)
