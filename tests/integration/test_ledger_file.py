"""What a ledger on SQLite promises of its file."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from listener.ledger.chain import ENTRY_COLUMNS
from listener.storage.sqlite.connection import connect
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.verify import verify
from tests.support.stored import bare, numbered, url_of

# Four in each of two threads.
READS = 8
BUSY_SECONDS = 0.5
# From a thread's result to the end of the task that waits for it.
TURNS = 5


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(name="ledger")
async def _ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    async with await SqliteLedger.open(path) as ledger:
        yield ledger


async def test_reads_go_on_while_the_event_loop_is_busy(ledger: SqliteLedger) -> None:
    reads = [asyncio.create_task(ledger.find_key(str(number))) for number in range(READS)]
    await asyncio.sleep(0)
    # All are in the readers' hands by now, and none needs the loop to begin.
    time.sleep(BUSY_SECONDS)  # noqa: ASYNC251 - it is to be blocked
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert all(read.done() for read in reads)


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
