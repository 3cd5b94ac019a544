"""The two statements of a batch: what is read before the lock, and what is appended under it."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from listener.ledger.batch import Changes, Key, Seen, Wanted
from listener.ledger.chain import ENTRY_COLUMNS, columns, text_after_seq
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.reading import listed
from listener.storage.postgres.rows import entry_of, sale_of, transaction_of
from listener.storage.postgres.texts import packed, unpacked
from listener.storage.rows import SALE_COLUMNS, TRANSACTION_COLUMNS, sale_row, transaction_row

_ENTRY: Final = listed(ENTRY_COLUMNS, "e")
# One statement, so one moment. Its parts are rows in arrays: asyncpg reads them as they are.
_SEE: Final = (
    "WITH t AS MATERIALIZED (SELECT t.* FROM unnest($1::text[], $2::text[]) k(merchant, no)"
    " JOIN transactions t ON t.transaction_no = k.no AND t.merchant_no = k.merchant),"
    f" e AS (SELECT {_ENTRY} FROM unnest($1::text[], $2::text[]) k(merchant, no)"
    " JOIN entries e ON e.transaction_no = k.no AND e.merchant_no = k.merchant"
    f" UNION ALL SELECT {_ENTRY} FROM unnest($3::text[], $4::text[]) k(merchant, fingerprint)"
    " JOIN entries e ON e.transaction_no = '' AND e.merchant_no = k.merchant"
    " AND e.fingerprint = k.fingerprint)"
    " SELECT coalesce((SELECT n.seq FROM entries n ORDER BY n.seq DESC LIMIT 1), 0),"
    f" (SELECT array_agg(ROW({_ENTRY}) ORDER BY e.seq) FROM e),"
    f" (SELECT array_agg(ROW({listed(TRANSACTION_COLUMNS, 't')})) FROM t),"
    f" (SELECT array_agg(ROW({_ENTRY})) FROM entries e WHERE e.seq = ANY ($5::bigint[]"
    " || (SELECT array_agg(t.sale_seq) FROM t WHERE t.sale_seq IS NOT NULL))),"
    f" (SELECT array_agg(ROW({listed(SALE_COLUMNS, 's')})) FROM sales s"
    " WHERE s.seq = ANY ($5::bigint[])),"
    " (SELECT array_agg(ROW(s.merchant_no, s.store_no, s.reference))"
    " FROM unnest($6::text[], $7::text[], $8::text[]) k(merchant, store, reference)"
    " JOIN sales s ON s.merchant_no = k.merchant AND s.reference = k.reference"
    " AND s.store_no = k.store AND s.is_refused = 0)"
)
_APPEND_ARGUMENTS: Final = 75
_APPEND: Final = (
    "SELECT head, hash, number, offsets FROM append_v1("
    + ", ".join(f"${n}" for n in range(1, _APPEND_ARGUMENTS + 1))
    + ")"
)


async def see(db: Connection, wants: Wanted) -> Seen:
    """Read what there is of what is wanted, all at one moment."""
    ((seq, entries, transactions, sales, states, references),) = await db.fetch(
        _SEE,
        *_keys(wants.transactions),
        *_keys(wants.unnumbered),
        list(wants.sales),
        *_references(wants),
    )
    return Seen(
        seq=seq,
        entries=[entry_of(row) for row in entries or ()],
        transactions=[transaction_of(row) for row in transactions or ()],
        sales={row[0]: entry_of(row) for row in sales or ()},
        sale_states={row[0]: sale_of(row) for row in states or ()},
        references=frozenset((row[0], row[1], unpacked(row[2])) for row in references or ()),
    )


def append_arguments(
    changes: Changes, wants: Wanted, *, seen: int, epoch: str, now_ms: int
) -> list[object]:
    """Return the arguments of ``append_v1`` in their order.

    Raises:
        TypeError: A text cannot be written as UTF-8.
    """
    entries, events, repeats = changes.entries, changes.events, changes.repeats
    return [
        epoch,
        seen,
        *_keys(wants.transactions),
        *_keys(wants.unnumbered),
        *_used(wants),
        list(wants.sales),
        *_columns([columns(entry)[1:] for entry in entries], len(ENTRY_COLUMNS) - 2),
        [text_after_seq(entry) for entry in entries],
        [event.seq for event in events],
        [packed(event.stream) for event in events],
        [int(event.is_cancellation) for event in events],
        [event.before_seq for event in events],
        [event.after_seq for event in events],
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
    """Append a batch; None where others have recorded something that it should have known."""
    return await db.fetchrow(_APPEND, *arguments)


def _keys(keys: Iterable[Key]) -> tuple[list[str], list[str]]:
    pairs = list(keys)
    return [merchant_no for merchant_no, _ in pairs], [packed(name) for _, name in pairs]


def _references(wants: Wanted) -> tuple[list[str], list[str], list[str]]:
    names = list(wants.references)
    return (
        [merchant_no for merchant_no, _, _ in names],
        [store_no for _, store_no, _ in names],
        [packed(reference) for _, _, reference in names],
    )


def _used(wants: Wanted) -> tuple[list[str], list[str]]:
    """Return the references without their stores: what another node may have used meanwhile."""
    merchants, _, references = _references(wants)
    return merchants, references


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Turn rows into one list for each column, its texts as they are stored."""
    if not rows:
        return [[] for _ in range(width)]
    return [
        [packed(value) if isinstance(value, str) else value for value in column]
        for column in zip(*rows, strict=True)
    ]
