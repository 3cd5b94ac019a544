"""Search the transactions on SQLite, page by page, along the index that finds the fewest rows."""

import sqlite3

from msgspec.structs import replace

from listener.ledger.model import NO_STORE, Status, Transaction
from listener.ledger.scope import Cursor, Search
from listener.storage.rows import transaction_of
from listener.storage.sqlite import selects


def transactions(
    db: sqlite3.Connection, search: Search, *, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page of transactions, newest first."""
    scope, status = search.scope, search.status
    # The condition that finds the fewest rows comes first, with its own index. A + stops SQLite
    # from choosing another index for having more columns, and walking through a whole store.
    by_status = status not in (None, Status.PAID)
    leader = "reference" if search.reference else "terminal" if scope.terminal else None
    leader = leader or ("status" if by_status else "store" if scope.store_no else "time")
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
        "reference": search.reference,
        "part": _like(search.contains) if search.contains else None,
        "since": search.since_ms,
        "until": search.until_ms,
        "at": before.created_at_ms if before else None,
        "seq": before.first_seq if before else None,
        "limit": limit,
    }
    return [transaction_of(row) for row in db.execute(statement, values)]


def _like(part: str) -> str:
    """Return the LIKE pattern for a text anywhere in a value, without wildcards in the text."""
    for char in ("\\", "%", "_"):
        part = part.replace(char, f"\\{char}")
    return f"%{part}%"


def _of_every_store(
    db: sqlite3.Connection, search: Search, *, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page store by store: by time alone, a small merchant's lines are hard to find."""
    merchant_no = search.scope.merchant_no
    stores = [store_no for (store_no,) in db.execute(selects.STORES_OF, (merchant_no,))]
    found: list[Transaction] = []
    for store_no in (*stores, NO_STORE):
        of_store = replace(search, scope=replace(search.scope, store_no=store_no))
        found += transactions(db, of_store, before=before, limit=limit)
    found.sort(key=lambda one: (one.created_at_ms, one.first_seq), reverse=True)
    return found[:limit]
