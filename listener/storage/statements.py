"""Statements that verify and rebuild a ledger, and that both back-ends understand."""

from types import MappingProxyType
from typing import Final

from listener.ledger.chain import ENTRY_COLUMNS

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
