"""The statements that write the ledger on SQLite, and those that a commit reads with.

The parameters of each are listed above it. ``ROWS`` stands for as many rows of them as a call has;
``bulk`` fills them in.
"""

from typing import Final

from listener.ledger.chain import ENTRY_COLUMNS
from listener.ledger.promise import ANSWERS_DELETED
from listener.storage.rows import PLAIN_COLUMNS, SALE_COLUMNS, TRANSACTION_COLUMNS
from listener.storage.sqlite.selects import listed

ROWS: Final = "{rows}"

# The head.

MAKE_LEDGER: Final = (
    "INSERT INTO ledger (id, epoch, created_at, hash, secret) VALUES (1, ?, ?, ?, ?)"
)
# seq, hash, number, repeats, transactions; the last two are added to what is there.
PUT_HEAD: Final = (
    "UPDATE ledger SET seq = ?, hash = ?, number = ?, repeats = repeats + ?,"
    " transactions = transactions + ? WHERE id = 1"
)
TOUCH: Final = "UPDATE ledger SET id = id"
# An answer for nobody, to show that there is room; after a crash it is deleted in 7 days.
# text, recorded_at
TAKE_ROOM: Final = "INSERT OR REPLACE INTO answers VALUES ('', '', '', NULL, ?, ?)"
GIVE_ROOM_BACK: Final = "DELETE FROM answers WHERE key_id = ''"
# epoch, file
BEGIN_EPOCH: Final = "UPDATE ledger SET epoch = ?, is_copy = 0, file = ?"
MARK_COPY: Final = "UPDATE ledger SET is_copy = 1"

# What a commit reads. Each statement looks its rows up by keys, whatever the planner prefers.

KEYS: Final = f"(VALUES {ROWS}) k CROSS JOIN"
_KEYED: Final = "t.merchant_no = k.column1 AND t.transaction_no = k.column2"

HEAD_TO_APPEND: Final = "SELECT seq, hash, number FROM ledger"
# The head of the ledger and of a stream (NULL where it has none), and whether one of the rows is
# known: its transaction, or a sale without a number that it may belong to.
# stream; rows: merchant_no, transaction_no, reference
PLACE: Final = (
    "SELECT seq, hash, number, (SELECT head FROM streams WHERE stream = ?),"
    f" EXISTS (SELECT 1 FROM (VALUES {ROWS}) k WHERE"
    " EXISTS (SELECT 1 FROM transactions t WHERE t.merchant_no = k.column1"
    " AND t.transaction_no = k.column2)"
    " OR EXISTS (SELECT 1 FROM sales t WHERE t.merchant_no = k.column1"
    " AND t.reference = k.column3 AND t.is_refused = 0 AND t.transaction_no IS NULL)) FROM ledger"
)

# Rows: merchant_no, transaction_no.
ENTRIES_OF: Final = (
    f"SELECT {listed(ENTRY_COLUMNS, 't')} FROM {KEYS} entries t ON {_KEYED} ORDER BY t.seq"
)
# Rows: merchant_no, transaction_no, fingerprint; a transaction number may be ''.
ENTRIES_LIKE: Final = (
    f"SELECT {listed(ENTRY_COLUMNS, 't')} FROM {KEYS} entries t"
    f" ON {_KEYED} AND t.fingerprint = k.column3"
)
# Rows: seq.
ENTRIES_AT: Final = (
    f"SELECT {listed(ENTRY_COLUMNS, 't')} FROM {KEYS} entries t ON t.seq = k.column1"
)
# Rows: merchant_no, transaction_no.
STATES_OF: Final = (
    f"SELECT {listed(TRANSACTION_COLUMNS, 't')} FROM {KEYS} transactions t ON {_KEYED}"
)
# Rows: seq.
SALES_AT: Final = f"SELECT {listed(SALE_COLUMNS, 't')} FROM {KEYS} sales t ON t.seq = k.column1"
# Rows: merchant_no, store_no, reference.
REFERENCES: Final = (
    f"SELECT t.merchant_no, t.store_no, t.reference FROM {KEYS} sales t"
    " ON t.merchant_no = k.column1 AND t.store_no = k.column2 AND t.reference = k.column3"
    " AND t.is_refused = 0"
)
# Rows: merchant_no, reference. The newest if there are several; nearly always there is none.
UNBOUND: Final = (
    f"SELECT t.merchant_no, t.reference, max(t.seq) FROM {KEYS} sales t"
    " ON t.merchant_no = k.column1 AND t.reference = k.column2"
    " AND t.is_refused = 0 WHERE t.transaction_no IS NULL GROUP BY 1, 2"
)
# Rows: stream.
STREAM_HEADS: Final = f"SELECT t.stream, t.head FROM {KEYS} streams t ON t.stream = k.column1"

# What a commit writes. What is only added is added "OR ROLLBACK": a statement for many rows that
# may be undone alone would first save each page that it changes. A commit fails as a whole anyway.

# Rows: ENTRY_COLUMNS.
ADD_ENTRIES: Final = f"INSERT OR ROLLBACK INTO entries ({', '.join(ENTRY_COLUMNS)}) VALUES {ROWS}"
ADD_EVENTS: Final = (
    f'INSERT OR ROLLBACK INTO events (number, stream, "offset", seq, cancelled, body) VALUES {ROWS}'
)
_RENEW: Final = " ON CONFLICT (first_seq) DO UPDATE SET " + ", ".join(
    # The columns that identify a transaction stay.
    f"{name} = excluded.{name}"
    for name in TRANSACTION_COLUMNS[3:]
)
# Rows: TRANSACTION_COLUMNS.
PUT_TRANSACTIONS: Final = (
    f"INSERT INTO transactions ({', '.join(TRANSACTION_COLUMNS)}) VALUES {ROWS}{_RENEW}"
)
# Rows: PLAIN_COLUMNS; the others become NULL. Binding a NULL costs as much as binding text.
PUT_PLAIN_TRANSACTIONS: Final = (
    f"INSERT INTO transactions ({', '.join(PLAIN_COLUMNS)}) VALUES {ROWS}{_RENEW}"
)
# The same rows, of transactions that are new.
ADD_PLAIN_TRANSACTIONS: Final = (
    f"INSERT OR ROLLBACK INTO transactions ({', '.join(PLAIN_COLUMNS)}) VALUES {ROWS}"
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
    f"INSERT INTO sales ({', '.join(SALE_COLUMNS)}) VALUES {ROWS} ON CONFLICT (seq) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in SALE_COLUMNS[4:])
)

# Acknowledgements.

# terminal, stream, epoch, offset, acked_at. An offset below the newest ack changes nothing, one
# below a mere start does; offsets of two epochs are not compared.
PUT_ACK: Final = (
    'INSERT INTO acks (terminal, stream, epoch, "offset", acked, acked_at)'
    " VALUES (?1, ?2, ?3, ?4, ?4, ?5) ON CONFLICT (terminal, stream) DO UPDATE SET"
    ' "offset" = CASE WHEN epoch = ?3 AND acked NOT NULL THEN max("offset", ?4) ELSE ?4 END,'
    " epoch = ?3,"
    " acked = max(coalesce(acked, 0), ?4), acked_at = ?5"
    " WHERE epoch <> ?3 OR acked IS NULL OR ?4 >= acked"
)
# terminal, stream, epoch, offset, acked_at. In the same epoch it changes nothing.
PUT_START: Final = (
    'INSERT INTO acks (terminal, stream, epoch, "offset", acked_at) VALUES (?, ?, ?, ?, ?)'
    " ON CONFLICT (terminal, stream) DO UPDATE SET epoch = excluded.epoch,"
    ' "offset" = excluded."offset" WHERE epoch <> excluded.epoch'
)

# Answers under an Idempotency-Key.

# key_id, idempotency_key, request, recorded_at
CLAIM_ANSWER: Final = (
    "INSERT INTO answers (key_id, idempotency_key, request, recorded_at) VALUES (?, ?, ?, ?)"
)
# status, body, key_id, idempotency_key
PUT_ANSWER: Final = (
    "UPDATE answers SET status = ?, body = ? WHERE key_id = ? AND idempotency_key = ?"
)
# recorded_at
FORGET_ANSWERS: Final = (
    "DELETE FROM answers WHERE (key_id, idempotency_key) IN (SELECT key_id, idempotency_key"
    f" FROM answers WHERE recorded_at < ? ORDER BY recorded_at LIMIT {ANSWERS_DELETED})"
)
