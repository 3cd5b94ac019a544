"""A connection that is made again whenever it was lost, and dropped if a success is in doubt.

No statement is ever cancelled: a commit that is cancelled stops waiting for its standby, and could
be lost.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from listener.errors import LedgerError, LedgerUnavailableError
from listener.storage.postgres.connection import (
    CONNECT_SECONDS,
    FAULTS,
    TOLD_CHARS_MAX,
    Connection,
    connect,
    hang_up,
    told_by,
)
from listener.storage.postgres.location import Location

T = TypeVar("T")

# A server that does not answer a read for this long is dropped, and the hosts are tried again.
SILENT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A piece of work under way: which process of the server has it, and since when (monotonic)."""

    process: str
    since: float


class Channel:
    """One connection, made again whenever it was lost, for one piece of work at a time."""

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
        self.name = name
        # What is under way on the connection.
        self.work: Work | None = None
        self._on_connect = on_connect
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._working: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known here."""
        return self._connection is not None and not self._connection.is_closed()

    @property
    def busy_seconds(self) -> float:
        """How long the present work on the connection has taken; 0 while there is none."""
        return 0.0 if self.work is None else time.monotonic() - self.work.since

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run work on the connection, alone.

        Cancelling the caller does not stop the work, because asyncpg would send a cancel.

        Raises:
            LedgerUnavailableError: It failed, or its outcome is not known. The connection is
                dropped.
        """
        task = asyncio.create_task(self._run(work))
        self._working.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._working.discard(task)
        if not task.cancelled():
            # Its error is read here in case the caller has gone away.
            task.exception()

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._lock:
            connection = await self.attach()
            self.work = Work(connection.process, time.monotonic())
            try:
                result = await work(connection)
                # The warning comes before the result, so the event loop has seen it by now.
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
                self.work = None
            return result

    async def attach(self) -> Connection:
        """Return the connection, made anew if there is none; the caller has it to itself.

        Raises:
            LedgerUnavailableError: There is no server that can be used now.
        """
        if self._is_closed:
            raise LedgerUnavailableError("the ledger is closed")
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self.drop()
        try:
            connection = await connect(self._location, name=self.name, timeout_ms=self._timeout_ms)
        except LedgerError as error:
            # At start, the operator must correct this; later, it is a failure that may pass.
            raise LedgerUnavailableError(str(error)) from error
        # A server may go silent at any moment. Then its connection is closed, not its statement
        # cancelled.
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
        """Close the connection immediately, without a cancel; the next work makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Wait for the work under way, then disconnect; work that takes long is cut off."""
        self._is_closed = True
        if self._working:
            await asyncio.wait(self._working, timeout=CONNECT_SECONDS * 2)
        connection, self._connection = self._connection, None
        if connection is None:
            return
        await hang_up(connection)
        for task in list(self._working):
            with suppress(*FAULTS, LedgerUnavailableError):
                await task
