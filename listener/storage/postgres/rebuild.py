"""Compute the states of a ledger on PostgreSQL again from its entries, and store them."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from listener.ledger.model import Transaction
from listener.ledger.replay import Replay, restate_sales
from listener.ledger.schedule import Confirm
from listener.storage.checks import Progress
from listener.storage.postgres.beside import BEGIN, ROWS_AT_ONCE, Beside, beside, refuse_served
from listener.storage.postgres.rows import entry_of
from listener.storage.postgres.schema import LOCK
from listener.storage.postgres.texts import packed
from listener.storage.postgres.verify import Check, told_by_rows
from listener.storage.rows import SALE_COLUMNS, TRANSACTION_COLUMNS, sale_row, transaction_row
from listener.storage.statements import SALES_WITH_ENTRIES

_CLEAR: Final = "DELETE FROM transactions; DELETE FROM sales"


def rebuild(url: str, *, confirm: Confirm, progress: Progress) -> None:
    """Store the states of all transactions and sales from the entries; streams need none.

    Raises:
        DamagedError: The chain of the entries, or an event, is not what was recorded; nothing is
            changed.
        LedgerError: There is no ledger, or it is being served.
    """
    with beside(url) as connected:
        refuse_served(connected)
        for statement in (BEGIN, LOCK, _CLEAR):
            _execute(connected, statement)
        check = Check(connected, progress)
        check.check_chain()
        check.check_events()
        transactions = _transactions(check, confirm)
        _put(connected, "transactions", TRANSACTION_COLUMNS, map(transaction_row, transactions))
        sales = restate_sales(map(entry_of, connected.rows(SALES_WITH_ENTRIES)))
        _put(connected, "sales", SALE_COLUMNS, map(sale_row, sales))
        _execute(connected, "COMMIT")


def _execute(connected: Beside, statement: str) -> None:
    connected.run(lambda db: db.execute(statement))


def _transactions(check: Check, confirm: Confirm) -> Iterator[Transaction]:
    replaying = Replay(first=confirm)
    for rows, events in check.transactions():
        entries, told, sales = told_by_rows(rows, events)
        yield replaying.restate(entries, events=told, sales=sales)


def _put(
    connected: Beside, table: str, columns: Iterable[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    rest, names = iter(rows), [*columns]
    while some := [*islice(rest, ROWS_AT_ONCE)]:
        records = [
            tuple(packed(value) if isinstance(value, str) else value for value in row)
            for row in some
        ]
        connected.run(
            lambda db, records=records: db.copy_records_to_table(  # type: ignore[misc]
                table, records=records, columns=names
            )
        )
