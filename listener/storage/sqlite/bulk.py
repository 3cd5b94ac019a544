"""Run one statement for many rows: few calls, every value bound.

Each call releases the interpreter lock and has to win it back from the event loop, so one call for
each row is slow. A JSON array of all rows takes twice the time, and cuts text at a NUL.
"""

import sqlite3
from collections.abc import Collection, Sequence
from functools import cache
from itertools import chain
from typing import Final

from listener.storage.rows import Row
from listener.storage.sqlite.statements import ROWS

ROWS_MAX: Final = 64


def put(db: sqlite3.Connection, statement: str, rows: Collection[Row]) -> None:
    """Write rows with a statement that contains ``VALUES {rows}``."""
    for part in _parts(rows):
        db.execute(*_bound(statement, part))


def read(db: sqlite3.Connection, statement: str, keys: Collection[Row]) -> list[Row]:
    """Read what a statement finds for keys, which it contains as ``(VALUES {rows})``."""
    return [row for part in _parts(keys) for row in db.execute(*_bound(statement, part))]


def _parts(rows: Collection[Row]) -> list[Sequence[Row]]:
    """Split rows into powers of two, so that a few compiled statements serve every number."""
    parts: list[Sequence[Row]] = []
    left = [*rows]
    while left:
        size = min(ROWS_MAX, 1 << (len(left).bit_length() - 1))
        parts.append(left[:size])
        left = left[size:]
    return parts


def _bound(statement: str, rows: Sequence[Row]) -> tuple[str, list[object]]:
    return _text(statement, len(rows[0]), len(rows)), [*chain.from_iterable(rows)]


@cache
def _text(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace(ROWS, ", ".join([row] * count))
