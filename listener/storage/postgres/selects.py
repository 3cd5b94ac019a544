"""Every statement that reads the ledger on PostgreSQL, each a seek in an index."""

from collections.abc import Sequence
from typing import Final

from listener.ledger.chain import ENTRY_COLUMNS
from listener.storage.rows import EVENT_COLUMNS, SALE_COLUMNS, TRANSACTION_COLUMNS
from listener.storage.statements import IS_CANCELLING, IS_OPEN


def listed(names: Sequence[str], table: str) -> str:
    """List columns for a statement, each with the name of its table before it."""
    return ", ".join(f"{table}.{name}" for name in names)


ENTRY: Final = listed(ENTRY_COLUMNS, "e")
EVENT: Final = listed(EVENT_COLUMNS, "v")
TRANSACTION: Final = listed(TRANSACTION_COLUMNS, "t")
SEQ: Final = "SELECT seq FROM entries ORDER BY seq DESC LIMIT 1"
NUMBER: Final = "SELECT number FROM events ORDER BY number DESC LIMIT 1"
# One statement, so that all of it is read at one moment.
HEAD: Final = (
    "SELECT l.epoch, coalesce(e.seq, 0), coalesce(e.hash, repeat('0', 64)),"
    f" coalesce(({NUMBER}), 0), (SELECT count(*) FROM transactions),"
    " (SELECT coalesce(sum(count), 0)::bigint FROM repeats)"
    " FROM ledger l LEFT JOIN (SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1) e ON true"
)
STREAM_HEADS: Final = (
    'SELECT s.stream, (SELECT e."offset" FROM events e WHERE e.stream = s.stream'
    ' ORDER BY e."offset" DESC LIMIT 1) FROM unnest($1::text[]) s(stream)'
)
EVENTS: Final = (
    f'SELECT {EVENT} FROM events v WHERE stream = $1 AND "offset" > $2 ORDER BY "offset" LIMIT $3'
)
EVERY_EVENT: Final = f"SELECT {EVENT} FROM events v WHERE number > $1 ORDER BY number LIMIT $2"
LINES: Final = (
    f"SELECT {ENTRY}, r.count, r.last_at, t.sale_seq, t.judge_seq, t.disputed"
    " FROM entries e LEFT JOIN repeats r ON r.seq = e.seq"
    " LEFT JOIN transactions t ON t.transaction_no = e.transaction_no"
    " AND t.merchant_no = e.merchant_no"
)
SCOPED: Final = (
    " AND ($2::text IS NULL OR e.merchant_no = $2)"
    " AND ($3::text IS NULL OR coalesce(t.store_no, e.store_no, '-') = $3)"
)
LINES_AFTER: Final = f"{LINES} WHERE e.seq > $1{SCOPED} AND e.seq <= $4 ORDER BY e.seq LIMIT $5"
COUNTS_BETWEEN: Final = (
    "SELECT count(*), coalesce(sum(r.count), 0)::bigint FROM entries e"
    " LEFT JOIN repeats r ON r.seq = e.seq LEFT JOIN transactions t"
    " ON t.transaction_no = e.transaction_no AND t.merchant_no = e.merchant_no"
    f" WHERE e.seq > $1{SCOPED} AND e.seq <= $4"
)
COUNT_TRANSACTIONS: Final = (
    "SELECT count(*) FROM transactions WHERE merchant_no = $1"
    " AND ($2::text IS NULL OR coalesce(store_no, '-') = $2)"
)
# Steps from one stream of the merchant to the next: the newest offset is the number of events.
COUNT_EVENTS: Final = (
    "WITH RECURSIVE s AS ("
    "(SELECT stream FROM events WHERE stream > $1 || '/' AND stream < $1 || '0'"
    " ORDER BY stream LIMIT 1) UNION ALL"
    " SELECT (SELECT e.stream FROM events e WHERE e.stream > s.stream AND e.stream < $1 || '0'"
    " ORDER BY e.stream LIMIT 1) FROM s WHERE s.stream IS NOT NULL)"
    ' SELECT coalesce(sum((SELECT max(e."offset") FROM events e WHERE e.stream = s.stream)),'
    " 0)::bigint FROM s WHERE ($2::text IS NULL OR s.stream = $1 || '/' || $2)"
)
LINES_BETWEEN: Final = (
    f"{LINES} WHERE e.seq > $1{SCOPED} AND e.seq <= $4"
    " AND ($5::bigint IS NULL OR e.recorded_at >= $5)"
    " AND ($6::bigint IS NULL OR e.recorded_at < $6) ORDER BY e.seq"
)
LINES_OF: Final = (
    f"{LINES} WHERE e.transaction_no = $1 AND e.merchant_no = $2 AND e.seq > $4"
    " AND ($6::boolean OR e.kind <> 'notification')"
    f" UNION ALL {LINES} WHERE e.seq = $3 AND e.seq > $4 ORDER BY seq LIMIT $5"
)
BY_SEQ: Final = f"SELECT {ENTRY} FROM entries e WHERE seq = ANY ($1::bigint[])"
TRANSACTIONS: Final = f"SELECT {TRANSACTION} FROM transactions t"
NEWEST_FIRST: Final = " ORDER BY created_at DESC, first_seq DESC LIMIT "
OF_NUMBER: Final = (
    f"{TRANSACTIONS} WHERE transaction_no = $1 AND ($2::text IS NULL OR merchant_no = $2)"
)
# What is to be raised comes first; cancels are always among the rest, however much is due.
DUE: Final = (
    f"SELECT {TRANSACTION} FROM ("
    f"SELECT * FROM ({TRANSACTIONS} WHERE ask_due_at <= $1 AND ask_why = 'cancel'"
    " ORDER BY ask_due_at, first_seq LIMIT $2) c UNION "
    f"SELECT * FROM ({TRANSACTIONS} WHERE ask_raise_at <= $1"
    " ORDER BY ask_raise_at, first_seq LIMIT $2) r UNION "
    f"SELECT * FROM ({TRANSACTIONS} WHERE ask_due_at <= $1"
    " ORDER BY ask_due_at, first_seq LIMIT $2) d"
    ") t ORDER BY ask_raise_at IS NULL OR ask_raise_at > $1, ask_due_at, first_seq"
)
DOUBTS: Final = (
    "SELECT ask_why, ask_raise_at IS NULL, count(*) FROM transactions"
    " WHERE ask_due_at IS NOT NULL AND ask_since <= $1 GROUP BY 1, 2 UNION ALL"
    f" SELECT CASE WHEN {IS_CANCELLING} THEN 'cancel' ELSE 'sale' END,"
    f" s.ask_raise_at IS NULL AND {IS_CANCELLING}, count(*)"
    " FROM sales s JOIN entries e ON e.seq = s.seq"
    f" WHERE {IS_OPEN.format(now='$1::bigint')} GROUP BY 1, 2"
)
NEXT_DUE: Final = (
    "SELECT least("
    "(SELECT min(ask_due_at) FROM transactions WHERE ask_due_at IS NOT NULL),"
    " (SELECT min(ask_raise_at) FROM transactions WHERE ask_raise_at IS NOT NULL),"
    " (SELECT min(ask_due_at) FROM sales WHERE ask_due_at IS NOT NULL),"
    " (SELECT min(ask_raise_at) FROM sales WHERE ask_raise_at IS NOT NULL))"
)
# Each with its entry, and the entry of the wish to cancel it.
SALES: Final = (
    f"SELECT {listed(SALE_COLUMNS, 's')}, {ENTRY}, {listed(ENTRY_COLUMNS, 'w')}"
    " FROM sales s JOIN entries e ON e.seq = s.seq LEFT JOIN entries w ON w.seq = s.cancel_seq"
)
OPEN_SALES: Final = (
    f"{SALES} WHERE {IS_OPEN.format(now='$1::bigint')}"
    " AND ($2::text IS NULL OR s.merchant_no = $2)"
    " AND ($3::text IS NULL OR s.store_no = $3) AND ($4::text IS NULL OR e.terminal = $4)"
    " ORDER BY s.seq DESC LIMIT $5"
)
# Those with a cancel that somebody waits for come first.
DUE_SALES: Final = (
    f"{SALES} WHERE s.seq IN ("
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_due_at <= $1 AND cancel_seq IS NOT NULL"
    " ORDER BY ask_due_at, seq LIMIT $2) c UNION "
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_raise_at <= $1"
    " ORDER BY ask_raise_at, seq LIMIT $2) r UNION "
    "SELECT seq FROM (SELECT seq FROM sales WHERE ask_due_at <= $1"
    " ORDER BY ask_due_at, seq LIMIT $2) d"
    ") ORDER BY s.cancel_seq IS NULL, s.ask_due_at, s.seq"
)
# Those that use the reference come first.
SALES_OF_REFERENCE: Final = (
    f"{SALES} WHERE s.merchant_no = $1 AND s.reference = $2"
    " AND ($3::text IS NULL OR s.store_no = $3) ORDER BY s.is_refused, s.seq DESC LIMIT $4"
)
# Steps from one stream with a cancellation to the next, then on from its acks, not through all
# events. It ends at the limit: to sort first would read every one that was never acknowledged.
UNACKED: Final = (
    "WITH RECURSIVE s AS ("
    "(SELECT stream FROM events WHERE cancelled = 1 ORDER BY stream LIMIT 1) UNION ALL"
    " SELECT (SELECT e.stream FROM events e WHERE e.cancelled = 1 AND e.stream > s.stream"
    " ORDER BY e.stream LIMIT 1) FROM s WHERE s.stream IS NOT NULL)"
    " SELECT u.* FROM (SELECT u.* FROM s CROSS JOIN LATERAL ("
    'SELECT e.stream, e."offset", n.transaction_no, n.recorded_at, e.body'
    " FROM events e JOIN entries n ON n.seq = e.seq"
    " WHERE e.stream = s.stream AND e.cancelled = 1"
    ' AND e."offset" > coalesce((SELECT max(a.acked) FROM acks a WHERE a.stream = s.stream), 0)'
    ' AND n.recorded_at < $1 ORDER BY e."offset" LIMIT $4) u'
    " WHERE ($2::text IS NULL OR starts_with(s.stream, $2 || '/'))"
    " AND ($3::text IS NULL OR s.stream = $2 || '/' || $3)"
    ' LIMIT $4) u ORDER BY u.stream, u."offset"'
)
# Terminals are few: as many as there are tills.
ACKS: Final = (
    'SELECT terminal, stream, epoch, "offset", acked, acked_at FROM acks'
    " WHERE (terminal, stream) > ($1, $2)"
    " AND ($3::text IS NULL OR starts_with(stream, $3 || '/'))"
    " AND ($4::text IS NULL OR stream = $3 || '/' || $4) ORDER BY terminal, stream LIMIT $5"
)
ACKED: Final = (
    'SELECT a.terminal, a.stream, a.epoch, a."offset" FROM acks a'
    " JOIN unnest($1::text[], $2::text[]) x(terminal, stream) USING (terminal, stream)"
)
REMEMBERED: Final = (
    "SELECT request, status, body FROM answers WHERE key_id = $1 AND idempotency_key = $2"
)
