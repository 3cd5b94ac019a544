"""The events of ``pos.v1`` and their places: what a websocket and a long-poll have in common."""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, field_validator
from pydantic.alias_generators import to_camel

from listener.pos.lenient import NUMBER_MAX, WHOLE, LenientModel

STREAM_CHARS_MAX: Final = 130
EPOCH_CHARS_MAX: Final = 64
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


class WireModel(LenientModel):
    """What every part of the protocol shares: camelCase on the wire, strict, frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
        strict=True,
    )


class Position(WireModel):
    """A place in a stream: the last event that the client has. Good only in its epoch."""

    epoch: Epoch
    offset: Offset


# The empty text, list and object, and the zero of a position in Go and in C#.
_UNSET: Final[tuple[object, ...]] = ("", [], {}, {"epoch": "", "offset": 0}, {"offset": 0})

Start = Literal["acked", "latest", "earliest"]
After = Position | Start


class StreamStart(WireModel):
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


class ResyncReason(StrEnum):
    """Why a position cannot be resumed."""

    EPOCH_CHANGED = "epoch_changed"
    OFFSET_AHEAD = "offset_ahead"


class ResyncMembers(WireModel):
    """How to go on from a position that cannot be resumed; members of the 410 problem too."""

    stream: Stream
    reason: str = Field(
        description="`epoch_changed`: another ledger; `offset_ahead`: beyond the head.",
        examples=list(ResyncReason),
    )
    epoch: Epoch
    head: Offset = Field(description="Where the events go on from.")
    snapshot: str = Field(description="Path and query of the transactions as they stand now.")


class EventData(WireModel):
    """A transaction as a till shows it."""

    transaction_no: str = Field(description="Pockyt's number; opaque text.")
    reference: str | None = Field(default=None, description="The shop's own number.")
    merchant_no: str = Field(description="Pockyt's number of the merchant.")
    store_no: str | None = Field(default=None, description="None where no store is known.")
    terminal: str | None = Field(
        default=None,
        description="The till that started the sale; where no sale was recorded, the one that"
        " cancelled.",
    )
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


class Event(WireModel):
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


class PageEvent(WireModel):
    """An event and its place."""

    stream: Stream
    offset: Offset
    event: Event


class EventsPage(WireModel):
    """The answer of `GET /v1/pos/events`: events of one stream past a position."""

    stream: Stream | None = Field(default=None, description="The stream that was read.")
    epoch: Epoch
    head: Offset = Field(description="The newest offset.")
    next: Offset = Field(description="Ask again after this offset.")
    events: list[PageEvent]


class AckBody(WireModel):
    """The body of `POST /v1/pos/acks`."""

    stream: Stream
    epoch: Epoch
    offset: Offset
