"""Opening a ledger: made, found, migrated, or refused in one clear line."""

import asyncio
import multiprocessing
import os
import sqlite3
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from listener.errors import LedgerError, NoLedgerError
from listener.storage import open_keys, open_ledger, open_reader
from listener.storage.sqlite import schema
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.location import sqlite_path
from listener.storage.sqlite.lock import ServiceLock, is_served
from listener.storage.sqlite.opening import connect, connect_read_only
from listener.storage.sqlite.schema import (
    APPLICATION_ID,
    FIRST_VERSION,
    SCHEMA_VERSION,
    schema_text,
)
from listener.storage.sqlite.verify import verify
from listener.storage.statements import added_indexes
from tests.support.commands import run, write_settings
from tests.support.stored import STREAM, Clock, bare, numbered, url_of


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


# By its URL


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///ledger.db", "ledger.db"),
        ("sqlite:///data/ledger.db", "data/ledger.db"),
        ("sqlite:////var/lib/listener/ledger.db", "/var/lib/listener/ledger.db"),
        ("sqlite:///a b?c#d%20.db", "a b?c#d%20.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    assert sqlite_path(url) == Path(path)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:hidden@host/name",
        "sqlite:///",
        "ledger.db",
        # What SQLite would keep in memory, and another name of a file that is locked by its own.
        "sqlite:///:memory:",
        "sqlite:///file:ledger.db",
        "sqlite:///file:hidden.db?mode=memory",
    ],
)
async def test_another_kind_of_database_is_refused_in_a_line_without_the_url(url: str) -> None:
    with pytest.raises(LedgerError, match="set database to sqlite:///PATH") as raised:
        await open_ledger(url)
    assert "\n" not in str(raised.value)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hidden@host",
        "postgresql://me:hidden@host/",
        "postgresql://me:hidden@host/a/b",
        "postgresql://me:hidden@host:0/name",
        "postgresql://me:hidden@host:65536/name",
        "postgresql://me:hidden@host:x/name",
        "postgresql://me:hidden@host/name?sslmod=require",
        "postgresql://me:hidden@host/name#part",
        f"postgresql://me:hidden@{','.join(['host'] * 17)}/name",
    ],
)
async def test_a_database_that_cannot_be_read_is_refused_in_a_line_without_the_url(
    url: str,
) -> None:
    with pytest.raises(LedgerError, match="the setting database") as raised:
        await open_ledger(url)
    assert "\n" not in str(raised.value)
    assert "hidden" not in str(raised.value)


async def test_a_relative_path_begins_where_the_listener_was_started(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    ledger = await open_ledger("sqlite:///ledger.db", clock=Clock(), confirm="off")
    await ledger.close()
    assert path.exists()


@pytest.mark.parametrize("name", ["a b.db", "a?b#c%20.db", "ä.db"])
async def test_any_name_of_a_file_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        assert verify(url_of(path)).entries == 1
    assert path.exists()


# Made


async def test_a_new_ledger_has_an_epoch_of_its_own(tmp_path: Path) -> None:
    epochs = set()
    for name in ("a.db", "b.db"):
        async with await SqliteLedger.open(tmp_path / name) as ledger:
            epochs.add(ledger.epoch)
            assert (await ledger.head()).seq == 0
    assert len(epochs) == 2


def test_keys_may_make_the_ledger_and_the_service_finds_it(path: Path) -> None:
    with closing(connect(path, create=True)) as db:
        (epoch,) = db.execute("SELECT epoch FROM ledger").fetchone()

    async def serve() -> str:
        async with await SqliteLedger.open(path) as ledger:
            return ledger.epoch

    assert asyncio.run(serve()) == epoch


def _make(path: Path, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]  # a multiprocessing.Event has no public class
    connect(path, create=True).close()


def test_several_that_make_it_at_the_same_time_make_one(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    makers = [context.Process(target=_make, args=(path, start)) for _ in range(4)]
    for maker in makers:
        maker.start()
    start.set()
    for maker in makers:
        maker.join(60)
    assert [maker.exitcode for maker in makers] == [0] * 4
    assert verify(url_of(path)).entries == 0


# Refused


def test_there_must_be_one_where_none_is_to_be_made(path: Path) -> None:
    with pytest.raises(LedgerError, match=f"there is no ledger at {path}"):
        connect(path, create=False)
    with pytest.raises(LedgerError, match=f"there is no ledger at {path}"):
        connect_read_only(path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["none/ledger.db", "."])
async def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LedgerError):
        await SqliteLedger.open(tmp_path / name)


@pytest.mark.parametrize("name", ["folder", "fifo"])
async def test_what_is_no_file_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    if name == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    with pytest.raises(LedgerError, match="which cannot be a ledger: set database"):
        await SqliteLedger.open(place)
    for opening in (partial(open_reader), partial(open_keys, create=True)):
        with (
            pytest.raises(LedgerError, match="which cannot be a ledger: set database"),
            opening(url_of(place)),
        ):
            pass
    assert [*tmp_path.iterdir()] == [place]


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("These are my notes.\n" * 100)
    with pytest.raises(LedgerError, match="cannot be opened"):
        await SqliteLedger.open(path)
    assert path.read_text() == "These are my notes.\n" * 100


async def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(bare(path)) as db:
        db.execute("CREATE TABLE notes (text)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="another program's database"):
        connect(path, create=True)
    with pytest.raises(LedgerError, match="another program's database"):
        connect_read_only(path)
    assert path.read_bytes() == before


async def test_a_later_versions_ledger_is_refused_and_left_alone(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    with closing(bare(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(LedgerError, match="later version"):
        await SqliteLedger.open(path)
    # The lock was given back.
    assert not is_served(path)


@pytest.mark.parametrize("version", [0, -1])
async def test_a_ledger_of_no_known_version_is_refused_and_left_alone(
    path: Path, version: int
) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
    with closing(bare(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    told = "of no version that this program knows .* restore a backup"
    with pytest.raises(LedgerError, match=told):
        await SqliteLedger.open(path)
    for create in (True, False):
        with pytest.raises(LedgerError, match=told):
            connect(path, create=create)
    with pytest.raises(LedgerError, match=told):
        connect_read_only(path)
    assert path.read_bytes() == before
    with closing(bare(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    assert verify(url_of(path)).entries == 1


@pytest.mark.parametrize("statement", [None, "VACUUM"])
async def test_a_file_without_tables_becomes_a_ledger_once_it_is_served(
    path: Path, statement: str | None
) -> None:
    with closing(bare(path)) as db:
        if statement is None:
            path.touch()
        else:
            db.execute("PRAGMA encoding = 'UTF-8'")
            db.execute(statement)
    before = path.read_bytes()
    assert bool(before) == (statement is not None)
    for opening in (connect_read_only, partial(connect, create=False)):
        with pytest.raises(NoLedgerError, match="`listener serve` makes it"):
            opening(path)
    assert path.read_bytes() == before
    async with await SqliteLedger.open(path) as ledger:
        assert (await ledger.record(numbered(1))).seq == 1


async def test_a_ledger_without_its_head_is_refused(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    with closing(bare(path)) as db:
        db.execute("DELETE FROM ledger")
    with pytest.raises(LedgerError, match="restore a backup"):
        await SqliteLedger.open(path)
    with open_reader(url_of(path)) as reader, pytest.raises(LedgerError, match="restore a backup"):
        reader.head()


# Migrated


async def test_an_older_ledger_is_brought_up_to_date_with_what_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    step = "CREATE TABLE later (x TEXT) STRICT;\nINSERT INTO later VALUES ('a;b');"
    monkeypatch.setitem(schema.MIGRATIONS, SCHEMA_VERSION, step)
    with pytest.raises(LedgerError, match="earlier version"):
        connect_read_only(path)
    async with await SqliteLedger.open(path) as ledger:
        assert (await ledger.record(numbered(2))).seq == 2
    with closing(bare(path)) as db:
        assert db.execute("SELECT x FROM later").fetchall() == [("a;b",)]
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)


async def test_a_ledger_of_the_first_release_gets_the_indexes_that_came_later(path: Path) -> None:
    names = [name for name, _ in added_indexes(schema_text())]
    assert names == ["transactions_by_cancel", "transactions_held"]
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
    with closing(bare(path)) as db:
        for name in names:
            db.execute(f"DROP INDEX {name}")
    # A backup of that release can be proved without a service on it, and keys can be made.
    assert verify(url_of(path)).entries == 1
    connect(path, create=True).close()
    assert _indexes(path).isdisjoint(names)
    async with await SqliteLedger.open(path) as ledger:
        assert (await ledger.record(numbered(2))).seq == 2
    assert _indexes(path) > set(names)
    # And that release serves it again, if it is put back.
    with closing(bare(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FIRST_VERSION,)


def _indexes(path: Path) -> set[str]:
    with closing(bare(path)) as db:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}


async def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await SqliteLedger.open(path)).close()
    with monkeypatch.context() as patched:
        patched.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        step = "CREATE TABLE later (x TEXT) STRICT;\nINSERT INTO nowhere VALUES (1);"
        patched.setitem(schema.MIGRATIONS, SCHEMA_VERSION, step)
        with pytest.raises(LedgerError, match="nowhere"):
            await SqliteLedger.open(path)
    with closing(bare(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        found = db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'later'")
        assert found.fetchone() == (0,)
    await (await SqliteLedger.open(path)).close()


async def test_a_closed_ledger_is_read_on_read_only_media(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await SqliteLedger.open(path, clock=Clock()) as ledger:
        await ledger.record(numbered(1))
    before = {one.name for one in path.parent.iterdir()}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    with closing(connect_read_only(path)) as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        assert {one.name for one in path.parent.iterdir()} == before
    assert verify(url_of(path)).entries == 1


async def test_a_ledger_that_is_served_elsewhere_is_read_with_its_log_on_read_only_media(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await SqliteLedger.open(path, clock=Clock()) as ledger:
        await ledger.record(numbered(1))
        with monkeypatch.context() as patched:
            patched.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
            assert verify(url_of(path)).entries == 1


def test_every_version_has_a_way_to_this_one() -> None:
    assert set(schema.MIGRATIONS) == set(range(1, SCHEMA_VERSION))


def test_every_column_has_a_comment() -> None:
    told_of = {
        line.strip().split()[0].strip('"')
        for line in schema_text().splitlines()
        if line.startswith("    ") and not line.strip().startswith(("PRIMARY", "UNIQUE"))
    }
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(schema_text())
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")
        ]
        columns = {row[1] for table in tables for row in db.execute(f"PRAGMA table_info({table})")}
    assert columns == told_of


async def test_the_file_says_whose_it_is(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    with closing(bare(path)) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


async def test_a_copy_without_a_log_gets_one_again(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    with closing(bare(path)) as db:
        assert db.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        assert path.with_name("ledger.db-wal").exists()


# One at a time


async def test_two_services_never_share_a_ledger(path: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        assert is_served(path)
        with pytest.raises(LedgerError, match="another listener is serving"):
            await SqliteLedger.open(path)
        assert (await ledger.record(numbered(1))).seq == 1
    assert not is_served(path)
    async with await SqliteLedger.open(path) as ledger:
        assert len(await ledger.read_events(STREAM, after=0, limit=9)) == 1


def test_a_lock_is_given_back_once(path: Path) -> None:
    lock = ServiceLock(path)
    assert is_served(path)
    lock.release()
    lock.release()
    assert not is_served(path)
    assert not is_served(path.with_name("other.db"))


@pytest.mark.parametrize("name", ["link.db", "linked/ledger.db", "folder/../ledger.db"])
async def test_a_second_service_is_refused_whatever_name_it_uses(path: Path, name: str) -> None:
    (path.parent / "link.db").symlink_to(path)
    (path.parent / "linked").symlink_to(path.parent)
    (path.parent / "folder").mkdir()
    other = path.parent / name
    # The link may be there before the file is.
    async with await SqliteLedger.open(other) as ledger:
        assert is_served(path)
        with pytest.raises(LedgerError, match="another listener is serving"):
            await SqliteLedger.open(path)
        with pytest.raises(LedgerError, match="another listener is serving"):
            await SqliteLedger.open(other)
        await ledger.record(numbered(1))
        # Whoever reads by the other name finds the same log.
        assert verify(url_of(path)).entries == 1
    assert not is_served(other)


async def test_a_relative_name_and_an_absolute_one_are_one_ledger(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    async with await SqliteLedger.open(Path("ledger.db")):
        with pytest.raises(LedgerError, match="another listener is serving"):
            await SqliteLedger.open(path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only names are locked")
async def test_a_served_ledger_is_refused_under_the_name_of_a_hard_link(tmp_path: Path) -> None:
    config = write_settings(tmp_path)
    path, other = tmp_path / "ledger.db", tmp_path / "other.db"
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        other.hardlink_to(path)
        env = {"LISTENER_DATABASE": url_of(other)}
        assert "another listener is serving" in run("serve", "--config", config, env=env).complaint
        # Its log lies beside the first name: what reads past it would miss the entry, and what
        # writes past it would damage the file.
        for command in (
            ["backup", str(tmp_path / "copy.db")],
            ["export"],
            ["verify"],
            ["keys", "list"],
            ["keys", "create", "--role", "admin"],
        ):
            done = run(*command, "--config", config, env=env)
            assert "under another name" in done.complaint, command
            assert run(*command, "--config", config).status == 0, command
        checked = run("check", "--config", config, "--json", env=env)
        assert '"served","value":"yes"' in checked.out
        # The refusals took nothing from the service that runs.
        assert (await ledger.record(numbered(2))).seq == 2
        assert verify(url_of(path)).entries == 2
    assert run("verify", "--config", config, env=env).status == 0


async def test_a_file_that_was_moved_away_while_served_leaves_its_name_taken(path: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        path.rename(path.with_name("moved.db"))
        with pytest.raises(LedgerError, match="another listener is serving"):
            await SqliteLedger.open(path)


def test_a_lock_that_cannot_be_read_is_reported(path: Path) -> None:
    path.with_name("ledger.db.lock").symlink_to("ledger.db.lock")
    with pytest.raises(LedgerError, match="cannot open"):
        is_served(path)
    with pytest.raises(LedgerError, match="cannot open"):
        ServiceLock(path)
