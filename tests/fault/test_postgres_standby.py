"""What becomes of the ledger when a server of PostgreSQL dies, with a standby and without one."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from listener.errors import LedgerUnavailableError
from listener.ledger.model import Event
from listener.ledger.scope import Scope
from listener.storage import check_up, verify
from listener.storage.postgres.ledger import PostgresLedger
from tests.support.clusters import Server, cluster, pair, standby_of
from tests.support.commands import run, started, write_settings
from tests.support.stored import Clock, numbered

SYNCED = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'"
CUT_HEART = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%heart'"
)
FOLLOWED = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
DEADLINE_SECONDS = 40.0
STOP_SECONDS = 8.0


@pytest.fixture(name="servers")
def _servers() -> Iterator[tuple[Server, Server]]:
    with pair() as servers:
        yield servers


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator["asyncpg.Connection"]:
    db = await asyncpg.connect(server.url)
    try:
        yield db
    finally:
        await db.close()


async def synced(primary: Server) -> None:
    """Make each commit wait for the standby from now on."""
    async with connected(primary) as db:
        await db.execute(SYNCED)
        await db.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await db.fetchval(FOLLOWED):
                await asyncio.sleep(0.05)


async def caught_up(primary: Server) -> None:
    """Wait until its standbys have all that it has."""
    async with connected(primary) as db, asyncio.timeout(DEADLINE_SECONDS):
        while await db.fetchval(
            "SELECT coalesce(min(flush_lsn) < pg_current_wal_flush_lsn(), true)"
            " FROM pg_stat_replication"
        ):
            await asyncio.sleep(0.05)


def all_of(*servers: Server) -> str:
    return f"postgresql://postgres@{','.join(server.host for server in servers)}/postgres"


async def record_until_taken(ledger: PostgresLedger, number: object) -> int:
    """Send a notification as Pockyt does: again, until it is acknowledged."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                return (await ledger.record(numbered(number))).seq
            except LedgerUnavailableError:
                await asyncio.sleep(0.1)


async def test_a_commit_whose_wait_for_its_standby_is_cancelled_is_not_a_success(
    servers: tuple[Server, Server],
) -> None:
    primary, standby = servers
    await synced(primary)
    async with await PostgresLedger.open(primary.url, clock=Clock()) as ledger:
        await ledger.record(numbered(1))
        await asyncio.to_thread(standby.kill)
        recording = asyncio.ensure_future(ledger.record(numbered(2)))
        async with connected(primary) as db, asyncio.timeout(DEADLINE_SECONDS):
            # As an administrator does who wants the wait to end.
            cancel = (
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name LIKE '%writer' AND wait_event = 'SyncRep'"
            )
            while not await db.fetchval(cancel):
                await asyncio.sleep(0.05)
        with pytest.raises(LedgerUnavailableError):
            await recording
        # Without a standby nothing is taken: a load balancer is told.
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    await ledger.check_writable()
                except LedgerUnavailableError:
                    break
                await asyncio.sleep(0.1)
        await asyncio.to_thread(standby.start)
        assert await record_until_taken(ledger, 2) == 2


async def test_with_a_synchronous_standby_nothing_acknowledged_is_lost(
    servers: tuple[Server, Server],
) -> None:
    primary, standby = servers
    await synced(primary)
    async with await PostgresLedger.open(all_of(primary, standby), clock=Clock()) as ledger:
        epoch = ledger.epoch
        sending = [
            asyncio.ensure_future(record_until_taken(ledger, number)) for number in range(400)
        ]
        while sum(one.done() for one in sending) < 50:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.promote)
        seqs = await asyncio.gather(*sending)
        assert sorted(seqs) == list(range(1, 401))
        assert ledger.epoch == epoch
        lines = await ledger.read_entries(after=0, limit=500, scope=Scope())
        numbers = {line.entry.seq: line.entry.fact.transaction_no for line in lines}
        assert all(numbers[seq] == str(number) for number, seq in enumerate(seqs))
    assert (await asyncio.to_thread(verify, standby.url)).entries == 400


async def test_a_standby_that_lagged_behind_gets_a_new_epoch_and_the_loss_is_reported(
    servers: tuple[Server, Server],
) -> None:
    primary, standby = servers
    async with await PostgresLedger.open(all_of(primary, standby), clock=Clock()) as ledger:
        epoch, told = ledger.epoch, list[str]()
        ledger.on_epoch(lambda: told.append(ledger.epoch))
        for number in range(5):
            await ledger.record(numbered(number))
        await caught_up(primary)
        await asyncio.to_thread(standby.kill)
        for number in range(5, 9):
            await ledger.record(numbered(number))
        await asyncio.to_thread(primary.kill)
        await asyncio.to_thread(standby.start)
        await asyncio.to_thread(standby.promote)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not told:
                await asyncio.sleep(0.05)
        assert ledger.epoch != epoch
        assert await record_until_taken(ledger, 8) == 6
    assert (await asyncio.to_thread(verify, standby.url)).entries == 6
    found = {one.name: one for one in await asyncio.to_thread(check_up, standby.url)}
    assert "from at least entry 9 to 5" in str(found["went_back"].value)


@pytest.mark.parametrize("has_recorded", [True, False])
async def test_a_second_standby_that_knows_nothing_of_the_new_epoch_gets_one_of_its_own(
    servers: tuple[Server, Server], *, has_recorded: bool
) -> None:
    primary, standby = servers
    second = await asyncio.to_thread(standby_of, primary, name="second")
    epochs = list[str]()
    async with await PostgresLedger.open(all_of(primary, standby, second), clock=Clock()) as ledger:
        epochs.append(ledger.epoch)
        ledger.on_epoch(lambda: epochs.append(ledger.epoch))
        await ledger.record(numbered(1))
        await caught_up(primary)
        for each in (standby, second):
            await asyncio.to_thread(each.kill)
        # What a till has seen under the first epoch, before it went home.
        await ledger.record(numbered(2))
        await asyncio.to_thread(primary.kill)
        for count, promoted in enumerate((standby, second), start=2):
            await asyncio.to_thread(promoted.start)
            await asyncio.to_thread(promoted.promote)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while len(epochs) < count:
                    await asyncio.sleep(0.05)
            if promoted is standby:
                if has_recorded:
                    await record_until_taken(ledger, 3)
                await asyncio.to_thread(standby.kill)
        # Under the first epoch, that till would take another event for the one that it has seen.
        assert await record_until_taken(ledger, 4) == 2
        assert len({*epochs, ledger.epoch}) == 3
    found = {one.name: one for one in await asyncio.to_thread(check_up, second.url)}
    assert "went_back" in found


@pytest.mark.parametrize("was_used", [True, False])
async def test_a_node_that_finds_another_server_leaves_the_old_one_with_every_connection(
    servers: tuple[Server, Server], *, was_used: bool
) -> None:
    primary, standby = servers
    async with await PostgresLedger.open(all_of(primary, standby), clock=Clock()) as ledger:
        epochs, heard = [ledger.epoch], list[Event]()
        ledger.on_epoch(lambda: epochs.append(ledger.epoch))
        ledger.listen(heard.extend)
        await ledger.record(numbered(1))
        await caught_up(primary)
        await asyncio.to_thread(standby.promote)
        if was_used:
            await ledger.record(numbered("lost"))
        # The old one lives on, and lets nobody in any more; one connection to it breaks.
        await asyncio.to_thread(primary.take, "pg_hba.conf", b"local all all reject\n")
        async with connected(primary) as db:
            await db.execute("SELECT pg_reload_conf()")
            await asyncio.sleep(0.5)
            await db.execute(CUT_HEART)
        async with (
            await PostgresLedger.open(standby.url, clock=Clock()) as other,
            asyncio.timeout(DEADLINE_SECONDS),
        ):
            while len(epochs) <= was_used:
                await asyncio.sleep(0.05)
            assert await record_until_taken(other, 3) == 2
            while not any(event.seq == 2 and b'"3"' in event.body for event in heard):
                await asyncio.sleep(0.05)
            assert await ledger.head() == await other.head()
            assert await record_until_taken(ledger, 4) == 3
            assert len(epochs) == 1 + was_used


async def nobody_follows(primary: Server) -> None:
    """Make each commit wait for a standby that is not there."""
    async with connected(primary) as db:
        await db.execute("ALTER SYSTEM SET synchronous_standby_names = 'none_there'")
        await db.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("is_new", [True, False], ids=["new ledger", "ledger"])
def test_a_start_that_waits_for_a_standby_says_so_and_can_be_stopped(
    tmp_path: Path, number: signal.Signals, is_new: bool
) -> None:
    with cluster() as primary:
        primary.start()
        env = {"LISTENER_DATABASE": primary.url}
        config = write_settings(tmp_path)
        if not is_new:
            assert run("keys", "create", "--config", config, "--role", "admin", env=env).status == 0
        asyncio.run(nobody_follows(primary))
        with started("serve", "--config", config, env=env) as program:
            told = program.until(program.err, "waits_for_standby")
            assert "bring one back" in told
            began = time.monotonic()
            assert program.stop(number) == 1
            assert time.monotonic() - began < STOP_SECONDS
            (line,) = program.left(program.err)
            assert line.startswith("listener: stopped before")


def test_a_command_that_waits_for_a_standby_says_so(tmp_path: Path) -> None:
    with cluster() as primary:
        primary.start()
        asyncio.run(nobody_follows(primary))
        config = write_settings(tmp_path)
        env = {"LISTENER_DATABASE": primary.url}
        with started("keys", "create", "--config", config, "--role", "admin", env=env) as program:
            assert "bring one back" in program.until(program.err, "synchronous standby")
            assert program.stop(signal.SIGINT) == 130
