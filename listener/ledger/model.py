"""The nouns of the ledger: what was said, where it stands, and what follows from it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

import orjson
from msgspec import Struct
from msgspec.structs import force_setattr

NO_STORE: Final = "-"
EVERY_STREAM: Final = "*"
# PostgreSQL limits the size of an index row: indexed text is cut here, for every back-end.
INDEXED_CHARS_MAX: Final = 256
_INDEXED: Final = ("merchant_no", "store_no", "transaction_no", "reference", "terminal")


class Kind(StrEnum):
    """Where an entry comes from."""

    NOTIFICATION = "notification"
    SALE = "sale"
    CANCEL_REQUEST = "cancel_request"
    ANSWER = "answer"
    QUERY = "query"
    ALARM = "alarm"
    DECISION = "decision"


# For the checks of every fact: in Python 3.11, ``Kind.SALE`` costs ten times a plain name.
NOTIFICATION: Final = Kind.NOTIFICATION
SALE: Final = Kind.SALE


class Status(StrEnum):
    """What a transaction has come to, in our words; the open ones in rising order."""

    UNKNOWN = "unknown"
    CREATED = "created"
    PENDING = "pending"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAID = "paid"
    CONFLICT = "conflict"
    REFUNDED = "refunded"


# Nobody has paid, and somebody still may.
PAYABLE: Final = frozenset({Status.UNKNOWN, Status.CREATED, Status.PENDING})
# Somebody has paid, whatever else was said.
MONEY: Final = frozenset({Status.PAID, Status.CONFLICT, Status.REFUNDED})


class Evidence(StrEnum):
    """What a status rests on."""

    SIGNATURE = "signature"
    ANSWER = "answer"
    QUERY = "query"
    NONE = "none"


class CancelState(StrEnum):
    """How far the requested cancel has come."""

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    REFUNDED = "refunded"
    UNRESOLVED = "unresolved"


class Why(StrEnum):
    """Why Pockyt is asked about a transaction."""

    CANCEL = "cancel"
    CANCELLED = "cancelled"
    CONFLICT = "conflict"
    HELD = "held"
    UNKNOWN = "unknown"
    CONFIRM = "confirm"
    SALE = "sale"

    @property
    def is_calm(self) -> bool:
        """Whether a believed status is only checked again, so that silence is not an alarm."""
        return self in (Why.CONFIRM, Why.CANCELLED)


class Alarm(StrEnum):
    """What an alarm entry reports; stored in its field ``alarm``."""

    UNRESOLVED = "unresolved"
    UNKNOWN_STORE = "unknown_store"
    NUMBER_TAKEN = "number_taken"


class Fact(Struct, frozen=True, kw_only=True, array_like=True):
    """What somebody said, before it has a place in the ledger.

    Its attributes, in this order, are the columns of an entry. What is indexed is cut at
    INDEXED_CHARS_MAX.

    Attributes:
        amount: Decimal text as it was sent.
        provider_status: Pockyt's own word.
        says: Our reading of that word; None where it says nothing about the status.
        as_of: The ledger's seq when a query or a cancel was sent, or up to which an operator has
            seen what he decides about.
        sale_seq: The sale whose transaction number this fact brings.
        fields: Everything that arrived, without verifySign, as a JSON object of text.
    """

    kind: Kind
    merchant_no: str
    store_no: str | None = None
    transaction_no: str = ""
    reference: str | None = None
    terminal: str | None = None
    provider_status: str | None = None
    says: Status | None = None
    amount: str | None = None
    currency: str | None = None
    settle_currency: str | None = None
    suspect: str | None = None
    as_of: int | None = None
    sale_seq: int | None = None
    fingerprint: str | None = None
    fields: str = "{}"

    def __post_init__(self) -> None:
        # Nearly always, all of them together are short, which is quicker to check.
        together = (
            len(self.merchant_no)
            + len(self.transaction_no)
            + len(self.store_no or "")
            + len(self.reference or "")
            + len(self.terminal or "")
        )
        if together <= INDEXED_CHARS_MAX:
            return
        for name in _INDEXED:
            value = getattr(self, name)
            if value is not None and len(value) > INDEXED_CHARS_MAX:
                force_setattr(self, name, value[:INDEXED_CHARS_MAX])

    def field(self, name: str) -> str | None:
        """Return one of the fields as text; None where it did not arrive."""
        found: str | None = orjson.loads(self.fields).get(name)
        return found


class DeliveryCount(Struct, frozen=True, kw_only=True):
    """How often a notification was delivered, and when first and last (Unix ms)."""

    count: int
    first_at_ms: int
    last_at_ms: int


class Entry(Struct, frozen=True, kw_only=True):
    """One line of the ledger: a fact with its place.

    ``hash`` is hex and covers the hash before it; it is '' until the entry is in the chain.
    """

    seq: int
    recorded_at_ms: int
    fact: Fact
    hash: str = ""


class Ask(Struct, frozen=True, kw_only=True, array_like=True):
    """When to ask Pockyt about a transaction (Unix ms), and how often it was asked.

    ``due_at_ms`` is None once asking was given up. ``raise_at_ms`` is when silence becomes an
    alarm; None once it was raised, and where it never is.
    """

    why: Why
    since_ms: int
    due_at_ms: int | None
    raise_at_ms: int | None
    attempt: int = 0

    @property
    def is_raised(self) -> bool:
        """Whether the silence was raised."""
        return self.raise_at_ms is None and not self.why.is_calm


class Cancel(Struct, frozen=True, kw_only=True, array_like=True):
    """The newest cancel that was requested, and how it ended."""

    state: CancelState
    requested_at_ms: int
    resolved_at_ms: int | None = None
    evidence: Evidence | None = None


class Transaction(Struct, frozen=True, kw_only=True, array_like=True):
    """What the entries of one transaction number add up to.

    Its fields, and those of its cancel and its ask, are columns in this order.
    """

    first_seq: int
    merchant_no: str
    transaction_no: str
    store_no: str | None = None
    terminal: str | None = None
    reference: str | None = None
    amount: str | None = None
    currency: str | None = None
    settle_currency: str | None = None
    status: Status
    provider_status: str | None
    evidence: Evidence
    held: bool
    state_version: int
    created_at_ms: int
    updated_at_ms: int
    sale_seq: int | None = None
    cancel: Cancel | None = None
    ask: Ask | None = None
    # The sale that judges its notifications: its own, or one with the same reference.
    judge_seq: int | None = None
    # Which of amount, currency and reference its notifications contradict, while no sale judges.
    disputed: str | None = None
    # Where there are many entries: their sum (``summary.Summary``), so that they need not be read
    # again.
    summary: str | None = None

    @property
    def stream(self) -> str:
        """The stream whose tills get its events."""
        return stream_of(self.merchant_no, self.store_no)

    @property
    def is_being_cancelled(self) -> bool:
        """Whether somebody waits for a cancel that has not ended."""
        return self.cancel is not None and self.cancel.resolved_at_ms is None


class Event(Struct, frozen=True):
    """What tills are told. ``number`` is its offset in the stream of all events."""

    number: int
    stream: str
    offset: int
    seq: int
    body: bytes


def stream_of(merchant_no: str, store_no: str | None) -> str:
    """Return the name of a store's stream; a merchant's transactions may have no store."""
    return f"{merchant_no}/{store_no or NO_STORE}"


# Entries of one commit have the same time, and most are of the same few seconds.
@lru_cache(maxsize=64)
def rfc3339(at_ms: int) -> str:
    """Write a Unix time in ms as RFC 3339 in UTC, to the millisecond."""
    seconds, ms = divmod(at_ms, 1_000)
    return f"{_utc(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=64)
def _utc(at_seconds: int) -> str:
    return datetime.fromtimestamp(at_seconds, UTC).isoformat().removesuffix("+00:00")


def fields_text(fields: Mapping[str, str | None]) -> str:
    """Write fields as the JSON text that an entry stores; None is left out."""
    kept = {name: value for name, value in fields.items() if value is not None}
    return orjson.dumps(kept).decode()
