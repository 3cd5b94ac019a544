"""Replay a transaction from its entries, and compare it with what the ledger holds. Pure.

What Pockyt is asked, and when, depends on the setting ``confirm`` at the time, and an event may
depend on what was asked. So each value of the setting is tried, first for the whole transaction,
then for each of its entries. The columns of ``ask`` themselves are not compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from listener.errors import DamagedError
from listener.ledger.batch import new_event
from listener.ledger.history import History
from listener.ledger.model import Entry, Kind, Transaction
from listener.ledger.sale import SaleState, begin_sale, follow_sale
from listener.ledger.schedule import Confirm
from listener.ledger.transaction import Step, advance, begin


class StoredEvent(Struct, frozen=True, kw_only=True):
    """An event as a ledger holds it, without its numbers."""

    stream: str
    is_cancellation: bool
    body: str


class Replay:
    """Replays one transaction at a time; ``first`` is the setting ``confirm`` to try first."""

    def __init__(self, *, first: Confirm = "suspicious") -> None:
        # The setting that fitted last is tried first.
        self._settings: list[Confirm] = ["suspicious", "always", "off"]
        self._settings.sort(key=lambda one: one != first)

    def check(
        self,
        entries: Sequence[Entry],
        *,
        stored: Transaction,
        events: Mapping[int, StoredEvent],
        sales: Mapping[int, Entry],
    ) -> DamagedError | None:
        """Return how a transaction differs from the sum of its entries; None where it does not.

        Args:
            entries: All of its entries, in seq order.
            stored: The transaction as the ledger holds it.
            events: The events that its entries made, by their seq.
            sales: The sales that its entries name, by their seq.
        """
        if len(entries) == 1:
            entry, event = entries[0], events.get(entries[0].seq)
            if self.begun(entry, event, epoch=epoch_in(event, entry)) == stored:
                return None
        for confirm in self._settings:
            states, bad = _walk(entries, events, sales, settings=[confirm])
            if bad is None and _is_among(stored, states):
                if confirm != self._settings[0]:
                    self._settings.sort(key=lambda one: one != confirm)
                return None
        # The setting may have been changed between any two of the entries.
        states, bad = _walk(entries, events, sales, settings=self._settings)
        if bad is not None:
            return differs(
                bad,
                f"transaction {stored.transaction_no}: its event does not follow from its entries",
            )
        if not _is_among(stored, states):
            return differs(
                entries[-1].seq,
                f"transaction {stored.transaction_no} is not what its entries add up to",
            )
        return None

    def restate(
        self,
        entries: Sequence[Entry],
        *,
        events: Mapping[int, StoredEvent],
        sales: Mapping[int, Entry],
    ) -> Transaction:
        """Return the state of a transaction after its entries; the arguments are as in `check`.

        Raises:
            DamagedError: The events are not those that the entries make.
        """
        for settings in [*([one] for one in self._settings), self._settings]:
            states, bad = _walk(entries, events, sales, settings=settings)
            if bad is None:
                return states[0]
        number = entries[0].fact.transaction_no
        raise differs(bad or 0, f"transaction {number}: its event is not what its entries tell")

    def begun(self, entry: Entry, event: StoredEvent | None, *, epoch: str) -> Transaction | None:
        """Return the state of a transaction whose only entry this is, as most are.

        None if the entry is not plain, or does not make that event in this epoch.
        """
        step = begin(entry, confirm=self._settings[0])
        if step is None or not _makes(event, step, entry, epoch=epoch):
            return None
        return step.transaction


def restate_sales(entries: Iterable[Entry]) -> Iterator[SaleState]:
    """Yield the state of each sale; its entry comes first, then those that name it, in order."""
    for _, group in groupby(entries, key=sale_seq_of):
        sale, *others = group
        yield restate_sale(sale, others)


def restate_sale(sale: Entry, others: Iterable[Entry]) -> SaleState:
    """Return the state of a sale after the entries that name it, in seq order."""
    state = begin_sale(sale)
    for entry in others:
        state = follow_sale(state, entry, began_ms=sale.recorded_at_ms)
    return state


def sale_seq_of(entry: Entry) -> int | None:
    """Return the seq of the sale that an entry is, or names."""
    return entry.seq if entry.fact.kind is Kind.SALE else entry.fact.sale_seq


def epoch_in(event: StoredEvent | None, entry: Entry) -> str:
    """Return the epoch that the id of an entry's event begins with; anything if it has none.

    A restored backup goes on under a new epoch; the events before keep their own.
    """
    if event is None:
        return ""
    at = event.body.find(f'-{entry.seq}"')
    return event.body[event.body.rfind('"', 0, at) + 1 : at]


def differs(seq: int, text: str) -> DamagedError:
    """Build the error for a difference that shows at an entry."""
    return DamagedError(f"at entry {seq}: {text}", seq=seq)


def _walk(
    entries: Sequence[Entry],
    events: Mapping[int, StoredEvent],
    sales: Mapping[int, Entry],
    *,
    settings: Sequence[Confirm],
) -> tuple[list[Transaction], int | None]:
    """Return the possible states after all entries, or the seq of the entry that fits none."""
    states: list[Transaction | None] = [None]
    history = History()
    for entry in entries:
        event = events.get(entry.seq)
        epoch = epoch_in(event, entry)
        after: list[Transaction] = []
        for step in _steps(states, history, entry, sales=sales, settings=settings):
            if step.transaction not in after and _makes(event, step, entry, epoch=epoch):
                after.append(step.transaction)
        if not after:
            return [], entry.seq
        states = [*after]
    return [state for state in states if state], None


def _steps(
    states: Sequence[Transaction | None],
    history: History,
    entry: Entry,
    *,
    sales: Mapping[int, Entry],
    settings: Sequence[Confirm],
) -> list[Step]:
    """Add an entry to the history; return every possible step, for each state and setting."""
    if not history.entries:
        begun = [begin(entry, confirm=confirm) for confirm in settings]
        plain = [step for step in begun if step is not None]
        if len(plain) == len(begun):
            history.entries.append(entry)
            return plain
    summary = history.add(entry, sales=sales)
    sale = sales.get(summary.judge or 0)
    return [
        advance(before, summary, entry, sale=sale, confirm=confirm)
        for before in states
        for confirm in settings
    ]


def _makes(event: StoredEvent | None, step: Step, entry: Entry, *, epoch: str) -> bool:
    """Return whether a step makes exactly the event that is stored, or none if none is."""
    made = new_event(step, entry, epoch=epoch)
    if event is None or made is None:
        return event is None and made is None
    return (
        event.body == made.body(entry.seq).decode()
        and event.stream == made.stream
        and event.is_cancellation == made.is_cancellation
    )


def _is_among(stored: Transaction, states: Sequence[Transaction]) -> bool:
    """Return whether the stored transaction is one of the states, ignoring its schedule.

    A summary may be missing: then the entries are read again, and nothing is lost.
    """
    if stored in states:
        return True
    plain = replace(stored, ask=None)
    found = [replace(state, ask=None) for state in states]
    if stored.summary is None:
        found = [replace(state, summary=None) for state in found]
    return plain in found
