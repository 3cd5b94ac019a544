"""Work the states out again from the entries, on both back-ends, where that is possible."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from listener.errors import DamagedError, LedgerError
from listener.storage import open_ledger, rebuild, verify
from tests.support.backends import NAMES, Backend, backend
from tests.support.commands import here
from tests.support.contents import content_of, damage, fill
from tests.support.stored import Clock

SETTINGS = """
port = 0
database = "{url}"
[merchants.200043]
tokens = ["5cbfb079f15b150122261c8537086d77a"]
stores = ["303660", "300014"]
"""
TRIGGERS = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"


@pytest.fixture(name="place", params=NAMES)
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with backend(request.param, tmp_path) as made:
        yield made


def change(place: Backend, *statements: str) -> None:
    """Change a ledger as somebody who may do anything."""
    if place.url.startswith("postgresql"):
        damage(place.url, *statements)
        return
    with closing(sqlite3.connect(place.url.removeprefix("sqlite:///"))) as db:
        triggers = db.execute(TRIGGERS).fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)
        for _, text in triggers:
            db.execute(text)
        db.commit()


def again(place: Backend) -> None:
    rebuild(place.url, confirm="suspicious")


def test_a_sound_ledger_stays_as_it_is(place: Backend) -> None:
    asyncio.run(fill(place.url))
    before = asyncio.run(content_of(place.url))
    again(place)
    assert asyncio.run(content_of(place.url)) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transactions SET status = 'failed' WHERE first_seq = 9",
        "UPDATE transactions SET status = 'nonsense', amount = NULL",
        "DELETE FROM transactions",
        "UPDATE transactions SET transaction_no = 'x' WHERE first_seq = 9",
        "DELETE FROM sales",
        "UPDATE sales SET transaction_no = NULL, is_refused = 1",
    ],
)
def test_a_state_that_is_not_what_the_entries_add_up_to_is_worked_out_again(
    place: Backend, statement: str
) -> None:
    asyncio.run(fill(place.url))
    before = asyncio.run(content_of(place.url))
    change(place, statement)
    with pytest.raises(DamagedError):
        verify(place.url)
    again(place)
    assert asyncio.run(content_of(place.url)) == before


def test_streams_and_sums_of_a_file_are_worked_out_again(tmp_path: Path) -> None:
    with backend("sqlite", tmp_path) as place:
        asyncio.run(fill(place.url))
        before = asyncio.run(content_of(place.url))
        change(
            place, "UPDATE streams SET head = 1", "UPDATE ledger SET transactions = 1, repeats = 7"
        )
        with pytest.raises(DamagedError):
            verify(place.url)
        again(place)
        assert asyncio.run(content_of(place.url)) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET amount = '99.00' WHERE seq = 9",
        "DELETE FROM entries WHERE seq = 9",
        "DELETE FROM events WHERE number = 9",
        "UPDATE events SET body = replace(body, 'paid', 'open') WHERE seq = 9",
    ],
)
def test_where_the_chain_or_an_event_is_damaged_nothing_is_changed(
    place: Backend, statement: str
) -> None:
    asyncio.run(fill(place.url))
    change(place, statement, "UPDATE transactions SET status = 'failed' WHERE first_seq = 20")
    before = asyncio.run(content_of(place.url))
    with pytest.raises(DamagedError):
        again(place)
    assert asyncio.run(content_of(place.url)) == before


def test_a_ledger_that_is_served_is_not_rebuilt(place: Backend) -> None:
    async def while_served() -> None:
        async with await open_ledger(place.url, clock=Clock()):
            with pytest.raises(LedgerError, match="stop"):
                await asyncio.to_thread(again, place)

    asyncio.run(while_served())


def test_the_command_says_what_it_has_done(
    capsys: pytest.CaptureFixture[str], place: Backend, tmp_path: Path
) -> None:
    config = tmp_path / "listener.toml"
    config.write_text(SETTINGS.format(url=place.url))
    asyncio.run(fill(place.url))
    change(place, "DELETE FROM sales")
    done = here(capsys, "rebuild", "--config", config, "--json")
    assert (done.status, json.loads(done.out)["transactions"]) == (0, 51)
    assert "51 transactions from 54 entries" in here(capsys, "rebuild", "--config", config).out
    missing = tmp_path / "missing.toml"
    missing.write_text(SETTINGS.format(url=f"sqlite:///{tmp_path}/missing.db"))
    assert "no ledger" in here(capsys, "rebuild", "--config", missing).complaint
