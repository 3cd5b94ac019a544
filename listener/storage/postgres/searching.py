"""Search the transactions on PostgreSQL, page by page."""

from listener.ledger.model import NO_STORE, Status, Transaction
from listener.ledger.scope import Cursor, Search
from listener.storage.postgres import selects
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.rows import transaction_of
from listener.storage.postgres.texts import packed


async def transactions(
    db: Connection, *, search: Search, before: Cursor | None, limit: int
) -> list[Transaction]:
    """Read a page of transactions, newest first."""
    scope = search.scope
    values: list[object] = []

    def bound(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    # Each clause is a constant except for its parameter; the query only chooses among them.
    clauses = []
    if scope.merchant_no:
        clauses.append(f"merchant_no = {bound(scope.merchant_no)}")
    if scope.store_no == NO_STORE:
        clauses.append("store_no IS NULL")
    elif scope.store_no is not None:
        clauses.append(f"store_no = {bound(scope.store_no)}")
    if scope.terminal:
        clauses.append(f"terminal = {bound(packed(scope.terminal))}")
    if search.status:
        clauses.append(f"status = {bound(search.status.value)}")
        clauses += ["status <> 'paid'"] if search.status is not Status.PAID else []
    if search.cancel_state:
        clauses.append(f"cancel_state = {bound(search.cancel_state.value)}")
    if search.held is not None:
        # No parameter: a plan that is kept must show that the index of what is held is enough.
        clauses.append("held = 1" if search.held else "held = 0")
    if search.reference:
        clauses.append(f"reference = {bound(packed(search.reference))}")
    if search.contains:
        part = bound(packed(search.contains))
        clauses.append(
            f'(strpos(lower(reference), lower({part} COLLATE "C")) > 0'
            f' OR strpos(lower(transaction_no), lower({part} COLLATE "C")) > 0)'
        )
    if search.since_ms is not None:
        clauses.append(f"created_at >= {bound(search.since_ms)}")
    if search.until_ms is not None:
        clauses.append(f"created_at < {bound(search.until_ms)}")
    if before:
        at, first = bound(before.created_at_ms), bound(before.first_seq)
        clauses.append(f"(created_at, first_seq) < ({at}, {first})")
    wanted = " AND ".join(clauses)
    statement = (
        f"{selects.TRANSACTIONS} WHERE {wanted or 'true'}{selects.NEWEST_FIRST}{bound(limit)}"
    )
    return [transaction_of(row) for row in await db.fetch(statement, *values)]
