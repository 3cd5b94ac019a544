"""The protocol ``pos.v1``: what a POS client and the listener say to each other.

The models here are the protocol: AsyncAPI is made from them, and the client reads with them.
Unknown fields and unknown frame types are ignored, so that either side may be the newer one.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeVar

import orjson
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic.alias_generators import to_camel

from listener.errors import UnreadableError

PROTOCOL: Final = "pos.v1"
PING_SECONDS: Final = 20.0
DEAD_SECONDS: Final = 35.0
CONNECT_SECONDS: Final = 5.0
RECONNECT_JITTER_MS: Final = 5000
# A connect frame with STREAMS_MAX streams at full length fits into half of this.
FRAME_BYTES_MAX: Final = 64 * 1024
STREAMS_MAX: Final = 64
STREAM_CHARS_MAX: Final = 130
EPOCH_CHARS_MAX: Final = 64
EVERY_STREAM: Final = "*"
# The largest whole number that JavaScript keeps exactly.
NUMBER_MAX: Final = 2**53 - 1

_TEXT: Final = 0x81
_CLOSE: Final = 0x88
_LENGTH_7_BITS_MAX: Final = 125
_LENGTH_16_BITS_MAX: Final = 0xFFFF

Stream = Annotated[
    str,
    StringConstraints(max_length=STREAM_CHARS_MAX, pattern=r"^(\*|[^/\s]+/[^/\s]+)$"),
    Field(
        description="`<merchantNo>/<storeNo>`, `<merchantNo>/-` where no store is known, or `*`,"
        " every event of the ledger (admin keys only).",
        examples=["200043/303660", "200043/-", "*"],
    ),
]
Offset = Annotated[
    int,
    Field(
        ge=0,
        le=NUMBER_MAX,
        description="Counts a stream's events 1, 2, 3 … without a hole; 0 is before the first.",
    ),
]
Epoch = Annotated[
    str,
    Field(
        min_length=1,
        max_length=EPOCH_CHARS_MAX,
        description="Names the ledger. A restored backup gets a new one.",
    ),
]
Number = Annotated[int, Field(ge=0, le=NUMBER_MAX)]


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
    """Come back now, after a jitter of at most half a second, and resume."""


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
    NO_CONNECT = 4003
    """No ``connect`` within CONNECT_SECONDS, or no key in it or in the header. Stop."""
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
        CloseCode.NO_CONNECT: "no connect frame or no key in time",
        CloseCode.STREAM_NOT_ALLOWED: "the key may not follow this stream",
        CloseCode.REPLACED: "the same terminal opened a newer connection",
        CloseCode.REVOKED: "the key was revoked",
        CloseCode.TOO_MANY_FRAMES: "too many frames in a short time",
        CloseCode.TOO_MANY_CONNECTIONS: "too many connections",
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
    """Tell what a client does after a close code; the range decides for one it does not know."""
    return _DUTIES.get(code) or _DUTY_OF_RANGE.get(code // 100, Duty.BACK_OFF)


class _Model(BaseModel):
    """What every part of the protocol shares: camelCase on the wire, strict, frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
        strict=True,
    )


class Position(_Model):
    """A place in a stream: the last event that the client has. Good only in its epoch."""

    epoch: Epoch
    offset: Offset


Start = Literal["acked", "latest", "earliest"]
After = Position | Start


class StreamStart(_Model):
    """A stream to follow, and from where."""

    stream: Stream
    after: After = Field(
        default="acked",
        description="A position, or `acked` (this terminal's last acknowledged offset; `latest`"
        " where there is none), `latest`, or `earliest`.",
    )


class Connect(_Model):
    """Client: begin. Due within 5 s of the upgrade, with a key in the header too."""

    type: Literal["connect"] = "connect"
    id: Number | None = Field(default=None, description="Comes back in `ready`.")
    key: SecretStr | None = Field(
        default=None, description="The key, where no Authorization header brought it."
    )
    streams: list[StreamStart] | None = Field(
        default=None,
        max_length=STREAMS_MAX,
        description="None, or an empty list: the streams of the key's scope, after `acked`.",
    )

    @field_validator("streams")
    @classmethod
    def _refuse_repeats(cls, streams: list[StreamStart] | None) -> list[StreamStart] | None:
        if streams and len({start.stream for start in streams}) < len(streams):
            raise ValueError("a stream is named twice")
        return streams


class Ack(_Model):
    """Client: every event of a stream up to this offset is handled. Cumulative and durable."""

    type: Literal["ack"] = "ack"
    id: Number | None = Field(default=None, description="Comes back in `error`.")
    stream: Stream
    offset: Offset


class Pong(_Model):
    """Client: the answer to a ping."""

    type: Literal["pong"] = "pong"
    t: Number = Field(description="The `t` of the ping.")


class Hello(_Model):
    """Server: the first frame of a connection, with the times that hold for it."""

    type: Literal["hello"] = "hello"
    protocol: str = Field(default=PROTOCOL, description="The protocol of this connection.")
    session: str = Field(description="Names the connection in the listener's log.")
    ping_seconds: float = Field(
        default=PING_SECONDS, gt=0, strict=False, description="A ping comes this often."
    )
    dead_seconds: float = Field(
        default=DEAD_SECONDS,
        gt=0,
        strict=False,
        description="Whoever hears nothing for so long closes with 4201.",
    )
    reconnect_jitter_ms: Number = Field(
        default=RECONNECT_JITTER_MS,
        description="After a close by the listener, the first try waits rand(0, this).",
    )


class ReadyStream(_Model):
    """A stream that the connection follows."""

    stream: Stream
    epoch: Epoch
    head: Offset = Field(description="The newest offset.")
    after: Offset = Field(description="Events past this offset follow.")
    recovered: bool = Field(description="False where a `resync` replaces the asked position.")


class Ready(_Model):
    """Server: connected; events follow."""

    type: Literal["ready"] = "ready"
    id: Number | None = Field(default=None, description="That of the connect frame.")
    streams: list[ReadyStream]


class ResyncReason(StrEnum):
    """Why a position cannot be resumed."""

    EPOCH_CHANGED = "epoch_changed"
    OFFSET_AHEAD = "offset_ahead"


class ResyncMembers(_Model):
    """How to go on from a position that cannot be resumed; members of the 410 problem too."""

    stream: Stream
    reason: str = Field(
        description="`epoch_changed`: another ledger; `offset_ahead`: beyond the head.",
        examples=list(ResyncReason),
    )
    epoch: Epoch
    head: Offset = Field(description="Where the events go on from.")
    snapshot: str = Field(description="Path and query of the transactions as they stand now.")


class Resync(ResyncMembers):
    """Server: forget positions and state versions, read the snapshot, go on from `head`."""

    type: Literal["resync"] = "resync"


class EventData(_Model):
    """A transaction as a till shows it."""

    transaction_no: str = Field(description="Pockyt's number; opaque text.")
    reference: str | None = Field(default=None, description="The shop's own number.")
    merchant_no: str = Field(description="Pockyt's number of the merchant.")
    store_no: str | None = Field(default=None, description="None where no store is known.")
    terminal: str | None = Field(default=None, description="The till that started the sale.")
    status: str = Field(
        description="created, pending, paid, failed, cancelled, refunded, conflict or unknown."
    )
    provider_status: str | None = Field(default=None, description="Pockyt's own word.")
    state_version: Number = Field(
        description="Grows by one with each event of a transaction: show only what is higher."
    )
    amount: str | None = Field(default=None, description="Decimal text.")
    currency: str | None = Field(default=None, description="ISO 4217.")
    reason: str | None = Field(default=None, description="What led to the event.")
    evidence: str = Field(
        default="none", description="What the status rests on: signature, answer, query, none."
    )


class Event(_Model):
    """What a till is told, as CloudEvents 1.0."""

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(description="`<epoch>-<seq>`; unique.")
    source: str = Field(default="/listener", description="Always `/listener`.")
    type: str = Field(
        description="transaction.created .pending .paid .failed .cancelled .refunded .conflict"
        " .unknown .held .cancelling .unresolved",
        examples=["transaction.cancelled"],
    )
    subject: str = Field(description="The transaction number.")
    time: AwareDatetime = Field(strict=False, description="When it was recorded, UTC.")
    datacontenttype: str = Field(default="application/json", description="The type of `data`.")
    data: EventData


class PageEvent(_Model):
    """An event and its place."""

    stream: Stream
    offset: Offset
    event: Event


class EventFrame(PageEvent):
    """Server: an event and its place. An offset past the next one is a hole: reconnect."""

    type: Literal["event"] = "event"


class Ping(_Model):
    """Server: still here; answer with a pong."""

    type: Literal["ping"] = "ping"
    t: Number = Field(description="The listener's clock, Unix ms.")
    heads: dict[str, Offset] = Field(
        default_factory=dict, description="The newest offset of each followed stream."
    )


class ErrorFrame(_Model):
    """Server: a frame could not be done; the connection stays."""

    type: Literal["error"] = "error"
    id: Number | None = Field(default=None, description="That of the frame, where it had one.")
    code: str = Field(description="A word for programs.")
    message: str = Field(description="A sentence for people.")
    retryable: bool = Field(default=False, description="Whether the same frame may work later.")


class Reconnect(_Model):
    """Server: a planned restart; close 1012 follows."""

    type: Literal["reconnect"] = "reconnect"
    after_ms: Number = Field(description="Come back so long after the close.")


class EventsPage(_Model):
    """The answer of `GET /v1/pos/events`: events of one stream past a position."""

    stream: Stream | None = Field(default=None, description="The stream that was read.")
    epoch: Epoch
    head: Offset = Field(description="The newest offset.")
    next: Offset = Field(description="Ask again after this offset.")
    events: list[PageEvent]


class AckBody(_Model):
    """The body of `POST /v1/pos/acks`."""

    stream: Stream
    epoch: Epoch
    offset: Offset


_F = TypeVar("_F", bound=BaseModel)

ClientFrame = Connect | Ack | Pong
ServerFrame = Hello | Ready | Resync | EventFrame | Ping | ErrorFrame | Reconnect

_CLIENT_FRAMES: Final[Mapping[str, type[ClientFrame]]] = MappingProxyType(
    {"connect": Connect, "ack": Ack, "pong": Pong}
)
_SERVER_FRAMES: Final[Mapping[str, type[ServerFrame]]] = MappingProxyType(
    {
        "hello": Hello,
        "ready": Ready,
        "resync": Resync,
        "event": EventFrame,
        "ping": Ping,
        "error": ErrorFrame,
        "reconnect": Reconnect,
    }
)


def parse_client_frame(text: str | bytes) -> ClientFrame | None:
    """Read a frame that a client sent; None for a type that is not known.

    Raises:
        UnreadableError: Not an object, no type, or a field that is not what it should be.
    """
    return _parse(text, _CLIENT_FRAMES)


def parse_server_frame(text: str | bytes) -> ServerFrame | None:
    """Read a frame that the listener sent; None for a type that is not known.

    Raises:
        UnreadableError: Not an object, no type, or a field that is not what it should be.
    """
    return _parse(text, _SERVER_FRAMES)


def encode(frame: BaseModel) -> bytes:
    """Write a frame, page or body as the JSON that goes over the wire; what is None is left out.

    A connect frame's key is written as stars: a client that has headers sends it there.
    """
    return frame.model_dump_json(by_alias=True, exclude_none=True).encode()


def parse_after(text: str) -> After:
    """Read the query parameter ``after``: ``<epoch>:<offset>``, or a word as in `connect`.

    Raises:
        UnreadableError: Neither.
    """
    match text:
        case "acked" | "latest" | "earliest":
            return text
    epoch, _, offset = text.rpartition(":")
    # isdecimal alone takes other scripts' digits; the length keeps int() cheap.
    if not (offset.isascii() and offset.isdecimal() and len(offset) <= len(str(NUMBER_MAX))):
        raise UnreadableError("after is neither <epoch>:<offset> nor acked, latest or earliest")
    try:
        return Position(epoch=epoch, offset=int(offset))
    except ValidationError as error:
        raise UnreadableError(f"after: {_first(error)}") from error


def after_text(after: After) -> str:
    """Write a start as the query parameter ``after``."""
    return f"{after.epoch}:{after.offset}" if isinstance(after, Position) else after


def event_frame(stream: str, offset: int, event: bytes) -> bytes:
    """Build an event frame around the stored JSON of its event, which is not looked at.

    It holds nothing of one connection, so one frame serves every subscriber.
    """
    return b'{"type":"event","stream":%b,"offset":%d,"event":%b}' % (
        orjson.dumps(stream),
        offset,
        event,
    )


def ws_text(payload: bytes) -> bytes:
    """Build a whole websocket text frame as a server sends it: final, unmasked.

    Source: RFC 6455, section 5.2.
    """
    length = len(payload)
    if length <= _LENGTH_7_BITS_MAX:
        return bytes((_TEXT, length)) + payload
    if length <= _LENGTH_16_BITS_MAX:
        return bytes((_TEXT, 126)) + length.to_bytes(2, "big") + payload
    return bytes((_TEXT, 127)) + length.to_bytes(8, "big") + payload


def ws_close(code: int, reason: str) -> bytes:
    """Build a websocket close frame as a server sends it; the reason has at most 123 bytes.

    Source: RFC 6455, section 5.5.1.
    """
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes((_CLOSE, len(payload))) + payload


def _parse(text: str | bytes, models: Mapping[str, type[_F]]) -> _F | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # Not chained: the error carries the document, which may hold a key.
        raise UnreadableError(f"a frame is not JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise UnreadableError("a frame is not an object")
    kind = value.get("type")
    if not isinstance(kind, str):
        raise UnreadableError("a frame has no type")
    model = models.get(kind)
    if model is None:
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UnreadableError(f"frame {kind}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """Word the first fault of a model: where and what, never the input."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
