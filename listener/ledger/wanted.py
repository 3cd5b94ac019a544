"""What has to be read before facts can be decided: the part of the ledger that they concern."""

from collections.abc import Iterable, Mapping, Sequence, Set

from msgspec import Struct

from listener.ledger.model import NOTIFICATION, SALE, Entry, Fact, Transaction
from listener.ledger.sale import SaleState

# merchant_no, and one of its transaction numbers or fingerprints.
Key = tuple[str, str]
# merchant_no, store_no, and one of the store's references.
Reference = tuple[str, str, str]


class Wanted(Struct, frozen=True, kw_only=True):
    """What a back-end must read before it can decide some facts.

    Attributes:
        transactions: Read the state of each, then the entries that :func:`to_sum_up` asks for.
        unnumbered: Read the entry without a transaction number that has this fingerprint.
        numbered: (merchant_no, transaction_no, fingerprint): read the entry that has these, where
            :func:`to_compare` asks for it.
        sales: Seqs of sales: read the entry and the state of each. Read also the entries of the
            sales that :func:`judges_of` names.
        references: Read which of them are in use.
        notified: (merchant_no, reference of a notification): read the newest sale whose number
            is not known yet, its entry and its state.
    """

    transactions: Set[Key]
    unnumbered: Set[Key]
    numbered: Set[tuple[str, str, str]]
    sales: Set[int]
    references: Set[Reference]
    notified: Set[Key]


class Seen(Struct, frozen=True, kw_only=True):
    """What the ledger holds of :class:`Wanted`, all read at one moment.

    ``seq`` is that of the newest entry of all. ``entries`` are in seq order within a transaction.
    ``sales`` and ``sale_states`` are by the sale's seq. ``unbound`` are the sales for
    ``notified`` whose number is not known yet.
    """

    seq: int
    entries: Sequence[Entry] = ()
    transactions: Sequence[Transaction] = ()
    sales: Mapping[int, Entry] = {}
    sale_states: Mapping[int, SaleState] = {}
    references: frozenset[Reference] = frozenset()
    unbound: Mapping[Key, int] = {}


def wanted(facts: Iterable[Fact]) -> Wanted:
    """Return what must be read before these facts can be decided."""
    transactions: set[Key] = set()
    unnumbered: set[Key] = set()
    numbered: set[tuple[str, str, str]] = set()
    sales: set[int] = set()
    references: set[Reference] = set()
    notified: set[Key] = set()
    for fact in facts:
        number, mark = fact.transaction_no, fact.fingerprint
        if number:
            transactions.add((fact.merchant_no, number))
        if fact.reference and names_a_sale(fact):
            notified.add((fact.merchant_no, fact.reference))
        if mark and number:
            numbered.add((fact.merchant_no, number, mark))
        elif mark:
            unnumbered.add((fact.merchant_no, mark))
        if fact.sale_seq:
            sales.add(fact.sale_seq)
        if fact.kind is SALE:
            references.add(reference_of(fact))
    return Wanted(
        transactions=transactions,
        unnumbered=unnumbered,
        numbered=numbered,
        sales=sales,
        references=references,
        notified=notified,
    )


def judges_of(transactions: Iterable[Transaction]) -> set[int]:
    """Return the seqs of the sales that transactions are bound to or judged by."""
    found = {t.sale_seq or t.judge_seq for t in transactions}
    return {seq for seq in found if seq}


def to_sum_up(
    facts: Iterable[Fact], transactions: Iterable[Transaction], unbound: Mapping[Key, int]
) -> set[Key]:
    """Return the transactions whose entries must all be read.

    They are few: those too short to have a summary, and those that another sale may judge from
    now on. Of the others, only an entry with the same fingerprint is needed.
    """
    summaries = {(t.merchant_no, t.transaction_no): t.summary for t in transactions}
    if not summaries:
        return set()
    facts = list(facts)
    open_sales = {(f.merchant_no, f.reference or "") for f in facts if f.kind is SALE}
    open_sales.update(unbound)
    judged = {
        (f.merchant_no, f.transaction_no)
        for f in facts
        if f.sale_seq or (may_be_judged(f) and (f.merchant_no, f.reference or "") in open_sales)
    }
    return {key for key, summary in summaries.items() if summary is None or key in judged}


def to_compare(
    wants: Wanted, transactions: Iterable[Transaction], whole: set[Key]
) -> set[tuple[str, str, str]]:
    """Return the entries to read: merchant, transaction number, fingerprint.

    A transaction that is read whole brings its fingerprints with it, and a new one has none.
    """
    summed_up = {(t.merchant_no, t.transaction_no) for t in transactions} - whole
    found = {key for key in wants.numbered if key[:2] in summed_up}
    found.update((merchant_no, "", mark) for merchant_no, mark in wants.unnumbered)
    return found


def names_a_sale(fact: Fact) -> bool:
    """Return whether the reference of a fact leads to a sale whose number is not known yet.

    A notification without a number, and without a payment's status word, is a consent.
    """
    return fact.kind is NOTIFICATION and bool(fact.transaction_no or fact.says)


def may_be_judged(fact: Fact) -> bool:
    """Return whether a sale may judge what a fact says."""
    return fact.kind is NOTIFICATION and bool(fact.transaction_no)


def reference_of(sale: Fact) -> Reference:
    """Return the reference that a sale uses until Pockyt refuses it."""
    return sale.merchant_no, sale.store_no or "", sale.reference or ""
