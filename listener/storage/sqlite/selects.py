"""The statements that answer questions about the ledger on SQLite, with their parameters."""

from collections.abc import Iterable
from typing import Final

from listener.ledger.chain import ENTRY_COLUMNS
from listener.storage.rows import EVENT_COLUMNS, SALE_COLUMNS, TRANSACTION_COLUMNS
from listener.storage.statements import IS_CANCELLING, IS_OPEN


def listed(names: Iterable[str], table: str) -> str:
    """List columns for a statement, each with the name of its table before it."""
    return ", ".join(f"{table}.{name}" for name in names)


_ENTRY: Final = listed(ENTRY_COLUMNS, "e")
_TRANSACTION: Final = ", ".join(TRANSACTION_COLUMNS)

# The head.

SEAL: Final = "SELECT secret FROM ledger"
HEAD: Final = "SELECT epoch, seq, hash, number, repeats, transactions FROM ledger"
NUMBER: Final = "SELECT number FROM ledger"
ORIGIN: Final = "SELECT epoch, created_at, is_copy, file FROM ledger"

# Events.

_EVENTS: Final = f"SELECT {', '.join(EVENT_COLUMNS)} FROM events"
# stream, after, limit
EVENTS_OF_STREAM: Final = f'{_EVENTS} WHERE stream = ? AND "offset" > ? ORDER BY "offset" LIMIT ?'
# after, limit
EVERY_EVENT: Final = f"{_EVENTS} WHERE number > ? ORDER BY number LIMIT ?"
# before, merchant_no, store_no, limit; CROSS JOIN fixes the order: each stream from its acks on,
# and not through all cancellations.
UNACKED: Final = (
    'SELECT e.stream, e."offset", n.transaction_no, n.recorded_at, e.body FROM streams s'
    " CROSS JOIN events e INDEXED BY events_cancelled ON e.stream = s.stream AND e.cancelled = 1"
    ' AND e."offset" > coalesce((SELECT max(acked) FROM acks WHERE stream = s.stream), 0)'
    " CROSS JOIN entries n ON n.seq = e.seq WHERE n.recorded_at < ?1"
    " AND (?2 IS NULL OR n.merchant_no = ?2)"
    " AND (?3 IS NULL OR s.stream = ?2 || '/' || ?3) LIMIT ?4"
)

# Entries, with how often each was delivered, and the sale that judges their transaction.

_LINES: Final = (
    f"SELECT {_ENTRY}, r.count, r.last_at, t.sale_seq, t.judge_seq, t.disputed"
    " FROM entries e LEFT JOIN repeats r ON r.seq = e.seq"
    " LEFT JOIN transactions t ON t.transaction_no = e.transaction_no"
    " AND t.merchant_no = e.merchant_no"
)
# after, upto, merchant_no, store_no, limit
LINES_AFTER: Final = (
    f"{_LINES} WHERE e.seq > ?1 AND e.seq <= ?2 AND (?3 IS NULL OR e.merchant_no = ?3)"
    " AND (?4 IS NULL OR coalesce(t.store_no, e.store_no, '-') = ?4) ORDER BY e.seq LIMIT ?5"
)
# after, upto, since, until, merchant_no, store_no
LINES_BETWEEN: Final = (
    f"{_LINES} WHERE e.seq > ?1 AND e.seq <= ?2 AND (?3 IS NULL OR e.recorded_at >= ?3)"
    " AND (?4 IS NULL OR e.recorded_at < ?4) AND (?5 IS NULL OR e.merchant_no = ?5)"
    " AND (?6 IS NULL OR coalesce(t.store_no, e.store_no, '-') = ?6) ORDER BY e.seq"
)
# transaction_no, merchant_no, sale_seq, after, limit (-1: none), whether notifications, too.
# The seqs are sorted alone, in the index: a page of very many entries costs little more.
LINES_OF: Final = (
    f"{_LINES} WHERE e.seq IN (SELECT seq FROM"
    " (SELECT seq FROM entries WHERE transaction_no = ?1 AND merchant_no = ?2"
    " AND (?6 OR kind <> 'notification') UNION SELECT ?3)"
    " WHERE seq > ?4 ORDER BY seq LIMIT ?5) ORDER BY e.seq"
)

# How much there is.

# after, upto, merchant_no, store_no; ends with entries and repeats.
COUNTS_BETWEEN: Final = (
    "SELECT count(*), coalesce(sum(r.count), 0) FROM entries e"
    " LEFT JOIN repeats r ON r.seq = e.seq LEFT JOIN transactions t"
    " ON t.transaction_no = e.transaction_no AND t.merchant_no = e.merchant_no"
    " WHERE e.seq > ?1 AND e.seq <= ?2 AND (?3 IS NULL OR e.merchant_no = ?3)"
    " AND (?4 IS NULL OR coalesce(t.store_no, e.store_no, '-') = ?4)"
)
# merchant_no, store_no
COUNT_TRANSACTIONS: Final = (
    "SELECT count(*) FROM transactions WHERE merchant_no = ?1"
    " AND (?2 IS NULL OR coalesce(store_no, '-') = ?2)"
)
# merchant_no, store_no. A stream's head is how many events it has.
COUNT_EVENTS: Final = (
    "SELECT coalesce(sum(head), 0) FROM streams WHERE substr(stream, 1, length(?1) + 1) = ?1 || '/'"
    " AND (?2 IS NULL OR stream = ?1 || '/' || ?2)"
)

# Transactions.

TRANSACTIONS: Final = f"SELECT {_TRANSACTION} FROM transactions"
# merchant_no, the newest time (Unix ms). Each store that has a transaction then or before, NULL for
# no store, and the time of its newest one; steps from one store to the next, however many each has.
STORES_OF: Final = (
    "WITH RECURSIVE s (store_no) AS (SELECT min(store_no) FROM transactions WHERE merchant_no = ?1"
    " UNION ALL SELECT (SELECT min(store_no) FROM transactions WHERE merchant_no = ?1"
    " AND store_no > s.store_no) FROM s WHERE s.store_no IS NOT NULL)"
    " SELECT store_no, newest FROM (SELECT s.store_no, (SELECT max(created_at) FROM transactions t"
    " WHERE t.merchant_no = ?1 AND t.store_no = s.store_no AND t.created_at <= ?2) AS newest"
    " FROM s WHERE s.store_no IS NOT NULL"
    " UNION ALL SELECT NULL, (SELECT max(created_at) FROM transactions"
    " WHERE merchant_no = ?1 AND store_no IS NULL AND created_at <= ?2))"
    " WHERE newest IS NOT NULL ORDER BY newest DESC"
)
# Tested row by row: a search that uses it has a time limit.
CONTAINS: Final = "(reference LIKE :part ESCAPE '\\' OR transaction_no LIKE :part ESCAPE '\\')"
NEWEST_FIRST: Final = " ORDER BY created_at DESC, first_seq DESC LIMIT :limit"
# transaction_no, merchant_no
TRANSACTIONS_OF_NUMBER: Final = (
    f"{TRANSACTIONS} WHERE transaction_no = ?1 AND (?2 IS NULL OR merchant_no = ?2)"
)
# now, limit. Up to the limit of each: the cancels that somebody waits for, what is to be raised,
# and all other doubts, so that many of one kind do not delay another.
DUE: Final = (
    f"SELECT {_TRANSACTION} FROM ("
    f"SELECT * FROM ({TRANSACTIONS} WHERE ask_why = 'cancel' AND ask_due_at <= ?1"
    " ORDER BY ask_due_at LIMIT ?2)"
    " UNION "
    f"SELECT * FROM ({TRANSACTIONS} WHERE ask_raise_at <= ?1 ORDER BY ask_raise_at LIMIT ?2)"
    " UNION "
    f"SELECT * FROM ({TRANSACTIONS} WHERE ask_due_at <= ?1 ORDER BY ask_due_at LIMIT ?2)"
    ") ORDER BY ask_raise_at IS NULL OR ask_raise_at > ?1, ask_due_at"
)
# now. Only what is in doubt is in these indexes: nearly nothing, whatever the size of the ledger.
# Of a sale only a cancel is raised.
DOUBTS: Final = (
    "SELECT ask_why, ask_raise_at IS NULL, count(*) FROM transactions INDEXED BY transactions_due"
    " WHERE ask_due_at IS NOT NULL AND ask_since <= ?1 GROUP BY 1, 2 UNION ALL"
    f" SELECT CASE WHEN {IS_CANCELLING} THEN 'cancel' ELSE 'sale' END,"
    f" s.ask_raise_at IS NULL AND {IS_CANCELLING}, count(*)"
    " FROM sales s INDEXED BY sales_due JOIN entries e ON e.seq = s.seq"
    f" WHERE {IS_OPEN.format(now='?1')} GROUP BY 1, 2"
)
NEXT_DUE: Final = (
    "SELECT min(at) FROM (SELECT min(ask_due_at) AS at FROM transactions"
    " WHERE ask_due_at IS NOT NULL UNION ALL SELECT min(ask_raise_at) FROM transactions"
    " WHERE ask_raise_at IS NOT NULL UNION ALL SELECT min(ask_due_at) FROM sales"
    " WHERE ask_due_at IS NOT NULL UNION ALL SELECT min(ask_raise_at) FROM sales"
    " WHERE ask_raise_at IS NOT NULL)"
)

# Sales.

# Each with its entry, and the entry of the wish to cancel it.
_SALES: Final = (
    f"SELECT {listed(SALE_COLUMNS, 's')}, {_ENTRY}, {listed(ENTRY_COLUMNS, 'w')}"
    " FROM sales s JOIN entries e ON e.seq = s.seq LEFT JOIN entries w ON w.seq = s.cancel_seq"
)
# now, merchant_no, store_no, terminal, limit
OPEN_SALES: Final = (
    f"{_SALES} WHERE s.seq IN"
    " (SELECT seq FROM sales INDEXED BY sales_due WHERE ask_due_at IS NOT NULL)"
    f" AND {IS_OPEN.format(now='?1')} AND (?2 IS NULL OR s.merchant_no = ?2)"
    " AND (?3 IS NULL OR s.store_no = ?3) AND (?4 IS NULL OR e.terminal = ?4)"
    " ORDER BY s.seq DESC LIMIT ?5"
)
# now, limit. Those with a cancel that somebody waits for come first.
DUE_SALES: Final = (
    f"{_SALES} WHERE s.seq IN ("
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_due_at <= ?1 AND cancel_seq IS NOT NULL"
    " ORDER BY ask_due_at LIMIT ?2)"
    " UNION "
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_raise_at <= ?1"
    " ORDER BY ask_raise_at LIMIT ?2)"
    " UNION "
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_due_at <= ?1 ORDER BY ask_due_at LIMIT ?2)"
    ") ORDER BY s.cancel_seq IS NULL, s.ask_due_at"
)
# merchant_no, reference, store_no, limit. Those that use the reference come first.
SALES_OF_REFERENCE: Final = (
    f"{_SALES} WHERE s.merchant_no = ?1 AND s.reference = ?2 AND (?3 IS NULL OR s.store_no = ?3)"
    " ORDER BY s.is_refused, s.seq DESC LIMIT ?4"
)

# Acknowledgements, and answers under an Idempotency-Key.

# terminal, stream, merchant_no, store_no, limit; the first two are those of the last row before.
ACKS: Final = (
    'SELECT terminal, stream, epoch, "offset", acked, acked_at FROM acks'
    " WHERE (terminal, stream) > (?1, ?2)"
    " AND (?3 IS NULL OR substr(stream, 1, length(?3) + 1) = ?3 || '/')"
    " AND (?4 IS NULL OR stream = ?3 || '/' || ?4) ORDER BY terminal, stream LIMIT ?5"
)
# terminal, stream
ACKED: Final = 'SELECT epoch, "offset" FROM acks WHERE terminal = ? AND stream = ?'
# key_id, idempotency_key
ANSWER: Final = "SELECT request, status, body FROM answers WHERE key_id = ? AND idempotency_key = ?"
