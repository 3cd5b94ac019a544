"""The checks of `listener verify` that both back-ends share."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from msgspec import MsgspecError

from listener.errors import DamagedError, LedgerError
from listener.ledger.chain import ENTRY_COLUMNS, digest
from listener.ledger.model import Entry, Transaction
from listener.ledger.replay import differs, restate_sale, sale_seq_of
from listener.ledger.results import Head, ReadEntry
from listener.ledger.sale import SaleState
from listener.storage.rows import Row, entry_of, sale_of, transaction_of

_TRANSACTION_NO: Final = ENTRY_COLUMNS.index("transaction_no")

# Called with how much is done, and how much there is.
Progress = Callable[[int, int], None]
# Raised by reading a row that cannot be an entry.
UNREADABLE: Final = (MsgspecError, ValueError, TypeError, AttributeError, OverflowError)


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
    # The entries of a transaction are read when it is replayed.
    if not row[_TRANSACTION_NO]:
        read_entry(row)
    return str(again)


def read_entry(row: Row) -> Entry:
    """Read an entry that a ledger holds.

    Raises:
        DamagedError: Its values are impossible, although its hash is right.
    """
    try:
        return entry_of(row)
    except MsgspecError as error:
        raise _not_as_recorded(row[0]) from error


def read_transaction(row: Row) -> Transaction:
    """Read a transaction that a ledger holds.

    Raises:
        DamagedError: Its values are impossible for a transaction.
    """
    try:
        return transaction_of(row)
    except MsgspecError as error:
        text = f"transaction {row[2]} is not what its entries add up to"
        raise DamagedError(f"at entry {row[0]}: {text}", seq=row[0]) from error


def read_sale(row: Row) -> SaleState:
    """Read the state of a sale that a ledger holds.

    Raises:
        DamagedError: Its values are impossible for a sale.
    """
    try:
        return sale_of(row)
    except MsgspecError as error:
        raise _not_added_up(row[0]) from error


def check_sales(found: Iterable[tuple[Entry, SaleState | None]]) -> None:
    """Check that the state of each sale is what its entries add up to.

    Args:
        found: The entry of each sale with its stored state, then the entries that name the sale, in
            seq order.

    Raises:
        DamagedError: A state is missing or differs.
    """
    for _, group in groupby(found, key=lambda one: sale_seq_of(one[0])):
        (sale, stored), *rest = group
        others = [entry for entry, _ in rest]
        if stored is None:
            raise differs(sale.seq, "it is a sale that is not among the sales")
        if stored != restate_sale(sale, others):
            raise _not_added_up([sale, *others][-1].seq)


def read_page(
    read: Callable[[int, int], list[ReadEntry]], *, after: int, upto: int
) -> list[ReadEntry]:
    """Read the entries in a range of seqs for a command.

    Args:
        read: Reads them, given the seq to read after, and the one to read up to.
        after: The seq before the first.
        upto: The last seq.

    Raises:
        DamagedError: One of them is not what was recorded; its ``seq`` says which.
    """
    try:
        return read(after, upto)
    except UNREADABLE:
        for seq in range(after + 1, upto + 1):
            try:
                read(seq - 1, seq)
            except UNREADABLE as error:
                raise unreadable(seq) from error
        raise


def unreadable(seq: int) -> DamagedError:
    """Build the error for an entry that a command cannot read back."""
    return DamagedError(
        f"entry {seq} cannot be read, because it is not what was recorded: run `listener verify`,"
        " which finds all that is damaged first, and restore a backup",
        seq=seq,
    )


def unreadable_key(key_id: object) -> LedgerError:
    """Build the error for a key that is not what was stored; keys are in no chain."""
    shown = f"{key_id}".encode("unicode_escape").decode()
    return LedgerError(
        f"key {shown} cannot be read, because it is not what was stored: the ledger is damaged, so"
        " run `listener verify`, and restore a backup"
    )


def _not_added_up(seq: int) -> DamagedError:
    return differs(seq, "the state of the sale is not what its entries add up to")


def _not_as_recorded(seq: int) -> DamagedError:
    return DamagedError(f"entry {seq} is not what was recorded", seq=seq)
