"""The connection of a POS client to its listener: by websocket or long-poll, renewed for ever."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import aiohttp

from listener.pos.api import Api, ApiError
from listener.pos.asleep import LOOK_SECONDS, SLEPT, Sleeps
from listener.pos.causes import Cause, Outage, of_error
from listener.pos.codes import CloseCode, Duty
from listener.pos.ended import Ended
from listener.pos.events import Event, PageEvent, Position, ResyncMembers
from listener.pos.frames import Ack
from listener.pos.polling import Polling
from listener.pos.schedule import Schedule, Timing
from listener.pos.status import FollowStatus, State, Transport, stopped
from listener.pos.talk import Talk
from listener.pos.tracking import BrokenError, Tracker
from listener.pos.wire import encode

_LOG: Final = logging.getLogger(__name__)
# If it is closed like this before `ready`, WebSocket may be blocked; other codes are the
# listener's.
_LOST_ON_THE_WAY: Final = frozenset({CloseCode.CUT, CloseCode.NO_CODE, CloseCode.CONNECT_LATE})
# How long each step of a handshake may take while long-poll works and does not read meanwhile.
AGAIN_SECONDS: Final = 2.0
_STARTING: Final = Outage(cause=Cause.STARTING, why="the first try has only just begun")
_SLOWER: Final = Outage(cause=Cause.CLOSED, why="the program is slower")


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

    Nothing is read while ``put`` waits, so a slow program builds up no long queue here. Where it
    waits for long, the listener gives the connection up: it is renewed once the program goes on.
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
        self._sleeps = Sleeps()
        self._talk: Talk | None = None
        self._polling: Polling | None = None
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
            await self._pause(self._schedule.next(ended))

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try, but no longer once the machine slept."""
        pause = asyncio.create_task(asyncio.sleep(seconds))
        try:
            while not pause.done() and not self._look_for_sleep():
                await asyncio.wait({pause}, timeout=LOOK_SECONDS)
            # A sleep while nothing was connected is no reason to drop the next connection.
            self._look_for_sleep()
        finally:
            pause.cancel()
            await asyncio.gather(pause, return_exceptions=True)

    async def _watched(
        self, trying: Coroutine[None, None, Ended | None], *, over: Transport
    ) -> Ended | None:
        """Await a try; report that nothing answers if it is not live soon."""
        task = asyncio.create_task(trying)
        try:
            await asyncio.wait({task}, timeout=self._timing.slow_seconds)
            if not task.done() and (self.state, self.transport) != ("live", over):
                self._change("connecting", None, Outage(cause=Cause.SILENT, why=self._step))
            while not task.done():
                self._look_for_sleep()
                await asyncio.wait({task}, timeout=LOOK_SECONDS)
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def _step(self) -> str:
        if self._talk is not None:
            return self._talk.step
        return f"{self._api.host} does not answer"

    @property
    def status(self) -> FollowStatus:
        """Whether it is live, over what, or why not."""
        outage, word_at = self.outage, self.word_at
        return FollowStatus(
            state=self.state,
            transport=self.transport,
            age_seconds=None if word_at is None else asyncio.get_running_loop().time() - word_at,
            cause=outage.cause if outage else None,
            why=outage.why if outage else "",
        )

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

    def _look_for_sleep(self) -> bool:
        """Connect anew if the machine slept, and return whether it did; not live until then."""
        slept = self._sleeps.since()
        if not slept:
            return False
        if self.word_at is not None:
            self.word_at -= slept
        if self.state == "live":
            self._change("connecting", None, SLEPT)
        for trying in (self._talk, self._polling):
            if trying is not None:
                trying.renew()
        return True

    async def _poll(self) -> Ended | None:
        """Read by long-poll until it ends."""
        self._polling = Polling(self._api, tracker=self._tracker, sink=self, timing=self._timing)
        try:
            return await self._polling.run(once=not self._is_http_well)
        finally:
            self._polling = None

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

    def live(self, ws: aiohttp.ClientWebSocketResponse | None) -> None:
        """Go live: events, and acks, go over this websocket; without one, over long-poll."""
        self._ws = ws
        self._change("live", "websocket" if ws is not None else "long-poll", None)

    def progress(self) -> None:
        """Make the next wait short: the connection works."""
        self._schedule.progress()

    async def take(self, event: PageEvent) -> bool:
        """Pass an event on if it is the next of its stream; return whether it was."""
        position = self._tracker.take(event)
        if position is None:
            return False
        self._schedule.progress()
        await self._pass_on(Taken(stream=event.stream, position=position, event=event.event))
        return True

    async def resync(self, resync: ResyncMembers) -> None:
        """Report that a stream's position is lost."""
        await self._pass_on(Resynced(resync=resync, position=self._tracker.resync(resync)))

    async def _pass_on(self, item: Taken | Resynced) -> None:
        """Hand an item to the program; end the connection if it takes none for too long.

        Raises:
            BrokenError: The connection has not been read for too long, and is to be renewed.
        """
        try:
            async with asyncio.timeout(self._timing.take_seconds):
                await self._put(item)
        except TimeoutError:
            self._ws = None
            self._change("connecting", None, _SLOWER)
            await self._put(item)
            raise BrokenError(_SLOWER.why) from None
