"""The close codes of ``pos.v1``: why a connection was closed, and what a client does then."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

# Begins the type of each problem that the listener answers over HTTP. Only such a one may stop a
# client: what a proxy or a sign-on page answers has another type, or none.
PROBLEM_TYPES: Final = "urn:pockyt-listener:problem:"


class Duty(StrEnum):
    """What a client does after its connection was closed."""

    STOP = "stop"
    """Do not come back unchanged: a person must act first."""
    BACK_OFF = "back_off"
    """Come back after rand(0, reconnectJitterMs), then with growing waits, and resume."""
    BACK_OFF_LONGER = "back_off_longer"
    """As BACK_OFF, but never before a second has passed."""
    RESTART = "restart"
    """Come back after ``afterMs`` of the reconnect frame, else as BACK_OFF, and resume."""
    AT_ONCE = "at_once"
    """Come back after rand(0, 0.5 s), then with growing waits, and resume."""


class CloseCode(IntEnum):
    """Why a connection was closed; ``duty`` says what the client does, ``meaning`` why."""

    DONE = 1000
    """Sent by a client that is done. From the listener: back off, resume."""
    GOING_AWAY = 1001
    """The other side goes away. Back off, resume."""
    NO_CODE = 1005
    """Closed without a code; never sent. Back off, resume."""
    CUT = 1006
    """The connection was cut; never sent. Back off, resume."""
    TOO_BIG = 1009
    """A frame was longer than FRAME_BYTES_MAX. Stop."""
    SERVER_ERROR = 1011
    """The listener failed. Back off, resume."""
    RESTART = 1012
    """The listener restarts. Come back after ``afterMs``, else after the jitter, and resume."""
    OVERLOADED = 1013
    """The listener has too much to do. Back off, resume."""
    BAD_KEY = 4001
    """The key is not known. Stop: set a key that the listener knows."""
    MALFORMED = 4002
    """A frame was malformed. Stop: the client is faulty."""
    NO_KEY = 4003
    """No key, neither in ``connect`` nor in the header. Stop."""
    STREAM_NOT_ALLOWED = 4004
    """The key may not follow a stream that was named. Stop."""
    REPLACED = 4009
    """The same terminal opened a newer connection. Stop: two programs use one key."""
    REVOKED = 4010
    """The key was revoked. Stop: ask for a new one."""
    TOO_MANY_FRAMES = 4101
    """Too many frames in a short time. Back off for at least a second, resume."""
    TOO_MANY_CONNECTIONS = 4102
    """Too many connections. Back off for at least a second, resume."""
    CONNECT_LATE = 4103
    """No ``connect`` within CONNECT_SECONDS. Back off for at least a second, resume."""
    SLOW_CONSUMER = 4108
    """The client took nothing for too long. Back off for at least a second, resume."""
    COME_BACK = 4200
    """Come back now. At once with jitter, resume."""
    DEAD = 4201
    """Nothing was heard for ``deadSeconds``; sent by either side. At once with jitter, resume."""

    @property
    def duty(self) -> Duty:
        """What the client does."""
        return duty_of(self)

    @property
    def meaning(self) -> str:
        """Why, in words for a close frame (at most 123 bytes) or a log."""
        return _MEANINGS[self]


_MEANINGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        CloseCode.DONE: "the side that closed is done",
        CloseCode.GOING_AWAY: "the other side goes away",
        CloseCode.NO_CODE: "closed without a code",
        CloseCode.CUT: "the connection was cut",
        CloseCode.TOO_BIG: "a frame was too big",
        CloseCode.SERVER_ERROR: "the listener failed",
        CloseCode.RESTART: "the listener restarts",
        CloseCode.OVERLOADED: "the listener has too much to do",
        CloseCode.BAD_KEY: "the key is not known",
        CloseCode.MALFORMED: "a frame was malformed",
        CloseCode.NO_KEY: "no key came, neither in connect nor in the header",
        CloseCode.STREAM_NOT_ALLOWED: "the key may not follow this stream",
        CloseCode.REPLACED: "the same terminal opened a newer connection",
        CloseCode.REVOKED: "the key was revoked",
        CloseCode.TOO_MANY_FRAMES: "too many frames in a short time",
        CloseCode.TOO_MANY_CONNECTIONS: "too many connections",
        CloseCode.CONNECT_LATE: "no connect frame came in time",
        CloseCode.SLOW_CONSUMER: "the client took nothing for too long",
        CloseCode.COME_BACK: "come back now",
        CloseCode.DEAD: "nothing was heard for too long",
    }
)
_DUTIES: Final[Mapping[int, Duty]] = MappingProxyType(
    {CloseCode.TOO_BIG: Duty.STOP, CloseCode.RESTART: Duty.RESTART}
)
_DUTY_OF_RANGE: Final[Mapping[int, Duty]] = MappingProxyType(
    {40: Duty.STOP, 41: Duty.BACK_OFF_LONGER, 42: Duty.AT_ONCE}
)


def duty_of(code: int) -> Duty:
    """Return what a client does after a close code; an unknown one means what its range means."""
    return _DUTIES.get(code) or _DUTY_OF_RANGE.get(code // 100, Duty.BACK_OFF)
