"""Read one websocket of ``pos.v1``, from ``hello`` to its end."""

import asyncio
import logging
from dataclasses import replace
from typing import Final, Protocol

import aiohttp
from pydantic import SecretStr

from listener.errors import UnreadableError
from listener.pos.asleep import SLEPT
from listener.pos.causes import Cause, Outage
from listener.pos.codes import CloseCode, Duty, duty_of
from listener.pos.ended import Ended, ended_by
from listener.pos.events import PageEvent, ResyncMembers
from listener.pos.frames import (
    PROTOCOL,
    ErrorFrame,
    EventFrame,
    Hello,
    Ping,
    Pong,
    Ready,
    Reconnect,
    Resync,
    ServerFrame,
)
from listener.pos.schedule import Timing
from listener.pos.tracking import BrokenError, Tracker
from listener.pos.wire import encode, encode_connect, parse_server_frame

_LOG: Final = logging.getLogger(__name__)


class Receiver(Protocol):
    """Receives what is read, by websocket or long-poll."""

    def word(self) -> None:
        """Remember that the listener said something just now."""

    def live(self, ws: aiohttp.ClientWebSocketResponse | None) -> None:
        """Go live: events, and acks, go over this websocket; without one, over long-poll."""

    def progress(self) -> None:
        """Make the next wait short: the connection works."""

    async def take(self, event: PageEvent) -> bool:
        """Pass an event on if it is the next of its stream; return whether it was."""

    async def resync(self, resync: ResyncMembers) -> None:
        """Report that a stream's position is lost."""


class Talk:
    """One websocket: answers its pings, watches for silence, passes on what arrives.

    ``say`` is the code to close with once ``run`` has returned.
    """

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        *,
        key: SecretStr,
        tracker: Tracker,
        sink: Receiver,
        timing: Timing,
        step_seconds: float,
        number: int,
    ) -> None:
        self._ws = ws
        self._key = key
        self._tracker = tracker
        self._sink = sink
        self._timing = timing
        self._step_seconds = step_seconds
        self._number = number
        self._clock = asyncio.get_running_loop().time
        self._heard_at = self._clock()
        self._step_began_at = self._heard_at
        self._behind_since: float | None = None
        self._after_ms: int | None = None
        self._waiting: asyncio.Timeout | None = None
        self._has_slept = False
        self.hello: Hello | None = None
        self.is_ready = False
        self.say = CloseCode.DONE

    async def run(self) -> Ended:
        """Read until the end; return the reason for it."""
        try:
            return await self._read()
        except UnreadableError as error:
            self.say = CloseCode.MALFORMED
            return self._ended(CloseCode.SERVER_ERROR, why=f"an unreadable frame came: {error}")
        except BrokenError as error:
            return self._ended(CloseCode.COME_BACK, why=str(error))
        except TimeoutError:
            return self._silent()
        except (aiohttp.ClientError, OSError) as error:
            return self._ended(
                CloseCode.CUT, why=f"the connection was cut ({type(error).__name__})"
            )

    @property
    def step(self) -> str:
        """What is being waited for, in words for a person."""
        if self.hello is None:
            return "the websocket is open, but no hello comes"
        return "hello came, but no ready" if not self.is_ready else "nothing comes any more"

    def renew(self) -> None:
        """End at once, or with the next wait: the machine slept, and the line may be gone."""
        self._has_slept = True
        # Frames that were read are passed on first: only a wait is cut short.
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._clock())

    async def _receive(self) -> aiohttp.WSMessage:
        try:
            async with asyncio.timeout_at(self._patience()) as self._waiting:
                return await self._ws.receive()
        finally:
            self._waiting = None

    async def _read(self) -> Ended:
        while True:
            message = await self._receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self._sink.word()
                await self._hear(parse_server_frame(message.data))
            elif message.type is aiohttp.WSMsgType.ERROR:
                # Too long, or not a frame at all: a fault of the line, and not sent by the
                # listener.
                return self._ended(CloseCode.CUT, why=f"what came is not a frame:{message.data}")
            elif message.type is not aiohttp.WSMsgType.BINARY:
                return self._closed(self._ws.close_code or CloseCode.CUT)
            # Set after an event was passed on: while the program handles it, the silence is our
            # own.
            self._heard_at = self._clock()

    def _patience(self) -> float:
        """Return until when (loop time) to wait for the next frame."""
        if self._has_slept:
            return self._clock()
        if not self.is_ready or self.hello is None:
            # Each step of the handshake has its own time: a slow line is not a dead one.
            return self._step_began_at + self._step_seconds
        patience = self._heard_at + self.hello.dead_seconds
        if self._behind_since is None:
            return patience
        return min(patience, self._behind_since + self._timing.behind_seconds)

    async def _hear(self, frame: ServerFrame | None) -> None:
        match frame:
            case EventFrame():
                await self._sink.take(frame)
                self._watch(restart=True)
            case Ping():
                self._tracker.ping(frame)
                self._sink.progress()
                self._watch(restart=False)
                await self._send(encode(Pong(t=frame.t)))
            case Hello():
                self.hello = frame
                self._step_began_at = self._clock()
                connect = self._tracker.connect(self._number)
                await self._send(encode_connect(connect, key=self._key))
            case Ready():
                self._tracker.ready(frame)
                self.is_ready = True
                self._sink.live(self._ws)
            case Resync():
                await self._sink.resync(frame)
                self._watch(restart=False)
            case Reconnect():
                self._after_ms = frame.after_ms
            case ErrorFrame():
                _LOG.warning("refused code=%s message=%s", frame.code, frame.message)

    def _watch(self, *, restart: bool) -> None:
        """Measure for how long the listener's heads have been ahead of what arrived."""
        if not self._tracker.is_behind:
            self._behind_since = None
        elif restart or self._behind_since is None:
            self._behind_since = self._clock()

    async def _send(self, frame: bytes) -> None:
        async with asyncio.timeout(self._timing.connect_seconds):
            await self._ws.send_str(frame.decode())

    def _closed(self, code: int) -> Ended:
        """Conclude what follows from a close by the other side.

        Only the listener may stop the client. It is the listener if it said hello or accepted our
        subprotocol; another websocket that closes with a code of the same range is not.
        """
        is_listener = self.hello is not None or self._ws.protocol == PROTOCOL
        if duty_of(code) is Duty.STOP and not is_listener:
            return self._ended(CloseCode.CUT, why=f"closed by somebody else with code {code}")
        return self._ended(code)

    def _silent(self) -> Ended:
        outage = Outage(cause=Cause.SILENT, why=self.step)
        if self.is_ready:
            self.say = CloseCode.DEAD
            why = "the listener is silent, or behind its own heads"
            outage = SLEPT if self._has_slept else Outage(cause=Cause.SILENT, why=why)
        ended = self._ended(self.say if self.is_ready else CloseCode.CUT)
        return replace(ended, outage=outage)

    def _ended(self, code: int, *, why: str = "") -> Ended:
        jitter_ms = None if self.hello is None else self.hello.reconnect_jitter_ms
        return ended_by(code, jitter_ms=jitter_ms, after_ms=self._after_ms, why=why)
