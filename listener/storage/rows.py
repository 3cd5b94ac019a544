"""Convert rows of the ledger into its nouns, and back; the same for every back-end."""

from typing import Any, Final

from msgspec import convert, to_builtins
from msgspec.structs import astuple

from listener.ledger.chain import ENTRY_COLUMNS
from listener.ledger.model import Entry, Event, Fact, Transaction
from listener.ledger.sale import SaleState

# A row as a driver returns and accepts it; the types of its values are those of schema.sql.
Row = tuple[Any, ...]

EVENT_COLUMNS: Final = ("number", "stream", '"offset"', "seq", "body")
TRANSACTION_COLUMNS: Final = (
    "first_seq",
    "merchant_no",
    "transaction_no",
    "store_no",
    "terminal",
    "reference",
    "amount",
    "currency",
    "settle_currency",
    "status",
    "provider_status",
    "evidence",
    "held",
    "state_version",
    "created_at",
    "updated_at",
    "sale_seq",
    "cancel_state",
    "cancel_requested_at",
    "cancel_resolved_at",
    "cancel_evidence",
    "ask_why",
    "ask_since",
    "ask_due_at",
    "ask_raise_at",
    "ask_attempt",
    "judge_seq",
    "disputed",
    "summary",
)

SALE_COLUMNS: Final = (
    "seq",
    "merchant_no",
    "store_no",
    "reference",
    "transaction_no",
    "is_refused",
    "ask_due_at",
    "ask_raise_at",
    "cancel_seq",
    "cancel_sent",
    "cancel_state",
    "cancel_requested_at",
    "cancel_resolved_at",
    "cancel_evidence",
)
# The first columns, which are enough for a transaction that is neither cancelled nor doubted.
PLAIN_COLUMNS: Final = TRANSACTION_COLUMNS[: TRANSACTION_COLUMNS.index("cancel_state")]

_HASH: Final = ENTRY_COLUMNS.index("hash")
_HELD: Final = TRANSACTION_COLUMNS.index("held")
_CANCEL: Final = len(PLAIN_COLUMNS)
_ASK: Final = TRANSACTION_COLUMNS.index("ask_why")
_REST: Final = TRANSACTION_COLUMNS.index("judge_seq")
_SALE_CANCEL: Final = SALE_COLUMNS.index("cancel_state")
_NO_CANCEL: Final = (None, None, None, None)
_NO_ASK: Final = (None, None, None, None, 0)


def entry_of(row: Row) -> Entry:
    """Read a row of ENTRY_COLUMNS; further columns are ignored.

    Raises:
        ValidationError: Its values are impossible (an unknown kind, say).
    """
    fact = convert(row[2:_HASH], Fact)
    return Entry(seq=row[0], recorded_at_ms=row[1], fact=fact, hash=row[_HASH])


def event_of(row: Row) -> Event:
    """Read a row of EVENT_COLUMNS."""
    return Event(number=row[0], stream=row[1], offset=row[2], seq=row[3], body=row[4].encode())


def event_row(event: Event, *, is_cancellation: bool) -> Row:
    """Write an event as a row of the table of events, all columns."""
    place = (event.number, event.stream, event.offset, event.seq)
    return (*place, int(is_cancellation), event.body.decode())


def transaction_of(row: Row) -> Transaction:
    """Read a row of TRANSACTION_COLUMNS.

    Raises:
        ValidationError: Its values are impossible for a transaction.
    """
    cancel, ask = row[_CANCEL:_ASK], row[_ASK:_REST]
    values = (
        *row[:_HELD],
        bool(row[_HELD]),
        *row[_HELD + 1 : _CANCEL],
        cancel if cancel[0] is not None else None,
        ask if ask[0] is not None else None,
        *row[_REST:],
    )
    return convert(values, Transaction)


def transaction_row(transaction: Transaction) -> Row:
    """Write a transaction as the values of TRANSACTION_COLUMNS."""
    *plain, cancel, ask, judge_seq, disputed, summary = to_builtins(transaction)
    # A driver binds an int faster than a bool.
    plain[_HELD] = int(plain[_HELD])
    rest = (judge_seq, disputed, summary)
    return (*plain, *(cancel or _NO_CANCEL), *(ask or _NO_ASK), *rest)


def plain_row(transaction: Transaction) -> Row:
    """Write a transaction that :func:`is_plain` as the values of PLAIN_COLUMNS."""
    row: list[Any] = to_builtins(transaction)[:_CANCEL]
    row[_HELD] = int(row[_HELD])
    return tuple(row)


def plain_values(transaction: Transaction) -> Row:
    """Return values that equal those of :func:`plain_row`; cheaper to make, dearer to bind."""
    return astuple(transaction)[:_CANCEL]


def is_plain(transaction: Transaction) -> bool:
    """Return whether PLAIN_COLUMNS hold everything about a transaction."""
    is_calm = transaction.cancel is None and transaction.ask is None
    is_agreed = transaction.judge_seq is None and transaction.disputed is None
    return is_calm and is_agreed and transaction.summary is None


def sale_of(row: Row) -> SaleState:
    """Read a row of SALE_COLUMNS.

    Raises:
        ValidationError: Its values are impossible for a sale.
    """
    cancel = row[_SALE_CANCEL:]
    values = (*row[:_SALE_CANCEL], cancel if cancel[0] is not None else None)
    # Not strict: SQLite has no booleans.
    return convert(values, SaleState, strict=False)


def sale_row(sale: SaleState) -> Row:
    """Write a sale as the values of SALE_COLUMNS."""
    *own, cancel = to_builtins(sale)
    return (*own, *(cancel or _NO_CANCEL))
