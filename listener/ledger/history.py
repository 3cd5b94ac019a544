"""The entries of one transaction as they arrive, and which sale judges them."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from listener.ledger.model import Entry, Kind
from listener.ledger.summary import Summary


class History(Struct):
    """The entries of one transaction, summed up as they arrive.

    ``entries`` may be left out where there is a summary of them, unless another sale is to judge
    it: see :func:`judge_after`.
    """

    entries: list[Entry] = []
    summary: Summary | None = None

    def add(self, entry: Entry, *, sales: Mapping[int, Entry]) -> Summary:
        """Add the next entry, and sum up anew where it brings another judge.

        Args:
            entry: The next in seq order.
            sales: The sales that may judge, by their seq.
        """
        self.entries.append(entry)
        found = self.summary
        judge, is_bound = judge_after(found, entry) if found else judge_of(self.entries)
        sale = sales.get(judge) if judge else None
        if found is None or (found.judge, found.is_bound) != (sale and sale.seq, is_bound):
            found = Summary.of(self.entries, sale=sale, is_bound=is_bound)
        else:
            found.hear(entry, sale=sale)
        self.summary = found
        return found


def judge_of(entries: Iterable[Entry]) -> tuple[int | None, bool]:
    """Return the seq of the sale that judges a transaction, and whether it is bound to it.

    An answer that brings a sale's number binds it. Before that, the judge is the first sale that
    had no number yet when a notification with its reference came.
    """
    judge: int | None = None
    for entry in entries:
        seq = entry.fact.sale_seq
        if seq and entry.fact.kind is not Kind.NOTIFICATION:
            return seq, True
        if seq:
            judge = min(seq, judge or seq)
    return judge, False


def judge_after(summary: Summary, entry: Entry) -> tuple[int | None, bool]:
    """Return what :func:`judge_of` would, of the entries of a summary and one more."""
    if summary.is_bound:
        return summary.judge, True
    judge, is_bound = judge_of([entry])
    if is_bound or not summary.judge:
        return judge, is_bound
    return min(summary.judge, judge or summary.judge), False
