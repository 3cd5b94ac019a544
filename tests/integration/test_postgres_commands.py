"""The commands on PostgreSQL: as on a file, and beside the nodes that serve it."""

import asyncio
import json
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from listener.storage import backup, open_keys, open_ledger, verify
from listener.storage.postgres import checkup
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support import commands
from tests.support.commands import Done, here
from tests.support.contents import content_of, damage, fill
from tests.support.databases import run
from tests.support.stored import Clock, numbered, url_of

AS_IF = ("old", "apart")
SETTINGS = """
port = 0
database = "{url}"
[merchants.200043]
tokens = ["5cbfb079f15b150122261c8537086d77a"]
stores = ["303660", "300014"]
"""


@pytest.fixture(name="config")
def _config(tmp_path: Path, url: str) -> Path:
    config = tmp_path / "listener.toml"
    config.write_text(SETTINGS.format(url=url))
    return config


def command(
    capsys: pytest.CaptureFixture[str], name: str, config: Path, *arguments: str | Path
) -> Done:
    return here(capsys, *name.split(), "--config", config, *arguments)


def test_keys_are_made_listed_and_revoked(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    made = json.loads(command(capsys, "keys create", config, "--role", "admin", "--json").out)
    listed = json.loads(command(capsys, "keys list", config, "--json").out)
    assert [key["id"] for key in listed] == [made["id"]]
    assert command(capsys, "keys revoke", config, made["id"]).status == 0
    again = command(capsys, "keys revoke", config, made["id"])
    assert "was revoked before" in again.complaint
    assert "no key with this id" in command(capsys, "keys revoke", config, "nobody").complaint


def test_a_command_on_a_ledger_that_is_not_there_says_so(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    for name in ("keys list", "verify", "export"):
        assert "there is no ledger" in command(capsys, name, config).complaint


def test_a_sound_ledger_is_verified(
    capsys: pytest.CaptureFixture[str], config: Path, url: str
) -> None:
    asyncio.run(fill(url))
    found = json.loads(command(capsys, "verify", config, "--json").out)
    assert found["ok"]
    assert (found["entries"], found["transactions"]) == (54, 51)


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE entries SET amount = '99.00' WHERE seq = 9", 9),
        ("UPDATE entries SET fields = replace(fields, ':', ': ') WHERE seq = 9", 9),
        ("UPDATE entries SET kind = 'nonsense' WHERE seq = 9", 9),
        ("DELETE FROM entries WHERE seq = 9", 9),
        ("UPDATE entries SET hash = repeat('0', 64) WHERE seq = 54", 54),
        ("DELETE FROM events WHERE number = 9", 12),
        ("UPDATE events SET body = replace(body, 'paid', 'open') WHERE seq = 9", 9),
        ("UPDATE events SET stream = 'x/y' WHERE seq = 9", 9),
        ("UPDATE transactions SET status = 'failed' WHERE first_seq = 9", 9),
        ("UPDATE transactions SET status = 'cancelled' WHERE first_seq IN (9, 12)", 9),
        ("DELETE FROM transactions WHERE first_seq = 9", 9),
        ("UPDATE transactions SET transaction_no = 'x' WHERE first_seq = 9", 9),
        ("DELETE FROM sales", 1),
        ("UPDATE sales SET transaction_no = NULL", 2),
        ("UPDATE repeats SET seq = 1", 1),
    ],
)
def test_damage_is_found_with_the_first_entry_that_shows_it(
    capsys: pytest.CaptureFixture[str], config: Path, url: str, statement: str, seq: int
) -> None:
    asyncio.run(fill(url))
    damage(url, statement)
    done = command(capsys, "verify", config)
    assert f"the first bad seq is {seq}" in done.complaint


def test_an_export_has_what_a_file_has(
    capsys: pytest.CaptureFixture[str], config: Path, url: str, tmp_path: Path
) -> None:
    asyncio.run(fill(url))
    exported = command(capsys, "export", config)
    other = tmp_path / "other.toml"
    file = url_of(tmp_path / "other.db")
    other.write_text(SETTINGS.format(url=file))
    asyncio.run(fill(file))
    assert exported.out == command(capsys, "export", other).out
    assert exported.out.count("\n") == 54


def test_a_backup_is_a_sound_file_with_the_same_content(
    capsys: pytest.CaptureFixture[str], config: Path, url: str, tmp_path: Path
) -> None:
    epoch = asyncio.run(fill(url))
    copy = tmp_path / "copy.db"
    assert command(capsys, "backup", config, copy).status == 0
    verify(url_of(copy))
    (head, *ours), (copied, *theirs) = (
        asyncio.run(content_of(url)),
        asyncio.run(content_of(url_of(copy))),
    )
    assert theirs == ours
    # Served for the first time, it is a ledger of its own.
    assert head.epoch == epoch != copied.epoch  # type: ignore[attr-defined]
    assert "exists" in command(capsys, "backup", config, copy).complaint
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []


def test_a_backup_is_of_one_moment_whatever_is_recorded_meanwhile(url: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    async def while_served() -> None:
        loop = asyncio.get_running_loop()
        async with await open_ledger(url, clock=Clock()) as ledger:
            await asyncio.gather(*(ledger.record(numbered(n)) for n in range(20)))
            numbers = count(100)

            def more(_done: int, _total: int) -> None:
                # After each table of the copy.
                for fact in (
                    numbered(5, "closed", mark=str(next(numbers))),
                    numbered(next(numbers)),
                ):
                    asyncio.run_coroutine_threadsafe(ledger.record(fact), loop).result()

            await asyncio.to_thread(backup, url, copy, progress=more)

    asyncio.run(while_served())
    assert verify(url_of(copy)).entries == 20


def test_a_ledger_moves_to_postgresql_and_back_as_it_is(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
) -> None:
    file, back = url_of(tmp_path / "a.db"), url_of(tmp_path / "b.db")
    epoch = asyncio.run(fill(file))
    before = asyncio.run(content_of(file))
    moved = here(capsys, "import", "--from", file, "--to", url, "--json")
    assert json.loads(moved.out)["epoch"] == epoch
    assert asyncio.run(content_of(url)) == before
    verify(url)
    assert here(capsys, "import", "--from", url, "--to", back).status == 0
    assert asyncio.run(content_of(back)) == before
    verify(back)
    again = here(capsys, "import", "--from", file, "--to", url)
    assert "not empty" in again.complaint
    assert "exists" in here(capsys, "import", "--from", url, "--to", back).complaint


def test_a_ledger_is_moved_into_an_empty_one_that_was_put_back(
    capsys: pytest.CaptureFixture[str], url: str, tmp_path: Path
) -> None:
    async def serve() -> None:
        async with await open_ledger(url, clock=Clock()):
            pass

    file = url_of(tmp_path / "a.db")
    epoch = asyncio.run(fill(file))
    asyncio.run(serve())
    run(url, lambda db: db.execute("UPDATE ledger SET is_copy = 1"))
    asyncio.run(serve())
    moved = here(capsys, "import", "--from", file, "--to", url, "--json")
    assert json.loads(moved.out)["epoch"] == epoch


def test_a_ledger_that_is_served_is_not_moved(url: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    asyncio.run(fill(url_of(path)))

    async def while_served() -> None:
        async with await SqliteLedger.open(path):
            done = await asyncio.to_thread(
                commands.run, "import", "--from", url_of(path), "--to", url
            )
            assert "another listener" in done.complaint
        async with await open_ledger(url, clock=Clock()):
            done = await asyncio.to_thread(
                commands.run, "import", "--from", url_of(path), "--to", url
            )
            assert "1 listener(s) serve" in done.complaint

    asyncio.run(while_served())


def test_two_of_a_kind_are_not_moved(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = url_of(tmp_path / "a.db")
    done = here(capsys, "import", "--from", file, "--to", file)
    assert "one of the two must be a file" in done.complaint


def test_check_tells_of_the_server_the_nodes_and_what_was_lost(
    capsys: pytest.CaptureFixture[str], config: Path, url: str
) -> None:
    asyncio.run(fill(url))

    async def while_served() -> dict[str, dict[str, object]]:
        async with await open_ledger(url, node_url="http://a:1"):
            done = await asyncio.to_thread(command, capsys, "check", config, "--json")
        return {one["name"]: one for one in json.loads(done.out)["findings"]}

    found = asyncio.run(while_served())
    assert found["served"]["value"] == "yes"
    assert found["entries"]["value"] == 54
    assert found["synchronous_commit"]["value"] == "on"
    assert found["synchronous_standbys"]["severity"] == "note"
    assert "went_back" not in found
    (node,) = [one for name, one in found.items() if name.startswith("node ")]
    assert str(node["value"]).startswith("http://a:1 version ")
    damage(url, "INSERT INTO epochs VALUES ('new', 1, 'went_back', 40, 54)")
    done = command(capsys, "check", config, "--json")
    found = {one["name"]: one for one in json.loads(done.out)["findings"]}
    assert found["served"]["value"] == "no"
    assert "from at least entry 54 to 40" in str(found["went_back"]["value"])


def test_check_names_what_is_unwise_about_the_server_and_the_nodes(
    capsys: pytest.CaptureFixture[str], config: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fill(url))
    monkeypatch.setattr(checkup, "SNAPSHOT_SECONDS_MAX", -1)
    monkeypatch.setattr(checkup, "QUEUE_USAGE_MAX", -1.0)

    async def while_served() -> dict[str, dict[str, object]]:
        async with await open_ledger(url, clock=Clock()):
            damage_of_nodes = (
                "INSERT INTO nodes (id, url, version, started_at, lag, clock_ms, lease_until)"
                " VALUES ('old', 'http://b:1', '0.0.1', 0, 99999, 0, 9e15::bigint),"
                " ('apart', 'http://c:1', '0.0.1', 0, 0, -60000, 9e15::bigint)"
            )
            await asyncio.to_thread(damage, url, damage_of_nodes)
            done = await asyncio.to_thread(command, capsys, "check", config, "--json")
        return {one["name"]: one for one in json.loads(done.out)["findings"]}

    found = asyncio.run(while_served())
    assert found["oldest_snapshot_seconds"]["severity"] == "note"
    assert found["notification_queue"]["severity"] == "problem"
    assert "rolling restart" in str(found["versions"]["advice"])
    assert "behind the others" in str(found["node old"]["advice"])
    assert "60000 ms behind the database's" in str(found["node apart"]["advice"])
    (served,) = [
        one for name, one in found.items() if name[:5] == "node " and name[5:] not in AS_IF
    ]
    assert served["severity"] == "fine"


def check_of(
    capsys: pytest.CaptureFixture[str], config: Path
) -> tuple[int, dict[str, dict[str, object]]]:
    done = command(capsys, "check", config, "--json")
    return done.status, {one["name"]: one for one in json.loads(done.out)["findings"]}


def tables(url: str) -> int:
    count = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    found: int = run(url, lambda db: db.fetchval(count))
    return found


def test_before_the_first_serve_a_check_makes_no_ledger(
    capsys: pytest.CaptureFixture[str], config: Path, url: str
) -> None:
    status, found = check_of(capsys, config)
    assert found["exists"]["severity"] == "note"
    assert found["exists"]["advice"] == "`listener serve` makes it"
    assert status == 0
    assert tables(url) == 0


@pytest.mark.parametrize("table", ["ledger", "entries"])
def test_check_says_as_serve_does_that_another_program_has_the_database(
    capsys: pytest.CaptureFixture[str], config: Path, url: str, table: str
) -> None:
    run(url, lambda db: db.execute(f"CREATE TABLE {table} (id int)"))
    status, found = check_of(capsys, config)
    assert found["readable"]["severity"] == "problem"
    assert found["readable"]["advice"] == command(capsys, "serve", config).complaint
    assert "another program's tables" in str(found["readable"]["advice"])
    assert status == 1


def test_check_says_as_serve_does_that_the_role_may_make_no_tables(
    capsys: pytest.CaptureFixture[str], config: Path, url: str
) -> None:
    parts = urlsplit(url)
    role = f"reader_{parts.path[1:]}"
    run(url, lambda db: db.execute(f"CREATE ROLE {role} LOGIN"))
    try:
        its = f"postgresql://{role}@{parts.hostname}:{parts.port or 5432}{parts.path}"
        config.write_text(SETTINGS.format(url=its))
        status, found = check_of(capsys, config)
        assert found["readable"]["advice"] == command(capsys, "serve", config).complaint
        assert "the role may not make the ledger's tables" in str(found["readable"]["advice"])
        assert status == 1
        with open_keys(url, create=True):
            pass
        said = command(capsys, "serve", config).complaint
        assert "or may not use them: permission denied for table ledger" in said
    finally:
        run(url, lambda db: db.execute(f"DROP ROLE {role}"))


def test_a_ledger_that_a_later_version_has_served_is_a_note(
    capsys: pytest.CaptureFixture[str], config: Path, url: str
) -> None:
    asyncio.run(fill(url))
    damage(url, "UPDATE ledger SET schema_version = 99")
    status, found = check_of(capsys, config)
    assert (found["schema"]["value"], found["schema"]["severity"]) == (99, "note")
    assert "a later version has served it" in str(found["schema"]["advice"])
    assert status == 0


def test_check_names_what_cannot_be_reached(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "listener.toml"
    config.write_text(SETTINGS.format(url="postgresql://me:hidden@127.0.0.1:1/x"))
    done = here(capsys, "check", "--config", config)
    assert "no server can be used now" in done.out
    assert "hidden" not in done.out + done.err
