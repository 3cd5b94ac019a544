"""Speak ``pos.v1`` with a till over a websocket: upgrade, connect, ready, then acks and pongs.

The hub writes the events themselves, directly to the till's socket.
"""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from enum import Enum
from typing import Final

from aiohttp import WebSocketError, WSMsgType, web

from listener.errors import LedgerUnavailableError, UnreadableError, let_go
from listener.keys import Key, Role, authenticate, pasted
from listener.pos.codes import CloseCode
from listener.pos.events import StreamStart
from listener.pos.frames import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    STREAMS_OF_ANY_KEY_MAX,
    Ack,
    ClientFrame,
    Connect,
    ErrorFrame,
    FrameId,
    Hello,
    Ready,
    Resync,
)
from listener.pos.wire import encode, parse_client_frame, ws_text
from listener.web.context import HUB, KEYS, LEDGER, SESSIONS, SETTINGS
from listener.web.guard import sent_key
from listener.web.headers import harden
from listener.web.sender import heard_out, prove
from listener.web.till.acks import AckError, Acks
from listener.web.till.connection import TillConnection
from listener.web.till.resume import Start, begin, may_follow
from listener.web.till.sessions import Session
from listener.web.till.upgrade import check_upgrade

# A till may send this many frames at once, and this many a second in the long run.
FRAMES_AT_ONCE_MAX: Final = 2_000
FRAMES_PER_SECOND: Final = 500

_LOG: Final = logging.getLogger(__name__)
_CONTROL: Final = frozenset({WSMsgType.PING, WSMsgType.PONG})
_ENDS: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})


class _End(Enum):
    """Received once the connection has ended."""

    END = "end"


class _CloseError(Exception):
    """The connection must be closed with a code; ``why`` says more than the code does."""

    def __init__(self, code: CloseCode, why: str = "") -> None:
        super().__init__(why or code.meaning)
        self.code = code
        self.why = why


async def stream(request: web.Request) -> web.StreamResponse:
    """Upgrade to a websocket and speak until one side ends it."""
    upgrade = check_upgrade(request)
    close_seconds = request.app[SESSIONS].timing.close_seconds
    ws = web.WebSocketResponse(
        protocols=(PROTOCOL,),
        autoclose=False,
        autoping=False,
        compress=False,
        # aiohttp refuses a frame of this many bytes.
        max_msg_size=FRAME_BYTES_MAX + 1,
        timeout=close_seconds,
    )
    harden(ws)
    await ws.prepare(upgrade)
    if request.transport is None:
        return ws
    connection = TillConnection(
        request.transport, connection_id=secrets.token_hex(6), close_seconds=close_seconds
    )
    till = _Till(ws, connection, request.app)
    try:
        await till.talk(request)
    finally:
        await till.end()
        let_go(ws.exception())
    return ws


class _Till:
    """One connection, from ``hello`` to its end."""

    def __init__(
        self, ws: web.WebSocketResponse, connection: TillConnection, app: web.Application
    ) -> None:
        self._ws = ws
        self._connection = connection
        self._sessions = app[SESSIONS]
        self._ledger = app[LEDGER]
        self._keys = app[KEYS]
        self._hub = app[HUB]
        self._merchants = app[SETTINGS].merchants
        self._clock = asyncio.get_running_loop().time
        self._frames_left = float(FRAMES_AT_ONCE_MAX)
        self._frames_at = self._clock()
        self._acks: Acks | None = None

    async def talk(self, request: web.Request) -> None:
        """Speak the protocol until the connection ends, and close it with the right code."""
        try:
            await self._converse(request)
            return
        except _CloseError as error:
            self._close(error.code, error.why)
            if error.code is CloseCode.TOO_MANY_FRAMES and request.transport is not None:
                # Reading on would serve a client that misbehaves; the timer cuts it off.
                request.transport.pause_reading()
        except ConnectionError:
            # The client went away while something was sent to it.
            return
        except LedgerUnavailableError:
            self._close(CloseCode.SERVER_ERROR)
        except Exception:  # noqa: BLE001 - whatever failed, the till must not be left waiting
            _LOG.exception("till_failed", extra={"fields": {"session": self._connection.id}})
            self._close(CloseCode.SERVER_ERROR)
        # Read on until the client has closed too: otherwise what it still sends would cut the
        # connection before it has read the code. A timer cuts off a client that does not close.
        while (await self._ws.receive()).type not in _ENDS:
            pass

    async def end(self) -> None:
        """Release what the connection held; acks that were accepted are still stored."""
        self._connection.end()
        self._sessions.remove(self._connection)
        if self._acks is not None:
            await self._acks.end()

    async def _converse(self, request: web.Request) -> None:
        timing = self._sessions.timing
        await self._send(
            Hello(
                session=self._connection.id,
                ping_seconds=timing.ping_seconds,
                dead_seconds=timing.dead_seconds,
            )
        )
        self._sessions.arrive(self._connection)
        try:
            async with asyncio.timeout(timing.connect_seconds):
                connect = await self._await_connect()
        except TimeoutError:
            raise _CloseError(CloseCode.CONNECT_LATE) from None
        if connect is None:
            return
        self._sessions.heard_out(self._connection)
        heard_out(request)
        # A proxy may have replaced the key's header with its own.
        own = pasted(connect.key.get_secret_value()) if connect.key else ""
        text = own or sent_key(request)
        if not text:
            raise _CloseError(CloseCode.NO_KEY)
        key = await self._authenticate(text)
        if not prove(request):
            raise _CloseError(CloseCode.TOO_MANY_CONNECTIONS)
        session, acks = await self._enter(key, connect)
        while (frame := await self._receive()) is not _End.END:
            session.heard_at = self._clock()
            if isinstance(frame, Ack):
                await self._take_ack(acks, frame)
            elif isinstance(frame, Connect):
                await self._refuse(
                    frame.id, "already-connected", "to follow other streams, connect anew"
                )

    async def _authenticate(self, text: str) -> Key:
        key = await authenticate(text, self._keys)
        if key is None:
            raise _CloseError(CloseCode.BAD_KEY, "the key is not known, or was revoked")
        return key

    async def _await_connect(self) -> Connect | None:
        """Return the connect frame; None if the client left before."""
        while (frame := await self._receive()) is not _End.END:
            if isinstance(frame, Connect):
                return frame
            if frame is not None:
                frame_id = frame.id if isinstance(frame, Ack) else None
                await self._refuse(frame_id, "not-connected", "send connect first")
        return None

    async def _enter(self, key: Key, connect: Connect) -> tuple[Session, Acks]:
        """Send ``ready``, and begin to follow."""
        self._check_open()
        if key.role is Role.LEDGER:
            raise _CloseError(CloseCode.STREAM_NOT_ALLOWED)
        wanted, others = self._wanted(key, connect)
        for place, start in enumerate(wanted):
            if not may_follow(key, start.stream, self._merchants):
                why = f"streams.{place}: the key may not follow it, or its store is not configured"
                raise _CloseError(CloseCode.STREAM_NOT_ALLOWED, why)
        if self._sessions.is_full(key):
            raise _CloseError(CloseCode.TOO_MANY_CONNECTIONS)
        now = self._clock()
        session = Session(
            connection=self._connection,
            key=key,
            heard_at=now,
            ping_at=now + self._sessions.timing.ping_seconds,
        )
        # Registered from here on: a newer connection of the terminal closes this one.
        self._sessions.add(session)
        acks = self._acks = Acks(session, ledger=self._ledger)
        starts = await begin(wanted, others=others, key=key, ledger=self._ledger, hub=self._hub)
        await self._send(Ready(id=connect.id, streams=[start.ready() for start in starts]))
        await self._follow(session, acks, starts)
        return session, acks

    def _wanted(self, key: Key, connect: Connect) -> tuple[list[StreamStart], frozenset[str]]:
        """Return where each stream begins, and which of them the till has not named.

        Raises:
            _CloseError: The till names more than its key may.
        """
        merchant = self._merchants.get(key.merchant_no or "")
        scope = key.streams(merchant.stores if merchant else ())
        most = max(STREAMS_OF_ANY_KEY_MAX, len(scope))
        if connect.streams and len(connect.streams) > most:
            why = f"frame connect: streams: must have at most {most} items with this key"
            raise _CloseError(CloseCode.MALFORMED, why)
        if connect.streams and not connect.others:
            return connect.streams, frozenset()
        named = {start.stream: start for start in connect.streams or ()}
        others = frozenset(scope) - named.keys() if connect.others else frozenset()
        return [named.get(name) or StreamStart(stream=name) for name in scope], others

    async def _follow(self, session: Session, acks: Acks, starts: Sequence[Start]) -> None:
        for start in starts:
            if start.resync is not None:
                await self._send(Resync(**start.resync.model_dump()))
            self._check_open()
            followed = self._hub.subscribe(start.stream, after=start.after, sink=self._connection)
            session.subscriptions[start.stream] = followed
            acks.begin(start.stream, after=start.after)
            followed.advance()

    def _check_open(self) -> None:
        """Stop if the connection was closed here during an await."""
        if self._connection.code is not None:
            raise _CloseError(self._connection.code)

    def _close(self, code: CloseCode, why: str = "") -> None:
        self._sessions.close(self._connection, code, why)

    async def _receive(self) -> ClientFrame | _End | None:
        """Return the next frame; None for one that means nothing to us, END at the end.

        Raises:
            _CloseError: Malformed, or too many.
        """
        while (message := await self._ws.receive()).type in _CONTROL:
            # A library answers these by itself: they do not show that its program is alive.
            self._count_frame()
            if message.type is WSMsgType.PING and not self._connection.is_closing:
                await self._ws.pong(message.data)
        if message.type in _ENDS:
            await self._take_end(message.type, message.data)
            return _End.END
        self._count_frame()
        try:
            # Frames are JSON text; some libraries send all text in binary frames.
            return parse_client_frame(message.data)
        except UnreadableError as error:
            raise _CloseError(CloseCode.MALFORMED, str(error)) from None

    async def _take_end(self, kind: WSMsgType, data: object) -> None:
        """Answer the client's close; aiohttp itself has closed what it refused."""
        if isinstance(data, WebSocketError):
            self._sessions.on_close(data.code)
        elif kind is WSMsgType.CLOSE and not self._connection.is_closing:
            code = data if isinstance(data, int) and data else CloseCode.DONE
            await self._ws.close(code=code, drain=False)

    def _count_frame(self) -> None:
        now = self._clock()
        earned = (now - self._frames_at) * FRAMES_PER_SECOND
        self._frames_left = min(FRAMES_AT_ONCE_MAX, self._frames_left + earned) - 1
        self._frames_at = now
        if self._frames_left < 0:
            raise _CloseError(CloseCode.TOO_MANY_FRAMES)

    async def _take_ack(self, acks: Acks, ack: Ack) -> None:
        try:
            if acks.take(ack):
                # A till may acknowledge each event that it was sent, however many those are.
                self._frames_left += 1
        except AckError as error:
            await self._refuse(ack.id, error.code, str(error))

    async def _refuse(self, frame_id: FrameId | None, code: str, message: str) -> None:
        await self._send(ErrorFrame(id=frame_id, code=code, message=message))

    async def _send(self, frame: Hello | Ready | Resync | ErrorFrame) -> None:
        """Send a frame to this connection alone, and wait while the socket is full."""
        text = encode(frame)
        if not self._connection.is_closing:
            self._connection.count_written(len(ws_text(text)))
            await self._ws.send_str(text.decode())
