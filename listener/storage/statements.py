"""Statements that both back-ends understand: they verify and rebuild a ledger, and add to it."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from listener.ledger.chain import ENTRY_COLUMNS
from listener.ledger.sale import SALE_ANSWER_MS
from listener.storage.rows import SALE_COLUMNS

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
        "it is among the sales, and is not one": (
            "SELECT min(s.seq) FROM sales s LEFT JOIN entries n ON n.seq = s.seq"
            " WHERE coalesce(n.kind, '') <> 'sale'"
        ),
    }
)

# Whether somebody waits for the end of a sale's cancel.
IS_CANCELLING: Final = "(s.cancel_requested_at IS NOT NULL AND s.cancel_resolved_at IS NULL)"
# Whether Pockyt is asked about a sale (s; its entry is e), since it gave no number in time. If the
# cancel has ended, nobody waits for one; if a notification has named the sale, there is a
# transaction.
IS_OPEN: Final = (
    "s.ask_due_at IS NOT NULL AND s.transaction_no IS NULL AND s.cancel_resolved_at IS NULL"
    f" AND (s.cancel_requested_at IS NOT NULL OR (e.recorded_at <= {{now}} - {SALE_ANSWER_MS}"
    " AND NOT EXISTS (SELECT 1 FROM transactions t WHERE t.reference = s.reference"
    " AND t.merchant_no = s.merchant_no AND t.judge_seq = s.seq)))"
)
# Each sale, followed by the entries that name it, in order.
_OF_SALES: Final = (
    " WHERE e.kind = 'sale' OR e.sale_seq IS NOT NULL"
    " ORDER BY CASE e.kind WHEN 'sale' THEN e.seq ELSE e.sale_seq END, e.seq"
)
_ENTRY: Final = ", ".join(f"e.{name}" for name in ENTRY_COLUMNS)
SALES_WITH_ENTRIES: Final = f"SELECT {_ENTRY} FROM entries e{_OF_SALES}"
# Each sale with its state; NULL if it has none, and for the other entries.
SALES_WITH_STATES: Final = (
    f"SELECT {_ENTRY}, {', '.join(f's.{name}' for name in SALE_COLUMNS)}"
    f" FROM entries e LEFT JOIN sales s ON s.seq = e.seq{_OF_SALES}"
)

_ADDED_INDEX: Final = "CREATE INDEX IF NOT EXISTS "


def added_indexes(schema: str) -> Iterator[tuple[str, str]]:
    """Read from a schema the indexes that a released version did not make: names and statements.

    Without them a search is slow, and nothing else: every version serves and reads a ledger with
    them and without, so that the version of its schema stays.
    """
    for line in schema.splitlines():
        if line.startswith(_ADDED_INDEX):
            yield line.removeprefix(_ADDED_INDEX).split()[0], line
