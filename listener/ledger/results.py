"""What a ledger returns when a fact is recorded, and when it is read."""

from msgspec import Struct

from listener.ledger.model import DeliveryCount, Entry, Fact, Transaction, Why
from listener.ledger.sale import SaleState


class Recorded(Struct, frozen=True):
    """What became of a fact: the seq of its entry, or of the entry recorded before.

    ``transaction`` is the transaction after it; None for a repeat, and for a fact without a
    transaction number. ``event_type`` is None where tills were told nothing.
    """

    seq: int
    is_new: bool
    transaction: Transaction | None = None
    event_type: str | None = None


class ReadEntry(Struct, frozen=True, kw_only=True):
    """An entry as it is read back, with what belongs to it but is not part of it."""

    entry: Entry
    held: str | None
    deliveries: DeliveryCount


class Head(Struct, frozen=True, kw_only=True):
    """The end of the ledger: its newest entry, and how much it holds."""

    epoch: str
    seq: int
    hash: str
    events: int
    transactions: int
    repeats: int


class Totals(Struct, frozen=True, kw_only=True):
    """How much of the ledger a scope covers; ``repeats`` are deliveries beyond the first."""

    entries: int
    transactions: int
    events: int
    repeats: int


class StoredAck(Struct, frozen=True, kw_only=True):
    """Where a terminal stands in a stream, and how far it has ever acknowledged it.

    ``offset`` is where it resumes, within ``epoch``: at its newest acknowledgement, or at its
    start until there is one. ``acked`` is None until there is one, and holds in every epoch.
    """

    terminal: str
    stream: str
    epoch: str
    offset: int
    acked: int | None
    acked_at_ms: int


class Acked(Struct, frozen=True, kw_only=True):
    """Where a terminal resumes in a stream; valid only in its own epoch."""

    epoch: str
    offset: int


class Unacked(Struct, frozen=True, kw_only=True):
    """A cancellation that no terminal of its stream has acknowledged; ``body`` is its event's."""

    stream: str
    offset: int
    transaction_no: str
    recorded_at_ms: int
    body: str


class Doubts(Struct, frozen=True, kw_only=True):
    """How many transactions are asked about for one reason, and whether the silence was raised."""

    why: Why
    is_raised: bool
    count: int


class RecordedSale(Struct, frozen=True, kw_only=True):
    """A sale, its state, and the wish to cancel it if that came before its number."""

    state: SaleState
    fact: Fact
    recorded_at_ms: int
    wish: Fact | None

    @property
    def seq(self) -> int:
        """The seq of its entry."""
        return self.state.seq

    @property
    def transaction_no(self) -> str | None:
        """Its transaction number; None while Pockyt has not given one."""
        return self.state.transaction_no


class Remembered(Struct, frozen=True, kw_only=True):
    """The answer stored for an Idempotency-Key; its status is None while under way."""

    request: str
    status: int | None
    body: str | None
