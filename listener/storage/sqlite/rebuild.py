"""Compute the states in a ledger's file again from its entries, and store them."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from typing import Final

from listener.errors import DamagedError, LedgerError
from listener.ledger.replay import restate_sales
from listener.ledger.schedule import Confirm
from listener.storage.checks import Progress
from listener.storage.rows import Row, entry_of, sale_row, transaction_row
from listener.storage.sqlite import statements
from listener.storage.sqlite.bulk import put
from listener.storage.sqlite.faults import FAULTS, told_by
from listener.storage.sqlite.location import sqlite_path
from listener.storage.sqlite.lock import ServiceLock
from listener.storage.sqlite.opening import connect
from listener.storage.sqlite.replay import restate
from listener.storage.sqlite.verify import Check
from listener.storage.statements import SALES_WITH_ENTRIES

ROWS_AT_ONCE: Final = 1_024

_CLEAR: Final = ("DELETE FROM transactions", "DELETE FROM sales", "DELETE FROM streams")
_STREAMS: Final = (
    'INSERT INTO streams (stream, head) SELECT stream, max("offset") FROM events GROUP BY stream'
)
_SUMS: Final = (
    "UPDATE ledger SET number = (SELECT coalesce(max(number), 0) FROM events),"
    " repeats = (SELECT coalesce(sum(count), 0) FROM repeats),"
    " transactions = (SELECT count(*) FROM transactions)"
)


def rebuild(url: str, *, confirm: Confirm, progress: Progress) -> None:
    """Store the states of all transactions, sales and streams of a file, from its entries.

    Raises:
        DamagedError: The chain of the entries, or an event, is not what was recorded; nothing is
            changed.
        LedgerError: There is no ledger, or it is being served.
    """
    path = sqlite_path(url)
    if not path.exists():
        raise LedgerError(f"there is no ledger at {path}")
    lock = ServiceLock(path)
    try:
        with closing(connect(path, create=False)) as db:
            db.execute("BEGIN IMMEDIATE")
            check = Check(db, progress)
            check.check_chain()
            seqs = check.event_places().seqs
            for statement in _CLEAR:
                db.execute(statement)
            transactions = restate(db, event_seqs=seqs, confirm=confirm)
            _put(db, statements.PUT_TRANSACTIONS, map(transaction_row, transactions))
            sales = restate_sales(map(entry_of, db.execute(SALES_WITH_ENTRIES)))
            _put(db, statements.PUT_SALES, map(sale_row, sales))
            db.execute(_STREAMS)
            db.execute(_SUMS)
            db.execute("COMMIT")
    except FAULTS as error:
        raise DamagedError(f"the ledger cannot be rebuilt: {told_by(error)}") from error
    finally:
        lock.release()


def _put(db: sqlite3.Connection, statement: str, rows: Iterable[Row]) -> None:
    rest = iter(rows)
    while some := [*islice(rest, ROWS_AT_ONCE)]:
        put(db, statement, some)
