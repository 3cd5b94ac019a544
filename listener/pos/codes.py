"""The close codes of ``pos.v1``: why a connection was closed, and what a client does next."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final, Self

# The beginning of the type of each problem that the listener answers over HTTP. Only such a
# problem may stop a client: an answer of a proxy or a sign-on page has another type, or none.
PROBLEM_TYPES: Final = "urn:pockyt-listener:problem:"
# Takes a key as ``Authorization`` does, and wins: a proxy may use that for itself.
KEY_HEADER: Final = "X-Listener-Key"


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
    """Why a connection was closed: one member for each row in docs/protocol.md.

    ``meaning`` says why, in words for a close frame (at most 123 bytes) or a log. ``to_do`` is what
    a person must do before the client may come back; '' where nothing.
    """

    meaning: str
    to_do: str

    def __new__(cls, code: int, meaning: str = "", to_do: str = "") -> Self:
        """Make a member from a row."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning, made.to_do = meaning, to_do
        return made

    DONE = 1000, "the side that closed is done"
    GOING_AWAY = 1001, "the other side goes away"
    NO_CODE = 1005, "closed without a code"
    CUT = 1006, "the connection was cut"
    TOO_BIG = 1009, "a frame was too big", "name fewer streams"
    SERVER_ERROR = 1011, "the listener failed"
    RESTART = 1012, "the listener restarts"
    OVERLOADED = 1013, "the listener has too much to do"
    BAD_KEY = 4001, "the key is not known", "set one that `listener keys create` made"
    MALFORMED = 4002, "a frame was malformed", "update this client or the listener"
    NO_KEY = 4003, "no key reached the listener", "set one that `listener keys create` made"
    STREAM_NOT_ALLOWED = 4004, "the key may not follow this stream", "name one of its scope"
    REPLACED = 4009, "another program uses this terminal's key", "stop it, or make a key"
    REVOKED = 4010, "the key was revoked", "ask for a new one"
    TOO_MANY_FRAMES = 4101, "too many frames in a short time"
    TOO_MANY_CONNECTIONS = 4102, "too many connections"
    CONNECT_LATE = 4103, "no connect frame came in time"
    SLOW_CONSUMER = 4108, "the client took nothing for too long"
    COME_BACK = 4200, "come back now"
    DEAD = 4201, "nothing was heard for too long"

    @property
    def duty(self) -> Duty:
        """What the client does."""
        return duty_of(self)


_DUTIES: Final[Mapping[int, Duty]] = MappingProxyType(
    {CloseCode.TOO_BIG: Duty.STOP, CloseCode.RESTART: Duty.RESTART}
)
_DUTY_OF_RANGE: Final[Mapping[int, Duty]] = MappingProxyType(
    {40: Duty.STOP, 41: Duty.BACK_OFF_LONGER, 42: Duty.AT_ONCE}
)


def duty_of(code: int) -> Duty:
    """Return what a client does after a close code; an unknown one means what its range means."""
    return _DUTIES.get(code) or _DUTY_OF_RANGE.get(code // 100, Duty.BACK_OFF)
