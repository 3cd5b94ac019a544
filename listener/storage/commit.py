"""Commit a batch of facts to SQLite: all that one sync to disk carries, or nothing.

Runs in the writer's thread. Each table is written by one statement that takes the whole batch as
JSON, so that the interpreter lock is given up a dozen times a batch, not a dozen times a fact.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from listener.chain import columns, link
from listener.ledger import Recorded
from listener.model import Entry, Event, Fact, Kind, Transaction
from listener.storage.rows import (
    ENTRY_COLUMNS,
    TRANSACTION_COLUMNS,
    Row,
    entry_of,
    transaction_of,
    transaction_row,
)
from listener.transaction import Confirm, advance, event_body, next_due_ms

# How long the call that starts a sale may take before the sale is looked for by its reference.
SALE_ANSWER_MS: Final = 30_000

_CANCELLATIONS: Final = frozenset({"transaction.cancelled", "transaction.refunded"})


def _values(count: int) -> str:
    return ", ".join(f"j.value->>{index}" for index in range(count))


def prefixed(names: str, prefix: str) -> str:
    """Name the columns of a list by their table."""
    return ", ".join(f"{prefix}.{name.strip()}" for name in names.split(","))


_TRANSACTION_NAMES: Final = [name.strip() for name in TRANSACTION_COLUMNS.split(",")]
_KEYED: Final = "t.transaction_no = j.value->>0 AND t.merchant_no = j.value->>1"

READ_HEAD: Final = "SELECT seq, hash, number FROM ledger"
READ_ENTRIES: Final = (
    f"SELECT {prefixed(ENTRY_COLUMNS, 't')} FROM json_each(?) j CROSS JOIN entries t"
    f" ON {_KEYED} ORDER BY t.seq"
)
# Of what has no transaction number, only the very same message matters.
READ_SAME: Final = (
    f"SELECT {prefixed(ENTRY_COLUMNS, 't')} FROM json_each(?) j CROSS JOIN entries t"
    f" ON {_KEYED} AND t.fingerprint = j.value->>2"
)
READ_TRANSACTIONS: Final = (
    f"SELECT {prefixed(TRANSACTION_COLUMNS, 't')} FROM json_each(?) j"
    f" CROSS JOIN transactions t ON {_KEYED}"
)
READ_SALES: Final = (
    f"SELECT {prefixed(ENTRY_COLUMNS, 't')} FROM json_each(?) j"
    " CROSS JOIN entries t ON t.seq = j.value"
)
READ_STREAMS: Final = (
    "SELECT t.stream, t.head FROM json_each(?) j CROSS JOIN streams t ON t.stream = j.value"
)
ADD_ENTRIES: Final = (
    f"INSERT INTO entries ({ENTRY_COLUMNS})"
    f" SELECT {_values(len(ENTRY_COLUMNS.split(',')))} FROM json_each(?) j"
)
ADD_EVENTS: Final = (
    'INSERT INTO events (number, stream, "offset", seq, cancelled, body)'
    f" SELECT {_values(6)} FROM json_each(?) j"
)
PUT_TRANSACTIONS: Final = (
    f"INSERT INTO transactions ({TRANSACTION_COLUMNS})"
    f" SELECT {_values(len(_TRANSACTION_NAMES))} FROM json_each(?) j WHERE true"
    " ON CONFLICT (first_seq) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _TRANSACTION_NAMES[3:])
)
PUT_STREAMS: Final = (
    f"INSERT INTO streams (stream, head) SELECT {_values(2)} FROM json_each(?) j WHERE true"
    " ON CONFLICT (stream) DO UPDATE SET head = excluded.head"
)
PUT_REPEATS: Final = (
    f"INSERT INTO repeats (seq, count, last_at) SELECT {_values(3)} FROM json_each(?) j WHERE true"
    " ON CONFLICT (seq) DO UPDATE SET count = count + excluded.count, last_at = excluded.last_at"
)
ADD_SALES: Final = (
    "INSERT INTO sales (seq, merchant_no, reference, ask_due_at)"
    f" SELECT {_values(4)} FROM json_each(?) j"
)
PUT_SALES: Final = (
    "UPDATE sales SET transaction_no = coalesce(j.value->>1, transaction_no),"
    " ask_due_at = j.value->>2 FROM json_each(?) j WHERE sales.seq = j.value->>0"
)
PUT_HEAD: Final = "UPDATE ledger SET seq = ?, hash = ?, number = ?, repeats = repeats + ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a batch became: one answer a fact, in order, and the events in commit order."""

    recorded: list[Recorded]
    events: list[Event]


def commit(
    db: sqlite3.Connection, facts: Sequence[Fact], *, epoch: str, now_ms: int, confirm: Confirm
) -> Committed:
    """Append facts in one transaction, which the caller has begun and will end."""
    batch = _Batch(db, facts, epoch=epoch, now_ms=now_ms, confirm=confirm)
    recorded = [batch.add(fact) for fact in facts]
    batch.write()
    return Committed(recorded=recorded, events=batch.events)


@dataclass(slots=True)
class _Known:
    """What the ledger holds of one transaction number (or of none), and this batch adds."""

    entries: list[Entry] = field(default_factory=list)
    by_fingerprint: dict[str, int] = field(default_factory=dict)
    transaction: Transaction | None = None

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.fact.fingerprint:
            self.by_fingerprint[entry.fact.fingerprint] = entry.seq


class _Batch:
    """The ledger as far as some facts touch it, ahead of their commit."""

    def __init__(
        self,
        db: sqlite3.Connection,
        facts: Sequence[Fact],
        *,
        epoch: str,
        now_ms: int,
        confirm: Confirm,
    ) -> None:
        self._db = db
        self._epoch = epoch
        self._now_ms = now_ms
        self._confirm = confirm
        self.events: list[Event] = []
        self._entries: list[Entry] = []
        self._types: list[str] = []
        self._repeats: dict[int, int] = {}
        self._changed: set[tuple[str, str]] = set()
        self._heads: dict[str, int] = {}
        self._new_sales: list[Row] = []
        self._sale_updates: list[Row] = []
        self._seq, self._hash, self._number = db.execute(READ_HEAD).fetchone()
        self._known: dict[tuple[str, str], _Known] = {}
        self._sales: dict[int, Entry] = {}
        self._load(facts)

    def add(self, fact: Fact) -> Recorded:
        """Give a fact its entry, or count it as a repeat of the one that is there."""
        known = self._known[fact.transaction_no, fact.merchant_no]
        original = known.by_fingerprint.get(fact.fingerprint) if fact.fingerprint else None
        if original is not None:
            self._repeats[original] = self._repeats.get(original, 0) + 1
            return Recorded(seq=original, is_new=False)
        entry = link(fact, seq=self._seq + 1, recorded_at_ms=self._now_ms, previous=self._hash)
        self._seq, self._hash = entry.seq, entry.hash
        self._entries.append(entry)
        known.add(entry)
        self._follow_sale(entry)
        if not fact.transaction_no:
            return Recorded(seq=entry.seq, is_new=True)
        return self._advance(known, entry)

    def _advance(self, known: _Known, entry: Entry) -> Recorded:
        """Take an entry into its transaction, and make the event that follows."""
        before = known.transaction
        sale_seq = (before.sale_seq if before else None) or entry.fact.sale_seq
        sale = self._sales.get(sale_seq) if sale_seq else None
        step = advance(before, known.entries, sale=sale, confirm=self._confirm)
        known.transaction = step.transaction
        self._changed.add((entry.fact.transaction_no, entry.fact.merchant_no))
        if step.event_type is not None:
            stream = step.transaction.stream
            offset = self._head_of(stream) + 1
            self._heads[stream] = offset
            self._number += 1
            body = event_body(step, entry, epoch=self._epoch)
            self.events.append(
                Event(number=self._number, stream=stream, offset=offset, seq=entry.seq, body=body)
            )
            self._types.append(step.event_type)
        return Recorded(
            seq=entry.seq,
            is_new=True,
            transaction=step.transaction,
            event_type=step.event_type,
        )

    def _follow_sale(self, entry: Entry) -> None:
        """Keep track of a sale until Pockyt has told its transaction number."""
        fact = entry.fact
        if fact.kind is Kind.SALE:
            self._sales[entry.seq] = entry
            due_ms = self._now_ms + SALE_ANSWER_MS
            self._new_sales.append((entry.seq, fact.merchant_no, fact.reference, due_ms))
        elif fact.sale_seq is not None:
            sale = self._sales[fact.sale_seq]
            open_query = fact.kind is Kind.QUERY and not fact.transaction_no
            due = next_due_ms(sale.recorded_at_ms, self._now_ms, entry.seq) if open_query else None
            self._sale_updates.append((fact.sale_seq, fact.transaction_no or None, due))

    def write(self) -> None:
        """Write all that the facts changed."""
        self._put(ADD_ENTRIES, (_entry_row(entry) for entry in self._entries))
        self._put(
            ADD_EVENTS,
            (
                (e.number, e.stream, e.offset, e.seq, int(kind in _CANCELLATIONS), e.body.decode())
                for e, kind in zip(self.events, self._types, strict=True)
            ),
        )
        changed = (self._known[key].transaction for key in sorted(self._changed))
        self._put(PUT_TRANSACTIONS, (transaction_row(t) for t in changed if t))
        self._put(PUT_STREAMS, self._heads.items())
        self._put(ADD_SALES, self._new_sales)
        self._put(PUT_SALES, self._sale_updates)
        self._put(PUT_REPEATS, ((s, n, self._now_ms) for s, n in self._repeats.items()))
        repeats = sum(self._repeats.values())
        self._db.execute(PUT_HEAD, (self._seq, self._hash, self._number, repeats))

    def _put(self, statement: str, rows: Iterable[Row]) -> None:
        batch = list(rows)
        if batch:
            self._db.execute(statement, (orjson.dumps(batch).decode(),))

    def _read(self, statement: str, keys: Iterable[object]) -> list[Row]:
        batch = list(keys)
        if not batch:
            return []
        return self._db.execute(statement, (orjson.dumps(batch).decode(),)).fetchall()

    def _load(self, facts: Sequence[Fact]) -> None:
        """Read what the ledger holds of the facts' transactions, in one statement a table."""
        self._known = {(f.transaction_no, f.merchant_no): _Known() for f in facts}
        same = {("", f.merchant_no, f.fingerprint) for f in facts if not f.transaction_no}
        numbered = [key for key in self._known if key[0]]
        for row in [*self._read(READ_ENTRIES, numbered), *self._read(READ_SAME, same)]:
            entry = entry_of(row)
            self._known[entry.fact.transaction_no, entry.fact.merchant_no].add(entry)
        present = [key for key, known in self._known.items() if known.entries and key[0]]
        for row in self._read(READ_TRANSACTIONS, present):
            transaction = transaction_of(row)
            self._known[
                transaction.transaction_no, transaction.merchant_no
            ].transaction = transaction
        sales = {f.sale_seq for f in facts if f.sale_seq}
        sales |= {
            k.transaction.sale_seq
            for k in self._known.values()
            if k.transaction and k.transaction.sale_seq
        }
        self._sales = {row[0]: entry_of(row) for row in self._read(READ_SALES, sales)}

    def _head_of(self, stream: str) -> int:
        """Return the newest offset of a stream, read once a batch."""
        if stream not in self._heads:
            rows = self._read(READ_STREAMS, [stream])
            self._heads[stream] = rows[0][1] if rows else 0
        return self._heads[stream]


def _entry_row(entry: Entry) -> Row:
    return (entry.seq, entry.recorded_at_ms, *columns(entry.fact), entry.hash)
