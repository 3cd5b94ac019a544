"""Share a few connections among many readers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

C = TypeVar("C")


class Pool(Generic[C]):
    """Connections that each serve one reader at a time, in the order in which they come."""

    def __init__(self, connections: Sequence[C]) -> None:
        self.all = list(connections)
        self._free = list(connections)
        # With a queue, a reader could take back its connection before those who wait.
        self._turns = asyncio.Semaphore(len(connections))

    @asynccontextmanager
    async def one(self) -> AsyncIterator[C]:
        """Lend the first connection that is free."""
        async with self._turns:
            connection = self._free.pop()
            try:
                yield connection
            finally:
                self._free.append(connection)
