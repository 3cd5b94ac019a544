"""Keep a POS client linked to its listener: by websocket, else by long-poll, for ever."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import aiohttp

from listener.errors import ListenerError
from listener.pos.api import Api, ApiError
from listener.pos.codes import CloseCode, Duty
from listener.pos.frames import Ack, Event, EventsPage, PageEvent, Position, ResyncMembers
from listener.pos.talk import Talk
from listener.pos.tracking import BrokenError, Ended, Schedule, Timing, Tracker
from listener.pos.wire import encode

State = Literal["connecting", "live", "stopped"]
Transport = Literal["websocket", "long-poll"]

_LOG: Final = logging.getLogger(__name__)
_UNAVAILABLE: Final = 503
# By close code, or by the code of a problem, which says more.
_TO_DO: Final[Mapping[int | str, str]] = MappingProxyType(
    {
        CloseCode.TOO_BIG: "a frame was too big; name fewer streams",
        CloseCode.BAD_KEY: "the key is not known; set one that `listener keys create` made",
        CloseCode.MALFORMED: "the request was malformed; update this client or the listener",
        CloseCode.NO_KEY: "no key reached the listener; set one",
        CloseCode.STREAM_NOT_ALLOWED: "the key may not follow this stream; name one of its scope",
        CloseCode.REPLACED: "another program uses this terminal's key; stop it, or make a key",
        CloseCode.REVOKED: "the key was revoked; ask for a new one",
        "stream-missing": "without WebSocket a key of several stores has to name `streams`",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowStatus:
    """Whether what is shown is live: "live" or not; and the age of the listener's last word.

    ``age_seconds`` is None before the first word. While "live" it stays below the time after
    which a silent listener is given up (35 s).
    """

    state: State
    transport: Transport | None
    age_seconds: float | None


class StoppedError(ListenerError):
    """The listener said not to come back unchanged; ``code`` says why, the text what to do."""

    def __init__(self, *, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


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
    """Brings what the listener tells to ``put``, in order, each event once; comes back for ever.

    While ``put`` waits nothing is read, so a slow program holds no long queue here.
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
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self.state: State = "connecting"
        self.transport: Transport | None = None
        self.word_at: float | None = None

    async def run(self) -> None:
        """Stay linked until cancelled.

        Raises:
            StoppedError: The listener said not to come back unchanged.
        """
        while True:
            is_blocked = self._blocked >= self._timing.blocked_tries
            ended = await (self._poll() if is_blocked else self._converse())
            if is_blocked:
                # Now WebSocket has its turn; if it fails again, long-poll is next.
                self._blocked -= 1
                self._is_http_well = ended is None
            if ended is None:
                continue
            _LOG.info("disconnected code=%s detail=%s", ended.code, ended.detail)
            if ended.duty is Duty.STOP:
                self._change("stopped", None)
                raise stopped(ended)
            self._change("connecting", None)
            await asyncio.sleep(self._schedule.next(ended))

    async def ack(self, stream: str, position: Position) -> bool:
        """Acknowledge a stream over the link as it is; False where that was not possible now."""
        try:
            async with asyncio.timeout(self._timing.connect_seconds):
                if self._ws is not None:
                    frame = encode(Ack(stream=stream, offset=position.offset))
                    await self._ws.send_str(frame.decode())
                    return True
                if self.transport == "long-poll":
                    await self._api.ack(stream, position)
                    return True
        except ApiError as error:
            _LOG.warning("ack refused stream=%s detail=%s", stream, error)
            # What is refused for good is not tried again.
            return error.ended.duty is Duty.STOP
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        return False

    def _change(self, state: State, transport: Transport | None) -> None:
        changed = (state, transport) != (self.state, self.transport)
        self.state, self.transport = state, transport
        if changed:
            self._on_change()

    def word(self) -> None:
        """Note that the listener said something."""
        self.word_at = asyncio.get_running_loop().time()

    async def _converse(self) -> Ended | None:
        """Open a websocket and read it until it ends."""
        timing = self._timing
        try:
            async with asyncio.timeout(timing.connect_seconds):
                ws = await self._api.upgrade(timeout_seconds=timing.close_seconds)
        except aiohttp.WSServerHandshakeError as error:
            if error.status == _UNAVAILABLE:
                return Ended(duty=Duty.BACK_OFF, code=CloseCode.OVERLOADED, detail="HTTP 503")
            self._blocked += 1
            return Ended(duty=Duty.BACK_OFF, detail=f"no upgrade: HTTP {error.status}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._blocked += 1
            return Ended(duty=Duty.BACK_OFF, detail=f"no upgrade: {type(error).__name__}")
        self._connects += 1
        talk = Talk(ws, tracker=self._tracker, sink=self, timing=timing, number=self._connects)
        code = CloseCode.DONE
        try:
            ended = await talk.run()
            code = talk.say
        finally:
            self._ws = None
            # A stalled listener never takes the good-bye.
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(timing.close_seconds):
                    await ws.close(code=code)
        if talk.hello is not None:
            self._blocked = 0
            self._is_http_well = False
        else:
            self._blocked += 1
        return ended

    def ready(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Note that events follow on a websocket, and that it takes acks."""
        self._ws = ws
        self._change("live", "websocket")

    def progress(self) -> None:
        """Note that the link works, so that the next wait is short."""
        self._schedule.progress()

    async def take(self, event: PageEvent) -> bool:
        """Pass on an event that is next; tell whether it was."""
        position = self._tracker.take(event)
        if position is None:
            return False
        self._schedule.progress()
        await self._put(Taken(stream=event.stream, position=position, event=event.event))
        return True

    async def resync(self, resync: ResyncMembers) -> None:
        """Pass on that a stream's position is lost."""
        await self._put(Resynced(resync=resync, position=self._tracker.resync(resync)))

    async def _poll(self) -> Ended | None:
        """Read by long-poll until it fails, or until WebSocket is to be tried again (None)."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timing.websocket_again_seconds
        polls: dict[str | None, asyncio.Task[EventsPage | ResyncMembers]] = {}
        try:
            while (left := until - loop.time()) > 0:
                names: list[str | None] = [*self._tracker.names] or [None]
                for name in names:
                    if name not in polls:
                        polls[name] = asyncio.create_task(self._page(name))
                done, _ = await asyncio.wait(
                    polls.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                for name in [name for name, poll in polls.items() if poll in done]:
                    await self._take_page(name, polls.pop(name).result())
                # The listener may just have come back: only now is WebSocket known as blocked.
                if done and not self._is_http_well:
                    return None
        except ApiError as error:
            return error.ended
        except BrokenError as error:
            return Ended(duty=Duty.BACK_OFF, detail=str(error))
        finally:
            for poll in polls.values():
                poll.cancel()
            await asyncio.gather(*polls.values(), return_exceptions=True)
        return None

    async def _page(self, stream: str | None) -> EventsPage | ResyncMembers:
        # The first answer comes at once, so that the link is known to be live.
        wait = self._timing.poll_seconds if self.transport == "long-poll" else 0
        tracker = self._tracker
        start = None if tracker.start == "acked" else tracker.start
        after = start if stream is None else tracker.received.get(stream, start)
        return await self._api.page(stream, after=after, wait_seconds=wait)

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
            for event in page.events:
                await self.take(event)
        self._schedule.progress()
        self._change("live", "long-poll")


def stopped(ended: Ended) -> StoppedError:
    """Word what a person must do before the client may come back."""
    to_do = _TO_DO.get(ended.problem) or _TO_DO.get(ended.code)
    detail = to_do or ended.detail or "ask the listener's operator"
    return StoppedError(code=ended.code, detail=f"the listener refused ({ended.code}): {detail}")
