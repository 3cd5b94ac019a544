"""Run one statement for many rows: few calls, every value bound.

Each call costs some interpreting, and releases the interpreter lock, which other threads may take,
so one call for each row is slow. A JSON array of all rows takes twice the time, and cuts text
at a NUL.
"""

import sqlite3
from collections.abc import Collection, Sequence
from functools import cache
from itertools import chain
from typing import Final

from listener.storage.rows import Row
from listener.storage.sqlite.statements import ROWS

ROWS_MAX: Final = 64
# Up to so many rows are bound in one call, more in powers of two, so that few texts compile.
EXACT_MAX: Final = 16


def put(db: sqlite3.Connection, statement: str, rows: Collection[Row]) -> None:
    """Write rows with a statement that contains ``VALUES {rows}``."""
    if len(rows) == 1:
        (row,) = rows
        db.execute(_text(statement, len(row), 1), row)
        return
    for text, values in _calls(statement, rows):
        db.execute(text, values)


def read(
    db: sqlite3.Connection, statement: str, keys: Collection[Row], *, before: Row = ()
) -> list[Row]:
    """Read what a statement finds for keys, which it contains as ``(VALUES {rows})``.

    ``before`` is bound before the keys, as often as these are bound.
    """
    if len(keys) == 1:
        (key,) = keys
        return db.execute(_text(statement, len(key), 1), (*before, *key)).fetchall()
    found: list[Row] = []
    for text, values in _calls(statement, keys):
        found += db.execute(text, (*before, *values)).fetchall()
    return found


def _calls(statement: str, rows: Collection[Row]) -> Sequence[tuple[str, Sequence[object]]]:
    """Return the calls that bind all rows."""
    if not rows:
        return ()
    left = [*rows]
    width = len(left[0])
    calls: list[tuple[str, Sequence[object]]] = []
    while left:
        size = len(left)
        if size > EXACT_MAX:
            size = min(ROWS_MAX, 1 << (size.bit_length() - 1))
        values = [*chain.from_iterable(left[:size])]
        calls.append((_text(statement, width, size), values))
        left = left[size:]
    return calls


@cache
def _text(statement: str, width: int, count: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace(ROWS, ", ".join([row] * count))
