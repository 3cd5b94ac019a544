"""The checks of `listener verify` that both back-ends share."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec import MsgspecError

from listener.errors import DamagedError
from listener.ledger.chain import ENTRY_COLUMNS, digest
from listener.ledger.model import Entry, Transaction
from listener.ledger.results import Head
from listener.storage.rows import Row, entry_of, transaction_of

_TRANSACTION_NO: Final = ENTRY_COLUMNS.index("transaction_no")

# Called with how much is done, and how much there is.
Progress = Callable[[int, int], None]


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
