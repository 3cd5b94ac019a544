"""The connection of a POS client to its listener: by websocket or long-poll, renewed for ever."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import aiohttp

from listener.pos.api import Api, ApiError
from listener.pos.causes import Cause, Outage, of_error
from listener.pos.codes import CloseCode, Duty
from listener.pos.events import Event, EventsPage, PageEvent, Position, ResyncMembers
from listener.pos.frames import Ack
from listener.pos.status import State, Transport, stopped
from listener.pos.talk import Talk
from listener.pos.tracking import BrokenError, Ended, Schedule, Timing, Tracker, ended_by
from listener.pos.wire import encode

_LOG: Final = logging.getLogger(__name__)
# If it is closed like this before `ready`, WebSocket may be blocked; other codes are the
# listener's.
_LOST_ON_THE_WAY: Final = frozenset({CloseCode.CUT, CloseCode.NO_CODE, CloseCode.CONNECT_LATE})
# An empty page that comes sooner is followed by the next question only then.
EMPTY_SECONDS_MIN: Final = 1.0
# Of more streams than this none is waited for: each is asked in its turn, and together so often a
# second. A connection waits for each stream, and proxies and libraries allow about a hundred.
WAITING_MAX: Final = 50
ASKED_MAX: Final = 50
# How long each step of a handshake may take while long-poll works and does not read meanwhile.
AGAIN_SECONDS: Final = 2.0
_STARTING: Final = Outage(cause=Cause.STARTING, why="the first try has only just begun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An event that came next in its stream."""

    stream: str
    position: Position
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Resynced:
    """A stream whose position was lost: its snapshot leads to the new one."""

    resync: ResyncMembers
    position: Position


class Link:
    """Passes what the listener sends to ``put``, in order, each event once; reconnects for ever.

    Nothing is read while ``put`` waits, so a slow program builds up no long queue here.
    """

    def __init__(
        self,
        api: Api,
        *,
        tracker: Tracker,
        schedule: Schedule,
        timing: Timing,
        put: Callable[[Taken | Resynced], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        self._api = api
        self._tracker = tracker
        self._schedule = schedule
        self._timing = timing
        self._put = put
        self._on_change = on_change
        self._blocked = 0
        self._is_http_well = False
        self._connects = 0
        self._talk: Talk | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self.state: State = "connecting"
        self.transport: Transport | None = None
        self.outage: Outage | None = _STARTING
        self.word_at: float | None = None

    async def run(self) -> None:
        """Stay connected until cancelled.

        Raises:
            StoppedError: The listener said not to come back unchanged.
        """
        while True:
            is_blocked = self._blocked >= self._timing.blocked_tries
            if is_blocked:
                ended = await self._watched(self._poll(), over="long-poll")
            else:
                ended = await self._watched(self._converse(), over="websocket")
            if is_blocked:
                # WebSocket is tried again first; if it fails, long-poll is next.
                self._blocked -= 1
                self._is_http_well = ended is None
            if ended is None:
                continue
            _LOG.info("disconnected code=%s why=%s", ended.code, ended.outage.why)
            if ended.duty is Duty.STOP:
                error = stopped(ended)
                self._change("stopped", None, Outage(cause=Cause.STOPPED, why=str(error)))
                raise error
            self._change("connecting", None, ended.outage)
            await asyncio.sleep(self._schedule.next(ended))

    async def _watched(
        self, trying: Coroutine[None, None, Ended | None], *, over: Transport
    ) -> Ended | None:
        """Await a try; report that nothing answers if it is not live soon."""
        task = asyncio.create_task(trying)
        try:
            await asyncio.wait({task}, timeout=self._timing.slow_seconds)
            if not task.done() and (self.state, self.transport) != ("live", over):
                self._change("connecting", None, Outage(cause=Cause.SILENT, why=self._step))
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def _step(self) -> str:
        if self._talk is not None:
            return self._talk.step
        return f"{self._api.host} does not answer"

    async def ack(self, stream: str, position: Position) -> Ended | None:
        """Acknowledge a stream over the present connection; return why it has to be sent again."""
        error: Exception = ConnectionError("there is no link")
        try:
            async with asyncio.timeout(self._timing.connect_seconds):
                if self._ws is not None:
                    ack = Ack(stream=stream, epoch=position.epoch, offset=position.offset)
                    await self._ws.send_str(encode(ack).decode())
                    return None
                if self.transport == "long-poll":
                    await self._api.ack(stream, position)
                    return None
        except ApiError as refused:
            _LOG.warning("ack refused stream=%s why=%s", stream, refused)
            # What the listener itself refuses for good is not sent again.
            return None if refused.ended.duty is Duty.STOP else refused.ended
        except (aiohttp.ClientError, OSError, TimeoutError) as failed:
            error = failed
        return Ended(duty=Duty.BACK_OFF, outage=of_error(error, host=self._api.host))

    def _change(self, state: State, transport: Transport | None, outage: Outage | None) -> None:
        changed = (state, transport, outage) != (self.state, self.transport, self.outage)
        self.state, self.transport, self.outage = state, transport, outage
        if changed:
            self._on_change()

    def word(self) -> None:
        """Remember that the listener said something just now."""
        self.word_at = asyncio.get_running_loop().time()

    async def _converse(self) -> Ended | None:
        """Open a websocket and read it until it ends."""
        timing = self._timing
        # While long-poll works, nothing is read meanwhile.
        most = AGAIN_SECONDS if self._is_http_well else timing.connect_seconds
        seconds = min(timing.connect_seconds, most)
        try:
            async with asyncio.timeout(seconds):
                ws = await self._api.upgrade(close_seconds=timing.close_seconds)
        except ApiError as error:
            # A listener that is draining must not be mistaken for one behind a firewall.
            self._blocked += error.ended.code != CloseCode.OVERLOADED
            return error.ended
        except TimeoutError as error:
            self._blocked += 1
            return Ended(duty=Duty.BACK_OFF, outage=of_error(error, host=self._api.host))
        try:
            return await self._read(ws, step_seconds=seconds)
        finally:
            self._ws = self._talk = None

    async def _read(self, ws: aiohttp.ClientWebSocketResponse, *, step_seconds: float) -> Ended:
        """Read an open websocket until it ends, and close it."""
        self._connects += 1
        talk = self._talk = Talk(
            ws,
            key=self._api.key,
            tracker=self._tracker,
            sink=self,
            timing=self._timing,
            step_seconds=step_seconds,
            number=self._connects,
        )
        code = CloseCode.DONE
        try:
            ended = await talk.run()
            code = talk.say
        finally:
            # A stalled listener never accepts the close frame.
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(self._timing.close_seconds):
                    await ws.close(code=code)
        if talk.is_ready:
            self._blocked = 0
            self._is_http_well = False
        elif talk.hello is None or ended.code in _LOST_ON_THE_WAY:
            self._blocked += 1
        return ended

    def ready(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Go live: events follow on this websocket, and acks can be sent over it."""
        self._ws = ws
        self._change("live", "websocket", None)

    def progress(self) -> None:
        """Make the next wait short: the connection works."""
        self._schedule.progress()

    async def take(self, event: PageEvent) -> bool:
        """Pass an event on if it is the next of its stream; return whether it was."""
        position = self._tracker.take(event)
        if position is None:
            return False
        self._schedule.progress()
        await self._put(Taken(stream=event.stream, position=position, event=event.event))
        return True

    async def resync(self, resync: ResyncMembers) -> None:
        """Report that a stream's position is lost."""
        await self._put(Resynced(resync=resync, position=self._tracker.resync(resync)))

    async def _poll(self) -> Ended | None:
        """Read by long-poll until it fails, or until WebSocket is to be tried again (None)."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timing.websocket_again_seconds
        polls: dict[str | None, asyncio.Task[EventsPage | ResyncMembers | None]] = {}
        try:
            if len(self._tracker.names) > 1 and self._tracker.follows_all:
                await self._name_again()
            while (left := until - loop.time()) > 0:
                names: list[str | None] = [*self._tracker.names] or [None]
                for name in names:
                    if name not in polls:
                        polls[name] = asyncio.create_task(self._next_page(name))
                done, _ = await asyncio.wait(
                    polls.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                for name in [name for name, poll in polls.items() if poll in done]:
                    if (page := polls.pop(name).result()) is not None:
                        await self._take_page(name, page)
                # The listener may just have come back: only now is it certain that WebSocket is
                # blocked.
                if done and not self._is_http_well:
                    return None
        except ApiError as error:
            return self._tracker.without_lost_store(error.ended)
        except BrokenError as error:
            return ended_by(CloseCode.SERVER_ERROR, jitter_ms=None, after_ms=None, why=str(error))
        finally:
            for poll in polls.values():
                poll.cancel()
            await asyncio.gather(*polls.values(), return_exceptions=True)
        return None

    async def _name_again(self) -> None:
        """Ask which streams the key has now: stores may have come or gone since the last time."""
        await self._page(None, wait=0, rest=0.0)

    async def _next_page(self, stream: str | None) -> EventsPage | ResyncMembers | None:
        if self.transport != "long-poll":
            # The first answer comes at once, so that the connection is known to be live.
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
        self.word()
        if isinstance(page, ResyncMembers):
            await self.resync(page)
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
                await self.take(event)
        self._schedule.progress()
        self._change("live", "long-poll", None)
