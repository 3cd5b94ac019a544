"""The two statements of a batch: one reads before the lock, one appends under it."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from listener.ledger.batch import Changes
from listener.ledger.chain import ENTRY_COLUMNS, columns, text_after_seq
from listener.ledger.model import Fact
from listener.ledger.wanted import Key, Seen, Wanted, judges_of, to_compare, to_sum_up
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.rows import entry_of, sale_of, transaction_of
from listener.storage.postgres.selects import listed
from listener.storage.postgres.texts import packed, unpacked
from listener.storage.rows import SALE_COLUMNS, TRANSACTION_COLUMNS, sale_row, transaction_row

_ENTRY: Final = listed(ENTRY_COLUMNS, "e")
# The present state, in one statement and so at one moment. Its parts are arrays of rows, which
# asyncpg reads directly.
_STATES: Final = (
    "SELECT coalesce((SELECT n.seq FROM entries n ORDER BY n.seq DESC LIMIT 1), 0),"
    f" (SELECT array_agg(ROW({listed(TRANSACTION_COLUMNS, 't')}))"
    " FROM unnest($1::text[], $2::text[]) k(merchant, no)"
    " JOIN transactions t ON t.transaction_no = k.no AND t.merchant_no = k.merchant),"
    " (SELECT array_agg(ROW(u.merchant_no, u.reference, u.seq)) FROM ("
    "SELECT s.merchant_no, s.reference, max(s.seq) AS seq"
    " FROM unnest($3::text[], $4::text[]) k(merchant, reference)"
    " JOIN sales s ON s.merchant_no = k.merchant AND s.reference = k.reference"
    " AND s.is_refused = 0 AND s.transaction_no IS NULL GROUP BY 1, 2) u),"
    f" (SELECT array_agg(ROW({listed(SALE_COLUMNS, 's')})) FROM (SELECT unnest($5::bigint[]) AS seq"
    " UNION SELECT max(s.seq) FROM unnest($3::text[], $4::text[]) k(merchant, reference)"
    " JOIN sales s ON s.merchant_no = k.merchant AND s.reference = k.reference"
    " AND s.is_refused = 0 AND s.transaction_no IS NULL GROUP BY s.merchant_no, s.reference) n"
    " JOIN sales s ON s.seq = n.seq),"
    " (SELECT array_agg(ROW(s.merchant_no, s.store_no, s.reference))"
    " FROM unnest($6::text[], $7::text[], $8::text[]) k(merchant, store, reference)"
    " JOIN sales s ON s.merchant_no = k.merchant AND s.reference = k.reference"
    " AND s.store_no = k.store AND s.is_refused = 0)"
)
# Then the entries up to that moment. Later ones are left out; that is safe, since entries never
# change.
_ENTRIES: Final = (
    f"SELECT (SELECT array_agg(ROW({_ENTRY}) ORDER BY e.seq) FROM ("
    f"SELECT {_ENTRY} FROM unnest($2::text[], $3::text[]) k(merchant, no)"
    " JOIN entries e ON e.transaction_no = k.no AND e.merchant_no = k.merchant"
    f" UNION SELECT {_ENTRY} FROM unnest($4::text[], $5::text[], $6::text[])"
    " k(merchant, no, fingerprint) JOIN entries e ON e.transaction_no = k.no"
    " AND e.merchant_no = k.merchant AND e.fingerprint = k.fingerprint) e WHERE e.seq <= $1),"
    f" (SELECT array_agg(ROW({_ENTRY})) FROM entries e WHERE e.seq = ANY ($7::bigint[]))"
)
_APPEND_ARGUMENTS: Final = 79
_APPEND: Final = (
    "SELECT head, hash, number, offsets FROM append_v1("
    + ", ".join(f"${n}" for n in range(1, _APPEND_ARGUMENTS + 1))
    + ")"
)


async def see(db: Connection, facts: Sequence[Fact], wants: Wanted) -> Seen:
    """Read the part of the ledger that is needed to decide these facts."""
    ((seq, rows, sales, states, references),) = await db.fetch(
        _STATES,
        *_keys(wants.transactions),
        *_keys(wants.notified),
        list(wants.sales),
        *_triples(wants.references),
    )
    transactions = [transaction_of(row) for row in rows or ()]
    unbound = {(row[0], unpacked(row[1])): row[2] for row in sales or ()}
    whole = to_sum_up(facts, transactions, unbound)
    same = to_compare(wants, transactions, whole)
    seqs = wants.sales | judges_of(transactions) | set(unbound.values())
    entries: Any = None
    judges: Any = None
    if whole or same or seqs:
        ((entries, judges),) = await db.fetch(
            _ENTRIES, seq, *_keys(whole), *_triples(same), list(seqs)
        )
    return Seen(
        seq=seq,
        entries=[entry_of(row) for row in entries or ()],
        transactions=transactions,
        sales={row[0]: entry_of(row) for row in judges or ()},
        sale_states={row[0]: sale_of(row) for row in states or ()},
        references=frozenset((row[0], row[1], unpacked(row[2])) for row in references or ()),
        unbound=unbound,
    )


def append_arguments(
    changes: Changes, wants: Wanted, seen: Seen, *, epoch: str, now_ms: int
) -> list[object]:
    """Return the arguments of ``append_v1`` in their order.

    Raises:
        TypeError: A text cannot be written as UTF-8.
    """
    entries, events, repeats = changes.entries, changes.events, changes.repeats
    # A notification names the sale that judges it, which may be in this batch; a summary names
    # entries.
    is_exact = any((entry.fact.sale_seq or 0) > seen.seq for entry in entries) or any(
        one.summary is not None for one in changes.transactions.values()
    )
    return [
        epoch,
        seen.seq,
        is_exact,
        *_keys(wants.transactions),
        *_keys(wants.unnumbered),
        *_named(wants),
        [*wants.sales, *seen.unbound.values()],
        *_columns([columns(entry)[1:] for entry in entries], len(ENTRY_COLUMNS) - 2),
        [text_after_seq(entry) for entry in entries],
        [event.seq for event in events],
        [packed(event.stream) for event in events],
        [int(event.is_cancellation) for event in events],
        [event.before_seq.decode() for event in events],
        [event.after_seq.decode() for event in events],
        *_columns(
            [transaction_row(one) for one in changes.transactions.values()],
            len(TRANSACTION_COLUMNS),
        ),
        list(repeats),
        list(repeats.values()),
        now_ms,
        *_columns([sale_row(one) for one in changes.sales.values()], len(SALE_COLUMNS)),
    ]


async def append(db: Connection, arguments: Sequence[object]) -> Any:  # noqa: ANN401 - a record
    """Append a batch; return None if others have recorded something that it depends on."""
    return await db.fetchrow(_APPEND, *arguments)


def _keys(keys: Iterable[Key]) -> tuple[list[str], list[str]]:
    pairs = list(keys)
    return [merchant_no for merchant_no, _ in pairs], [packed(name) for _, name in pairs]


def _triples(
    names: Iterable[tuple[str, str, str]],
) -> tuple[list[str], list[str], list[str]]:
    triples = list(names)
    return (
        [merchant_no for merchant_no, _, _ in triples],
        [packed(second) for _, second, _ in triples],
        [packed(third) for _, _, third in triples],
    )


def _named(wants: Wanted) -> tuple[list[str], list[str]]:
    """Return the references under which a sale recorded by another node would matter here."""
    sold = {(merchant_no, reference) for merchant_no, _, reference in wants.references}
    return _keys(sold | wants.notified)


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Turn rows into one list for each column, with texts as they are stored.

    A column that is NULL in every row is left empty, which ``unnest`` fills up: asyncpg spends as
    much on a None as on a text.
    """
    if not rows:
        return [[] for _ in range(width)]
    return [
        []
        if column.count(None) == len(column)
        else [packed(value) if isinstance(value, str) else value for value in column]
        for column in zip(*rows, strict=True)
    ]
