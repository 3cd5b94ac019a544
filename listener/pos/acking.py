"""Acknowledge what a POS client has handled, several events together."""

import asyncio
from collections.abc import Iterable

from listener.pos.ended import Ended
from listener.pos.events import EVERY_STREAM
from listener.pos.link import Link
from listener.pos.schedule import Schedule, Timing
from listener.pos.tracking import Tracker


class Acking:
    """The acks of one client that are not sent yet."""

    def __init__(self, tracker: Tracker, *, timing: Timing) -> None:
        self._tracker = tracker
        self._timing = timing
        self._pending: set[str] = set()
        self._is_due = asyncio.Event()

    def add(self, streams: Iterable[str]) -> None:
        """Queue the acks of some streams."""
        self._pending.update(streams)
        self._is_due.set()

    async def run(self, link: Link) -> None:
        """Send what is queued, for ever."""
        schedule = Schedule(self._timing)
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            if not self._pending:
                continue
            failed = await self.send(link)
            # A fast program must not send a frame for each event, nor repeat failing acks without a
            # pause.
            pause = self._timing.ack_seconds
            if failed is None:
                schedule.progress()
            else:
                pause = max(pause, schedule.next(failed))
            await asyncio.sleep(pause)
            if self._pending and link.state == "live":
                self._is_due.set()

    async def send(self, link: Link) -> Ended | None:
        """Send what is queued; return why one must be sent again, None if none must."""
        failed = None
        for stream in sorted(self._pending):
            # Removed first: what is handled during this wait is added again.
            self._pending.discard(stream)
            position = self._tracker.ackable(stream)
            if position is None or not position.offset:
                continue
            # Only admin keys follow it, and those may not acknowledge.
            if stream == EVERY_STREAM:
                continue
            ended = await link.ack(stream, position)
            if ended is not None:
                failed = ended
                self._pending.add(stream)
        return failed
