"""A transaction of SQLite's: everything is committed, or nothing; and then it is over."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from listener.storage.sqlite.connection import transaction

TABLES = """
CREATE TABLE one (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE other (id INTEGER REFERENCES one DEFERRABLE INITIALLY DEFERRED) STRICT;
"""


@pytest.fixture(name="db")
def _db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.executescript(TABLES)
        db.execute("PRAGMA foreign_keys = ON")
        yield db


def test_what_is_done_is_committed(db: sqlite3.Connection) -> None:
    with transaction(db):
        db.execute("INSERT INTO one VALUES (1)")
    assert not db.in_transaction
    assert db.execute("SELECT count(*) FROM one").fetchone() == (1,)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_undoes_it(db: sqlite3.Connection, error: type[BaseException]) -> None:
    with pytest.raises(error), transaction(db):
        db.execute("INSERT INTO one VALUES (1)")
        raise error
    assert not db.in_transaction
    assert db.execute("SELECT count(*) FROM one").fetchone() == (0,)


def test_a_commit_that_fails_undoes_it(db: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError), transaction(db):
        db.execute("INSERT INTO other VALUES (1)")
    assert not db.in_transaction
    assert db.execute("SELECT count(*) FROM other").fetchone() == (0,)
