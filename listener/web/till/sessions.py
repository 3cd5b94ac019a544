"""Watch over the POS connections: heartbeat, silence, stalls, revoked keys, shutdown."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from listener import log
from listener.errors import ListenerError
from listener.hub.subscription import Subscription
from listener.keys import Key, KeyStore
from listener.ledger.nodes import Seat
from listener.pos.codes import CloseCode
from listener.pos.frames import CONNECT_SECONDS, DEAD_SECONDS, PING_SECONDS, Ping, Reconnect
from listener.pos.wire import encode, ws_text
from listener.web.till.connection import TillConnection
from listener.web.till.pulse import Pulse

SESSIONS_MAX: Final = 20_000
# Connections that have not sent ``connect`` yet; beyond this many, the oldest is closed.
PENDING_MAX: Final = 2_000
SESSIONS_PER_KEY_MAX: Final = 1_000
STALLED_SECONDS: Final = 10.0
TICK_SECONDS: Final = 0.5
CLOSE_SECONDS: Final = 2.0
# Only a session that is older than this is announced to the other nodes.
YOUNG_SECONDS: Final = 0.25
# Tills are told to come back spread over this time.
DRAIN_SECONDS: Final = 5.0
SEEN_MAX: Final = 10_000
# After which a ledger that cannot be read ends every session. A till waits as long for a listener
# that says nothing.
UNREAD_SECONDS: Final = DEAD_SECONDS

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTiming:
    """The time limits of a POS connection, in seconds; tests use shorter ones."""

    connect_seconds: float = CONNECT_SECONDS
    ping_seconds: float = PING_SECONDS
    dead_seconds: float = DEAD_SECONDS
    stalled_seconds: float = STALLED_SECONDS
    tick_seconds: float = TICK_SECONDS
    close_seconds: float = CLOSE_SECONDS
    drain_seconds: float = DRAIN_SECONDS
    unread_seconds: float = UNREAD_SECONDS


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """A connection after its ``connect``; times are those of the event loop."""

    connection: TillConnection
    key: Key
    heard_at: float
    ping_at: float
    subscriptions: dict[str, Subscription] = field(default_factory=dict)

    def ping(self, t_ms: int) -> None:
        """Send a ping with the heads of the streams that are followed."""
        heads = {name: followed.head for name, followed in self.subscriptions.items()}
        self.connection.write(ws_text(encode(Ping(t=t_ms, heads=heads))))


class Presence(Protocol):
    """What sessions need of the ledger: who is connected at the other nodes."""

    async def announce(self, seats: Mapping[str, Seat]) -> frozenset[str]: ...


class Sessions:
    """All POS connections of one listener, and the one task that watches over them."""

    def __init__(
        self,
        *,
        keys: KeyStore,
        presence: Presence | None = None,
        timing: SessionTiming | None = None,
        on_close: Callable[[int], None] = lambda _code: None,
        on_revoked: Callable[[], None] = lambda: None,
        now_ms: Callable[[], int],
    ) -> None:
        self.timing = timing or SessionTiming()
        self.is_draining = False
        self.on_close = on_close
        self._on_revoked = on_revoked
        self._keys = keys
        self._presence = presence
        self._now_ms = now_ms
        self._closed = log.Throttle(_LOG, "pos_closed")
        # Those that have not sent ``connect`` yet; the oldest first.
        self._pending: dict[TillConnection, None] = {}
        # All; those whose key is not known yet have no session.
        self._connections: dict[TillConnection, Session | None] = {}
        self._left = asyncio.Event()
        self._of_key: Counter[str] = Counter()
        self._of_terminal: dict[str, Session] = {}
        self._seats: dict[str, Seat] = {}
        self._seen: dict[str, float] = {}
        self._keys_version: int | None = None
        self._revoked: frozenset[str] = frozenset()
        self._pulse = Pulse()
        # When the ledger was last read.
        self._read_at = 0.0

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def connections(self) -> list[TillConnection]:
        """The connections that are open."""
        return list(self._connections)

    def online(self) -> dict[str, int]:
        """Return how many connections each subscriber (``Key.subscriber``) has."""
        return dict(Counter(session.key.subscriber for session in self._all()))

    def seen(self) -> dict[str, float]:
        """Return when each subscriber was last heard here, as Unix seconds."""
        now, wall = asyncio.get_running_loop().time(), self._now_ms() / 1_000
        heard = {session.key.subscriber: session.heard_at for session in self._all()}
        return {name: wall - (now - at) for name, at in (self._seen | heard).items()}

    def is_full(self, key: Key) -> bool:
        """Return whether a key has as many connections as it may have."""
        return self._of_key[key.id] >= SESSIONS_PER_KEY_MAX

    def arrive(self, connection: TillConnection) -> None:
        """Register a connection whose key is not known yet."""
        self._connections[connection] = None
        if self.is_draining:
            self._send_away(connection)
            return
        if self._pulse.is_just_back:
            # It came while this process was paused: its till may long be at another node, and must
            # not be replaced there by this one. A till that is still here comes back.
            self.close(connection, CloseCode.COME_BACK)
            return
        if self.count > SESSIONS_MAX:
            self.close(connection, CloseCode.TOO_MANY_CONNECTIONS)
            return
        self._pending[connection] = None
        if len(self._pending) > PENDING_MAX:
            # A till sends its ``connect`` immediately: the connection that has waited longest is no
            # till.
            self.close(next(iter(self._pending)), CloseCode.CONNECT_LATE)

    def heard_out(self, connection: TillConnection) -> None:
        """Record that a connection has sent its ``connect``: it waits for us from now on.

        An invalid key closes it once that was looked up; until then it is not closed to make room,
        and only ``SESSIONS_MAX`` limits how many there are.
        """
        self._pending.pop(connection, None)

    def add(self, session: Session) -> None:
        """Register a session; an older one of the same terminal is replaced."""
        self._connections[session.connection] = session
        self._of_key[session.key.id] += 1
        # Its key may have been revoked since it was looked up.
        self._keys_version = None
        self._seats[session.connection.id] = Seat(
            session=session.connection.id,
            subscriber=session.key.subscriber,
            terminal=session.key.terminal,
            since=session.connection.since,
        )
        if session.key.terminal:
            other = self._of_terminal.get(session.key.subscriber)
            # This one may have waited longer for its key than one that came after it.
            if other is not None and other.connection.since > session.connection.since:
                self.close(session.connection, CloseCode.REPLACED)
                return
            self._of_terminal[session.key.subscriber] = session
            if other is not None:
                self.close(other.connection, CloseCode.REPLACED)

    def remove(self, connection: TillConnection) -> None:
        """Forget a connection that has ended."""
        session = self._connections.pop(connection, None)
        self._pending.pop(connection, None)
        self._left.set()
        if session is None:
            return
        self._of_key[session.key.id] -= 1
        if not self._of_key[session.key.id]:
            del self._of_key[session.key.id]
        self._seats.pop(connection.id, None)
        name = session.key.subscriber
        if self._of_terminal.get(name) is session:
            del self._of_terminal[name]
        _stop_following(session)
        self._seen.pop(name, None)
        self._seen[name] = session.heard_at
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def close(self, connection: TillConnection, code: CloseCode, why: str = "") -> None:
        """Start to close a connection; its handler then ends by itself.

        ``why`` says more than the code does, in our words.
        """
        if connection.is_closing:
            return
        self._pending.pop(connection, None)
        session = self._connections.get(connection)
        if session is not None:
            _stop_following(session)
        key_id = session.key.id if session else None
        told = {"session": connection.id, "keyId": key_id, "code": int(code)}
        self._closed.event((code, key_id), **told, reason=why or code.meaning)
        self.on_close(code)
        connection.close(code, why)

    def resync(self) -> None:
        """Close every connection with "come back now": its positions are of another epoch."""
        for connection in list(self._connections):
            self.close(connection, CloseCode.COME_BACK)

    async def run(self) -> None:
        """Watch over all sessions, for ever."""
        self._pulse.start()
        try:
            await self._run()
        finally:
            self._pulse.stop()

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        self._read_at = now()
        while True:
            await asyncio.sleep(self.timing.tick_seconds)
            self._tick()
            try:
                await self._end_revoked()
                self._read_at = now()
                await self._end_replaced()
            except ListenerError as error:
                log.event(_LOG, "keys_unread", level=logging.ERROR, reason=str(error))
                if now() - self._read_at >= self.timing.unread_seconds:
                    self._end_unread()
            except Exception:  # noqa: BLE001 - nothing may end the looking after
                _LOG.exception("keys_unread")

    async def drain(self) -> None:
        """Before a restart: tell every till when to come back, then close with 1012."""
        self.is_draining = True
        for connection in list(self._connections):
            self._send_away(connection)
        # Each connection is cut off in time; only a handler that waits for the ledger remains.
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self.timing.close_seconds):
                while self._connections:
                    self._left.clear()
                    await self._left.wait()

    def _all(self) -> list[Session]:
        return [session for session in self._connections.values() if session is not None]

    def _send_away(self, connection: TillConnection) -> None:
        after_ms = int(random.random() * self.timing.drain_seconds * 1000)  # noqa: S311 - jitter
        connection.write(ws_text(encode(Reconnect(after_ms=after_ms))))
        self.close(connection, CloseCode.RESTART)

    def _tick(self) -> None:
        now, t_ms = asyncio.get_running_loop().time(), self._now_ms()
        for session in self._all():
            try:
                self._look_after(session, now, t_ms)
            except Exception:  # noqa: BLE001 - one broken socket must not silence the others
                _LOG.exception("session_failed")
                self.close(session.connection, CloseCode.SERVER_ERROR)

    def _look_after(self, session: Session, now: float, t_ms: int) -> None:
        timing, connection = self.timing, session.connection
        if connection.is_stalled(now, limit_seconds=timing.stalled_seconds):
            self.close(connection, CloseCode.SLOW_CONSUMER)
        elif now - session.heard_at > timing.dead_seconds:
            self.close(connection, CloseCode.DEAD)
        elif now >= session.ping_at:
            session.ping_at = now + timing.ping_seconds
            session.ping(t_ms)

    def _end_unread(self) -> None:
        """Close every session: another listener may record what a till here would never see."""
        for session in self._all():
            self.close(session.connection, CloseCode.SERVER_ERROR, "the ledger cannot be read")

    async def _end_replaced(self) -> None:
        """Close the sessions whose terminal has opened a newer one at another node."""
        if self._presence is None:
            return
        # A till that has gone before its connect was read replaces no other.
        young = time.monotonic() - YOUNG_SECONDS
        seats = {name: seat for name, seat in self._seats.items() if seat.since < young}
        replaced = await self._presence.announce(seats)
        if replaced:
            for session in self._all():
                if session.connection.id in replaced:
                    self.close(session.connection, CloseCode.REPLACED)

    async def _end_revoked(self) -> None:
        """Close the sessions of revoked keys, once a key has changed or a session was added."""
        version = await self._keys.keys_version()
        if version == self._keys_version:
            return
        revoked = await self._keys.revoked_keys()
        if not revoked <= self._revoked:
            # Each long-poll that waits checks whether its own key was revoked.
            self._on_revoked()
        self._revoked = revoked
        for session in self._all():
            if session.key.id in revoked:
                self.close(session.connection, CloseCode.REVOKED)
        self._keys_version = version


def _stop_following(session: Session) -> None:
    for subscription in session.subscriptions.values():
        subscription.end()
