"""Build entries and sales from the rows that a back-end reads; the same for every back-end."""

from collections.abc import Mapping, Sequence
from typing import Final

from listener.ledger.chain import ENTRY_COLUMNS
from listener.ledger.model import DeliveryCount, Entry
from listener.ledger.results import ReadEntry, RecordedSale
from listener.ledger.transaction import why_held_among
from listener.storage.rows import SALE_COLUMNS, Row, entry_of, sale_of

_ENTRY_AT: Final = len(SALE_COLUMNS)
_WISH_AT: Final = _ENTRY_AT + len(ENTRY_COLUMNS)


def judges_among(rows: Sequence[Row]) -> set[int]:
    """Return the seqs of the sales that judge the entries in these rows."""
    return {seq for row in rows if (seq := row[-3] or row[-2])}


def read_lines(rows: Sequence[Row], sales: Mapping[int, Entry]) -> list[ReadEntry]:
    """Read rows of entries, each with its repeats and with what its transaction says of it.

    ``sales`` are those that :func:`judges_among` has named, by their seqs.
    """
    found = []
    for row in rows:
        entry, (count, last_at, sale_seq, judge_seq, disputed) = entry_of(row), row[-5:]
        deliveries = DeliveryCount(
            count=1 + (count or 0),
            first_at_ms=entry.recorded_at_ms,
            last_at_ms=last_at or entry.recorded_at_ms,
        )
        held = why_held_among(
            entry,
            sales.get(sale_seq or judge_seq),
            is_bound=sale_seq is not None,
            disputed=disputed,
        )
        found.append(ReadEntry(entry=entry, held=held, deliveries=deliveries))
    return found


def recorded_sale_of(row: Row) -> RecordedSale:
    """Read a sale, its entry, and the entry of the wish to cancel it."""
    entry = entry_of(row[_ENTRY_AT:_WISH_AT])
    return RecordedSale(
        state=sale_of(row[:_ENTRY_AT]),
        fact=entry.fact,
        recorded_at_ms=entry.recorded_at_ms,
        wish=entry_of(row[_WISH_AT:]).fact if row[_WISH_AT] is not None else None,
    )
