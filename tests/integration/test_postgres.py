"""What a ledger on PostgreSQL promises beyond what every back-end does."""

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from listener.errors import LedgerUnavailableError
from listener.ledger.model import EVERY_STREAM, Event
from listener.ledger.scope import Scope
from listener.storage import verify
from listener.storage.postgres.ledger import PostgresLedger
from tests.support.databases import NEW_EPOCH, execute, node
from tests.support.stored import STREAM, Clock, numbered, sold

NODE = "datname = current_database() AND application_name LIKE 'pockyt-listener%'"


async def until(condition: object, *, seconds: float = 20.0) -> None:
    """Wait until something is the case."""
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


# The tables


@pytest.mark.parametrize("table", ["entries", "events"])
@pytest.mark.parametrize(
    "statement",
    ["UPDATE {table} SET seq = seq + 1", "DELETE FROM {table}", "TRUNCATE {table}"],
)
async def test_recorded_entries_cannot_be_changed(url: str, table: str, statement: str) -> None:
    async with node(url) as ledger:
        await ledger.record(numbered(1))
        with pytest.raises(asyncpg.PostgresError, match="never changed"):
            await execute(url, statement.format(table=table))
    assert (await asyncio.to_thread(verify, url)).entries == 1


async def test_nodes_that_start_at_once_make_one_ledger(url: str) -> None:
    ledgers = await asyncio.gather(*(PostgresLedger.open(url, clock=Clock()) for _ in range(4)))
    try:
        assert len({ledger.epoch for ledger in ledgers}) == 1
        recorded = await asyncio.gather(
            *(ledger.record(numbered(n)) for n, ledger in enumerate(ledgers))
        )
        assert sorted(one.seq for one in recorded) == [1, 2, 3, 4]
    finally:
        for ledger in ledgers:
            await ledger.close()


# What a success is


@pytest.mark.parametrize("level", ["notice", "error"])
async def test_a_commit_with_a_warning_is_not_a_success(url: str, level: str) -> None:
    # Also where the database is set to send no warnings.
    name = url.rpartition("/")[2]
    await execute(url, f"ALTER DATABASE {name} SET client_min_messages = {level}")
    async with node(url) as ledger:
        await ledger.record(numbered(1))
        # As PostgreSQL warns when the wait for a standby is cancelled: after the statement.
        await execute(
            url,
            "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE WARNING 'canceling wait'; RETURN NULL; END$$",
            "CREATE CONSTRAINT TRIGGER warned AFTER INSERT ON entries"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn()",
        )
        with pytest.raises(LedgerUnavailableError, match="canceling wait"):
            await ledger.record(numbered(2))
        await execute(url, "DROP TRIGGER warned ON entries")
        # It may be there or not: sent again, it is known.
        again = await ledger.record(numbered(2))
        assert (again.seq, again.is_new) == (2, False)


async def test_a_cut_connection_is_not_a_success_and_is_made_again(url: str) -> None:
    async with node(url) as ledger:
        await ledger.record(numbered(1))
        await execute(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {NODE}")
        for number in range(2, 12):
            try:
                await ledger.record(numbered(number))
            except LedgerUnavailableError:
                await ledger.record(numbered(number))
        await ledger.check_writable()
    assert (await asyncio.to_thread(verify, url)).entries == 11


async def test_whoever_waits_for_too_long_is_told_once_and_the_batch_goes_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    async with node(url) as ledger:
        await ledger.record(numbered(1))
        holder = await asyncpg.connect(url)
        try:
            async with holder.transaction():
                await holder.execute("SELECT pg_advisory_xact_lock(1886350196, 1)")
                with monkeypatch.context() as hurried:
                    hurried.setattr("listener.storage.postgres.writer.ANSWER_SECONDS", 0.3)
                    with pytest.raises(LedgerUnavailableError, match="takes too long"):
                        ledger.queue(numbered(2), told.append)
                        await ledger.record(numbered(2))
            again = await ledger.record(numbered(2))
            assert (again.seq, again.is_new) == (2, False)
        finally:
            await holder.close()
    assert [type(one) for one in told] == [LedgerUnavailableError]


# Several nodes


async def test_two_nodes_that_record_the_same_at_once_record_it_once(url: str) -> None:
    async with node(url) as one, node(url) as other:
        recorded = await asyncio.gather(
            *(ledger.record(numbered(n)) for n in range(200) for ledger in (one, other)),
            *(ledger.record(numbered(n, "closed")) for n in range(200) for ledger in (other, one)),
        )
        assert sorted(r.seq for r in recorded if r.is_new) == list(range(1, 401))
        assert (await one.head()).repeats == 400
        lines = await one.read_entries(after=0, limit=500, scope=Scope())
        places = {line.entry.seq: line.entry.fact for line in lines}
        facts = [numbered(n) for n in range(200) for _ in range(2)]
        facts += [numbered(n, "closed") for n in range(200) for _ in range(2)]
        assert all(places[r.seq] == fact for r, fact in zip(recorded, facts, strict=True))
    assert (await asyncio.to_thread(verify, url)).transactions == 200


async def test_one_reference_is_one_sale_on_two_nodes(url: str) -> None:
    async with node(url) as one, node(url) as other:
        results = await asyncio.gather(
            *(ledger.record(sold(f"r{n}")) for n in range(50) for ledger in (one, other)),
            return_exceptions=True,
        )
        refused = [result for result in results if isinstance(result, Exception)]
        assert len(refused) == 50
        assert await one.seq() == 50


async def test_what_one_node_records_the_other_publishes_in_order(url: str) -> None:
    async with node(url) as one, node(url) as other:
        heard: dict[str, list[Event]] = {"one": [], "other": []}
        one.listen(heard["one"].extend)
        other.listen(heard["other"].extend)
        await asyncio.gather(
            *(ledger.record(numbered(f"{n} {i}")) for n in range(300) for i, ledger in
              enumerate((one, other)))
        )  # fmt: skip
        await until(lambda: all(len(events) == 600 for events in heard.values()))
        stored = await one.read_events(EVERY_STREAM, after=0, limit=1_000)
        assert heard["one"] == heard["other"] == stored
        assert await other.read_events(STREAM, after=598, limit=9) == stored[-2:]


async def test_a_lost_bell_costs_a_second(url: str) -> None:
    async with node(url) as one, node(url) as other:
        heard: list[Event] = []
        other.listen(heard.extend)
        await one.record(numbered(1))
        await until(lambda: len(heard) == 1)
        await other._bell_channel.run(lambda db: db.execute("UNLISTEN ledger"))
        await one.record(numbered(2))
        await until(lambda: len(heard) == 2, seconds=10)


# An epoch that ends


async def test_an_epoch_that_another_node_began_is_taken_over(url: str) -> None:
    async with node(url) as ledger:
        told: list[str] = []
        ledger.on_epoch(lambda: told.append(ledger.epoch))
        await ledger.record(numbered(1))
        await execute(url, *NEW_EPOCH)
        await until(lambda: told == ["new"])
        assert (await ledger.record(numbered(2))).seq == 2
        (event,) = await ledger.read_events(STREAM, after=1, limit=9)
        assert event.body.startswith(b'{"specversion":"1.0","id":"new-2"')


async def test_nothing_is_recorded_under_an_epoch_that_has_ended(url: str) -> None:
    async with node(url) as ledger:
        await ledger.record(numbered(1))
        await execute(url, *NEW_EPOCH)
        # Refused, unless the node has heard of it already.
        with suppress(LedgerUnavailableError):
            await ledger.record(numbered(2))
        assert (await ledger.record(numbered(2))).seq == 2
        (event,) = await ledger.read_events(STREAM, after=1, limit=9)
        assert event.body.startswith(b'{"specversion":"1.0","id":"new-2"')


async def test_a_database_that_went_back_gets_a_new_epoch(url: str) -> None:
    async with node(url) as one, node(url) as other:
        told: list[str] = []
        one.on_epoch(lambda: told.append("one"))
        other.on_epoch(lambda: told.append("other"))
        before = one.epoch
        await asyncio.gather(*(one.record(numbered(n)) for n in range(10)))
        # As a standby that lagged behind, and was promoted.
        await execute(
            url,
            "SET session_replication_role = replica",
            "DELETE FROM events WHERE seq > 7",
            "DELETE FROM transactions WHERE first_seq > 7",
            "DELETE FROM entries WHERE seq > 7",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {NODE}",
        )
        await until(lambda: sorted(told) == ["one", "other"], seconds=30)
        assert one.epoch == other.epoch != before
        heard: list[Event] = []
        one.listen(heard.extend)
        again = await other.record(numbered(9))
        assert (again.seq, again.is_new) == (8, True)
        await other.record(numbered(8))
        await until(lambda: [event.seq for event in heard] == [8, 9])
        # However many connections found it out at once, it is one new epoch.
        db = await asyncpg.connect(url)
        assert await db.fetchval("SELECT count(*) FROM epochs WHERE reason = 'went_back'") == 1
        await db.close()
        assert (await asyncio.to_thread(verify, url)).entries == 9


async def test_an_entry_past_two_thousand_million_is_looked_for_like_any_other(url: str) -> None:
    async with node(url) as ledger:
        before = ledger.epoch
        # More than 32 bits hold: a busy ledger has so many within weeks.
        ledger.node.witness(2**31, "0" * 64)
        await until(lambda: ledger.epoch != before)
        assert (await ledger.record(numbered(1))).seq == 1


async def test_a_database_that_went_back_and_grew_again_is_noticed_by_the_hash(url: str) -> None:
    async with node(url) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(6)))
        epoch = ledger.epoch
        # As where another node, which knew nothing of what was lost, has recorded as much again.
        await execute(
            url,
            "SET session_replication_role = replica",
            "UPDATE entries SET hash = repeat('0', 64) WHERE seq = 6",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {NODE}",
        )
        await until(lambda: ledger.epoch != epoch)


@pytest.mark.parametrize(
    ("change", "reason"), [("system_id = 1", "restored"), ("is_copy = 1", "copied")]
)
async def test_a_ledger_that_was_put_back_gets_a_new_epoch_when_it_is_served(
    url: str, change: str, reason: str
) -> None:
    async with node(url) as ledger:
        await ledger.record(numbered(1))
        before = ledger.epoch
    # As pg_restore leaves it in another cluster, and `listener backup` in a copy.
    await execute(url, f"UPDATE ledger SET {change}")
    async with node(url) as ledger:
        assert ledger.epoch != before
        epoch = ledger.epoch
        db = await asyncpg.connect(url)
        assert await db.fetchval("SELECT reason FROM epochs WHERE epoch = $1", epoch) == reason
        await db.close()
    async with node(url) as ledger:
        assert ledger.epoch == epoch


# What is decided before the lock


async def test_a_sale_and_its_notification_of_one_batch_are_hashed_with_their_own_seqs(
    url: str,
) -> None:
    async with node(url) as one, node(url) as other:

        async def sell(ledger: PostgresLedger, number: str) -> None:
            # In one batch: the notification names the sale by a seq that is not final yet.
            await asyncio.gather(
                ledger.record(sold(f"r{number}")),
                ledger.record(numbered(number)),
            )

        await asyncio.gather(
            *(sell(ledger, f"{n}-{i}") for n in range(30) for i, ledger in enumerate((one, other)))
        )
        assert await one.seq() == 120
    assert (await asyncio.to_thread(verify, url)).transactions == 60


async def test_a_transaction_of_many_entries_is_summed_up_and_stays_sound(url: str) -> None:
    async with node(url) as one, node(url) as other:
        for mark in range(25):
            await asyncio.gather(
                one.record(numbered(1, "success", mark=f"one {mark}")),
                other.record(numbered(1, "success", mark=f"other {mark}")),
                one.record(numbered(f"x{mark}")),
                other.record(numbered(f"y{mark}")),
            )
        (transaction,) = await one.read_transaction("1", merchant_no=None)
        assert transaction.status == "paid"
    assert (await asyncio.to_thread(verify, url)).entries == 100
