"""The checks of `listener verify` and `listener check` that both back-ends share."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from msgspec import MsgspecError

from listener.errors import DamagedError
from listener.ledger.chain import ENTRY_COLUMNS, digest
from listener.ledger.model import Entry, Transaction
from listener.ledger.promise import Head
from listener.storage.rows import Row, entry_of, transaction_of

_TRANSACTION_NO: Final = ENTRY_COLUMNS.index("transaction_no")

# Called with how much is done, and how much there is.
Progress = Callable[[int, int], None]

# Queries by the fault that they look for. Each returns the first bad seq; NULL in a sound ledger.
STRAYS: Final = MappingProxyType(
    {
        "its event belongs to no transaction": (
            "SELECT min(e.seq) FROM events e LEFT JOIN entries n ON n.seq = e.seq"
            " WHERE coalesce(n.transaction_no, '') = ''"
        ),
        "it is counted as a repeat, but cannot be one": (
            "SELECT min(r.seq) FROM repeats r LEFT JOIN entries n ON n.seq = r.seq"
            " WHERE n.fingerprint IS NULL OR r.count < 1"
        ),
        "it is a sale that is not among the sales": (
            "SELECT min(n.seq) FROM entries n LEFT JOIN sales s ON s.seq = n.seq"
            " AND s.merchant_no = n.merchant_no AND s.reference = n.reference"
            " WHERE n.kind = 'sale' AND s.seq IS NULL"
        ),
        "it is among the sales, and is not one": (
            "SELECT min(s.seq) FROM sales s LEFT JOIN entries n ON n.seq = s.seq"
            " WHERE coalesce(n.kind, '') <> 'sale'"
        ),
        "the sale has a transaction number that no entry brought": (
            "SELECT min(s.seq) FROM sales s WHERE s.transaction_no IS NOT NULL AND NOT EXISTS ("
            "SELECT 1 FROM entries n WHERE n.transaction_no = s.transaction_no"
            " AND n.merchant_no = s.merchant_no AND n.sale_seq = s.seq"
            " AND n.kind <> 'notification')"
        ),
        "the sale has a cancel that nobody asked for": (
            "SELECT min(s.seq) FROM sales s LEFT JOIN entries n ON n.seq = s.cancel_seq"
            " AND n.kind = 'cancel_request' AND n.sale_seq = s.seq"
            " WHERE s.cancel_state IS NOT NULL AND n.seq IS NULL"
        ),
        "the sale's reference is free, and no answer refused the sale": (
            "SELECT min(s.seq) FROM sales s WHERE s.is_refused = 1 AND NOT EXISTS ("
            "SELECT 1 FROM entries n WHERE n.transaction_no = '' AND n.merchant_no = s.merchant_no"
            " AND n.sale_seq = s.seq AND n.kind = 'answer')"
        ),
        "it brought a number that its sale does not have": (
            "SELECT min(n.seq) FROM entries n JOIN sales s ON s.seq = n.sale_seq"
            " WHERE n.transaction_no <> '' AND n.kind <> 'notification'"
            " AND s.transaction_no IS NULL"
        ),
    }
)


# Each sale, followed by the entries that name it, in order.
SALES_WITH_ENTRIES: Final = (
    f"SELECT {', '.join(ENTRY_COLUMNS)} FROM entries"
    " WHERE kind = 'sale' OR (sale_seq IS NOT NULL AND kind <> 'notification')"
    " ORDER BY CASE kind WHEN 'sale' THEN seq ELSE sale_seq END, seq"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a sound ledger holds, and where it ends."""

    head: Head
    entries: int
    events: int
    transactions: int


class EventPlaces:
    """The numbers of all events in order, and the stream heads that follow from them."""

    def __init__(self) -> None:
        # The entries of the events 1, 2, 3 and so on.
        self.seqs: array[int] = array("q")
        self.heads: dict[str, int] = {}

    def add(self, *, number: int, stream: str, offset: int, seq: int) -> None:
        """Check the place of the next event.

        Raises:
            DamagedError: An event before it is missing, or it is out of order.
        """
        if number != len(self.seqs) + 1:
            raise DamagedError(f"at entry {seq}: an event before it is missing", seq=seq)
        if self.seqs and seq <= self.seqs[-1]:
            raise DamagedError(f"at entry {seq}: its event is out of order", seq=seq)
        if offset != self.heads.get(stream, 0) + 1:
            raise DamagedError(f"at entry {seq}: {stream} has a hole before it", seq=seq)
        self.seqs.append(seq)
        self.heads[stream] = offset


def check_entry(row: Row, *, seq: int, previous: str) -> str:
    """Check the place and the hash of an entry, a row of ENTRY_COLUMNS; return the hash.

    Raises:
        DamagedError: It is missing, or not what was recorded.
    """
    if row[0] != seq:
        raise DamagedError(f"entry {seq} is missing", seq=seq)
    try:
        again = digest(previous, row[:-1])
    except (ValueError, TypeError) as error:
        raise _not_as_recorded(seq) from error
    if again != row[-1]:
        raise _not_as_recorded(seq)
    # Those of a transaction are read when it is replayed.
    if not row[_TRANSACTION_NO]:
        read_entry(row)
    return str(again)


def read_entry(row: Row) -> Entry:
    """Read an entry that a ledger holds.

    Raises:
        DamagedError: It holds what no entry can, although its hash is right.
    """
    try:
        return entry_of(row)
    except MsgspecError as error:
        raise _not_as_recorded(row[0]) from error


def read_transaction(row: Row) -> Transaction:
    """Read a transaction that a ledger holds.

    Raises:
        DamagedError: It holds what no transaction can.
    """
    try:
        return transaction_of(row)
    except MsgspecError as error:
        text = f"transaction {row[2]} is not what its entries add up to"
        raise DamagedError(f"at entry {row[0]}: {text}", seq=row[0]) from error


def _not_as_recorded(seq: int) -> DamagedError:
    return DamagedError(f"entry {seq} is not what was recorded", seq=seq)


class Severity(StrEnum):
    """How much a finding matters."""

    FINE = "fine"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that an operator should know; ``advice`` is what to do about it, if anything."""

    name: str
    value: str | int
    severity: Severity = Severity.FINE
    advice: str | None = None
