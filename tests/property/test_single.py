"""One notification committed in few steps leaves the ledger that the general way leaves."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from listener.ledger.batch import NewEvent, new_event
from listener.ledger.model import NOTIFICATION, Entry, Event, Fact
from listener.ledger.results import Recorded
from listener.ledger.schedule import Confirm
from listener.ledger.transaction import Step
from listener.storage.rows import entry_of
from listener.storage.sqlite import commit as general
from listener.storage.sqlite import single
from listener.storage.sqlite.connection import connect, transaction
from listener.storage.sqlite.single import commit_single
from tests.property.decisions import Memory, any_fact
from tests.support import told
from tests.support.stored import numbered, sold

HISTORIES: Final = 40
COMMITS_A_HISTORY: Final = 40
CONFIRMS: Final[tuple[Confirm, ...]] = ("suspicious", "suspicious", "off", "always")
# How many are notifications in the common case, and how many of those name no transaction.
PLAIN: Final = 0.4
NAMELESS: Final = 0.05
# What may be there, or not, in a plain notification; "r1" is a reference that sales have as well.
SHAPES: Final = {
    "reference": ("r1", "r2", "r99", None, ""),
    "store_no": (told.STORE, None, ""),
    "terminal": (None, "T-1"),
    "settle_currency": (None, "USD"),
}
TABLES: Final = ("entries", "events", "streams", "transactions", "sales", "repeats")
HEAD: Final = "SELECT seq, hash, number, repeats, transactions FROM ledger"

Ledgers = Callable[[], tuple[sqlite3.Connection, sqlite3.Connection]]


@pytest.fixture(name="ledgers")
def _ledgers(tmp_path: Path) -> Iterator[Ledgers]:
    """Make two empty ledgers, not synced to disk, and close them."""
    with ExitStack() as opened:

        def make() -> tuple[sqlite3.Connection, sqlite3.Connection]:
            number = len([*tmp_path.glob("*.db")])
            paths = (tmp_path / f"{number}.db", tmp_path / f"{number + 1}.db")
            one, other = (
                opened.enter_context(closing(connect(path, create=True))) for path in paths
            )
            for db in (one, other):
                db.execute("PRAGMA synchronous = OFF")
            return one, other

        yield make


def committed(db: sqlite3.Connection, fact: Fact, *, at_ms: int, confirm: Confirm) -> object:
    """Commit one fact, and return what its caller and the hub get."""
    with transaction(db):
        done = general.commit(db, [fact], epoch="e", now_ms=at_ms, confirm=confirm)
    return [str(one) if isinstance(one, Exception) else one for one in done.recorded], done.events


def rows(db: sqlite3.Connection) -> dict[str, list[object]]:
    """Read all that commits have written."""
    tables = {name: f"SELECT * FROM {name} ORDER BY 1" for name in TABLES} | {"head": HEAD}
    return {name: db.execute(query).fetchall() for name, query in tables.items()}


def play(ledgers: Ledgers, seed: int) -> None:
    """Commit a history in both ways, and compare all that came of it.

    Raises:
        AssertionError: They differ.
    """
    chance = random.Random(seed)
    confirm = chance.choice(CONFIRMS)
    one, other = ledgers()
    memory = Memory()
    for number in range(COMMITS_A_HISTORY):
        fact = any_fact(chance, memory)
        if chance.random() < PLAIN:
            fact = replace(
                numbered(chance.randint(10, 30)),
                **{name: chance.choice(values) for name, values in SHAPES.items()},
            )
        if fact.kind is NOTIFICATION and chance.random() < NAMELESS:
            fact = replace(fact, transaction_no="")
        at_ms = told.START_MS + number * 1_000
        short = committed(one, fact, at_ms=at_ms, confirm=confirm)
        with patch.object(general, "commit_single", return_value=None):
            long = committed(other, fact, at_ms=at_ms, confirm=confirm)
        assert short == long, f"seed {seed}: commit {number}"
        memory.entries = [
            entry_of(row) for row in other.execute("SELECT * FROM entries ORDER BY seq")
        ]
    assert rows(one) == rows(other), f"seed {seed}"


def test_a_single_notification_is_committed_as_in_the_general_way(
    ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_short: list[bool] = []
    shapes: set[tuple[str, object]] = set()

    def counted(
        db: sqlite3.Connection, fact: Fact, *, epoch: str, now_ms: int, confirm: Confirm
    ) -> tuple[Recorded, Event] | None:
        done = commit_single(db, fact, epoch=epoch, now_ms=now_ms, confirm=confirm)
        was_short.append(done is not None)
        if done is not None:
            shapes.update((name, getattr(fact, name)) for name in SHAPES)
        return done

    monkeypatch.setattr(general, "commit_single", counted)
    for seed in range(HISTORIES):
        play(ledgers, seed)
    # What never takes the short way, or never the other, shows nothing.
    assert was_short.count(True) > 5 * HISTORIES
    assert was_short.count(False) > 5 * HISTORIES
    assert shapes >= {(name, value) for name, values in SHAPES.items() for value in values}


def test_a_notification_with_the_reference_of_a_sale_takes_the_general_way(
    ledgers: Ledgers,
) -> None:
    one, other = ledgers()
    for db, name in ((one, "r1"), (other, "r2")):
        committed(db, sold("r1"), at_ms=told.START_MS, confirm="suspicious")
        fact = replace(numbered(7), reference=name)
        with transaction(db):
            done = commit_single(db, fact, epoch="e", now_ms=told.START_MS, confirm="suspicious")
        assert (done is None) == (name == "r1")


def test_a_single_commit_that_differs_is_found(
    ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(step: Step, entry: Entry, *, epoch: str) -> NewEvent | None:
        made = new_event(step, entry, epoch=epoch)
        return replace(made, is_cancellation=True) if made else None

    monkeypatch.setattr(single, "new_event", careless)
    with pytest.raises(AssertionError, match="seed"):
        for seed in range(5):
            play(ledgers, seed)
