"""What every back-end of the ledger promises."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct

from listener.ledger.model import DeliveryCount, Entry, Event, Fact, Status, Transaction, Why
from listener.ledger.sale import SaleState

# How many terminals' places are read at a time.
ACKS_PAGE: Final = 500

Bell = Callable[[Sequence[Event]], None]


class Recorded(Struct, frozen=True, kw_only=True):
    """What became of a fact: its entry's seq, or that of the one recorded before for the same.

    ``transaction`` is where the transaction stands after it; None for a repeat, and for a fact
    without a transaction number. ``event_type`` is None where tills were told nothing.
    """

    seq: int
    is_new: bool
    transaction: Transaction | None = None
    event_type: str | None = None


class ReadEntry(Struct, frozen=True, kw_only=True):
    """An entry as it is read back, with what is not part of it but belongs to it."""

    entry: Entry
    held: str | None
    deliveries: DeliveryCount


class Head(Struct, frozen=True, kw_only=True):
    """The end of the ledger: its newest entry, and what it holds."""

    epoch: str
    seq: int
    hash: str
    events: int
    transactions: int
    repeats: int


class Totals(Struct, frozen=True, kw_only=True):
    """What of the ledger somebody may see; ``repeats`` are deliveries beyond the first."""

    entries: int
    transactions: int
    events: int
    repeats: int


class Scope(Struct, frozen=True, kw_only=True):
    """Which merchant's, store's and terminal's lines may be seen; None for all."""

    merchant_no: str | None = None
    store_no: str | None = None
    terminal: str | None = None

    def covers(self, name: str) -> bool:
        """Return whether this scope covers a stream, or a terminal by its full name."""
        merchant_no, _, rest = name.partition("/")
        if self.merchant_no not in (None, merchant_no):
            return False
        return self.store_no in (None, rest.partition("/")[0])


EVERYWHERE: Final = Scope()


class Search(Struct, frozen=True, kw_only=True):
    """Which transactions are wanted; None for all. Times are Unix ms, since ≤ t < until.

    ``contains`` is a part of the reference or of the transaction number, in any case.
    """

    scope: Scope
    status: Status | None = None
    reference: str | None = None
    contains: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class Cursor(Struct, frozen=True, kw_only=True):
    """The last transaction of a page, newest first."""

    created_at_ms: int
    first_seq: int


class StoredAck(Struct, frozen=True, kw_only=True):
    """Where a terminal stands in a stream, and up to where it has ever acknowledged it.

    ``offset`` is where it goes on, in its epoch: its newest acknowledgement, or its start until
    there is one. ``acked`` is None until there is one; it holds in whichever epoch it was made.
    """

    terminal: str
    stream: str
    epoch: str
    offset: int
    acked: int | None
    acked_at_ms: int


class Acked(Struct, frozen=True, kw_only=True):
    """Where a terminal goes on in a stream; of use only in its own epoch."""

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
    """How many transactions Pockyt is asked about for a reason, and whether it was raised."""

    why: Why
    is_raised: bool
    count: int


class RecordedSale(Struct, frozen=True, kw_only=True):
    """A recorded sale, where it stands, and the wish to cancel it, if it came before its number."""

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
        """Its number; None until Pockyt has told it."""
        return self.state.transaction_no


class Remembered(Struct, frozen=True, kw_only=True):
    """The answer that was given under an Idempotency-Key; its status is None while under way."""

    request: str
    status: int | None
    body: str | None


class Seat(Struct, frozen=True, kw_only=True):
    """A connection of a subscriber; of two of a terminal only the newer one stays.

    ``since`` is when it came, by ``time.monotonic()``: it may be announced later.
    """

    session: str
    subscriber: str
    terminal: str | None
    since: float


class Ledger(Protocol):
    """An ordered, durable record of facts, and what they add up to.

    Every method raises LedgerUnavailableError where the ledger cannot be read or written now;
    for one that writes, nothing was then recorded, and calling it again is safe.
    """

    @property
    def epoch(self) -> str:
        """The random name of this ledger; positions and event ids begin with it."""

    @property
    def secret(self) -> bytes:
        """Random bytes that only this ledger knows, the same after a restart."""

    @property
    def waiting(self) -> int:
        """How many wait for a commit."""

    async def check_writable(self) -> None:
        """Commit and sync something that changes nothing; raise where that cannot be done."""

    def listen(self, bell: Bell) -> None:
        """Call the bell, in the event loop, with the events of each commit, in order."""

    def on_epoch(self, hook: Callable[[], None]) -> None:
        """Call a hook when the ledger gets a new epoch while it is open.

        It has lost what was at its end, so that no position of before fits it any more.
        """

    async def record(self, fact: Fact) -> Recorded:
        """Append a fact; durable once this returns.

        A caller that is cancelled meanwhile does not undo its entry.

        Returns:
            The new entry, or, with ``is_new`` False, the one recorded before for the same
            fingerprint, whose deliveries now count one more.

        Raises:
            OverloadedError: Too much is waiting; try again in a moment.
            ReferenceTakenError: It is a sale, and an earlier one of its store has its reference.
            NumberTakenError: It brings a sale the number of another sale, or of another store.
        """

    def queue(self, fact: Fact, answer: Callable[[Recorded | Exception], None]) -> None:
        """Queue a fact to be recorded, for a caller that waits for nothing else.

        ``answer`` is called in the event loop with what :meth:`record` would return or raise, but
        for what is raised here: OverloadedError, and LedgerUnavailableError while closing.
        """

    async def ack(self, *, terminal: str, stream: str, offset: int) -> None:
        """Store how far a terminal has come; a lower offset than the stored one changes nothing."""

    async def start(self, *, terminal: str, stream: str, offset: int) -> None:
        """Store where a terminal begins, unless a place of this epoch is stored already.

        It acknowledges nothing: who starts past a cancellation has not seen it.
        """

    async def acked(self, *, terminal: str, stream: str) -> Acked | None:
        """Return where a terminal goes on, None where it never began."""

    async def acks(
        self,
        *,
        after: tuple[str, str] = ("", ""),
        scope: Scope = EVERYWHERE,
        limit: int = ACKS_PAGE,
    ) -> list[StoredAck]:
        """Return where terminals stand, in order, past a terminal and stream."""

    async def seq(self) -> int:
        """Return the seq of the newest entry."""

    async def head(self) -> Head:
        """Return the end of the ledger, and count what it holds: that may take a while."""

    async def read_counts(self, scope: Scope) -> Totals:
        """Count what is in a scope."""

    async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
        """Return the newest offset of each stream, 0 where nothing happened yet."""

    async def read_events(self, stream: str, *, after: int, limit: int) -> list[Event]:
        """Return the events of a stream past an offset, in order; their offset is the stream's."""

    async def read_entries(self, *, after: int, limit: int, scope: Scope) -> list[ReadEntry]:
        """Return entries past a seq, in order."""

    async def read_transactions(
        self, search: Search, *, before: Cursor | None, limit: int
    ) -> list[Transaction]:
        """Return transactions, newest first, past a cursor."""

    async def read_transaction(
        self, transaction_no: str, *, merchant_no: str | None
    ) -> list[Transaction]:
        """Return the transactions of a number: two merchants may share it."""

    async def read_transaction_entries(self, transaction: Transaction) -> list[ReadEntry]:
        """Return the entries of a transaction, its sale's included, in order."""

    async def read_unacked(
        self, *, before_ms: int, limit: int, scope: Scope = EVERYWHERE
    ) -> list[Unacked]:
        """Return the cancellations recorded before a time that no terminal acknowledged."""

    async def read_doubts(self, *, now_ms: int) -> list[Doubts]:
        """Return what is in doubt now and asked about, counted by reason."""

    async def read_due(self, *, now_ms: int, limit: int) -> list[Transaction]:
        """Return the transactions about which Pockyt is to be asked, or silence raised, by now.

        ``limit`` is how many of each: of those whose silence is to be raised, which come first; of
        the cancels that somebody waits for; and of all others.
        """

    async def read_due_sales(self, *, now_ms: int, limit: int) -> list[RecordedSale]:
        """Return the sales that are to be looked for, or whose cancel is to be raised, by now.

        As for transactions, ``limit`` is how many of each; those with a cancel come first.
        """

    async def read_sales(
        self, *, merchant_no: str, reference: str, store_no: str | None
    ) -> list[RecordedSale]:
        """Return the sales recorded under a reference, of one store or of all.

        Those whose reference is in use come first, one a store at most; then those that Pockyt
        refused, the newest first, of which only so many are returned.
        """

    async def next_due_ms(self) -> int | None:
        """Return when something is due next (Unix ms); None where nothing is."""

    async def remember(
        self, *, key_id: str, idempotency_key: str, request: str
    ) -> Remembered | None:
        """Claim an Idempotency-Key; return what is kept under it where it was claimed before."""

    async def remember_answer(
        self, *, key_id: str, idempotency_key: str, status: int, body: str
    ) -> None:
        """Store the answer to the request that claimed an Idempotency-Key."""

    async def claim_turn(self, name: str) -> bool:
        """Take a turn that no other node holds; it is renewed until it is released.

        Whoever dies or is paused with it loses it within seconds.
        """

    async def keep_turn(self, name: str, *, seconds: float) -> bool:
        """Hold a turn for so long from now on; False where it is another node's by now."""

    async def release_turn(self, name: str) -> None:
        """Give a turn back."""

    async def announce(self, seats: Mapping[str, Seat]) -> frozenset[str]:
        """Tell the other nodes who is connected here, by session.

        Returns:
            The sessions that a newer one of the same terminal has replaced at another node.
        """

    async def elsewhere(self) -> dict[str, int]:
        """Return how many connections each subscriber has at other nodes."""

    async def close(self) -> None:
        """Commit what waits and let go of the ledger."""
