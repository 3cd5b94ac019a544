"""Read the snapshots that replace lost positions, page by page, as events."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from listener.pos.api import Api, ApiError, SnapshotPage
from listener.pos.causes import Cause, Outage
from listener.pos.codes import Duty
from listener.pos.events import Event, Position
from listener.pos.link import Resynced
from listener.pos.schedule import Schedule, Timing
from listener.pos.status import stopped
from listener.pos.tracking import Tracker, Versions

UNREAD: Final = Outage(
    cause=Cause.STARTING, why="the position was lost, and the snapshot is not read yet"
)


class Snapshots:
    """The snapshots that the program has not read to their end, one of a stream.

    ``save`` is called with where a stream goes on once its snapshot is read. ``on_change`` is
    called when a page came or a snapshot ended, and when the reason why one is not read has
    changed.
    """

    def __init__(
        self,
        *,
        tracker: Tracker,
        versions: Versions,
        timing: Timing,
        save: Callable[[str, Position], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        self._tracker = tracker
        self._versions = versions
        self._timing = timing
        self._save = save
        self._on_change = on_change
        self._unread: dict[str, Snapshot] = {}
        # Until when they are waited for, so that they come before the events.
        self._patience = 0.0

    @property
    def outage(self) -> Outage:
        """Why something is missing."""
        missing = [snapshot.outage for snapshot in self._unread.values()]
        return next((one for one in missing if one is not UNREAD), UNREAD)

    def begin(self, item: Resynced, *, api: Api) -> None:
        """Begin to read one, in place of an older one of the stream."""
        stream = item.resync.stream
        older = self._unread.get(stream)
        if older is not None:
            older.stop()
        if not self._unread:
            # For a moment in all: if they cannot be read, events must not wait for them.
            self._patience = asyncio.get_running_loop().time() + self._timing.slow_seconds
        self._versions.forget(stream)
        self._unread[stream] = Snapshot(
            item, api=api, tracker=self._tracker, timing=self._timing, on_change=self._on_change
        )

    def holds_back(self, stream: str, position: Position) -> bool:
        """Return whether a position is to be saved only once the stream's snapshot is read.

        A program that crashes before must read the snapshot again.
        """
        snapshot = self._unread.get(stream)
        if snapshot is None:
            return False
        snapshot.reached = position
        return True

    async def next(self) -> Event | None:
        """Return the next transaction that is news; None where none is there.

        Raises:
            StoppedError: The listener said not to come back unchanged.
        """
        for stream, snapshot in list(self._unread.items()):
            if not self._tracker.is_unread(stream):
                # The store is gone.
                snapshot.stop()
                del self._unread[stream]
                self._on_change()
                continue
            while (event := await snapshot.next(until=self._patience)) is not None:
                if self._versions.is_new(event, stream=stream, epoch=snapshot.item.position.epoch):
                    return event
            if snapshot.is_read:
                await self._save(stream, snapshot.reached)
                del self._unread[stream]
                self._tracker.found(stream, snapshot.item.position)
                self._on_change()
        return None

    async def aclose(self) -> None:
        """Read no further, and wait until that is so."""
        for snapshot in self._unread.values():
            await snapshot.aclose()


class Snapshot:
    """One snapshot that is being read, in a task of its own: events go on meanwhile.

    ``reached`` is where the stream goes on once it is read. ``on_change`` is called when a page
    came, and when ``outage``, the reason why it is not read, has changed.
    """

    def __init__(
        self,
        item: Resynced,
        *,
        api: Api,
        tracker: Tracker,
        timing: Timing,
        on_change: Callable[[], None],
    ) -> None:
        self.item = item
        self.reached = item.position
        self.outage = UNREAD
        self._api = api
        self._tracker = tracker
        self._on_change = on_change
        self._schedule = Schedule(timing)
        self._rows: deque[Event] = deque()
        self._cursor: str | None = None
        self._is_last = False
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_read(self) -> bool:
        """Whether its last transaction was returned."""
        return self._is_last and not self._rows

    async def next(self, *, until: float) -> Event | None:
        """Return the next transaction; None after the last one, and while none can be read.

        Waits for a page until a time of the loop's clock.

        Raises:
            StoppedError: The listener said not to come back unchanged.
        """
        while not self._rows and not self._is_last:
            if self._reading is None:
                self._reading = asyncio.create_task(self._read_page())
            left = until - asyncio.get_running_loop().time()
            await asyncio.wait({self._reading}, timeout=max(0.0, left))
            if not self._reading.done() or self._reading.cancelled():
                return None
            reading, self._reading = self._reading, None
            reading.result()
        return self._rows.popleft() if self._rows else None

    def stop(self) -> None:
        """Read no further."""
        if self._reading is not None:
            self._reading.cancel()

    async def aclose(self) -> None:
        """Read no further, and wait until that is so."""
        self.stop()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read_page(self) -> None:
        """Read one page, however often that has to be tried."""
        try:
            page = await self._page()
            while page is None:
                page = await self._page()
            self.outage = UNREAD
            self._rows.extend(page.events)
            self._cursor = page.cursor
            self._is_last = page.cursor is None
        finally:
            self._on_change()

    async def _page(self) -> SnapshotPage | None:
        """Try once to read a page; where that fails, wait and return None."""
        try:
            page = await self._api.snapshot(self.item.resync, cursor=self._cursor)
        except ApiError as error:
            ended = self._tracker.without_lost_store(error.ended)
            # Of a store that is gone, whoever began this reads no further.
            if ended.duty is Duty.STOP and self._tracker.is_unread(self.item.resync.stream):
                refused = stopped(ended)
                self.outage = Outage(cause=Cause.STOPPED, why=str(refused))
                raise refused from error
            why = f"the snapshot cannot be read, so something may be missing: {ended.outage.why}"
            self.outage = Outage(cause=ended.outage.cause, why=why)
            self._on_change()
            await asyncio.sleep(self._schedule.next(ended))
            return None
        self._schedule.progress()
        return page
