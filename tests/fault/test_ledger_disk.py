"""A disk that is full, locked, read-only or damaged: nothing is acknowledged that is not kept."""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest

from listener.errors import DamagedError, LedgerError, LedgerUnavailableError
from listener.storage.sqlite import checkpoints, connection
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from listener.storage.sqlite.verify import verify
from tests.support.disks import small_disk
from tests.support.stored import STREAM, bare, numbered, url_of

ROOT: Final = Path(__file__).parents[2]
RUN_SECONDS: Final = 60
NOBODY: Final = 65_534
DISK_MEGABYTES: Final = 24
FEW_PAGES_BYTES: Final = 40_960


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Full


def test_a_full_disk_refuses_and_recovers_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    told = json.loads(run("-m", "tests.fault.limited", str(path)))
    assert len(told["acknowledged"]) > 8
    # The commit failed as a whole, and so did the next.
    assert len(told["refused"]) == 8
    assert told["still"]
    assert told["readable"] == len(told["acknowledged"]) + 1
    # What was refused had not been recorded, and is now.
    assert told["again"] == [True] * 8
    found = verify(url_of(path))
    assert found.entries == len(told["acknowledged"]) + 9
    assert found.head.repeats == 0
    with closing(bare(path)) as db:
        recorded = dict(db.execute("SELECT transaction_no, seq FROM entries"))
    assert told["acknowledged"].items() <= recorded.items()


async def test_the_log_does_not_take_all_the_room_that_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The next checkpoint by the count of pages is far away.
    monkeypatch.setattr(checkpoints, "CHECKPOINT_AT_LATEST", sys.maxsize)
    with small_disk(DISK_MEGABYTES) as disk:
        ballast, path = disk / "ballast", disk / "ledger.db"
        ballast.write_bytes(bytes(DISK_MEGABYTES // 2 * 1024**2))
        async with await SqliteLedger.open(path) as ledger:
            kept = 0
            with suppress(LedgerUnavailableError):
                while True:
                    await ledger.record(numbered(kept))
                    kept += 1
            ballast.unlink()
            # As many as the log took before would take all the room; half as many again come.
            for number in range(kept, 5 * kept // 2):
                await ledger.record(numbered(number))
        assert verify(url_of(path)).entries == 5 * kept // 2


def test_a_ledger_that_finds_no_room_says_where_to_look() -> None:
    with small_disk(1) as disk:
        with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4_096))
        with pytest.raises(LedgerError, match="has its disk room"):
            connect(disk / "ledger.db", create=True)


async def test_a_full_disk_is_not_ready_though_a_page_would_fit() -> None:
    with small_disk(DISK_MEGABYTES) as disk:
        ballast, path = disk / "ballast", disk / "ledger.db"
        async with await SqliteLedger.open(path) as ledger:
            await ledger.record(numbered(0))
            # All the room but that of a few pages of the log.
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            ballast.write_bytes(bytes(free - FEW_PAGES_BYTES))
            await ledger.check_writable()
            with pytest.raises(LedgerUnavailableError):
                await ledger.record(numbered(1, mark="x" * 50_000))
            # An acknowledgement still fits, and shows nothing.
            await ledger.ack(terminal="200043/303660/T-1", stream=STREAM, offset=1)
            for _ in range(3):
                with pytest.raises(LedgerUnavailableError):
                    await ledger.check_writable()
            ballast.unlink()
            # Nothing but the check shows that there is room again, and it leaves nothing behind.
            await ledger.check_writable()
            assert (await ledger.record(numbered(1))).seq == 2
        with closing(bare(path)) as db:
            assert db.execute("SELECT count(*) FROM answers").fetchone() == (0,)


# Locked


async def test_a_lock_that_is_held_too_long_refuses_and_the_ledger_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.2)
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        with closing(connect(path, create=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            results = await asyncio.gather(
                *(ledger.record(numbered(n)) for n in (2, 3)), return_exceptions=True
            )
            assert [type(result) for result in results] == [LedgerUnavailableError] * 2
            assert "locked" in str(results[0])
            # Reading does not wait for the lock.
            assert (await ledger.head()).seq == 1
            other.execute("ROLLBACK")
        assert (await ledger.record(numbered(2))).seq == 2
        assert [e.offset for e in await ledger.read_events(STREAM, after=0, limit=9)] == [1, 2]


# Read-only

OPEN_AS_ANYBODY: Final = f"""
import asyncio, os, sys
from pathlib import Path
from listener.errors import LedgerError
from listener.storage.sqlite.ledger import SqliteLedger

async def serve():
    async with await SqliteLedger.open(Path(sys.argv[1])):
        return "served"

# What is imported late has to be there before the right to read it is given up.
asyncio.run(asyncio.to_thread("".encode, "unicode_escape"))
# Nothing is read-only for root.
if os.geteuid() == 0:
    os.setegid({NOBODY})
    os.seteuid({NOBODY})
try:
    print(asyncio.run(serve()))
except LedgerError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_ledger_that_cannot_be_written_is_refused_in_a_line(what: str) -> None:
    # Not the test's own folder, which only its owner can enter.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        asyncio.run(_make(path))
        path.chmod(0o444 if what == "file" else 0o666)
        path.with_name("ledger.db.lock").chmod(0o666)
        Path(folder).chmod(0o777 if what == "file" else 0o555)
        try:
            told = run("-c", OPEN_AS_ANYBODY, str(path))
        finally:
            Path(folder).chmod(0o700)
    assert told.startswith("refused: "), told
    assert told.count("\n") == 1
    assert str(path) in told


async def _make(path: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))


# Damaged


def rows_of(path: Path) -> list[object]:
    with closing(bare(path)) as db:
        tables = ("entries", "events", "transactions", "streams", "repeats", "ledger", "sales")
        return [db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


def verdict(path: Path) -> LedgerError | None:
    """Return what verify raises."""
    try:
        verify(url_of(path))
    except LedgerError as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(20))
async def test_a_damaged_file_is_reported_and_never_served(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "ledger.db"
    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(100)))
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(50)))
    sound = rows_of(path)
    chance = random.Random(seed)
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content) - 64)
    for index in range(at, at + 64):
        content[index] ^= chance.randrange(1, 256)
    path.write_bytes(content)
    said = verdict(path)
    if said is None:
        # It fell on bytes that hold nothing.
        assert rows_of(path) == sound
    else:
        assert "\n" not in str(said)
        assert not isinstance(said, DamagedError) or said.seq is None or 1 <= said.seq <= 101
    # Serving it may fail, but only in words of our own.
    try:
        async with await SqliteLedger.open(path) as ledger:
            await ledger.record(numbered("new"))
            await ledger.read_events(STREAM, after=0, limit=1_000)
    except (LedgerError, LedgerUnavailableError):
        pass


def test_files_of_the_listener_are_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    before = os.umask(0)
    try:
        asyncio.run(_make(path))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
