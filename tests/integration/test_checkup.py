"""What an operator is told of a ledger."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from listener.errors import LedgerError
from listener.storage import open_keys
from listener.storage.findings import Finding, Severity
from listener.storage.sqlite import checkup
from listener.storage.sqlite.backup import backup
from listener.storage.sqlite.checkup import check_up
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.schema import SCHEMA_VERSION
from tests.support.stored import bare, numbered, url_of


class Usage(NamedTuple):
    """What ``shutil.disk_usage`` returns."""

    total: int
    used: int
    free: int


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def found(path: Path) -> dict[str, Finding]:
    findings = check_up(url_of(path))
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def problems(path: Path) -> list[str]:
    return [name for name, one in found(path).items() if one.severity is Severity.PROBLEM]


async def test_a_served_ledger_is_described_without_hindering_it(path: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        told = {name: finding.value for name, finding in found(path).items()}
        assert (await ledger.record(numbered(2))).seq == 2
        assert told["ledger"] == str(path)
        assert told["served"] == "yes"
        assert told["epoch"] == ledger.epoch
        assert (told["entries"], told["events"], told["transactions"]) == (1, 1, 1)
        assert told["schema"] == SCHEMA_VERSION
        assert told["journal"] == "wal"
        assert told["pages"] == "ok"
        assert told["sqlite"] == sqlite3.sqlite_version
        assert int(told["log_bytes"]) > 0
        assert int(told["bytes"]) > 0
        assert str(told["created"]).endswith("Z")
    assert found(path)["served"].value == "no"
    assert not problems(path)


def test_before_the_first_deploy_a_check_makes_no_ledger(path: Path) -> None:
    told = found(path)
    assert told["exists"].severity is Severity.NOTE
    assert not problems(path)
    assert not list(path.parent.iterdir())


def test_an_empty_file_is_a_place_for_a_ledger_and_no_problem(path: Path) -> None:
    path.touch(0o600)
    assert found(path)["exists"] == found(path.with_name("none.db"))["exists"]
    assert not problems(path)
    assert path.read_bytes() == b""


async def test_a_ledger_of_no_known_version_is_a_problem_that_serving_does_not_solve(
    path: Path,
) -> None:
    await (await SqliteLedger.open(path)).close()
    with closing(bare(path)) as db:
        db.execute("PRAGMA user_version = 0")
    assert problems(path) == ["readable"]
    advice = str(found(path)["readable"].advice)
    assert "restore a backup" in advice
    assert "serve" not in advice


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path / "none" / "ledger.db") == ["folder"]


@pytest.mark.parametrize(
    ("free", "severity"),
    [
        (99 * 1024**2, Severity.PROBLEM),
        (100 * 1024**2, Severity.NOTE),
        (1024**3 - 1, Severity.NOTE),
        (1024**3, Severity.FINE),
    ],
)
def test_a_disk_that_fills_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch, free: int, severity: Severity
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(free, 0, free))
    told = found(path)["disk_free_bytes"]
    assert (told.value, told.severity) == (free, severity)


@pytest.mark.parametrize(
    ("version", "severity"), [((3, 51, 2), Severity.NOTE), ((3, 51, 3), Severity.FINE)]
)
def test_an_old_sqlite_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], severity: Severity
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert found(path)["sqlite"].severity is severity


async def test_a_log_that_cannot_be_cut_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "LOG_BYTES_HIGH", 1)
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        assert found(path)["log_bytes"].severity is Severity.NOTE


@pytest.mark.parametrize("in_its_place", ["nothing", "a copy"])
async def test_a_served_file_that_was_moved_away_is_a_problem(
    path: Path, in_its_place: str
) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        moved = path.rename(path.with_name("moved.db"))
        if in_its_place == "a copy":
            shutil.copy(moved, path)
        told = found(path)["served_file"]
        assert told.severity is Severity.PROBLEM
        with (
            pytest.raises(LedgerError, match="moved away or deleted"),
            open_keys(url_of(path), create=True),
        ):
            pass
        assert path.exists() == (in_its_place == "a copy")
        moved.replace(path)
        assert "served_file" not in found(path)


async def test_without_the_index_of_a_served_files_log_no_key_is_made_or_revoked(
    path: Path,
) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        # The service would not see it, and would write over it.
        path.with_name(f"{path.name}-shm").unlink()
        assert found(path)["served_file"].severity is Severity.PROBLEM
        with (
            pytest.raises(LedgerError, match="its -shm, was moved away or deleted"),
            open_keys(url_of(path), create=False),
        ):
            pass
        assert path.with_name(f"{path.name}-wal").exists()


async def test_a_backup_is_recognised(path: Path, tmp_path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    copy = tmp_path / "copy.db"
    backup(url_of(path), copy)
    told = found(copy)
    assert told["epoch"].severity is Severity.NOTE
    assert told["journal"].severity is Severity.NOTE
    assert not problems(copy)


async def test_an_older_copy_over_the_file_is_recognised(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    older = path.read_bytes()
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
    assert found(path)["epoch"].severity is Severity.FINE
    path.write_bytes(older)
    told = found(path)["epoch"]
    assert told.severity is Severity.NOTE
    assert told.advice is not None
    assert "an older copy" in told.advice
    async with await SqliteLedger.open(path) as ledger:
        assert ledger.epoch != told.value
    assert found(path)["epoch"].severity is Severity.FINE


async def test_damaged_pages_are_a_problem(path: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
    with closing(bare(path)) as db:
        where = "SELECT rootpage FROM sqlite_schema WHERE name = 'transactions_by_time'"
        (page,) = db.execute(where).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : (page - 1) * size + 8] = bytes(8)
    path.write_bytes(content)
    assert problems(path) == ["pages"]


async def test_a_ledger_without_its_head_is_a_problem(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    with closing(bare(path)) as db:
        db.execute("DELETE FROM ledger")
    assert problems(path) == ["readable"]


def test_a_file_that_is_not_a_ledger_is_a_problem(path: Path) -> None:
    path.write_text("notes " * 1_000)
    assert problems(path) == ["readable"]


@pytest.mark.parametrize("path", [Path("/tmp"), Path("/dev/null")])
def test_what_is_no_file_is_a_problem_that_no_permission_solves(path: Path) -> None:
    told = found(path)
    assert problems(path) == ["readable"]
    assert "cannot be a ledger" in str(told["readable"].advice)
    assert set(told) == {"ledger", "readable"}


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(LedgerError):
        check_up("mysql://host/name")


async def test_a_ledger_that_others_may_read_or_replace_is_reported(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    assert not {"ledger_mode", "folder_mode"} & found(path).keys()
    path.chmod(0o640)
    path.parent.chmod(0o770)
    told = found(path)
    assert (told["ledger_mode"].value, told["ledger_mode"].severity) == ("640", Severity.NOTE)
    assert f"chmod 600 {path}" in str(told["ledger_mode"].advice)
    assert f"chmod 750 {path.parent}" in str(told["folder_mode"].advice)
    assert not problems(path)
