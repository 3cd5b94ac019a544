"""Read events by long-poll, where a proxy or a firewall lets no websocket through."""

import asyncio
from typing import Final

from listener.pos.api import Api, ApiError
from listener.pos.codes import CloseCode
from listener.pos.ended import Ended, ended_by
from listener.pos.events import EventsPage, Position, ResyncMembers
from listener.pos.schedule import Timing
from listener.pos.talk import Receiver
from listener.pos.tracking import BrokenError, Tracker

# After an empty page, the next question is asked no sooner than this.
EMPTY_SECONDS_MIN: Final = 1.0
# With more streams than this, no request waits: each stream is asked in turn, together so often a
# second. A connection waits for each stream, and proxies and libraries allow about a hundred.
WAITING_MAX: Final = 50
ASKED_MAX: Final = 50


class Polling:
    """Asks for the next page of each stream, until it fails or WebSocket is to be tried again."""

    def __init__(self, api: Api, *, tracker: Tracker, sink: Receiver, timing: Timing) -> None:
        self._api = api
        self._tracker = tracker
        self._sink = sink
        self._timing = timing
        self._is_live = False
        self._is_over = asyncio.Event()

    def renew(self) -> None:
        """End immediately, as if WebSocket were to be tried again."""
        self._is_over.set()

    async def run(self, *, once: bool) -> Ended | None:
        """Read until it fails, or until WebSocket is to be tried again (None).

        With ``once`` it is tried again after the first answer: the listener may just have come
        back, and only an answer makes it certain that WebSocket is blocked.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timing.websocket_again_seconds
        polls: dict[str | None, asyncio.Task[EventsPage | ResyncMembers | None]] = {}
        over = asyncio.create_task(self._is_over.wait())
        try:
            if len(self._tracker.names) > 1 and self._tracker.follows_all:
                # Stores may have come or gone since the last time.
                await self._page(None, wait=0, rest=0.0)
            while (left := until - loop.time()) > 0 and not over.done():
                names: list[str | None] = [*self._tracker.names] or [None]
                for name in names:
                    if name not in polls:
                        polls[name] = asyncio.create_task(self._next_page(name))
                done, _ = await asyncio.wait(
                    {over, *polls.values()}, timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                for name in [name for name, poll in polls.items() if poll in done]:
                    if (page := polls.pop(name).result()) is not None:
                        await self._take_page(name, page)
                if done and once:
                    return None
        except ApiError as error:
            return self._tracker.without_lost_store(error.ended)
        except BrokenError as error:
            return ended_by(CloseCode.SERVER_ERROR, jitter_ms=None, after_ms=None, why=str(error))
        finally:
            for task in (over, *polls.values()):
                task.cancel()
            await asyncio.gather(over, *polls.values(), return_exceptions=True)
        return None

    async def _next_page(self, stream: str | None) -> EventsPage | ResyncMembers | None:
        if not self._is_live:
            # The first answer comes immediately, so that the connection is known to be live.
            return await self._page(stream, wait=0, rest=0.0)
        count = len(self._tracker.names)
        if count > WAITING_MAX:
            return await self._page(stream, wait=0, rest=max(EMPTY_SECONDS_MIN, count / ASKED_MAX))
        wait = self._timing.poll_seconds
        return await self._page(stream, wait=wait, rest=min(wait, EMPTY_SECONDS_MIN))

    async def _page(
        self, stream: str | None, *, wait: int, rest: float
    ) -> EventsPage | ResyncMembers | None:
        """Read a page of a stream; without a name, of the key's only one, which is known then.

        None where that has a position here, or where the key has several: they are asked by name.
        An empty page is returned after ``rest`` seconds at the soonest: a listener that is about to
        restart lets nobody wait.
        """
        tracker, clock = self._tracker, asyncio.get_running_loop().time
        after = tracker.start if stream is None else tracker.after(stream)
        ends_at = clock() + rest
        try:
            page = await self._api.page(
                stream, after=None if after == "acked" else after, wait_seconds=wait
            )
            if isinstance(page, EventsPage) and not page.events:
                await asyncio.sleep(ends_at - clock())
            if stream is None and page.stream is not None:
                tracker.name([page.stream])
                return None if page.stream in tracker.received else page
            return page
        except ApiError as error:
            if stream is not None or not error.ended.streams:
                raise
            tracker.name(error.ended.streams)
            return None

    async def _take_page(self, stream: str | None, page: EventsPage | ResyncMembers) -> None:
        self._sink.word()
        if isinstance(page, ResyncMembers):
            await self._sink.resync(page)
        else:
            first = page.events[0] if page.events else None
            name = stream or page.stream or (first.stream if first else None)
            if name is not None and name not in self._tracker.received:
                start = first.offset - 1 if first else page.next
                self._tracker.begin(name, Position(epoch=page.epoch, offset=start))
            if name is not None and self._tracker.received[name].epoch != page.epoch:
                raise BrokenError(f"{name} is of another epoch")
            if name is not None:
                self._tracker.lost.discard(name)
            for event in page.events:
                await self._sink.take(event)
        self._sink.progress()
        self._sink.live(None)
        self._is_live = True
