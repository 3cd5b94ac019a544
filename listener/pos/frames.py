"""The frames of ``pos.v1``: what a POS client and the listener say to each other by websocket.

The models here and in ``events`` are the protocol: AsyncAPI is made from them, and ``pos.wire``
reads with them. Unknown fields and unknown frame types are ignored, so that either side may be the
newer one.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, StringConstraints, field_serializer, field_validator
from pydantic_core import PydanticCustomError

from listener.pos.events import (
    Epoch,
    Number,
    Offset,
    PageEvent,
    ResyncMembers,
    Stream,
    StreamStart,
    WireModel,
)
from listener.pos.lenient import NUMBER_MAX, WHOLE, whole

PROTOCOL: Final = "pos.v1"
PING_SECONDS: Final = 20.0
DEAD_SECONDS: Final = 35.0
CONNECT_SECONDS: Final = 5.0
RECONNECT_JITTER_MS: Final = 5000
# A connect frame with STREAMS_MAX streams fits into this, where numbers have up to 20 digits. More
# would let strangers fill the memory.
FRAME_BYTES_MAX: Final = 64 * 1024
STREAMS_MAX: Final = 512
# Any key may name so many; more only one that has more.
STREAMS_OF_ANY_KEY_MAX: Final = 64
FRAME_ID_CHARS_MAX: Final = 64

# What a client names its frame by: a counter, a UUID, the time in nanoseconds.
FrameId = (
    Annotated[int, Field(ge=-(2**63), le=2**63 - 1), WHOLE]
    | Annotated[str, StringConstraints(max_length=FRAME_ID_CHARS_MAX)]
)


class Connect(WireModel):
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
    others: bool | None = Field(
        default=None,
        description="True: follow the key's other streams as well, also those of stores that were"
        " added since. They begin after `acked`; one that is new to a till that has come before"
        " begins at its first event. A named stream that is no longer of the key's scope is left"
        " out of `ready`, not refused.",
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
            raise PydanticCustomError("repeated", "name each stream once")
        return streams


class Ack(WireModel):
    """Client: every event of a stream up to this offset is handled. Cumulative and durable."""

    type: Literal["ack"] = "ack"
    id: FrameId | None = Field(default=None, description="Comes back in `error`.")
    stream: Stream
    epoch: Epoch | None = Field(
        default=None,
        description="The epoch that the offset counts in. Where it is another than the"
        " listener's, `error` answers; without it the listener's is meant.",
    )
    offset: Offset


class Pong(WireModel):
    """Client: the answer to a ping."""

    type: Literal["pong"] = "pong"
    t: Number | None = Field(default=None, description="The `t` of the ping.")

    @field_validator("t", mode="before")
    @classmethod
    def _take_any(cls, t: object) -> object:
        """Read as absent what is no such number: that a pong came is all that counts."""
        number = whole(t)
        if not isinstance(number, int) or isinstance(number, bool):
            return None
        return number if 0 <= number <= NUMBER_MAX else None


class Hello(WireModel):
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


class ReadyStream(WireModel):
    """A stream that the connection follows."""

    stream: Stream
    epoch: Epoch
    head: Offset = Field(description="The newest offset.")
    after: Offset = Field(description="Events past this offset follow.")
    recovered: bool = Field(description="False where a `resync` replaces the asked position.")


class Ready(WireModel):
    """Server: connected; events follow."""

    type: Literal["ready"] = "ready"
    id: FrameId | None = Field(default=None, description="That of the connect frame.")
    streams: list[ReadyStream]


class Resync(ResyncMembers):
    """Server: forget positions and state versions, read the snapshot, go on from `head`."""

    type: Literal["resync"] = "resync"


class EventFrame(PageEvent):
    """Server: an event and its place. An offset past the next one is a hole: reconnect."""

    type: Literal["event"] = "event"


class Ping(WireModel):
    """Server: still here; answer with a pong."""

    type: Literal["ping"] = "ping"
    t: Number = Field(description="The listener's clock, Unix ms.")
    heads: dict[str, Offset] = Field(
        default_factory=dict, description="The newest offset of each followed stream."
    )


class ErrorFrame(WireModel):
    """Server: a frame could not be done; the connection stays."""

    type: Literal["error"] = "error"
    id: FrameId | None = Field(default=None, description="That of the frame, where it had one.")
    code: str = Field(description="A word for programs.")
    message: str = Field(description="A sentence for people.")
    retryable: bool = Field(default=False, description="Whether the same frame may work later.")


class Reconnect(WireModel):
    """Server: a planned restart; close 1012 follows."""

    type: Literal["reconnect"] = "reconnect"
    after_ms: Number = Field(description="Come back so long after the close.")


ClientFrame = Connect | Ack | Pong
ServerFrame = Hello | Ready | Resync | EventFrame | Ping | ErrorFrame | Reconnect
