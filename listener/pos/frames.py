"""The protocol ``pos.v1``: what a POS client and the listener say to each other.

The models here are the protocol: AsyncAPI is made from them, and ``pos.wire`` reads with them.
Unknown fields and unknown frame types are ignored, so that either side may be the newer one.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import (
    AwareDatetime,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_serializer,
    field_validator,
)
from pydantic.alias_generators import to_camel

from listener.pos.lenient import NUMBER_MAX, WHOLE, LenientModel

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
FRAME_ID_CHARS_MAX: Final = 64
EVERY_STREAM: Final = "*"

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
    WHOLE,
]
Epoch = Annotated[
    str,
    Field(
        min_length=1,
        max_length=EPOCH_CHARS_MAX,
        description="Names the ledger. A restored backup gets a new one.",
    ),
]
Number = Annotated[int, Field(ge=0, le=NUMBER_MAX), WHOLE]
# What a client names its frame by: a counter, a UUID, the time in nanoseconds.
FrameId = (
    Annotated[int, Field(ge=-(2**63), le=2**63 - 1), WHOLE]
    | Annotated[str, StringConstraints(max_length=FRAME_ID_CHARS_MAX)]
)


class _Model(LenientModel):
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


# The empty text, list and object, and Go's zero of a position.
_UNSET: Final[tuple[object, ...]] = ("", [], {}, {"epoch": "", "offset": 0})

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

    @field_validator("after", mode="before")
    @classmethod
    def _take_nothing_for_absent(cls, after: object) -> object:
        """Read the values that languages write for an unset position as absent."""
        if isinstance(after, dict):
            after = {name: member for name, member in after.items() if member is not None}
        return "acked" if after in _UNSET else after


class Connect(_Model):
    """Client: begin. Due within 5 s of the upgrade, with a key in the header too."""

    type: Literal["connect"] = "connect"
    id: FrameId | None = Field(default=None, description="Comes back in `ready`.")
    key: SecretStr | None = Field(
        default=None, description="The key; it counts before one in a header."
    )
    streams: list[StreamStart] | None = Field(
        default=None,
        max_length=STREAMS_MAX,
        description="None, or an empty list: the streams of the key's scope, after `acked`.",
    )

    @field_validator("streams", mode="before")
    @classmethod
    def _take_object_for_list(cls, streams: object) -> object:
        """Read an empty object as an empty list: Lua has one table for both."""
        return [] if streams == {} else streams

    @field_validator("streams")
    @classmethod
    def _refuse_repeats(cls, streams: list[StreamStart] | None) -> list[StreamStart] | None:
        if streams and len({start.stream for start in streams}) < len(streams):
            raise ValueError("a stream is named twice")
        return streams


class Ack(_Model):
    """Client: every event of a stream up to this offset is handled. Cumulative and durable."""

    type: Literal["ack"] = "ack"
    id: FrameId | None = Field(default=None, description="Comes back in `error`.")
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
        description="A side that hears nothing for this long closes with 4201.",
    )
    reconnect_jitter_ms: Number = Field(
        default=RECONNECT_JITTER_MS,
        description="After a close by the listener, the first try waits rand(0, this).",
    )

    @field_serializer("ping_seconds", "dead_seconds")
    def _write_whole(self, seconds: float) -> int | float:
        """Write 20, not 20.0: some languages cannot read a whole number with a point."""
        return int(seconds) if seconds.is_integer() else seconds


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
    id: FrameId | None = Field(default=None, description="That of the connect frame.")
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
    id: FrameId | None = Field(default=None, description="That of the frame, where it had one.")
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


ClientFrame = Connect | Ack | Pong
ServerFrame = Hello | Ready | Resync | EventFrame | Ping | ErrorFrame | Reconnect
