"""A copy of a ledger, or one put back to what it was, never goes on under the old epoch."""

import asyncio
import errno
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from listener.storage.findings import Severity
from listener.storage.sqlite import epoch
from listener.storage.sqlite.checkup import check_up
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from listener.storage.sqlite.verify import verify
from tests.support.stored import bare, numbered, url_of


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def served(path: Path, *marks: object) -> str:
    """Serve a ledger for a while, and record something; return its epoch."""
    async with await SqliteLedger.open(path) as ledger:
        for mark in marks:
            await ledger.record(numbered(mark))
        return ledger.epoch


def epoch_finding(path: Path) -> tuple[Severity, str]:
    (found,) = [one for one in check_up(url_of(path)) if one.name == "epoch"]
    return found.severity, found.advice or ""


async def test_a_ledger_that_is_served_again_keeps_its_epoch(path: Path) -> None:
    first = await served(path, 1)
    assert await served(path, 2) == first
    assert await served(path) == first
    assert epoch_finding(path) == (Severity.FINE, "")


async def test_a_ledger_that_was_renamed_keeps_its_epoch(path: Path, tmp_path: Path) -> None:
    first = await served(path, 1)
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "other.db")
    assert await served(moved, 2) == first


async def test_a_copy_of_the_file_is_another_ledger_and_the_log_says_why(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await served(path, 1)
    copy = tmp_path / "copy.db"
    shutil.copy2(path, copy)
    severity, advice = epoch_finding(copy)
    assert severity is Severity.NOTE
    assert "makes a new epoch" in advice
    second = await served(copy, 2)
    assert second != first
    (logged,) = [record for record in caplog.records if record.message == "new_epoch"]
    assert vars(logged)["fields"] == {"epoch": second, "reason": epoch.OTHER_FILE}
    # Each goes on with its own.
    assert await served(path, 3) == first
    assert await served(copy, 4) == second
    assert verify(url_of(copy)).entries == 3


async def test_a_copy_of_a_ledger_that_is_being_served_is_another_ledger(
    path: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        for file in path.parent.glob("ledger.db*"):
            shutil.copy2(file, copies / file.name)
        assert await served(copies / "ledger.db", 2) != ledger.epoch


async def test_a_ledger_put_back_in_its_place_is_another_ledger(path: Path) -> None:
    first = await served(path, 1)
    before = path.read_bytes()
    await served(path, 2)
    # In place: the file keeps its number.
    with path.open("r+b") as file:
        file.write(before)
        file.truncate()
    second = await served(path)
    assert second != first
    assert await served(path) == second


async def test_a_ledger_whose_log_was_lost_after_a_crash_is_another_ledger(path: Path) -> None:
    first = await served(path, 1)
    note = path.with_name("ledger.db.lock")
    before = path.read_bytes()
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(2))
        async with asyncio.timeout(5):
            while (left := note.read_bytes()) != f"{first} 2\n".encode():
                await asyncio.sleep(0.005)
    # What a kill -9 leaves, once somebody has deleted ledger.db-wal.
    with path.open("r+b") as file:
        file.write(before)
        file.truncate()
    note.write_bytes(left)
    assert await served(path) != first


@pytest.mark.parametrize("is_emptied", [False, True])
async def test_a_ledger_that_is_gone_is_missed_and_not_replaced_in_silence(
    path: Path, caplog: pytest.LogCaptureFixture, is_emptied: bool
) -> None:
    await served(path, 1, 2)
    path.unlink()
    if is_emptied:
        path.touch(0o600)
    (found,) = [one for one in check_up(url_of(path)) if one.name == "exists"]
    assert "ledger.db.lock tells of a ledger with 2 entries here" in (found.advice or "")
    # A command that makes one before the service does hides nothing.
    connect(path, create=True).close()
    assert "is gone" in epoch_finding(path)[1]
    begun = await served(path)
    (logged,) = [record for record in caplog.records if record.message == "new_epoch"]
    assert vars(logged)["fields"] == {"epoch": begun, "reason": epoch.EMPTY}
    assert await served(path) == begun


async def test_a_note_that_cannot_be_written_fails_no_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await SqliteLedger.open(path) as ledger:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        await ledger.record(numbered(1))
    assert verify(url_of(path)).entries == 1


async def test_a_note_that_says_nothing_changes_nothing(path: Path) -> None:
    first = await served(path, 1)
    note = path.with_name("ledger.db.lock")
    for text in (b"", b"\xff\xfe", b"another-epoch 99", f"{first} x".encode(), b"x" * 9_999):
        note.write_bytes(text)
        assert await served(path) == first
    note.unlink()
    assert await served(path) == first
    assert note.read_text() == f"{first} 1\n"


def test_a_ledger_that_keys_made_gets_its_file_when_it_is_served(path: Path) -> None:
    connect(path, create=True).close()
    with closing(bare(path)) as db:
        made, file = db.execute("SELECT epoch, file FROM ledger").fetchone()
        assert file is None
    assert asyncio.run(served(path)) == made
    with closing(bare(path)) as db:
        assert db.execute("SELECT file FROM ledger").fetchone() == (epoch.identity(path),)
