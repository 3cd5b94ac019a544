"""Plain notifications committed in few steps leave the ledger that the general way leaves."""

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from listener.ledger.model import Fact
from listener.ledger.schedule import Confirm
from listener.storage.rows import entry_of
from listener.storage.sqlite import commit as general
from listener.storage.sqlite import plain
from listener.storage.sqlite.bulk import EXACT_MAX, ROWS_MAX
from listener.storage.sqlite.connection import transaction
from listener.storage.sqlite.opening import connect
from listener.storage.sqlite.plain import Committed, commit_plain
from tests.property.decisions import Memory, any_fact
from tests.support import told
from tests.support.stored import numbered, sold

HISTORIES: Final = 40
COMMITS_A_HISTORY: Final = 40
FACTS_MAX: Final = 3
# The first commit of each history has more: as many rows as one statement binds, and more.
LARGE_SIZES: Final = (EXACT_MAX, EXACT_MAX + 1, ROWS_MAX + 1, 2 * ROWS_MAX + EXACT_MAX + 2)
CONFIRMS: Final[tuple[Confirm, ...]] = ("suspicious", "suspicious", "off", "always")
# How many commits are of notifications in the common case, how many of those name no transaction,
# and how many the transaction of another.
PLAIN: Final = 0.6
NAMELESS: Final = 0.05
AGAIN: Final = 0.1
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


def committed(
    db: sqlite3.Connection, facts: Sequence[Fact], *, at_ms: int, confirm: Confirm
) -> object:
    """Commit facts, and return what their callers and the hub get."""
    with transaction(db):
        done = general.commit(db, facts, epoch="e", now_ms=at_ms, confirm=confirm)
    return [str(one) if isinstance(one, Exception) else one for one in done.recorded], done.events


def rows(db: sqlite3.Connection) -> dict[str, list[object]]:
    """Read all that commits have written."""
    tables = {name: f"SELECT * FROM {name} ORDER BY 1" for name in TABLES} | {"head": HEAD}
    return {name: db.execute(query).fetchall() for name, query in tables.items()}


def some_facts(chance: random.Random, memory: Memory) -> list[Fact]:
    """Make up the facts of one commit."""
    count = chance.randint(1, FACTS_MAX)
    if chance.random() >= PLAIN:
        return [any_fact(chance, memory) for _ in range(count)]
    return plain_facts(chance, chance.sample(range(10, 300), count))


def plain_facts(chance: random.Random, numbers: list[int]) -> list[Fact]:
    """Make up notifications, nearly all of them plain where their numbers are new."""
    if chance.random() < AGAIN:
        numbers[-1] = numbers[0]
    facts = [
        replace(
            numbered(number, mark=str(chance.randint(0, 1))),
            **{name: chance.choice(values) for name, values in SHAPES.items()},
        )
        for number in numbers
    ]
    if chance.random() < NAMELESS:
        facts[-1] = replace(facts[-1], transaction_no="")
    return facts


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
        if number:
            facts = some_facts(chance, memory)
        else:
            size = LARGE_SIZES[seed % len(LARGE_SIZES)]
            facts = plain_facts(chance, chance.sample(range(1_000, 9_000), size))
        at_ms = told.START_MS + number * 1_000
        short = committed(one, facts, at_ms=at_ms, confirm=confirm)
        with patch.object(general, "commit_plain", return_value=None):
            long = committed(other, facts, at_ms=at_ms, confirm=confirm)
        assert short == long, f"seed {seed}: commit {number}"
        memory.entries = [
            entry_of(row) for row in other.execute("SELECT * FROM entries ORDER BY seq")
        ]
    assert rows(one) == rows(other), f"seed {seed}"


def test_plain_notifications_are_committed_as_in_the_general_way(
    ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[bool, list[int]] = {True: [], False: []}
    shapes: set[tuple[str, object]] = set()
    streams: list[int] = []

    def counted(
        db: sqlite3.Connection, facts: Sequence[Fact], *, epoch: str, now_ms: int, confirm: Confirm
    ) -> Committed | None:
        done = commit_plain(db, facts, epoch=epoch, now_ms=now_ms, confirm=confirm)
        sizes[done is not None].append(len(facts))
        if done is not None:
            shapes.update((name, getattr(fact, name)) for name in SHAPES for fact in facts)
            streams.append(len({event.stream for event in done.events}))
        return done

    monkeypatch.setattr(general, "commit_plain", counted)
    for seed in range(HISTORIES):
        play(ledgers, seed)
    # What never takes the short way, or never the other, shows nothing.
    for way in sizes.values():
        assert all(way.count(size) > HISTORIES for size in range(1, FACTS_MAX + 1))
    assert {*LARGE_SIZES} <= {*sizes[True]}
    assert shapes >= {(name, value) for name, values in SHAPES.items() for value in values}
    assert streams.count(2) > HISTORIES


def test_a_notification_with_the_reference_of_a_sale_takes_the_general_way(
    ledgers: Ledgers,
) -> None:
    one, other = ledgers()
    for db, name in ((one, "r1"), (other, "r2")):
        committed(db, [sold("r1")], at_ms=told.START_MS, confirm="suspicious")
        facts = [replace(numbered(7), reference=name), replace(numbered(8), reference="r3")]
        with transaction(db):
            done = commit_plain(db, facts, epoch="e", now_ms=told.START_MS, confirm="suspicious")
        assert (done is None) == (name == "r1")


def test_a_batch_in_which_a_late_one_is_known_takes_the_general_way(ledgers: Ledgers) -> None:
    one, _ = ledgers()
    # More than one statement binds: the known one is bound by the first, or by the last.
    for at in (0, ROWS_MAX):
        facts = [numbered(1_000 * (at + 1) + n) for n in range(ROWS_MAX + 1)]
        committed(one, [facts[at]], at_ms=told.START_MS, confirm="suspicious")
        with transaction(one):
            done = commit_plain(one, facts, epoch="e", now_ms=told.START_MS, confirm="suspicious")
        assert done is None


def test_a_commit_that_differs_is_found(ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "CANCELLATIONS", frozenset({"transaction.paid"}))
    with pytest.raises(AssertionError, match="seed"):
        for seed in range(5):
            play(ledgers, seed)
