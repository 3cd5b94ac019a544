"""Read pages of the ledger for subscriptions that the tail does not reach back to."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from listener import log
from listener.hub.subscription import Subscription
from listener.hub.tail import PAGE_EVENTS_MAX
from listener.ledger.model import Event

READS_AT_ONCE_MAX: Final = 4
LOG_PAUSE_SECONDS: Final = 1.0

_LOG: Final = logging.getLogger(__name__)


class Pages(Protocol):
    """Where pages of events are read."""

    async def read_events(self, stream: str, *, after: int, limit: int) -> list[Event]: ...


class PageReads:
    """The subscriptions that wait for a page; only a few are read at a time."""

    def __init__(self, ledger: Pages, *, on_read: Callable[[], None]) -> None:
        self._ledger = ledger
        self._on_read = on_read
        self._queue: dict[Subscription, None] = {}
        self._readers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed_at = -math.inf
        self._is_closed = False

    def add(self, subscription: Subscription) -> None:
        """Queue a read of a subscription's next page."""
        self._queue[subscription] = None
        if self._readers < READS_AT_ONCE_MAX and not self._is_closed:
            self._readers += 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop reading."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._queue:
                subscription = next(iter(self._queue))
                del self._queue[subscription]
                events = await self._read(subscription)
                try:
                    subscription.take(events)
                except Exception:  # noqa: BLE001 - one that fails must not stop the other reads
                    subscription.fail()
        finally:
            # Not in a callback, which would run later: until then a new read would find no reader.
            self._readers -= 1

    async def _read(self, subscription: Subscription) -> Sequence[Event]:
        """Read a subscription's next page; return nothing if that fails, so that it is retried."""
        self._on_read()
        try:
            return await self._ledger.read_events(
                subscription.stream, after=subscription.offset, limit=PAGE_EVENTS_MAX
            )
        except Exception as error:  # noqa: BLE001 - as above
            now = asyncio.get_running_loop().time()
            if now - self._failed_at >= LOG_PAUSE_SECONDS:
                self._failed_at = now
                log.event(_LOG, "read_failed", level=logging.ERROR, reason=str(error))
        return []
