"""What a ledger on SQLite promises of its file."""

import asyncio
import errno
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest

from listener.errors import LedgerUnavailableError
from listener.ledger.chain import ENTRY_COLUMNS
from listener.storage.sqlite.connection import Connection
from listener.storage.sqlite.files import LOOK_SECONDS
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from listener.storage.sqlite.verify import verify
from tests.support.stored import bare, numbered, url_of


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(name="ledger")
async def _ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    async with await SqliteLedger.open(path) as ledger:
        yield ledger


async def test_a_read_that_fails_among_many_is_only_its_askers_error(ledger: SqliteLedger) -> None:
    # Half a character: SQLite cannot be asked for it.
    asked = ["a", "b", "c", "\ud800", "d"]
    found = await asyncio.gather(
        *(ledger.find_key(key_id) for key_id in asked), return_exceptions=True
    )
    assert [type(one) for one in found] == [*[type(None)] * 3, UnicodeEncodeError, type(None)]


@pytest.mark.parametrize("table", ["entries", "events"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET seq = seq + 1",
        "DELETE FROM {table}",
        "INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
        "REPLACE INTO {table} SELECT * FROM {table}",
    ],
)
async def test_recorded_entries_cannot_be_changed(
    ledger: SqliteLedger, path: Path, table: str, statement: str
) -> None:
    await ledger.record(numbered(1))
    with (
        closing(connect(path, create=False)) as db,
        pytest.raises(sqlite3.IntegrityError, match="never"),
    ):
        db.execute(statement.format(table=table))
    verify(url_of(path))


async def test_the_file_itself_refuses_a_second_original(ledger: SqliteLedger, path: Path) -> None:
    await ledger.record(numbered(1))
    names = ", ".join(ENTRY_COLUMNS)
    with (
        closing(bare(path)) as db,
        pytest.raises(sqlite3.IntegrityError, match="UNIQUE"),
    ):
        db.execute(
            f"INSERT INTO entries ({names}) SELECT 2, {names.removeprefix('seq, ')} FROM entries"
        )


async def test_nobody_else_can_read_the_file(ledger: SqliteLedger, path: Path) -> None:
    await ledger.record(numbered(1))
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == [
        "ledger.db",
        "ledger.db-shm",
        "ledger.db-wal",
        "ledger.db.lock",
    ]
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


async def test_a_clean_stop_leaves_one_file_with_everything(path: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
    assert sorted(file.name for file in path.parent.iterdir()) == ["ledger.db", "ledger.db.lock"]
    with closing(bare(path)) as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (1,)


@pytest.mark.parametrize("lost", ["ledger.db", "ledger.db-wal", "ledger.db-shm"])
@pytest.mark.parametrize("in_its_place", ["nothing", "another file"])
async def test_nothing_is_acknowledged_while_a_file_of_the_ledger_is_gone(
    ledger: SqliteLedger, path: Path, lost: str, in_its_place: str
) -> None:
    await ledger.record(numbered(1))
    file, elsewhere = path.with_name(lost), path.with_name("elsewhere")
    file.rename(elsewhere)
    await asyncio.sleep(LOOK_SECONDS)
    if in_its_place == "another file":
        file.touch()
    for number in (2, 3):
        with pytest.raises(LedgerUnavailableError, match="moved away or deleted"):
            await ledger.record(numbered(number))
    with pytest.raises(LedgerUnavailableError, match="moved away or deleted"):
        await ledger.check_writable()
    elsewhere.replace(file)
    assert (await ledger.record(numbered(2))).seq == 2


async def test_who_is_cancelled_while_a_file_is_opened_waits_for_the_end_of_that(
    path: Path,
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def connector() -> sqlite3.Connection:
        begun.set()
        may_end.wait(10)
        return connect(path, create=True)

    opening = asyncio.create_task(Connection.open(connector))
    await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    done, _ = await asyncio.wait({opening}, timeout=0.2)
    # Whoever releases the ledger's lock next would release SQLite's own with it.
    assert not done
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_a_folder_that_may_not_be_looked_into_is_no_lost_file(
    ledger: SqliteLedger,
) -> None:
    await asyncio.sleep(LOOK_SECONDS)
    with patch("os.stat", side_effect=PermissionError(errno.EACCES, "denied")):
        assert (await ledger.record(numbered(1))).seq == 1
