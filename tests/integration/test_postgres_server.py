"""Which servers are taken, and what is said of those that are not."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from listener.errors import LedgerError, LedgerUnavailableError
from listener.storage import open_keys, verify
from listener.storage.postgres import channel, watch, writer
from listener.storage.postgres import ledger as ledger_module
from listener.storage.postgres.ledger import PostgresLedger
from tests.support import needs
from tests.support.commands import here
from tests.support.commands import run as run_command
from tests.support.databases import execute, node, run
from tests.support.frozen import Line, line_to
from tests.support.poolers import pooler
from tests.support.stored import STREAM, Clock, numbered, sold

SETTINGS = """
port = 0
database = "{url}"
[merchants.200043]
tokens = ["5cbfb079f15b150122261c8537086d77a"]
stores = ["303660"]
"""


def hosts(url: str, *before: str) -> str:
    """Put other hosts before the one of a URL."""
    parts = urlsplit(url)
    listed = ",".join([*before, f"{parts.hostname}:{parts.port or 5432}"])
    return f"postgresql://{parts.username}@{listed}{parts.path}"


@asynccontextmanager
async def on_a_line(url: str) -> AsyncIterator[tuple[PostgresLedger, Line]]:
    """Give a node whose first host is reached over a line; its second is the server itself."""
    parts = urlsplit(url)
    async with (
        line_to(str(parts.hostname), parts.port or 5432) as line,
        node(hosts(url, f"127.0.0.1:{line.port}")) as ledger,
    ):
        await ledger.record(numbered(1))
        yield ledger, line
        line.thaw.set()


async def until_taken(ledger: PostgresLedger, number: int) -> int:
    """Send a notification as Pockyt does, until the node is ready as well."""
    async with asyncio.timeout(25):
        while True:
            try:
                await ledger.check_writable()
                return (await ledger.record(numbered(number))).seq
            except LedgerUnavailableError:
                await asyncio.sleep(0.1)


# What it must be set to


@pytest.mark.parametrize("weaker", ["off", "local", "remote_write"])
async def test_a_server_that_could_lose_a_commit_is_refused(url: str, weaker: str) -> None:
    name = urlsplit(url).path[1:]
    await execute(url, f"ALTER DATABASE {name} SET synchronous_commit = {weaker}")
    with pytest.raises(LedgerError, match=f"synchronous_commit is {weaker}"):
        await PostgresLedger.open(url, clock=Clock())


async def test_a_server_that_cannot_be_written_to_is_passed_over(url: str) -> None:
    name = urlsplit(url).path[1:]
    await execute(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(LedgerUnavailableError, match="it is a standby, or read-only"):
        await PostgresLedger.open(url, clock=Clock())


def test_a_database_that_cannot_hold_every_text_is_refused(url: str) -> None:
    parts = urlsplit(url)
    server = parts._replace(path="/postgres").geturl()
    name = f"{parts.path[1:]}_latin"
    make = f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    run(server, lambda db: db.execute(make))
    try:
        with (
            pytest.raises(LedgerError, match="encoding is LATIN1"),
            open_keys(parts._replace(path=f"/{name}").geturl(), create=True),
        ):
            pass
    finally:
        run(server, lambda db: db.execute(f"DROP DATABASE {name}"))


async def test_another_programs_tables_are_left_alone(url: str) -> None:
    await execute(url, "CREATE TABLE ledger (id int)")
    with pytest.raises(LedgerError, match="another program"):
        await PostgresLedger.open(url, clock=Clock())


async def test_two_ledgers_in_two_schemas_of_a_database_know_nothing_of_each_other(
    url: str,
) -> None:
    await execute(url, "CREATE SCHEMA one", "CREATE SCHEMA other")
    async with node(f"{url}?search_path=one") as one, node(f"{url}?search_path=other") as other:
        await one.record(numbered(1))
        assert one.epoch != other.epoch
        assert await other.seq() == 0
        assert (await other.record(numbered(1))).is_new
    for name in ("one", "other"):
        assert (await asyncio.to_thread(verify, f"{url}?search_path={name}")).entries == 1


async def test_a_role_that_may_neither_change_nor_delete_an_entry_serves(url: str) -> None:
    async with node(url):
        pass
    role = f"service_{urlsplit(url).path[1:]}"
    await execute(
        url,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, INSERT ON entries, events, epochs TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ledger, repeats, transactions, sales, acks, keys,"
        f" answers, nodes, turns, presence TO {role}",
    )
    parts = urlsplit(url)
    service = f"postgresql://{role}@{parts.hostname}:{parts.port or 5432}{parts.path}"
    try:
        async with node(service) as ledger:
            sale = await ledger.record(sold("r1"))
            await ledger.record(numbered(1))
            await ledger.record(numbered(1))
            await ledger.ack(terminal="T", stream=STREAM, offset=1)
            assert await ledger.claim_turn("a")
            assert sale.seq == 1
            await ledger.check_writable()
            db = await asyncpg.connect(service)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await db.execute("UPDATE entries SET amount = '1.00'")
            await db.close()
        assert (await asyncio.to_thread(verify, service)).entries == 2
    finally:
        await execute(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


# Several hosts, and silence


async def test_a_first_host_that_answers_nothing_costs_a_second(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with asyncio.timeout(8):
            async with node(hosts(url, f"127.0.0.1:{port}", "127.0.0.1:1")) as ledger:
                await ledger.record(numbered(1))
                assert await ledger.seq() == 1


def test_a_server_that_accepts_and_says_nothing_is_told_of_in_a_second(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config = tmp_path / "listener.toml"
        config.write_text(SETTINGS.format(url=f"postgresql://me:hidden@127.0.0.1:{port}/x"))
        for command in (("serve",), ("verify",), ("keys", "list"), ("export",)):
            began = time.monotonic()
            done = here(capsys, *command, "--config", config)
            assert f"127.0.0.1:{port}: no answer within 1 s" in done.complaint
            assert "hidden" not in done.complaint
            assert time.monotonic() - began < 4


@pytest.fixture(name="impatient")
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a silent server sooner."""
    for module in (channel, watch, ledger_module):
        monkeypatch.setattr(module, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(writer, "ANSWER_SECONDS", 1.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_thawed", [False, True], ids=["for good", "for a while"])
async def test_a_server_that_falls_silent_is_left_for_the_next_host(
    url: str, is_thawed: bool
) -> None:
    async with on_a_line(url) as (ledger, line):
        line.freeze()
        with pytest.raises(LedgerUnavailableError):
            await ledger.record(numbered(2))
        if is_thawed:
            line.thaw.set()
        assert await until_taken(ledger, 2) == 2
    assert (await asyncio.to_thread(verify, url)).entries == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_noticed", [True, False])
async def test_a_stop_does_not_wait_for_a_server_that_has_fallen_silent(
    url: str, caplog: pytest.LogCaptureFixture, is_noticed: bool
) -> None:
    parts = urlsplit(url)
    async with line_to(str(parts.hostname), parts.port or 5432) as line:
        alone = f"postgresql://{parts.username}@127.0.0.1:{line.port}{parts.path}"
        ledger = await PostgresLedger.open(alone, clock=Clock())
        # Its renewal, too, is not answered.
        assert await ledger.claim_turn("chaser")
        await ledger.record(numbered(1))
        line.freeze()
        async with asyncio.timeout(20):
            while is_noticed and "server_silent" not in caplog.text:
                await asyncio.sleep(0.05)
        began = time.monotonic()
        await ledger.close()
        assert time.monotonic() - began < 8
        assert "not_signed_off" in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_falls_silent_while_it_is_met_is_left(url: str) -> None:
    async with on_a_line(url) as (ledger, line):
        # A new connection looks for the newest entry, and waits for this lock.
        holder, watcher = await asyncpg.connect(url), await asyncpg.connect(url)
        await holder.execute("BEGIN")
        await holder.execute("LOCK TABLE entries")
        ledger._heart.drop()
        async with asyncio.timeout(10):
            while not await watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND application_name LIKE '%heart' AND datname = current_database()"
            ):
                await asyncio.sleep(0.02)
        line.freeze()
        await holder.execute("ROLLBACK")
        await holder.close()
        await watcher.close()
        await until_taken(ledger, 2)


@pytest.mark.usefixtures("impatient")
async def test_what_waits_for_a_server_that_was_left_is_given_up(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_a_line(url) as (ledger, line):
        line.freeze()
        # The heartbeat and the bell find the other host; the writer does not know.
        ledger._heart.drop()
        ledger._bell_channel.drop()
        reading = asyncio.create_task(ledger.head())
        assert await until_taken(ledger, 2) == 2
        assert (await reading).seq >= 1
    assert "answer_lost" in caplog.text
    assert (await asyncio.to_thread(verify, url)).entries == 2


@pytest.mark.usefixtures("impatient")
async def test_what_the_server_works_on_is_waited_for(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(url) as ledger:
        await ledger.record(numbered(1))
        holder = await asyncpg.connect(url)
        await holder.execute("BEGIN")
        await holder.execute("LOCK TABLE entries IN EXCLUSIVE MODE")
        recording = asyncio.create_task(ledger.record(numbered(2)))
        # Much longer than a server may be silent; less than anybody waits for a lock.
        await asyncio.sleep(3)
        assert ledger._writers[0].is_connected
        await holder.execute("ROLLBACK")
        await holder.close()
        # Whoever sent it was told to send it again meanwhile; it is recorded all the same.
        with pytest.raises(LedgerUnavailableError, match="takes too long"):
            await recording
        async with asyncio.timeout(10):
            while (await ledger.head()).seq < 2:
                await asyncio.sleep(0.05)
    assert "answer_lost" not in caplog.text


# A pooler


async def test_a_pooler_in_session_mode_is_taken(url: str) -> None:
    with pooler(url, mode="session") as pooled:
        async with node(pooled) as one, node(pooled) as other:
            heard: list[object] = []
            other.listen(heard.extend)
            await one.record(numbered(1))
            async with asyncio.timeout(10):
                while not heard:
                    await asyncio.sleep(0.02)
    assert (await asyncio.to_thread(verify, url)).entries == 1


def test_a_pooler_in_transaction_mode_is_refused(url: str, tmp_path: Path) -> None:
    config = tmp_path / "listener.toml"
    with pooler(url, mode="transaction") as pooled:
        config.write_text(SETTINGS.format(url=pooled))
        # Each is a process of its own, which names its statements anew: what the first has prepared
        # is still there for the others.
        for name in ("serve", "serve", "verify", "export", "keys list"):
            done = run_command(*name.split(), "--config", config)
            assert "is a pooler in transaction mode: connect to the server itself" in done.complaint


# The driver


def test_without_the_driver_each_command_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needs.postgres()
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    config = tmp_path / "listener.toml"
    config.write_text(SETTINGS.format(url="postgresql://me@127.0.0.1:1/x"))
    for command in (
        ("serve",),
        ("verify",),
        ("keys", "list"),
        ("export",),
        ("backup", str(tmp_path / "copy.db")),
        ("check",),
    ):
        done = here(capsys, *command, "--config", config)
        assert "pockyt-listener[postgres]" in done.complaint
    done = here(capsys, "import", "--from", "sqlite:///a.db", "--to", "postgresql://h/x")
    assert "pockyt-listener[postgres]" in done.complaint
