"""The statements that a commit is made of; what each row of parameters holds is beside them."""

from typing import Final

from listener.storage.sqlite.bulk import ROWS
from listener.storage.sqlite.rows import ENTRY_COLUMNS, TRANSACTION_COLUMNS


def prefixed(names: str, prefix: str) -> str:
    """Name the columns of a list by their table."""
    return ", ".join(f"{prefix}.{name.strip()}" for name in names.split(","))


_TRANSACTION_NAMES: Final = [name.strip() for name in TRANSACTION_COLUMNS.split(",")]
_KEYS: Final = f"(VALUES {ROWS}) k CROSS JOIN"
_KEYED: Final = "t.transaction_no = k.column1 AND t.merchant_no = k.column2"

READ_HEAD: Final = "SELECT seq, hash, number FROM ledger"
# Rows: transaction_no, merchant_no.
READ_ENTRIES: Final = (
    f"SELECT {prefixed(ENTRY_COLUMNS, 't')} FROM {_KEYS} entries t ON {_KEYED} ORDER BY t.seq"
)
# Rows: transaction_no, merchant_no, fingerprint. Without a number only the very same matters.
READ_SAME: Final = (
    f"SELECT {prefixed(ENTRY_COLUMNS, 't')} FROM {_KEYS} entries t"
    f" ON {_KEYED} AND t.fingerprint = k.column3"
)
# Rows: transaction_no, merchant_no.
READ_TRANSACTIONS: Final = (
    f"SELECT {prefixed(TRANSACTION_COLUMNS, 't')} FROM {_KEYS} transactions t ON {_KEYED}"
)
# Rows: seq.
READ_BY_SEQ: Final = (
    f"SELECT {prefixed(ENTRY_COLUMNS, 't')} FROM {_KEYS} entries t ON t.seq = k.column1"
)
# Rows: merchant_no, reference.
READ_REFERENCES: Final = (
    f"SELECT t.merchant_no, t.reference FROM {_KEYS} sales t"
    " ON t.merchant_no = k.column1 AND t.reference = k.column2"
)
# Rows: stream.
READ_STREAMS: Final = f"SELECT t.stream, t.head FROM {_KEYS} streams t ON t.stream = k.column1"
ADD_ENTRIES: Final = f"INSERT INTO entries ({ENTRY_COLUMNS}) VALUES {ROWS}"
ADD_EVENTS: Final = (
    f'INSERT INTO events (number, stream, "offset", seq, cancelled, body) VALUES {ROWS}'
)
PUT_TRANSACTIONS: Final = (
    f"INSERT INTO transactions ({TRANSACTION_COLUMNS}) VALUES {ROWS}"
    " ON CONFLICT (first_seq) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _TRANSACTION_NAMES[3:])
)
# Rows: stream, head.
PUT_STREAMS: Final = (
    f"INSERT INTO streams (stream, head) VALUES {ROWS}"
    " ON CONFLICT (stream) DO UPDATE SET head = excluded.head"
)
# Rows: seq, count, last_at; the count grows by what is given.
PUT_REPEATS: Final = (
    f"INSERT INTO repeats (seq, count, last_at) VALUES {ROWS}"
    " ON CONFLICT (seq) DO UPDATE SET count = count + excluded.count, last_at = excluded.last_at"
)
# Rows: seq, merchant_no, reference, ask_due_at.
ADD_SALES: Final = f"INSERT INTO sales (seq, merchant_no, reference, ask_due_at) VALUES {ROWS}"
# transaction_no, ask_due_at, seq; a number that is known stays where none is given.
PUT_SALE: Final = (
    "UPDATE sales SET transaction_no = coalesce(?, transaction_no), ask_due_at = ? WHERE seq = ?"
)
# seq, hash, number, repeats, transactions; the last two grow by what is given.
PUT_HEAD: Final = (
    "UPDATE ledger SET seq = ?, hash = ?, number = ?, repeats = repeats + ?,"
    " transactions = transactions + ?"
)
