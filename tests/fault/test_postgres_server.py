"""Servers of a test's own: with TLS, without sync, standing by, and gone for a while."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

from listener.errors import LedgerError, LedgerUnavailableError
from listener.ledger.model import fields_text
from listener.storage import verify
from listener.storage.postgres.connection import connect
from listener.storage.postgres.ledger import PostgresLedger
from listener.storage.postgres.location import read_location
from tests.support.certificates import certificate
from tests.support.clusters import Server, cluster, pair
from tests.support.databases import execute, node
from tests.support.disks import small_disk
from tests.support.stored import Clock, numbered

IS_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
# A transaction id 20 million before the last that a new server can give, and the file of the states
# of those around it: PostgreSQL, "pg_resetwal".
LATE_ID = 2**31 - 20_000_000
LATE_IDS = f"pg_xact/{LATE_ID // 2**20:04X}"
IDS_FILE_BYTES = 2**18


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(name="server", scope="module")
def _server(folder: Path) -> Iterator[Server]:
    own = certificate(folder, host="localhost").read_bytes()
    with cluster(ssl="on") as made:
        for name in ("server.crt", "server.key"):
            made.take(name, own)
        made.start()
        yield made


async def is_encrypted(server: Server, options: str, *, host: str = "localhost") -> bool:
    url = f"postgresql://postgres@{host}:{server.port}/postgres{options}"
    db = await connect(read_location(url), name="a test")
    try:
        found: bool = await db.fetchval(IS_TLS)
    finally:
        db.terminate()
    return found


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("", True),
        ("?sslmode=disable", False),
        ("?sslmode=disable&sslrootcert={root}", False),
        ("?sslmode=require", True),
        ("?sslmode=verify-ca&sslrootcert={root}", True),
        ("?sslmode=verify-full&sslrootcert={root}", True),
        ("?sslrootcert={root}", True),
        ("?sslmode=require&sslcert={root}&sslkey={root}", True),
    ],
)
async def test_a_connection_is_encrypted_as_the_url_says(
    server: Server, folder: Path, options: str, encrypted: bool
) -> None:
    root = folder / "localhost.pem"
    assert await is_encrypted(server, options.format(root=root)) is encrypted


@pytest.mark.parametrize(
    ("options", "host"),
    [
        # Signed by nobody whom the system trusts.
        ("?sslmode=verify-full", "localhost"),
        ("?sslmode=verify-ca", "localhost"),
        # Signed by somebody else.
        ("?sslmode=verify-ca&sslrootcert={other}", "localhost"),
        ("?sslmode=require&sslrootcert={other}", "localhost"),
        # Another host's.
        ("?sslmode=verify-full&sslrootcert={root}", "127.0.0.1"),
        ("?sslrootcert={root}", "127.0.0.1"),
    ],
)
async def test_a_server_that_does_not_prove_who_it_is_is_refused(
    server: Server, folder: Path, options: str, host: str
) -> None:
    root, other = folder / "localhost.pem", certificate(folder, host="other")
    with pytest.raises(LedgerUnavailableError, match=r"(?i)certificate|hostname"):
        await is_encrypted(server, options.format(root=root, other=other), host=host)


async def test_a_host_name_is_not_checked_where_only_the_signer_is_to_be(
    server: Server, folder: Path
) -> None:
    options = f"?sslmode=verify-ca&sslrootcert={folder / 'localhost.pem'}"
    assert await is_encrypted(server, options, host="127.0.0.1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("sslmode=verify-full&sslrootcert=nowhere.pem", "sslrootcert: No such file"),
        (
            "sslrootcert={root}&sslcert={root}&sslkey=nowhere.pem",
            "sslcert and sslkey: No such file",
        ),
        ("sslcert={root}&sslkey={other}", "sslcert and sslkey: .*mismatch"),
    ],
)
async def test_certificates_that_cannot_be_used_are_named(
    server: Server, folder: Path, options: str, said: str
) -> None:
    root, other = folder / "localhost.pem", certificate(folder, host="other")
    with pytest.raises(LedgerError, match=f"certificate files .*: {said}"):
        await is_encrypted(server, "?" + options.format(root=root, other=other))


async def test_a_server_that_does_not_sync_is_refused() -> None:
    with cluster(fsync="off") as server:
        await asyncio.to_thread(server.start)
        with pytest.raises(LedgerError, match="fsync is off"):
            await PostgresLedger.open(server.url, clock=Clock())


async def test_a_commit_stays_synced_whatever_is_set_while_a_node_runs() -> None:
    with cluster() as server:
        await asyncio.to_thread(server.start)
        async with await PostgresLedger.open(server.url, clock=Clock()) as ledger:
            await ledger.record(numbered(1))
            commits = "SELECT current_setting('synchronous_commit')"
            db = await asyncpg.connect(server.url)
            await db.execute("ALTER SYSTEM SET synchronous_commit = off")
            await db.execute("SELECT pg_reload_conf()")
            async with asyncio.timeout(10):
                while await db.fetchval(commits) != "off":
                    await asyncio.sleep(0.02)
            await db.close()
            for channel in ledger._writers:
                assert await channel.run(lambda db: db.fetchval(commits)) == "on"


async def test_a_standby_among_the_hosts_is_passed_over_and_one_that_is_promoted_is_found() -> None:
    with pair() as (primary, standby):
        url = f"postgresql://postgres@{standby.host},{primary.host}/postgres"
        async with await PostgresLedger.open(url, clock=Clock()) as ledger:
            assert (await ledger.record(numbered(1))).seq == 1
            with pytest.raises(LedgerUnavailableError, match="standby"):
                await PostgresLedger.open(standby.url, clock=Clock())


async def test_while_a_servers_disk_is_full_nothing_is_acknowledged_that_is_lost() -> None:
    with small_disk(96) as disk, cluster(disk=disk, max_wal_size="32MB") as server:
        # Free again once there is room.
        ballast = disk / "ballast"
        await asyncio.to_thread(server.start)
        async with await PostgresLedger.open(server.url, clock=Clock()) as ledger:
            await ledger.record(numbered(0))
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(65_536))
            refused = None
            acknowledged = 0
            while refused is None:
                fact = numbered(acknowledged + 1)
                # Nothing in it that could be compressed.
                noise = fields_text({"noise": secrets.token_hex(20_000)})
                try:
                    await ledger.record(replace(fact, fields=noise))
                    acknowledged += 1
                except LedgerUnavailableError as error:
                    refused = error
            ballast.unlink()
            if await asyncio.to_thread(server.has_died):
                await asyncio.to_thread(server.start)
            async with asyncio.timeout(30):
                while True:
                    try:
                        await ledger.record(numbered("after"))
                    except LedgerUnavailableError:
                        await asyncio.sleep(0.1)
                    else:
                        break
            head = await ledger.head()
            # What was refused may be there or not.
            assert head.seq - 2 in (acknowledged, acknowledged + 1)
        await asyncio.to_thread(verify, server.url)


async def test_a_server_that_is_gone_for_a_while_is_waited_for() -> None:
    with cluster() as server:
        await asyncio.to_thread(server.start)
        async with await PostgresLedger.open(server.url, clock=Clock()) as ledger:
            await ledger.record(numbered(1))
            await asyncio.to_thread(server.kill)
            began = time.monotonic()
            with pytest.raises(LedgerUnavailableError):
                await ledger.record(numbered(2))
            # Nobody waits for longer than for an answer that is late.
            assert time.monotonic() - began < 8
            # While it starts it says 57P03.
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            async with asyncio.timeout(30):
                while True:
                    try:
                        recorded = await ledger.record(numbered(2))
                        await ledger.check_writable()
                    except LedgerUnavailableError:
                        await asyncio.sleep(0.05)
                    else:
                        break
            await starting
            assert recorded.seq == 2


async def test_a_server_whose_transaction_ids_run_short_is_used_to_the_end() -> None:
    with cluster(wal_level="logical") as server:
        server.start()
        # Without it a vacuum would begin at once, and be done.
        await execute(
            server.url, "SELECT pg_create_logical_replication_slot('holds_back', 'pgoutput')"
        )
        server.stop()
        server.run("pg_resetwal", "-x", str(LATE_ID), "-D", server.data)
        server.take(LATE_IDS, bytes(IDS_FILE_BYTES))
        server.start()
        async with node(server.url) as ledger:
            assert [(await ledger.record(numbered(number))).seq for number in (1, 2)] == [1, 2]
        log = server.data.with_suffix(".log").read_text()
        assert "must be vacuumed within" in log
