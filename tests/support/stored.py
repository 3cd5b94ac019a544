"""Help for tests of the ledger's file: facts by number, a clock set by hand, a look inside."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from listener.ledger.model import Fact, fields_text
from tests.support import told

STREAM: Final = f"{told.MERCHANT}/{told.STORE}"


class Clock:
    """A clock that stays where it is set (Unix ms)."""

    def __init__(self) -> None:
        self.at_ms = told.START_MS

    def __call__(self) -> int:
        return self.at_ms


def url_of(path: Path) -> str:
    """Write a path as the setting ``database``."""
    return f"sqlite:///{path}"


def numbered(
    number: object,
    word: str = "success",
    *,
    mark: str = "",
    store_no: str | None = told.STORE,
    merchant_no: str = told.MERCHANT,
) -> Fact:
    """Build the notification of a transaction of its own."""
    fact = told.notification(word, mark=f"{number} {mark}", store_no=store_no)
    return replace(
        fact,
        merchant_no=merchant_no,
        transaction_no=str(number),
        reference=f"r{number}",
        fields=fields_text({"transactionNo": str(number), "status": word, "mark": mark}),
    )


def without_number(text: str) -> Fact:
    """Build a notification without a transaction number, such as an auto-debit consent."""
    return replace(
        told.notification(None, amount=None, currency=None),
        transaction_no="",
        reference=None,
        fingerprint=text,
        fields=fields_text({"autoReference": text}),
    )


def sold(reference: str, *, store_no: str = told.STORE) -> Fact:
    """Build a sale of its own."""
    return replace(told.sale(), reference=reference, store_no=store_no)


def bound(reference: str, number: object, *, sale_seq: int) -> Fact:
    """Build the answer that brings a sale its number."""
    return replace(told.bound(sale_seq), reference=reference, transaction_no=str(number))


@contextmanager
def behind(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as a stranger would, without our triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        for (name,) in db.execute(triggers).fetchall():
            db.execute(f"DROP TRIGGER {name}")
        yield db


def bare(path: Path) -> sqlite3.Connection:
    """Open the file with SQLite's own settings; the caller closes it."""
    return sqlite3.connect(path, isolation_level=None)
