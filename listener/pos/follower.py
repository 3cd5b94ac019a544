"""The events of a listener as an async iterator: connected, saved, acknowledged, reported."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from pydantic import SecretStr

from listener.errors import UnreadableError
from listener.pos.acking import Acking
from listener.pos.api import Api, base_url
from listener.pos.causes import Cause, Outage
from listener.pos.credential import read_key
from listener.pos.events import Event, Position, ResyncMembers, Start
from listener.pos.link import Link, Resynced, Taken
from listener.pos.positions import MemoryPositions, PositionStore
from listener.pos.schedule import Schedule, Timing
from listener.pos.snapshot import Snapshots
from listener.pos.status import STARTING, FollowStatus
from listener.pos.tracking import Tracker, Versions

# Frames read ahead of the program; beyond that, the listener's ledger is the queue.
AHEAD_MAX: Final = 256
_ABANDONED: Final = "what followed is of another event loop, or was cancelled; follow anew"

_LOG: Final = logging.getLogger(__name__)


class Follower:
    """The events of a listener's streams as an async iterator. Close it, or use ``async with``.

    An event is handled, saved and acknowledged when the next one is asked for. After a position was
    lost, ``on_resync`` is called, then each present transaction comes as an event of type SNAPSHOT
    (``transaction.snapshot``); forget what was shown before. Where the snapshot cannot be read,
    events go on, it is tried again, and until it is read ``status`` is not live and nothing of its
    stream is saved or acknowledged.

    Args:
        url: The listener's, in http or ws, with or without the path of its stream.
        key: Of a POS; surrounding blanks are ignored. It never goes into a URL.
        streams: The streams to follow; None for all of the key's scope.
        position: Where to store how far this POS has come; with None, only the listener does.
        start: Where a stream without a position begins: "acked", "latest" or "earliest". All but
            "acked" counts each time the program starts, whatever was acknowledged.
        timing: How long to wait for what.
        acks: Whether to acknowledge; an admin key may not.
        on_status: Called when ``status`` has changed; within a second after it ceased to be
            live, with the cause.
        on_resync: Called with what the listener said before a snapshot.

    Raises:
        ValueError: The url is neither http nor ws, or has a query or a password.
        StoppedError: The key is empty, or cannot be a key.
    """

    def __init__(  # noqa: PLR0913 - options by keyword, each with a default
        self,
        url: str,
        *,
        key: str | SecretStr,
        streams: str | Sequence[str] | None = None,
        position: PositionStore | None = None,
        start: Start = "acked",
        timing: Timing | None = None,
        acks: bool = True,
        on_status: Callable[[FollowStatus], None] | None = None,
        on_resync: Callable[[ResyncMembers], None] | None = None,
    ) -> None:
        self._base = base_url(url)
        self._key = read_key(key)
        names = [streams] if isinstance(streams, str) else streams
        self._tracker = Tracker(streams=names, start=start)
        self._store = position or MemoryPositions()
        self._timing = timing or Timing()
        self._acks = acks
        self._on_status = on_status
        self._on_resync = on_resync
        # None only wakes a waiting program.
        self._queue: asyncio.Queue[Taken | Resynced | Exception | None] = asyncio.Queue(AHEAD_MAX)
        self._versions = Versions()
        self._pending: Taken | None = None
        self._snapshots = Snapshots(
            tracker=self._tracker,
            versions=self._versions,
            timing=self._timing,
            save=self._save,
            on_change=self._snapshot_changed,
        )
        self._failed: Exception | None = None
        self._acking = Acking(self._tracker, timing=self._timing)
        self._api: Api | None = None
        self._link: Link | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closed = False
        self._told: tuple[object, ...] = ()

    @property
    def status(self) -> FollowStatus:
        """Whether this is live, over what, or why not; and the age of the listener's last word."""
        link = self._link
        status = STARTING if link is None else link.status
        if status.state == "live" and not self._tracker.is_complete:
            # Events come, but what they are about is not all that the till should show.
            status = status.not_live(self._snapshots.outage)
        why = self._end
        if why and status.state != "stopped":
            status = status.not_live(Outage(cause=Cause.STOPPED, why=why))
        return status

    @property
    def age_seconds(self) -> float | None:
        """The age of the listener's last word; None before the first."""
        return self.status.age_seconds

    @property
    def positions(self) -> dict[str, Position]:
        """Up to where each stream was handled."""
        return dict(self._tracker.handled)

    async def __aenter__(self) -> Self:
        """Begin to follow."""
        await self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop following."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Event:
        """Count the previous event as handled, and wait for the next one.

        Raises:
            StoppedError: The listener said not to come back unchanged.
            RuntimeError: The event loop in which it began to follow has ended.
            Exception: What the program's own position store raised; nothing is acknowledged.
        """
        if self._is_closed:
            raise StopAsyncIteration
        await self._start()
        self._check_followed()
        if self._pending is not None:
            await self._handled(self._pending.stream, self._pending.position)
            self._pending = None
        while True:
            self._check_followed()
            if self._failed is not None:
                raise self._failed
            event = await self._next_of_snapshots()
            if event is None:
                event = await self._take(await self._queue.get())
            if event is not None:
                return event

    async def aclose(self) -> None:
        """Stop: send the pending acks, and close. The event in hand is not acknowledged."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._link is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._timing.close_seconds):
                        await self._acking.send(self._link)
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        # Tasks that have ended may belong to another event loop.
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A program that waits for an event learns that none will come.
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(StopAsyncIteration())
        await self._snapshots.aclose()
        if self._api is not None:
            await self._api.aclose()

    async def _start(self) -> None:
        if self._link is not None or self._is_closed:
            return
        await self._load()
        self._api = Api(self._base, key=self._key)
        self._link = Link(
            self._api,
            tracker=self._tracker,
            schedule=Schedule(self._timing),
            timing=self._timing,
            put=self._queue.put,
            on_change=self._changed,
        )
        self._tasks = [
            asyncio.create_task(self._run(self._link)),
            asyncio.create_task(self._acking.run(self._link)),
        ]

    @property
    def _is_abandoned(self) -> bool:
        """Whether nothing will come any more, though the program did not close this."""
        if not self._tasks or self._is_closed:
            return False
        following = self._tasks[0]
        return following.cancelled() or following.get_loop() is not asyncio.get_running_loop()

    @property
    def _end(self) -> str:
        """Why nothing is followed any more; '' while something is."""
        if self._is_abandoned:
            return _ABANDONED
        if self._tasks and self._tasks[0].done() and not self._tasks[0].cancelled():
            return "it failed; asking for the next event says why"
        return "the program closed it" if self._is_closed else ""

    def _check_followed(self) -> None:
        if self._is_abandoned:
            raise RuntimeError(_ABANDONED)

    async def _load(self) -> None:
        """Begin from the saved positions; if they are lost, from what was acknowledged."""
        try:
            self._tracker.load(await self._store.load())
        except UnreadableError as error:
            if not self._acks:
                # Nothing else knows how far this program has come.
                raise
            _LOG.warning("positions_lost why=%s; going on from the acknowledged ones", error)
            self._tracker.start = "acked"

    async def _run(self, link: Link) -> None:
        try:
            await link.run()
        except asyncio.CancelledError:
            # Not by aclose: a program that waits for events must not wait for ever.
            if not self._is_closed and self._queue.empty():
                self._queue.put_nowait(None)
            raise
        # Whatever it is, whoever waits for events must see it; in a task it would be lost.
        except Exception as error:  # noqa: BLE001  Passed on whole, raised by __anext__.
            await self._queue.put(error)

    async def _take(self, item: Taken | Resynced | Exception | None) -> Event | None:
        """Handle an item of the queue; return its event if it is news."""
        if item is None:
            return None
        if isinstance(item, Exception):
            self._failed = item
        elif isinstance(item, Resynced):
            self._resync(item)
        elif self._versions.is_new(item.event, stream=item.stream, epoch=item.position.epoch):
            self._pending = item
            return item.event
        else:
            await self._handled(item.stream, item.position)
        return None

    async def _next_of_snapshots(self) -> Event | None:
        try:
            return await self._snapshots.next()
        except Exception as error:
            self._failed = error
            raise

    def _resync(self, item: Resynced) -> None:
        if self._api is not None:
            # Done before the program is told: if that fails, the snapshot must not be lost.
            self._snapshots.begin(item, api=self._api)
        if self._on_resync is not None:
            self._on_resync(item.resync)

    async def _handled(self, stream: str, position: Position) -> None:
        """Count an event as handled."""
        if not self._snapshots.holds_back(stream, position):
            await self._save(stream, position)

    async def _save(self, stream: str, position: Position) -> None:
        """Save a position, then queue its ack: the store is never behind the listener."""
        await self._store.save(stream, position)
        self._tracker.handled[stream] = position
        if self._acks:
            self._acking.add([stream])

    def _changed(self) -> None:
        if self._acks and self._link is not None and self._link.state == "live":
            # Acks that a cut connection swallowed are sent again: acks are cumulative.
            self._acking.add(self._tracker.handled)
        self._tell()

    def _snapshot_changed(self) -> None:
        if self._is_closed:
            return
        if self._queue.empty():
            self._queue.put_nowait(None)
        self._tell()

    def _tell(self) -> None:
        """Call the program's ``on_status`` if there is something new to tell."""
        status = self.status
        now = (status.state, status.transport, status.cause, status.why)
        if self._on_status is not None and now != self._told:
            self._told = now
            self._on_status(status)
