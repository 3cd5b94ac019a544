"""A connection that is made again whenever it was lost, and dropped where a success is in doubt.

Nothing here ever cancels a statement: a cancel is what ends the wait of a commit for its standby.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from listener.errors import LedgerError, LedgerUnavailableError
from listener.storage.postgres.connection import (
    CONNECT_SECONDS,
    FAULTS,
    TOLD_CHARS_MAX,
    Connection,
    connect,
    told_by,
)
from listener.storage.postgres.location import Location

T = TypeVar("T")

# A server that answers no read for so long is left, and the hosts are tried again.
SILENT_SECONDS: Final = 5.0


class Channel:
    """One connection that is made again whenever it was lost; one piece of work at a time."""

    def __init__(
        self,
        location: Location,
        *,
        name: str,
        on_connect: Callable[[Connection], Awaitable[None]] | None = None,
        timeout_ms: int | None = None,
    ) -> None:
        self._location = location
        self._timeout_ms = timeout_ms
        self._name = name
        self._on_connect = on_connect
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._working: set[asyncio.Task[Any]] = set()
        self._busy_since: float | None = None
        self._is_closed = False

    @property
    def busy_seconds(self) -> float:
        """How long the work on the connection has been under way; 0 while there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run work on the connection, alone.

        A caller that is cancelled does not stop the work: asyncpg would send a cancel.

        Raises:
            LedgerUnavailableError: It failed, or may have: what became of it is not known. The
                connection is dropped.
        """
        task = asyncio.create_task(self._run(work))
        self._working.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._working.discard(task)
        if not task.cancelled():
            # Looked at here for a caller that has gone away.
            task.exception()

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._lock:
            connection = await self.attach()
            self._busy_since = time.monotonic()
            try:
                result = await work(connection)
                # The event loop hears the warning before the result: it came first.
                if connection.warning is not None:
                    raise LedgerUnavailableError(
                        f"the ledger may not have kept it: {connection.warning[:TOLD_CHARS_MAX]}"
                    )
            except FAULTS as error:
                self.drop()
                raise LedgerUnavailableError(
                    f"the ledger cannot be used now: {told_by(error)}"
                ) from error
            except BaseException:
                self.drop()
                raise
            finally:
                self._busy_since = None
            return result

    async def attach(self) -> Connection:
        """Return the connection, made anew where there is none; the caller has it alone.

        Raises:
            LedgerUnavailableError: There is no server that can be used now.
        """
        if self._is_closed:
            raise LedgerUnavailableError("the ledger is closed")
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self.drop()
        try:
            connection = await connect(self._location, name=self._name, timeout_ms=self._timeout_ms)
        except LedgerError as error:
            # At start this is for the operator to put right; later, for as long as it lasts.
            raise LedgerUnavailableError(str(error)) from error
        # A server may go silent at any moment. Its connection is then ended, not its statement.
        silence = asyncio.get_running_loop().call_later(SILENT_SECONDS, connection.terminate)
        try:
            if self._on_connect is not None:
                await self._on_connect(connection)
        except FAULTS as error:
            connection.terminate()
            raise LedgerUnavailableError(
                f"the ledger cannot be used now: {told_by(error)}"
            ) from error
        except BaseException:
            connection.terminate()
            raise
        finally:
            silence.cancel()
        self._connection = connection
        return connection

    def drop(self) -> None:
        """End the connection at once, without a cancel; the next work makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Let what is under way end, then disconnect; what takes long is cut off."""
        self._is_closed = True
        if self._working:
            await asyncio.wait(self._working, timeout=CONNECT_SECONDS * 2)
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.close()
        except FAULTS:
            connection.terminate()
        for task in list(self._working):
            with suppress(*FAULTS, LedgerUnavailableError):
                await task
