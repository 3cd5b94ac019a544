"""Read one websocket of ``pos.v1``, from ``hello`` to its end."""

import asyncio
import logging
from typing import Final, Protocol

import aiohttp

from listener.errors import UnreadableError
from listener.pos.codes import CloseCode
from listener.pos.frames import (
    Connect,
    ErrorFrame,
    EventFrame,
    Hello,
    PageEvent,
    Ping,
    Pong,
    Ready,
    Reconnect,
    Resync,
    ResyncMembers,
    ServerFrame,
)
from listener.pos.tracking import BrokenError, Ended, Timing, Tracker, ended_by
from listener.pos.wire import encode, parse_server_frame

_LOG: Final = logging.getLogger(__name__)


class Sink(Protocol):
    """What takes what is heard."""

    def word(self) -> None:
        """Note that the listener said something."""

    def ready(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Note that events follow on a websocket, and that it takes acks."""

    def progress(self) -> None:
        """Note that the link works, so that the next wait is short."""

    async def take(self, event: PageEvent) -> bool:
        """Pass on an event that is next; tell whether it was."""

    async def resync(self, resync: ResyncMembers) -> None:
        """Pass on that a stream's position is lost."""


class Talk:
    """One websocket: answers its pings, watches its silence, passes on what it tells.

    ``say`` is the code to close with once ``run`` has returned.
    """

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        *,
        tracker: Tracker,
        sink: Sink,
        timing: Timing,
        number: int,
    ) -> None:
        self._ws = ws
        self._tracker = tracker
        self._sink = sink
        self._timing = timing
        self._number = number
        self._clock = asyncio.get_running_loop().time
        self._heard_at = self._clock()
        self._ready_by = self._heard_at + timing.connect_seconds
        self._behind_since: float | None = None
        self._after_ms: int | None = None
        self._ready = False
        self.hello: Hello | None = None
        self.say = CloseCode.DONE

    async def run(self) -> Ended:
        """Read until the end, and say why it came."""
        try:
            return await self._read()
        except UnreadableError as error:
            self.say = CloseCode.MALFORMED
            return self._ended(CloseCode.SERVER_ERROR, detail=str(error))
        except BrokenError as error:
            return self._ended(CloseCode.COME_BACK, detail=str(error))
        except TimeoutError:
            if not self._ready:
                return self._ended(CloseCode.CUT, detail="no hello or no ready in time")
            self.say = CloseCode.DEAD
            return self._ended(CloseCode.DEAD, detail="silent, or behind its own heads")
        except (aiohttp.ClientError, OSError) as error:
            return self._ended(CloseCode.CUT, detail=type(error).__name__)

    async def _read(self) -> Ended:
        while True:
            async with asyncio.timeout_at(self._patience()):
                message = await self._ws.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self._sink.word()
                await self._hear(parse_server_frame(message.data))
            elif message.type is not aiohttp.WSMsgType.BINARY:
                return self._ended(self._ws.close_code or CloseCode.CUT)
            # Taken after an event was passed on: while that waits, the silence is ours.
            self._heard_at = self._clock()

    def _patience(self) -> float:
        """Return until when (loop time) the next frame is waited for."""
        if not self._ready or self.hello is None:
            return self._ready_by
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
                await self._send(Pong(t=frame.t))
            case Hello():
                self.hello = frame
                await self._send(self._tracker.connect(self._number))
            case Ready():
                self._tracker.ready(frame)
                self._ready = True
                self._sink.ready(self._ws)
            case Resync():
                await self._sink.resync(frame)
            case Reconnect():
                self._after_ms = frame.after_ms
            case ErrorFrame():
                _LOG.warning("refused code=%s message=%s", frame.code, frame.message)

    def _watch(self, *, restart: bool) -> None:
        """Count the time that the listener's heads are ahead of what came."""
        if not self._tracker.is_behind:
            self._behind_since = None
        elif restart or self._behind_since is None:
            self._behind_since = self._clock()

    async def _send(self, frame: Connect | Pong) -> None:
        async with asyncio.timeout(self._timing.connect_seconds):
            await self._ws.send_str(encode(frame).decode())

    def _ended(self, code: int, *, detail: str = "") -> Ended:
        jitter_ms = None if self.hello is None else self.hello.reconnect_jitter_ms
        return ended_by(code, jitter_ms=jitter_ms, after_ms=self._after_ms, detail=detail)
