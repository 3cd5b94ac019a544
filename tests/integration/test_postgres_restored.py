"""A ledger on PostgreSQL that was put back to an earlier state, or moved to another place."""

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from listener.errors import LedgerUnavailableError
from listener.storage import backup, check_up, open_ledger, verify
from listener.storage.findings import Finding, Severity
from listener.storage.postgres import bell, writer
from listener.storage.postgres import node as nodes
from listener.storage.postgres.statements import see
from tests.support.commands import here
from tests.support.databases import database, dump, make_anew, node, restore, run
from tests.support.followers import until
from tests.support.service import FIELDS, STREAM, Serving
from tests.support.stored import Clock, numbered, url_of
from tests.support.tills import till

# No connection is cut by it.
IN_PLACE = ("--clean", "--if-exists", "-1")
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
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
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
    (logged,) = [record for record in caplog.records if record.message == "new_epoch"]
    assert vars(logged)["fields"] == {"epoch": after, "reason": "restored"}
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


def test_what_cannot_be_noticed_gets_a_new_epoch_by_the_statement_that_is_documented(
    url: str, tmp_path: Path
) -> None:
    before = fill(url, 1)
    dump(url, tmp_path / "dump")
    fill(url, 2)
    tables = "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'"

    async def empty(db: "asyncpg.Connection") -> None:
        await db.execute("SET session_replication_role = replica")
        await db.execute(f"TRUNCATE {await db.fetchval(tables)}")

    run(url, empty)
    restore(url, tmp_path / "dump", "--data-only", "--disable-triggers")
    assert checked(url) == Finding(name="epoch", value=before)
    page = Path(__file__).parents[2] / "docs" / "scale.md"
    (statement,) = re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
    run(url, lambda db: db.execute(statement))
    assert COPIED in str(checked(url).advice)
    after = fill(url, 3)
    assert after != before
    assert fill(url) == after


# Under nodes that run


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes notice nothing by themselves, but by what they record."""
    monkeypatch.setattr(nodes, "BEAT_SECONDS", 60.0)
    monkeypatch.setattr(bell, "POLL_SECONDS", 60.0)


@pytest.mark.usefixtures("unheard")
async def test_nothing_is_recorded_in_a_ledger_that_was_put_back_under_its_epoch(
    url: str, tmp_path: Path
) -> None:
    async with node(url) as one, node(url) as other:
        await one.record(numbered(1))
        await asyncio.to_thread(dump, url, tmp_path / "dump")
        before = one.epoch
        for ledger in (one, other):
            await ledger.record(numbered(f"{ledger.node.id} lost"))
        await asyncio.to_thread(restore, url, tmp_path / "dump", *IN_PLACE)
        with pytest.raises(LedgerUnavailableError, match="the ledger went back"):
            await one.record(numbered(2))
        # What a check of readiness rehearses is refused, or finds the new epoch.
        await one.check_writable()
        assert one.epoch != before
        assert (await one.record(numbered(2))).seq == 2
        with pytest.raises(LedgerUnavailableError, match=r"another epoch|went back"):
            await other.record(numbered(3))
        assert (await other.record(numbered(3))).seq == 3
        assert other.epoch == one.epoch
        events = await one.read_events(STREAM, after=1, limit=9)
        assert all(one.epoch.encode() in event.body for event in events)
    assert await asyncio.to_thread(reasons, url) == ["made", "went_back"]


async def test_a_node_that_records_nothing_notices_within_a_second_that_its_ledger_was_put_back(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "POLL_SECONDS", 60.0)
    async with node(url) as ledger:
        await ledger.record(numbered(1))
        await asyncio.to_thread(dump, url, tmp_path / "dump")
        await ledger.record(numbered(2))
        before = ledger.epoch
        await asyncio.to_thread(restore, url, tmp_path / "dump", *IN_PLACE)
        async with asyncio.timeout(3):
            await until(lambda: ledger.epoch != before)
        assert (await ledger.record(numbered(3))).seq == 2


async def test_an_epoch_from_before_that_comes_back_with_a_dump_is_not_gone_on_with(
    url: str, tmp_path: Path
) -> None:
    async with node(url) as ledger:
        first = ledger.epoch
        await ledger.record(numbered(1))
    await asyncio.to_thread(dump, url, tmp_path / "dump")
    await asyncio.to_thread(run, url, lambda db: db.execute("UPDATE ledger SET is_copy = 1"))
    async with node(url) as ledger:
        second = ledger.epoch
        await ledger.record(numbered(2))
        await asyncio.to_thread(restore, url, tmp_path / "dump", *IN_PLACE)
        await until(lambda: ledger.epoch != second)
        assert ledger.epoch not in (first, second)


async def test_what_is_acknowledged_while_a_batch_is_read_for_does_not_look_lost(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(url) as one, node(url) as other:
        await one.record(numbered(1))

        async def slowly(*arguments: object) -> object:
            monkeypatch.setattr(writer, "see", see)
            seen = await see(*arguments)  # type: ignore[arg-type]  # as it was called
            await other.record(numbered(2))
            await until(lambda: one.node.seq == 2)
            return seen

        monkeypatch.setattr(writer, "see", slowly)
        assert (await one.record(numbered(3))).seq == 3


async def test_tills_read_all_anew_where_a_ledger_is_put_back_under_load(
    one: Serving, other: Serving, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def load() -> None:
        for number in range(10_000):
            for served in (one, other):
                await served.notify({"transactionNo": f"{served.url} {number}"})

    key = one.key()
    assert (await one.notify())[0] == 200
    await asyncio.to_thread(dump, url, tmp_path / "dump")
    for number in range(20):
        assert (await one.notify({"transactionNo": f"lost {number}"}))[0] == 200
    async with till(one.url, key) as here, till(other.url, key) as there:
        epoch = (await here.join())["streams"][0]["epoch"]
        await there.join()
        loading = asyncio.create_task(load())
        await asyncio.to_thread(restore, url, tmp_path / "dump", *IN_PLACE)
        async with asyncio.timeout(10):
            assert [await here.code(), await there.code()] == [4200, 4200]
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
    async with till(other.url, key) as again:
        await again.join({"stream": STREAM, "after": {"epoch": epoch, "offset": 5}})
        assert (await again.hear("resync"))["reason"] == "epoch_changed"
    assert (await other.notify(FIELDS))[0] == 200
    found = {finding.name: finding for finding in await asyncio.to_thread(check_up, url)}
    assert found["went_back"].severity is Severity.NOTE
    assert found["epoch"].severity is Severity.FINE
    await asyncio.to_thread(verify, url)
    # Whatever a statement met, it was no fault of the listener.
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
