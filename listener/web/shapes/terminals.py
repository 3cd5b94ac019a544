"""Who follows the streams, as the API shows it: terminals, listeners, unseen cancellations."""

from typing import Self

from pydantic import Field

from listener.ledger import nodes
from listener.ledger.model import rfc3339
from listener.web.shapes.models import (
    MerchantNo,
    Model,
    StoreNo,
    Stream,
    Terminal,
    Time,
    TransactionNo,
)


class TerminalState(Model):
    """A terminal and a stream that it follows; one line for each such pair."""

    name: str = Field(
        description="`<merchantNo>/<storeNo>/<terminal>`, or `key:<id>` for a key without one.",
        examples=["200043/303660/T-42"],
    )
    merchant_no: MerchantNo | None
    store_no: StoreNo | None
    terminal: Terminal | None
    stream: Stream | None = Field(description="Null if it is connected and has never acknowledged.")
    online: bool
    last_seen_at: Time | None = Field(
        description="When it was last heard: on its connection, or by an acknowledgement."
    )
    acked_offset: int | None = Field(
        ge=0, description="Everything up to here is handled; null before the first acknowledgement."
    )
    acked_at: Time | None = Field(description="When it last acknowledged.")
    head: int | None = Field(ge=0, description="The newest offset of the stream.")
    lag: int | None = Field(
        ge=0, description="How many events after its start, or its last ack, it has not handled."
    )
    unacknowledged_cancellations: int = Field(
        ge=0, description="Cancellations of the stream that no terminal has acknowledged."
    )


class Unacknowledged(Model):
    """A cancellation that no terminal of its stream has acknowledged."""

    stream: Stream
    offset: int = Field(ge=1)
    transaction_no: TransactionNo
    reference: str | None
    amount: str | None
    currency: str | None
    recorded_at: Time
    late: bool = Field(description="Whether a till should have acknowledged it by now: after 60 s.")


class NodeState(Model):
    """A listener that serves the ledger beside others."""

    id: str = Field(description="Made anew with each start.", examples=["1f0c55aa"])
    version: str = Field(examples=["0.2.0"])
    started_at: Time
    lag: int = Field(ge=0, description="How many events it has yet to publish to its tills.")
    clock_ms: int = Field(description="How far its clock is ahead of the database's.")
    here: bool = Field(description="Whether it is the one that answers.")

    @classmethod
    def of(cls, node: nodes.NodeState) -> Self:
        """Describe a node."""
        return cls(
            id=node.id,
            version=node.version,
            started_at=rfc3339(node.started_at_ms),
            lag=node.lag,
            clock_ms=node.clock_ms,
            here=node.is_here,
        )


class Terminals(Model):
    """Who follows which stream, and the cancellations that nobody acknowledged."""

    data: list[TerminalState]
    unacknowledged: list[Unacknowledged] = Field(
        description="The same on every page; at most 1,000."
    )
    nodes: list[NodeState] = Field(
        description="The listeners that serve the ledger now, the oldest first; the same on every"
        " page. Empty for a ledger on SQLite, which has one."
    )
    next_cursor: str | None = Field(description="Returns the next page; null on the last page.")
