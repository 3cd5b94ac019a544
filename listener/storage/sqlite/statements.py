"""Every statement of the ledger on SQLite, each with its parameters listed above it.

``ROWS`` stands for as many rows of parameters as a call has; ``bulk`` fills them in.
"""

from collections.abc import Iterable
from typing import Final

from listener.ledger.chain import ENTRY_COLUMNS
from listener.storage.rows import EVENT_COLUMNS, PLAIN_COLUMNS, SALE_COLUMNS, TRANSACTION_COLUMNS

ROWS: Final = "{rows}"


def _named(columns: Iterable[str], *, of: str = "") -> str:
    """List columns, each with the name of its table before it."""
    return ", ".join(f"{of}{column}" for column in columns)


_ENTRY: Final = _named(ENTRY_COLUMNS)
_ENTRY_OF_E: Final = _named(ENTRY_COLUMNS, of="e.")
_TRANSACTION: Final = _named(TRANSACTION_COLUMNS)

# The head.

MAKE_LEDGER: Final = (
    "INSERT INTO ledger (id, epoch, created_at, hash, secret) VALUES (1, ?, ?, ?, ?)"
)
SEAL: Final = "SELECT secret FROM ledger"
HEAD: Final = "SELECT epoch, seq, hash, number, repeats, transactions FROM ledger"
HEAD_TO_APPEND: Final = "SELECT seq, hash, number FROM ledger"
NUMBER: Final = "SELECT number FROM ledger"
ORIGIN: Final = "SELECT epoch, created_at, is_copy, file FROM ledger"
# seq, hash, number, repeats, transactions; the last two are added to what is there.
PUT_HEAD: Final = (
    "UPDATE ledger SET seq = ?, hash = ?, number = ?, repeats = repeats + ?,"
    " transactions = transactions + ?"
)
TOUCH: Final = "UPDATE ledger SET id = id"
# epoch, file
BEGIN_EPOCH: Final = "UPDATE ledger SET epoch = ?, is_copy = 0, file = ?"
MARK_COPY: Final = "UPDATE ledger SET is_copy = 1"

# What a commit reads. Each statement looks its rows up by keys, whatever the planner prefers.

_KEYS: Final = f"(VALUES {ROWS}) k CROSS JOIN"
_KEYED: Final = "t.merchant_no = k.column1 AND t.transaction_no = k.column2"

# Rows: merchant_no, transaction_no.
ENTRIES_OF: Final = (
    f"SELECT {_named(ENTRY_COLUMNS, of='t.')} FROM {_KEYS} entries t ON {_KEYED} ORDER BY t.seq"
)
# Rows: merchant_no, transaction_no, fingerprint; a transaction number may be ''.
ENTRIES_LIKE: Final = (
    f"SELECT {_named(ENTRY_COLUMNS, of='t.')} FROM {_KEYS} entries t"
    f" ON {_KEYED} AND t.fingerprint = k.column3"
)
# Rows: seq.
ENTRIES_AT: Final = (
    f"SELECT {_named(ENTRY_COLUMNS, of='t.')} FROM {_KEYS} entries t ON t.seq = k.column1"
)
# Rows: merchant_no, transaction_no.
STATES_OF: Final = (
    f"SELECT {_named(TRANSACTION_COLUMNS, of='t.')} FROM {_KEYS} transactions t ON {_KEYED}"
)
# Rows: seq.
SALES_AT: Final = (
    f"SELECT {_named(SALE_COLUMNS, of='t.')} FROM {_KEYS} sales t ON t.seq = k.column1"
)
# Rows: merchant_no, store_no, reference.
REFERENCES: Final = (
    f"SELECT t.merchant_no, t.store_no, t.reference FROM {_KEYS} sales t"
    " ON t.merchant_no = k.column1 AND t.store_no = k.column2 AND t.reference = k.column3"
    " AND t.is_refused = 0"
)
# Rows: merchant_no, reference. The newest if there are several; nearly always there is none.
UNBOUND: Final = (
    f"SELECT t.merchant_no, t.reference, max(t.seq) FROM {_KEYS} sales t"
    " ON t.merchant_no = k.column1 AND t.reference = k.column2"
    " AND t.is_refused = 0 WHERE t.transaction_no IS NULL GROUP BY 1, 2"
)
# Rows: stream.
STREAM_HEADS: Final = f"SELECT t.stream, t.head FROM {_KEYS} streams t ON t.stream = k.column1"

# What a commit writes.

# Rows: ENTRY_COLUMNS.
ADD_ENTRIES: Final = f"INSERT INTO entries ({_ENTRY}) VALUES {ROWS}"
ADD_EVENTS: Final = (
    f'INSERT INTO events (number, stream, "offset", seq, cancelled, body) VALUES {ROWS}'
)
_RENEW: Final = " ON CONFLICT (first_seq) DO UPDATE SET " + ", ".join(
    # The columns that identify a transaction stay.
    f"{name} = excluded.{name}"
    for name in TRANSACTION_COLUMNS[3:]
)
# Rows: TRANSACTION_COLUMNS.
PUT_TRANSACTIONS: Final = f"INSERT INTO transactions ({_TRANSACTION}) VALUES {ROWS}{_RENEW}"
# Rows: PLAIN_COLUMNS; the others become NULL. Binding a NULL costs as much as binding text.
PUT_PLAIN_TRANSACTIONS: Final = (
    f"INSERT INTO transactions ({_named(PLAIN_COLUMNS)}) VALUES {ROWS}{_RENEW}"
)
# Rows: stream, head.
PUT_STREAMS: Final = (
    f"INSERT INTO streams (stream, head) VALUES {ROWS}"
    " ON CONFLICT (stream) DO UPDATE SET head = excluded.head"
)
# Rows: seq, count, last_at; the count is added to what is there.
PUT_REPEATS: Final = (
    f"INSERT INTO repeats (seq, count, last_at) VALUES {ROWS}"
    " ON CONFLICT (seq) DO UPDATE SET count = count + excluded.count, last_at = excluded.last_at"
)
# Rows: SALE_COLUMNS. What identifies a sale stays.
PUT_SALES: Final = (
    f"INSERT INTO sales ({_named(SALE_COLUMNS)}) VALUES {ROWS} ON CONFLICT (seq) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in SALE_COLUMNS[4:])
)

# Events.

_EVENTS: Final = f"SELECT {_named(EVENT_COLUMNS)} FROM events"
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
    f"SELECT {_ENTRY_OF_E}, r.count, r.last_at, t.sale_seq, t.judge_seq, t.disputed"
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
# merchant_no. Steps from one store to the next, however many transactions each has.
STORES_OF: Final = (
    "WITH RECURSIVE s (store_no) AS (SELECT min(store_no) FROM transactions WHERE merchant_no = ?1"
    " UNION ALL SELECT (SELECT min(store_no) FROM transactions WHERE merchant_no = ?1"
    " AND store_no > s.store_no) FROM s WHERE s.store_no IS NOT NULL)"
    " SELECT store_no FROM s WHERE store_no IS NOT NULL"
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
# now. Only transactions in doubt are in this index; there are nearly none, whatever the ledger's
# size.
DOUBTS: Final = (
    "SELECT ask_why, ask_raise_at IS NULL, count(*) FROM transactions INDEXED BY transactions_due"
    " WHERE ask_due_at IS NOT NULL AND ask_since <= ? GROUP BY 1, 2"
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
    f"SELECT {_named(SALE_COLUMNS, of='s.')}, {_ENTRY_OF_E}, {_named(ENTRY_COLUMNS, of='w.')}"
    " FROM sales s JOIN entries e ON e.seq = s.seq LEFT JOIN entries w ON w.seq = s.cancel_seq"
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

# Acknowledgements.

# terminal, stream, epoch, offset, acked_at. A lower offset than the stored one changes nothing;
# offsets of two epochs are not compared.
PUT_ACK: Final = (
    'INSERT INTO acks (terminal, stream, epoch, "offset", acked, acked_at)'
    " VALUES (?1, ?2, ?3, ?4, ?4, ?5) ON CONFLICT (terminal, stream) DO UPDATE SET"
    ' "offset" = CASE epoch WHEN ?3 THEN max("offset", ?4) ELSE ?4 END, epoch = ?3,'
    " acked = max(coalesce(acked, 0), ?4), acked_at = ?5"
    " WHERE epoch <> ?3 OR acked IS NULL OR ?4 >= acked"
)
# terminal, stream, epoch, offset, acked_at. In the same epoch it changes nothing.
PUT_START: Final = (
    'INSERT INTO acks (terminal, stream, epoch, "offset", acked_at) VALUES (?, ?, ?, ?, ?)'
    " ON CONFLICT (terminal, stream) DO UPDATE SET epoch = excluded.epoch,"
    ' "offset" = excluded."offset" WHERE epoch <> excluded.epoch'
)
# terminal, stream, merchant_no, store_no, limit; the first two are those of the last row before.
ACKS: Final = (
    'SELECT terminal, stream, epoch, "offset", acked, acked_at FROM acks'
    " WHERE (terminal, stream) > (?1, ?2)"
    " AND (?3 IS NULL OR substr(stream, 1, length(?3) + 1) = ?3 || '/')"
    " AND (?4 IS NULL OR stream = ?3 || '/' || ?4) ORDER BY terminal, stream LIMIT ?5"
)
# terminal, stream
ACKED: Final = 'SELECT epoch, "offset" FROM acks WHERE terminal = ? AND stream = ?'

# Answers under an Idempotency-Key.

# key_id, idempotency_key
ANSWER: Final = "SELECT request, status, body FROM answers WHERE key_id = ? AND idempotency_key = ?"
# key_id, idempotency_key, request, recorded_at
CLAIM_ANSWER: Final = (
    "INSERT INTO answers (key_id, idempotency_key, request, recorded_at) VALUES (?, ?, ?, ?)"
)
# status, body, key_id, idempotency_key
PUT_ANSWER: Final = (
    "UPDATE answers SET status = ?, body = ? WHERE key_id = ? AND idempotency_key = ?"
)
# recorded_at
FORGET_ANSWERS: Final = "DELETE FROM answers WHERE recorded_at < ?"

# Keys.

_KEY: Final = "id, hash, role, merchant_no, store_no, terminal, may_refund, created_at, revoked_at"
ADD_KEY: Final = f"INSERT INTO keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
# id
KEY: Final = f"SELECT {_KEY} FROM keys WHERE id = ?"
KEYS: Final = f"SELECT {_KEY} FROM keys ORDER BY created_at, id"
# revoked_at, id
REVOKE_KEY: Final = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
GROW_KEYS_VERSION: Final = "UPDATE ledger SET keys_version = keys_version + 1"
KEYS_VERSION: Final = "SELECT keys_version FROM ledger"
REVOKED_KEYS: Final = "SELECT id FROM keys WHERE revoked_at IS NOT NULL"

# What `listener verify` reads.

EVERY_ENTRY: Final = f"SELECT {_ENTRY} FROM entries ORDER BY seq"
EVENTS_BY_NUMBER: Final = (
    'SELECT number, stream, "offset", seq, cancelled, body FROM events ORDER BY number'
)
# Those that may be one plain notification: no sale, nothing beyond PLAIN_COLUMNS, no second entry.
ALONE_BY_SEQ: Final = (
    f"SELECT {_named(PLAIN_COLUMNS)} FROM transactions t WHERE transaction_no > ''"
    " AND sale_seq IS NULL AND cancel_state IS NULL AND ask_why IS NULL AND judge_seq IS NULL"
    " AND disputed IS NULL AND summary IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.transaction_no = t.transaction_no"
    " AND e.merchant_no = t.merchant_no AND e.seq <> t.first_seq) ORDER BY first_seq"
)
# One walk along the index that finds a transaction's entries, so that nothing is sorted.
_BY_NUMBER: Final = " ORDER BY transaction_no, merchant_no"
_OF_TRANSACTIONS: Final = f"SELECT {_ENTRY} FROM entries WHERE transaction_no > ''"
ENTRIES_BY_TRANSACTION: Final = f"{_OF_TRANSACTIONS}{_BY_NUMBER}"
# The function `settled` is defined by who runs these.
OPEN_ENTRIES_BY_TRANSACTION: Final = f"{_OF_TRANSACTIONS} AND NOT settled(seq){_BY_NUMBER}"
OPEN_TRANSACTIONS_BY_NUMBER: Final = f"{TRANSACTIONS} WHERE NOT settled(first_seq){_BY_NUMBER}"
# Rows: number.
EVENTS_AT: Final = (
    f"SELECT t.seq, t.stream, t.cancelled, t.body FROM {_KEYS} events t ON t.number = k.column1"
)
EVERY_STREAM_HEAD: Final = "SELECT stream, head FROM streams"
REPEATS: Final = "SELECT coalesce(sum(count), 0) FROM repeats"
