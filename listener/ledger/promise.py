"""The protocol that every back-end of the ledger implements."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from listener.ledger.model import Event, Fact, Transaction
from listener.ledger.nodes import NodeState, Seat
from listener.ledger.results import (
    Acked,
    Doubts,
    Head,
    ReadEntry,
    Recorded,
    RecordedSale,
    Remembered,
    StoredAck,
    Totals,
    Unacked,
)
from listener.ledger.scope import EVERYWHERE, Cursor, Scope, Search

# How many terminals' places are read at a time.
ACKS_PAGE: Final = 500
# How many sales of one reference are read: those that use it, and the newest refused ones.
SALES_MAX: Final = 64
# For how long an answer under an Idempotency-Key is remembered.
ANSWER_DAYS: Final = 7
# How many older answers are deleted at a time, so that after a long rest nothing else waits for it:
# 100,000 at once held up every notification for half a second.
ANSWERS_DELETED: Final = 100

Bell = Callable[[Sequence[Event]], None]
# Whether the events of a stream are wanted, or only its newest offset.
Follows = Callable[[str], bool]
# Called with the newest offset of each stream whose events were left out, and how many those were.
Skip = Callable[[Mapping[str, int], int], None]


def always(_stream: str) -> bool:
    """Follow every stream."""
    return True


def ignore(_heads: Mapping[str, int], _count: int) -> None:
    """Do nothing."""


class Ledger(Protocol):
    """An ordered, durable record of facts, and what they add up to.

    Every method raises LedgerUnavailableError where the ledger cannot be read or written now.
    Then nothing was recorded, and calling the method again is safe.
    """

    @property
    def epoch(self) -> str:
        """The random name of this ledger; positions and event ids begin with it."""

    @property
    def secret(self) -> bytes:
        """Random bytes that only this ledger knows; a restart does not change them."""

    @property
    def waiting(self) -> int:
        """How many items wait for a commit."""

    async def check_writable(self) -> None:
        """Commit and sync something that changes nothing; raise if that fails."""

    def listen(self, bell: Bell, *, follows: Follows = always, skip: Skip = ignore) -> None:
        """Call the bell, in the event loop, with the events of each commit, in order.

        If another node recorded them, those of streams that are not followed are left out, and
        ``skip`` gets the newest offsets of these streams before the bell rings.
        """

    def on_epoch(self, hook: Callable[[], None]) -> None:
        """Call a hook when the ledger gets a new epoch while it is open.

        That happens when it has lost its end, so that earlier positions no longer fit.
        """

    async def record(self, fact: Fact) -> Recorded:
        """Append a fact; durable once this returns.

        Cancelling the caller does not undo the entry.

        Returns:
            The new entry. For a fingerprint that was recorded before, that entry with ``is_new``
            False, its deliveries counted up by one.

        Raises:
            OverloadedError: Too much is waiting; try again in a moment.
            ReferenceTakenError: It is a sale, and an earlier one of its store has its reference.
            NumberTakenError: It brings a sale the number of another sale, or of another store.
        """

    def queue(self, fact: Fact, answer: Callable[[Recorded | Exception], None]) -> None:
        """Queue a fact to be recorded, for a caller that does not await the result.

        ``answer`` is called in the event loop with what :meth:`record` would return or raise.
        OverloadedError, and LedgerUnavailableError while closing, are raised here instead.
        """

    async def ack(
        self, *, terminal: str, stream: str, offset: int, epoch: str | None = None
    ) -> None:
        """Store how far a terminal has come; an offset below the newest ack changes nothing.

        ``epoch`` is the one that the offset counts in; an offset of another epoch changes nothing.
        """

    async def start(self, *, terminal: str, offsets: Mapping[str, int]) -> None:
        """Store where a terminal begins, in each stream where it has no place of this epoch.

        All or none are stored. It acknowledges nothing: a terminal that starts past a cancellation
        has not seen it.
        """

    async def acked(self, *, terminal: str, stream: str) -> Acked | None:
        """Return where a terminal resumes; None where it never began."""

    async def acks(
        self,
        *,
        after: tuple[str, str] = ("", ""),
        scope: Scope = EVERYWHERE,
        limit: int = ACKS_PAGE,
    ) -> list[StoredAck]:
        """Return the terminals' places, in order, after a terminal and stream."""

    async def seq(self) -> int:
        """Return the seq of the newest entry."""

    async def head(self) -> Head:
        """Return the end of the ledger and count what it holds, which may take a while."""

    async def read_counts(self, scope: Scope) -> Totals:
        """Count what a scope covers."""

    async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
        """Return the newest offset of each stream; 0 where nothing has happened yet."""

    async def read_events(self, stream: str, *, after: int, limit: int) -> list[Event]:
        """Return the events of a stream after an offset, in order; offsets are the stream's."""

    async def read_entries(self, *, after: int, limit: int, scope: Scope) -> list[ReadEntry]:
        """Return the entries after a seq, in order."""

    async def read_transactions(
        self, search: Search, *, before: Cursor | None, limit: int
    ) -> list[Transaction]:
        """Return transactions after a cursor, the newest first."""

    async def read_transaction(
        self, transaction_no: str, *, merchant_no: str | None
    ) -> list[Transaction]:
        """Return the transactions with a number: two merchants may have the same one."""

    async def read_transaction_entries(
        self,
        transaction: Transaction,
        *,
        after: int = 0,
        limit: int | None = None,
        notifications: bool = True,
    ) -> list[ReadEntry]:
        """Return the entries of a transaction past a seq, its sale's included, in order.

        ``limit`` is for callers that cannot take any number of them. Without ``notifications``,
        only the few that the listener itself made are returned.
        """

    async def read_unacked(
        self, *, before_ms: int, limit: int, scope: Scope = EVERYWHERE
    ) -> list[Unacked]:
        """Return cancellations from before a time that no terminal has acknowledged."""

    async def read_doubts(self, *, now_ms: int) -> list[Doubts]:
        """Count the transactions, and sales without a number, that Pockyt is asked about."""

    async def read_due(self, *, now_ms: int, limit: int) -> list[Transaction]:
        """Return the transactions to ask Pockyt about, or to raise as silent, by now.

        ``limit`` is how many of each group: those whose silence is to be raised come first, then
        the cancels that somebody waits for, then all others.
        """

    async def read_due_sales(self, *, now_ms: int, limit: int) -> list[RecordedSale]:
        """Return the sales to look for at Pockyt, or whose cancel to raise, by now.

        As for transactions, ``limit`` is how many of each group; those with a cancel come first.
        """

    async def read_open_sales(self, *, scope: Scope, now_ms: int, limit: int) -> list[RecordedSale]:
        """Return the sales that Pockyt has not numbered in good time, and is asked about.

        The newest first, without those whose cancel has ended or that Pockyt refused.
        """

    async def read_sales(
        self, *, merchant_no: str, reference: str, store_no: str | None
    ) -> list[RecordedSale]:
        """Return the sales with a reference, of one store or of all.

        Those that use the reference come first, at most one a store; then up to ``limit`` of those
        that Pockyt refused, the newest first.
        """

    async def next_due_ms(self) -> int | None:
        """Return when something is due next (Unix ms); None where nothing is."""

    async def remember(
        self, *, key_id: str, idempotency_key: str, request: str
    ) -> Remembered | None:
        """Claim an Idempotency-Key; return what is stored for it if it was claimed before."""

    async def remember_answer(
        self, *, key_id: str, idempotency_key: str, status: int, body: str
    ) -> None:
        """Store the answer to the request that claimed an Idempotency-Key."""

    async def claim_turn(self, name: str) -> bool:
        """Claim a turn that no other node holds; it is renewed until it is released.

        A node that dies or is paused loses its turns within seconds.
        """

    async def keep_turn(self, name: str, *, seconds: float) -> bool:
        """Extend a turn for a time from now; return False if another node has it by now."""

    async def release_turn(self, name: str) -> None:
        """Release a turn."""

    async def announce(self, seats: Mapping[str, Seat]) -> frozenset[str]:
        """Publish to the other nodes who is connected here, by session.

        Returns:
            The sessions here that a newer one of the same terminal at another node has replaced.
        """

    async def elsewhere(self) -> dict[str, int]:
        """Return how many connections each subscriber has at other nodes."""

    async def nodes(self) -> list[NodeState]:
        """Return the live nodes, the oldest first; none if there can be only one."""

    async def close(self) -> None:
        """Commit what waits, and close the ledger."""
