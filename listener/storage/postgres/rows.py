"""Convert rows of PostgreSQL into the nouns of the model; the columns are those of SQLite."""

from collections.abc import Iterable
from typing import Any

from listener.ledger.model import Entry, Event, Transaction
from listener.ledger.sale import SaleState
from listener.storage import rows
from listener.storage.postgres.texts import unpacked

# A row as asyncpg returns it.
Row = Iterable[Any]


def entry_of(row: Row) -> Entry:
    """Read a row of ENTRY_COLUMNS."""
    return rows.entry_of(plain(row))


def event_of(row: Row) -> Event:
    """Read a row of EVENT_COLUMNS."""
    return rows.event_of(tuple(row))


def transaction_of(row: Row) -> Transaction:
    """Read a row of TRANSACTION_COLUMNS."""
    return rows.transaction_of(plain(row))


def sale_of(row: Row) -> SaleState:
    """Read a row of SALE_COLUMNS."""
    return rows.sale_of(plain(row))


def plain(row: Row) -> tuple[Any, ...]:
    """Return a row with its texts as they were before they were stored."""
    return tuple([unpacked(value) if isinstance(value, str) else value for value in row])
