"""A ledger on PostgreSQL that was put back to an earlier state, or moved to another place."""

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest

from listener.storage import backup, check_up, open_ledger, verify
from listener.storage.findings import Finding, Severity
from tests.support.commands import here
from tests.support.databases import database, dump, make_anew, restore, run
from tests.support.stored import Clock, numbered, url_of

RESTORED = "restored from a dump"
COPIED = "this is a copy"


def fill(url: str, *numbers: int) -> str:
    """Record some transactions; return the epoch."""

    async def served() -> str:
        async with await open_ledger(url, clock=Clock()) as ledger:
            for number in numbers:
                await ledger.record(numbered(number))
            return ledger.epoch

    return asyncio.run(served())


def checked(url: str) -> Finding:
    """Return what `check` says of the epoch."""
    (found,) = [one for one in check_up(url) if one.name == "epoch"]
    return found


def reasons(url: str) -> list[str]:
    """Return why each epoch of a ledger was begun."""

    async def work(db: "asyncpg.Connection") -> list[str]:
        return [row[0] for row in await db.fetch("SELECT reason FROM epochs ORDER BY seq, ctid")]

    return run(url, work)


@pytest.mark.parametrize("way", ["drop", "clean", "one transaction", "template"])
def test_a_ledger_that_was_put_back_on_its_own_server_gets_one_new_epoch(
    url: str, tmp_path: Path, way: str
) -> None:
    before = fill(url, 1, 2)
    with database() as kept:
        if way == "template":
            make_anew(kept, template=url)
        dump(url, tmp_path / "dump")
        assert fill(url, 3, 4) == before
        if way == "template":
            make_anew(url, template=kept)
    if way == "drop":
        make_anew(url)
        restore(url, tmp_path / "dump")
    elif way != "template":
        restore(url, tmp_path / "dump", "--clean", *(["-1"] if way == "one transaction" else []))
    told = checked(url)
    assert (told.severity, told.value) == (Severity.NOTE, before)
    assert RESTORED in str(told.advice)
    after = fill(url, 5)
    assert after != before
    assert reasons(url) == ["made", "restored"]
    assert fill(url) == after
    assert checked(url) == Finding(name="epoch", value=after)
    assert verify(url).entries == 3


def test_a_ledger_whose_tables_were_written_anew_in_their_place_keeps_its_epoch(url: str) -> None:
    before = fill(url, 1)
    run(url, lambda db: db.execute("VACUUM FULL"))
    run(url, lambda db: db.execute("REINDEX TABLE ledger"))
    assert checked(url).severity is Severity.FINE
    assert fill(url) == before


def test_a_backup_that_is_imported_stays_a_copy(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
) -> None:
    before, copy, moved = fill(url, 1, 2), tmp_path / "copy.db", tmp_path / "moved.db"
    backup(url, copy)
    fill(url, 3)
    make_anew(url)
    done = here(capsys, "import", "--from", url_of(copy), "--to", url, "--json")
    assert json.loads(done.out)["epoch"] == before
    assert COPIED in str(checked(url).advice)
    # So does one that is moved on before it was served.
    assert here(capsys, "import", "--from", url, "--to", url_of(moved)).status == 0
    assert "this is a backup" in str(checked(url_of(moved)).advice)
    for place in (url, url_of(moved)):
        after = fill(place, 4)
        assert after != before
        assert fill(place) == after
    assert reasons(url) == ["made", "copied"]


@pytest.mark.parametrize("way", ["another file", "fewer entries"])
def test_a_file_that_was_put_back_is_a_copy_after_the_import_as_well(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path, way: str
) -> None:
    path, kept = tmp_path / "ledger.db", tmp_path / "kept.db"
    before = fill(url_of(path), 1)
    kept.write_bytes(path.read_bytes())
    fill(url_of(path), 2)
    if way == "fewer entries":
        path.write_bytes(kept.read_bytes())
    else:
        path = kept
    assert here(capsys, "import", "--from", url_of(path), "--to", url).status == 0
    assert COPIED in str(checked(url).advice)
    assert fill(url) != before


def test_a_dump_that_is_moved_to_a_file_before_it_was_served_is_a_copy_there(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
) -> None:
    before, file = fill(url, 1), url_of(tmp_path / "ledger.db")
    dump(url, tmp_path / "dump")
    restore(url, tmp_path / "dump", "--clean")
    assert here(capsys, "import", "--from", url, "--to", file).status == 0
    assert fill(file) != before
