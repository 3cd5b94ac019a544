"""What a node does beside the entries: readiness, places, leases, sessions, the bell, plans."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock

import asyncpg
import pytest

from listener.errors import LedgerUnavailableError
from listener.ledger.model import Event
from listener.ledger.nodes import Seat
from listener.ledger.results import Acked
from listener.ledger.scope import EVERYWHERE, Search
from listener.storage import open_reader, verify
from listener.storage.postgres import bell, writer
from listener.storage.postgres.connection import SERVER_NOW_MS
from listener.storage.postgres.ledger import ANALYZE_ENTRIES, PostgresLedger
from listener.storage.postgres.schema import schema_text
from listener.storage.postgres.turns import LEASE_SECONDS
from listener.storage.statements import added_indexes
from tests.support.databases import NEW_EPOCH, execute, node
from tests.support.stored import STREAM, numbered

OURS = "datname = current_database() AND application_name LIKE 'pockyt-listener%'"
CONNECTIONS_MAX = 10


@asynccontextmanager
async def beside(url: str) -> AsyncIterator["asyncpg.Connection"]:
    """Connect as another program would."""
    db = await asyncpg.connect(url)
    try:
        yield db
    finally:
        await db.close()


# Readiness


async def until_ready(ledger: PostgresLedger) -> None:
    async with asyncio.timeout(8):
        while True:
            try:
                await ledger.check_writable()
            except LedgerUnavailableError:
                await asyncio.sleep(0.1)
            else:
                break


async def test_a_node_whose_heartbeat_does_not_get_through_is_not_ready(url: str) -> None:
    async with node(url) as ledger, beside(url) as db:
        await ledger.check_writable()
        async with db.transaction():
            await db.execute("SELECT 1 FROM nodes FOR UPDATE")
            async with asyncio.timeout(8):
                while True:
                    try:
                        await ledger.check_writable()
                    except LedgerUnavailableError:
                        break
                    await asyncio.sleep(0.1)
            # Nothing else is held up by that.
            await ledger.record(numbered(1))
        await until_ready(ledger)


async def unready(ledger: PostgresLedger) -> str:
    """Return why a node is not ready."""
    with pytest.raises(LedgerUnavailableError) as refused:
        await ledger.check_writable()
    return str(refused.value)


async def test_a_node_that_can_be_heard_of_but_appends_nothing_is_not_ready(url: str) -> None:
    async with node(url) as ledger, beside(url) as db:
        events: list[Event] = []
        ledger.listen(events.extend)
        await ledger.record(numbered(1))
        # As where a tablespace is full: the node's own row, which is there, can be written.
        await db.execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE disk_full USING MESSAGE = 'no room is left'; END$$;"
            "CREATE TRIGGER no_room BEFORE INSERT ON transactions EXECUTE FUNCTION no_room()"
        )
        with pytest.raises(LedgerUnavailableError, match="no room is left"):
            await ledger.record(numbered(2))
        assert "no room is left" in await unready(ledger)
        # Not rehearsed again at once, however often anybody asks.
        assert "the last commit failed" in await unready(ledger)
        await db.execute("DROP TRIGGER no_room ON transactions")
        await until_ready(ledger)
        await ledger.check_writable()
        # Of the rehearsals nothing is left, and nobody was told.
        assert await ledger.seq() == 1
        assert (await ledger.record(numbered(2))).seq == 2
        assert [event.number for event in events] == [1, 2]
    await asyncio.to_thread(verify, url)


async def test_a_batch_that_is_recorded_shows_as_well_that_the_node_is_ready(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "rehearse", AsyncMock(side_effect=AssertionError))
    async with node(url) as ledger, beside(url) as db:
        await db.execute("ALTER TABLE sales RENAME TO sails")
        with pytest.raises(LedgerUnavailableError):
            await ledger.record(numbered(1))
        await db.execute("ALTER TABLE sails RENAME TO sales")
        await ledger.record(numbered(1))
        await ledger.check_writable()


async def test_to_ask_a_node_whether_it_is_ready_costs_no_commit(url: str) -> None:
    newest = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    async with node(url) as ledger, beside(url) as db:
        before = await db.fetchval(newest)
        for _ in range(500):
            await ledger.check_writable()
        # Other databases of the server may be in use meanwhile.
        assert await db.fetchval(newest) - before < 100


# Acknowledgements


async def test_what_is_acknowledged_within_a_moment_is_one_commit(url: str) -> None:
    async with node(url) as ledger, beside(url) as db:
        await ledger.record(numbered(1))
        await asyncio.gather(
            *(ledger.ack(terminal=f"T-{n}", stream=STREAM, offset=1) for n in range(50))
        )
        assert await db.fetchval("SELECT count(*) FROM acks") == 50
        assert await db.fetchval("SELECT count(DISTINCT xmin::text) FROM acks") == 1


async def test_two_nodes_that_store_the_same_places_never_wait_for_each_other(url: str) -> None:
    names = [f"T-{n}" for n in range(9)]
    async with node(url) as one, node(url) as other, beside(url) as db:
        for name in names:
            await one.ack(terminal=name, stream=STREAM, offset=0)
        async with db.transaction():
            # Somebody has the row in the middle, so that both come to stand somewhere.
            await db.execute("SELECT 1 FROM acks WHERE terminal = 'T-4' FOR UPDATE")
            acks = [
                asyncio.ensure_future(ledger.ack(terminal=name, stream=STREAM, offset=1))
                for ledger, listed in ((one, names), (other, names[::-1]))
                for name in listed
            ]
            await asyncio.sleep(0.4)
        await asyncio.gather(*acks)


async def test_a_place_that_moves_on_is_written_in_no_index(url: str) -> None:
    async with node(url) as ledger, beside(url) as db:
        for offset in range(1, 11):
            await ledger.ack(terminal="T", stream=STREAM, offset=offset)
        # Counted by a backend once it is idle for a second, or has ended.
        await db.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
        counted = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'acks'"
        async with asyncio.timeout(10):
            while not (found := await db.fetchrow(counted)) or found[0] < 9:
                await asyncio.sleep(0.1)
        assert tuple(found) == (9, 9)


async def test_a_node_that_has_not_heard_of_a_new_epoch_stores_no_place(url: str) -> None:
    async with node(url) as slow:
        old = slow.epoch
        await slow.ack(terminal="T", stream=STREAM, offset=5)
        await execute(url, *NEW_EPOCH)
        async with node(url) as other:
            assert other.epoch == "new"
            await other.ack(terminal="T", stream=STREAM, offset=1)
            slow.node.epoch = old
            await slow._acks.put(epoch=old, terminal="T", stream=STREAM, offset=9, now_ms=1)
            await slow.start(terminal="U", offsets={STREAM: 9})
            assert await other.acked(terminal="T", stream=STREAM) == Acked(epoch="new", offset=1)
            assert await other.acked(terminal="U", stream=STREAM) is None


# Leases


async def test_a_lease_is_of_the_databases_clock_and_holds_no_connection(url: str) -> None:
    # The node's own clock stands, years from now.
    async with node(url) as ledger, beside(url) as db:
        for number in range(100):
            assert await ledger.claim_turn(f"turn {number}")
        left = await db.fetchval(f"SELECT min(until) - {SERVER_NOW_MS} FROM turns")
        assert 0 < left <= LEASE_SECONDS * 1_000
        found = await db.fetch(f"SELECT state FROM pg_stat_activity WHERE {OURS}")
        assert len(found) <= CONNECTIONS_MAX
        assert {row[0] for row in found} <= {"idle", "active"}


# Sessions


def seat(session: str, *, since: float) -> Seat:
    return Seat(session=session, subscriber="m/s/T", terminal="T", since=since)


async def test_a_session_is_as_new_as_its_connection_however_late_it_is_shown(url: str) -> None:
    async with node(url) as paused, node(url) as other:
        now = time.monotonic()
        # It came to the first node, which was paused then, and gave it up for the other.
        newer = {"b": seat("b", since=now - 1)}
        assert await other.announce(newer) == frozenset()
        older = {"a": seat("a", since=now - 20)}
        assert await paused.announce(older) == {"a"}
        assert await other.announce(newer) == frozenset()


async def test_sessions_are_shown_again_after_a_crash_as_old_as_they_were(url: str) -> None:
    async with node(url) as one, node(url) as other, beside(url) as db:
        now = time.monotonic()
        newer = {"b": seat("b", since=now)}
        older = {"a": seat("a", since=now - 20)}
        assert await other.announce(newer) == frozenset()
        # As an unlogged table is after a crash.
        await db.execute("TRUNCATE presence")
        assert await one.announce(older) == frozenset()
        assert await other.announce(newer) == frozenset()
        assert await one.announce(older) == {"a"}


# The bell


async def test_what_was_missed_is_read_page_by_page(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell, "PAGE_EVENTS", 3)
    async with node(url) as one, node(url) as other:
        heard: list[Event] = []
        other.listen(heard.extend)
        await other._bell_channel.run(lambda db: db.execute("UNLISTEN ledger"))
        await asyncio.gather(*(one.record(numbered(n)) for n in range(60)))
        async with asyncio.timeout(10):
            while len(heard) < 60:
                await asyncio.sleep(0.02)
        assert [event.number for event in heard] == [*range(1, 61)]


# What grows, and what does not


async def test_no_row_that_is_hot_has_old_versions_while_a_snapshot_stays_open(url: str) -> None:
    async with node(url) as ledger, beside(url) as db:
        await ledger.record(numbered(0))
        async with db.transaction(isolation="repeatable_read"):
            await db.fetchval("SELECT count(*) FROM entries")
            for n in range(1, 200):
                await ledger.record(numbered(n))
            assert await db.fetchval("SELECT count(*) FROM entries") == 1
        # What a commit changes but does not add: its transaction's row, and no other.
        await db.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
        counted = (
            "SELECT relname, n_tup_upd + n_tup_del FROM pg_stat_user_tables"
            " WHERE relname IN ('ledger', 'epochs', 'entries', 'events', 'transactions')"
        )
        inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'entries'"
        async with asyncio.timeout(10):
            while await db.fetchval(inserted) < 200:
                await asyncio.sleep(0.1)
        changed = {row[0]: row[1] for row in await db.fetch(counted)}
        assert set(changed.values()) == {0}, changed


async def test_plans_are_made_anew_once_there_is_something_to_look_at(url: str) -> None:
    async with node(url) as ledger, beside(url) as db:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(ANALYZE_ENTRIES)))
        analyzed = "SELECT count(last_analyze) FROM pg_stat_user_tables WHERE relname = $1"
        async with asyncio.timeout(30):
            for table in ("entries", "events", "transactions"):
                while not await db.fetchval(analyzed, table):
                    await asyncio.sleep(0.05)


async def test_no_snapshot_is_held_while_a_ledger_is_exported(url: str) -> None:
    async with node(url) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(20)))

        def read() -> None:
            with open_reader(url) as reader:
                pages = reader.pages()
                next(pages)
                asyncio.run(look())

        async def look() -> None:
            async with beside(url) as db:
                states = await db.fetch(
                    "SELECT state, backend_xmin FROM pg_stat_activity"
                    " WHERE application_name LIKE '%command' AND datname = current_database()"
                )
                assert [tuple(row) for row in states] == [("idle", None)]

        await asyncio.to_thread(read)


async def test_a_pause_while_it_is_shown_makes_a_session_no_newer(url: str) -> None:
    async with node(url) as slow, node(url) as other, beside(url) as db:
        # The two clocks were compared before.
        await slow.announce({})
        now = time.monotonic()
        newer = {"b": seat("b", since=now - 1.0)}
        assert await other.announce(newer) == frozenset()
        async with db.transaction():
            await db.execute("LOCK TABLE presence")
            showing = asyncio.ensure_future(slow.announce({"a": seat("a", since=now - 1.5)}))
            await asyncio.sleep(1.0)
        assert await showing == {"a"}
        assert await other.announce(newer) == frozenset()


async def test_a_ledger_of_the_first_release_gets_the_indexes_that_came_later(url: str) -> None:
    names = [name for name, _ in added_indexes(schema_text())]
    assert names == ["transactions_by_cancel", "transactions_held"]
    indexes = "SELECT count(*) FROM pg_indexes WHERE indexname = ANY($1)"
    async with node(url) as older, beside(url) as db:
        await older.record(numbered(1))
        await db.execute(f"DROP INDEX {', '.join(names)}")
        # Of two that start at once the second finds them; the older one goes on.
        async with node(url) as newer, node(url) as another:
            assert await db.fetchval(indexes, names) == len(names)
            assert (await older.record(numbered(2))).seq == 2
            assert (await newer.record(numbered(3))).seq == 3
            held = Search(scope=EVERYWHERE, held=True)
            assert await another.read_transactions(held, before=None, limit=9) == []
        assert await db.fetchval("SELECT schema_version FROM ledger") == 1
