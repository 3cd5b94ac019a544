"""Read the snapshot that replaces a lost position, page by page, as events."""

import asyncio
from collections import deque

from listener.pos.api import Api, ApiError
from listener.pos.codes import Duty
from listener.pos.events import Event
from listener.pos.link import Resynced
from listener.pos.status import stopped
from listener.pos.tracking import Schedule


class Snapshot:
    """One snapshot that is being read."""

    def __init__(self, item: Resynced, *, schedule: Schedule) -> None:
        self.item = item
        self._schedule = schedule
        self._events: deque[Event] = deque()
        self._cursor: str | None = None
        self._is_read = False

    async def next(self, api: Api) -> Event | None:
        """Return the next transaction; None after the last one.

        Raises:
            StoppedError: The listener said not to come back unchanged.
        """
        while not self._events and not self._is_read:
            await self._read_page(api)
        return self._events.popleft() if self._events else None

    async def _read_page(self, api: Api) -> None:
        try:
            page = await api.snapshot(self.item.resync, cursor=self._cursor)
        except ApiError as error:
            if error.ended.duty is Duty.STOP:
                raise stopped(error.ended) from error
            await asyncio.sleep(self._schedule.next(error.ended))
            return
        self._schedule.progress()
        self._events.extend(page.events)
        self._cursor = page.cursor
        self._is_read = page.cursor is None
