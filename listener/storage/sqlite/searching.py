"""Search the transactions on SQLite, page by page, along the index that finds the fewest rows."""

import sqlite3
from typing import Final

from msgspec.structs import replace

from listener.ledger.model import NO_STORE, Status, Transaction
from listener.ledger.scope import Cursor, Search
from listener.storage.rows import transaction_of
from listener.storage.sqlite import selects

# The largest integer of SQLite.
_TIME_MAX: Final = (1 << 63) - 1


def transactions(
    db: sqlite3.Connection, search: Search, *, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page of transactions, newest first."""
    scope, status, cancel = search.scope, search.status, search.cancel_state
    # The leader comes first, with its own index. A + stops SQLite from choosing another index for
    # having more columns, and walking through a whole store.
    leader = _leader(search)
    if leader == "time" and scope.merchant_no:
        return _of_every_store(db, search, before=before, limit=limit)
    by_store = leader == "store" or (leader == "terminal" and scope.store_no is not None)
    has_store = scope.store_no not in (None, NO_STORE)
    has_none = scope.store_no == NO_STORE
    # Each clause is a constant; the query only chooses among them.
    clauses = {
        "+merchant_no = :merchant": scope.merchant_no and not by_store,
        "merchant_no = :merchant": scope.merchant_no and by_store,
        "+store_no = :store": has_store and not by_store,
        "store_no = :store": has_store and by_store,
        "+store_no IS NULL": has_none and not by_store,
        "store_no IS NULL": has_none and by_store,
        "+terminal = :terminal": scope.terminal and leader != "terminal",
        "terminal = :terminal": leader == "terminal",
        "+status = :status": status and leader != "status",
        "status = :status AND status <> 'paid'": leader == "status",
        "+cancel_state = :cancel": cancel and leader != "cancel",
        "cancel_state = :cancel": leader == "cancel",
        "+held = 1": search.held is True and leader != "held",
        "held = 1": leader == "held",
        "+held = 0": search.held is False,
        "reference = :reference": search.reference,
        selects.CONTAINS: search.contains,
        "created_at >= :since": search.since_ms is not None,
        "created_at < :until": search.until_ms is not None,
        "created_at <= :at AND (created_at < :at OR first_seq < :seq)": before,
    }
    wanted = " AND ".join(clause for clause, given in clauses.items() if given)
    statement = f"{selects.TRANSACTIONS} WHERE {wanted or 'true'}{selects.NEWEST_FIRST}"
    values = {
        "merchant": scope.merchant_no,
        "store": scope.store_no,
        "terminal": scope.terminal,
        "status": search.status,
        "cancel": cancel,
        "reference": search.reference,
        "part": _like(search.contains) if search.contains else None,
        "since": search.since_ms,
        "until": search.until_ms,
        "at": before.created_at_ms if before else None,
        "seq": before.first_seq if before else None,
        "limit": limit,
    }
    return [transaction_of(row) for row in db.execute(statement, values)]


def _leader(search: Search) -> str:
    """Return the condition that finds the fewest rows."""
    scope = search.scope
    if search.reference:
        return "reference"
    if search.held:
        return "held"
    if search.cancel_state:
        return "cancel"
    if scope.terminal:
        return "terminal"
    if search.status not in (None, Status.PAID):
        return "status"
    return "store" if scope.store_no else "time"


def _like(part: str) -> str:
    """Return the LIKE pattern for a text anywhere in a value, without wildcards in the text."""
    for char in ("\\", "%", "_"):
        part = part.replace(char, f"\\{char}")
    return f"%{part}%"


def _of_every_store(
    db: sqlite3.Connection, search: Search, *, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page store by store: by time alone, a small merchant's lines are hard to find.

    The store with the newest comes first. Once a page is full, the others are read only as far
    back as the page goes: else each of two thousand stores would be read for a page of its own.
    """
    upto = before.created_at_ms if before else _TIME_MAX
    if search.until_ms is not None:
        upto = min(upto, search.until_ms)
    stores = db.execute(selects.STORES_OF, (search.scope.merchant_no, upto)).fetchall()
    since_ms = search.since_ms
    found: list[Transaction] = []
    for store_no, newest in stores:
        if since_ms is not None and newest < since_ms:
            break
        scope = replace(search.scope, store_no=NO_STORE if store_no is None else store_no)
        of_store = replace(search, scope=scope, since_ms=since_ms)
        found += transactions(db, of_store, before=before, limit=limit)
        found.sort(key=lambda one: (one.created_at_ms, one.first_seq), reverse=True)
        del found[limit:]
        if len(found) == limit:
            since_ms = found[-1].created_at_ms
    return found
