"""What is decided before the lock, and appended under it: what is noticed, and what may stall.

Each of these was broken once: the clause of ``append_v1``, or the setting, that it is about.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import pytest
from msgspec.structs import replace

from listener.errors import LedgerUnavailableError
from listener.ledger.batch import decide
from listener.ledger.model import Fact, fields_text
from listener.ledger.scope import Scope
from listener.ledger.wanted import wanted
from listener.storage import rebuild, verify
from listener.storage.postgres import writer
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import Connection, connect
from listener.storage.postgres.ledger import PostgresLedger
from listener.storage.postgres.location import read_location
from listener.storage.postgres.schema import LOCK
from listener.storage.postgres.statements import append, append_arguments, see
from tests.support import told
from tests.support.contents import content_of
from tests.support.databases import NEW_EPOCH, execute
from tests.support.stored import Clock, bound, numbered, sold, without_number

# Of a transaction that is summed up: more are read again with each that comes.
MANY: Final = 20


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Connect as a node does."""
    db = await connect(read_location(url), name="a test")
    try:
        yield db
    finally:
        db.terminate()


async def worked_out(db: Connection, *facts: Fact, epoch: str) -> list[object]:
    """Read and decide as a node does that is paused before it appends."""
    wants = wanted(facts)
    seen = await see(db, facts, wants)
    changes = decide(facts, seen, epoch=epoch, now_ms=Clock()(), confirm="suspicious")
    return append_arguments(changes, wants, seen, epoch=epoch, now_ms=Clock()())


# What another node has recorded meanwhile

BEFORE: Final = [sold("r1"), *(numbered(7, mark=str(n)) for n in range(MANY))]


@pytest.mark.parametrize(
    ("batch", "meanwhile"),
    [
        pytest.param([numbered(5, "closed")], numbered(5), id="the same transaction"),
        pytest.param([without_number("a")], without_number("a"), id="the same without a number"),
        pytest.param([sold("r2")], sold("r2"), id="a sale of the same reference"),
        pytest.param([numbered(3)], sold("r3"), id="the sale that judges it"),
        pytest.param([numbered(1)], bound("r1", 77, sale_seq=1), id="the number of its sale"),
        pytest.param(
            [bound("r1", 78, sale_seq=1)], bound("r1", 77, sale_seq=1), id="another number"
        ),
        pytest.param([sold("r4"), numbered(4)], numbered(9), id="anything, where it names itself"),
        pytest.param([numbered(7, "closed")], numbered(9), id="anything, where it is summed up"),
    ],
)
async def test_what_another_node_has_recorded_meanwhile_is_noticed_and_nothing_written(
    url: str, batch: Sequence[Fact], meanwhile: Fact
) -> None:
    async with await PostgresLedger.open(url, clock=Clock()) as ledger, connected(url) as db:
        for fact in BEFORE:
            await ledger.record(fact)
        arguments = await worked_out(db, *batch, epoch=ledger.epoch)
        await ledger.record(meanwhile)
        head = await ledger.head()
        assert await append(db, arguments) is None
        assert await ledger.head() == head
        # Worked out again it is recorded.
        assert await append(db, await worked_out(db, *batch, epoch=ledger.epoch))
    await asyncio.to_thread(verify, url)


async def test_what_does_not_concern_a_batch_only_moves_its_numbers(url: str) -> None:
    async with await PostgresLedger.open(url, clock=Clock()) as ledger, connected(url) as db:
        await ledger.record(numbered(1))
        batch = [numbered(1, "closed"), sold("r5"), numbered(2), numbered(2)]
        arguments = await worked_out(db, *batch, epoch=ledger.epoch)
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(50, 53)))
        row = await append(db, arguments)
        assert (row["head"], row["number"], row["offsets"]) == (4, 5, [5, 6])
        (event,) = await ledger.read_events("*", after=5, limit=9)
        assert f'"id":"{ledger.epoch}-7"' in event.body.decode()
        head = await ledger.head()
        assert (head.seq, head.repeats) == (7, 1)
    await asyncio.to_thread(verify, url)


async def test_the_next_question_does_not_depend_on_a_number_that_moves(url: str) -> None:
    of_sale = replace(told.query(None, as_of=1, reference="r1"), transaction_no="", sale_seq=1)
    of_transaction = replace(told.query("dealing", as_of=2, reference="r7"), transaction_no="7")
    async with await PostgresLedger.open(url, clock=Clock()) as ledger, connected(url) as db:
        await ledger.record(sold("r1"))
        await ledger.record(numbered(7, "disputed"))
        arguments = await worked_out(db, of_sale, of_transaction, epoch=ledger.epoch)
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(50, 57)))
        assert await append(db, arguments)
    await asyncio.to_thread(verify, url)
    before = await content_of(url)
    # The schedule of a transaction is not verified, but it is worked out again.
    await asyncio.to_thread(rebuild, url, confirm="suspicious")
    assert await content_of(url) == before


async def test_a_batch_of_an_epoch_that_has_ended_is_refused(url: str) -> None:
    async with await PostgresLedger.open(url, clock=Clock()) as ledger, connected(url) as db:
        arguments = await worked_out(db, numbered(1), epoch=ledger.epoch)
        await execute(url, *NEW_EPOCH)
        with pytest.raises(asyncpg.PostgresError, match="another epoch"):
            await append(db, arguments)
        assert await db.fetchval("SELECT count(*) FROM entries") == 0


async def test_a_batch_that_knows_more_than_the_ledger_is_refused(url: str) -> None:
    async with await PostgresLedger.open(url, clock=Clock()) as ledger, connected(url) as db:
        for number in range(3):
            await ledger.record(numbered(number))
        arguments = await worked_out(db, numbered(9), epoch=ledger.epoch)
        await execute(
            url, "SET session_replication_role = replica", "DELETE FROM entries WHERE seq > 1"
        )
        with pytest.raises(asyncpg.PostgresError, match="went back"):
            await append(db, arguments)
        assert await db.fetchval("SELECT count(*) FROM entries") == 1


async def test_a_transaction_that_two_nodes_lengthen_keeps_its_summary(url: str) -> None:
    async with (
        await PostgresLedger.open(url, clock=Clock()) as one,
        await PostgresLedger.open(url, clock=Clock()) as other,
    ):
        for mark in range(MANY):
            await asyncio.gather(
                one.record(numbered(1, mark=f"one {mark}")),
                other.record(numbered(1, mark=f"other {mark}")),
                one.record(numbered(f"x{mark}")),
                other.record(numbered(f"y{mark}")),
            )
        (transaction,) = await one.read_transaction("1", merchant_no=None)
        # Without it all entries would be read again with each that comes.
        assert transaction.summary is not None
    await asyncio.to_thread(verify, url)


# The chain


async def test_the_servers_chain_is_pythons_whatever_the_text(url: str) -> None:
    texts = [
        *("a\0b", "\x1a0", "\u2028", "\u0085", '"\\/', "支付🧾", "\ufeff", "é", "e\u0301"),
        *("\x7f", "￿", "\U0010ffff", "x" * 60_000, " ", "{}", "\\u0000"),
    ]
    async with await PostgresLedger.open(url, clock=Clock()) as ledger:
        facts = [
            replace(
                numbered(f"{n} {text[:40]}"),
                reference=text[:200],
                provider_status=text[:200],
                fields=fields_text({"reference": text, text[:50]: "name"}),
            )
            for n, text in enumerate(texts)
        ]
        await asyncio.gather(*(ledger.record(fact) for fact in facts))
        lines = await ledger.read_entries(after=0, limit=99, scope=Scope())
        assert [line.entry.fact for line in lines] == facts
    # Every hash again, by Python.
    assert (await asyncio.to_thread(verify, url)).entries == len(texts)


async def test_the_longest_texts_fit_every_index(url: str) -> None:
    # Four bytes each, and nothing that could be compressed.
    chance = random.Random(1)

    def text() -> str:
        return "".join(chr(chance.randrange(0x10000, 0x10FFFF)) for _ in range(400))

    async with await PostgresLedger.open(url, clock=Clock()) as ledger:
        notification = replace(
            numbered(1), store_no=text(), transaction_no=text(), reference=text()
        )
        sale = replace(sold("r"), store_no=text(), terminal=text(), reference=text())
        for fact in (notification, sale):
            assert (await ledger.record(fact)).is_new
        number = replace(
            bound("r", text(), sale_seq=2), store_no=sale.store_no, terminal=sale.terminal
        )
        assert (await ledger.record(number)).is_new
    assert (await asyncio.to_thread(verify, url)).entries == 3


# The lock


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_under_the_lock_the_newest_is_seen_whatever_the_database_defaults_to(
    url: str, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = urlsplit(url).path[1:]
    await execute(url, f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")
    # The last try at once: lock, read, work out, append.
    monkeypatch.setattr(writer, "TRIES", 0)
    async with (
        await PostgresLedger.open(url, clock=Clock()) as one,
        await PostgresLedger.open(url, clock=Clock()) as other,
    ):
        recorded = await asyncio.gather(
            *(
                ledger.record(numbered(n % 5, mark=f"{n} {name}"))
                for n in range(100)
                for name, ledger in (("one", one), ("other", other))
            )
        )
        assert sorted(one.seq for one in recorded) == [*range(1, 201)]
    await asyncio.to_thread(verify, url)


async def test_a_batch_that_waited_for_the_lock_sees_what_its_holder_has_recorded(
    url: str,
) -> None:
    async with (
        await PostgresLedger.open(url, clock=Clock()) as ledger,
        connected(url) as holder,
        connected(url) as waiter,
    ):
        arguments = [await worked_out(waiter, numbered(n), epoch=ledger.epoch) for n in (1, 2)]
        await holder.execute("BEGIN")
        assert await append(holder, arguments[0])
        waiting = asyncio.ensure_future(append(waiter, arguments[1]))
        await asyncio.sleep(0.2)
        await holder.execute("COMMIT")
        # What was read in the statement that waits for the lock would be older than it.
        assert (await waiting)["head"] == 1
    await asyncio.to_thread(verify, url)


async def test_nothing_is_locked_while_a_node_works_a_batch_out(url: str) -> None:
    async with await PostgresLedger.open(url, clock=Clock()) as ledger, connected(url) as db:
        await worked_out(db, numbered(1), epoch=ledger.epoch)
        # As a node that is paused here: the others go on.
        process = await db.fetchval("SELECT pg_backend_pid()")
        locks = "SELECT count(*) FROM pg_locks WHERE pid = $1"
        other = await asyncpg.connect(url)
        assert await other.fetchval(locks, process) == 0
        await other.close()
        await ledger.record(numbered(1))


async def test_a_node_that_is_paused_with_the_lock_loses_it_within_seconds(url: str) -> None:
    async with await PostgresLedger.open(url, clock=Clock()) as ledger, connected(url) as paused:
        await paused.execute("BEGIN")
        await paused.execute(LOCK)
        began = time.monotonic()
        # Less than what a waiter is told after.
        await ledger.record(numbered(1))
        assert 1.0 < time.monotonic() - began < writer.ANSWER_SECONDS


async def test_a_caller_that_goes_away_ends_no_statement(url: str) -> None:
    await execute(url, "CREATE TABLE notes (text text)")
    channel = Channel(read_location(url), name="a test")
    slow = "WITH slept AS (SELECT pg_sleep(0.6)) INSERT INTO notes SELECT 'done' FROM slept"
    async with connected(url) as db:
        process = await channel.run(_process)
        work = asyncio.create_task(channel.run(lambda db: db.execute(slow)))
        while not await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            " AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        async with asyncio.timeout(5):
            while await db.fetchval("SELECT count(*) FROM notes") != 1:
                await asyncio.sleep(0.05)
        assert await channel.run(_process) == process
    await channel.close()


async def _process(db: Connection) -> object:
    return await db.fetchval("SELECT pg_backend_pid()")


async def test_no_time_limit_of_the_roles_ends_a_statement_that_writes(url: str) -> None:
    name = urlsplit(url).path[1:]
    await execute(url, f"ALTER DATABASE {name} SET statement_timeout = '200ms'")
    async with await PostgresLedger.open(url, clock=Clock()) as ledger, connected(url) as db:
        async with db.transaction():
            await db.execute(LOCK)
            recording = asyncio.ensure_future(ledger.record(numbered(1)))
            await asyncio.sleep(0.6)
        assert (await recording).seq == 1


async def test_no_time_limit_of_the_roles_ends_a_connection_that_waits(url: str) -> None:
    name = urlsplit(url).path[1:]
    await execute(url, f"ALTER DATABASE {name} SET idle_session_timeout = '200ms'")
    connection = await connect(read_location(url), name="idle")
    try:
        await asyncio.sleep(0.6)
        assert await _process(connection)
    finally:
        connection.terminate()


# What a server fails with


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("53100", "the disk is full"),
        ("53200", "out of memory"),
        ("57P01", "it is shut down"),
        ("57P03", "it starts up"),
        ("25006", "it is read-only"),
        ("40001", "it could not serialise"),
        ("40P01", "a deadlock"),
        ("XX000", "an internal error"),
    ],
)
async def test_whatever_a_server_fails_with_nobody_is_told_success_and_the_next_is_taken(
    url: str, code: str, what: str
) -> None:
    async with await PostgresLedger.open(url, clock=Clock()) as ledger:
        await ledger.record(numbered(1))
        before = {await channel.run(_process) for channel in ledger._writers}
        await execute(
            url,
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$BEGIN RAISE EXCEPTION '{what}' USING ERRCODE = '{code}'; END$$",
            "CREATE TRIGGER failing BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        results = await asyncio.gather(
            *(ledger.record(numbered(n)) for n in range(2, 6)), return_exceptions=True
        )
        assert all(isinstance(one, LedgerUnavailableError) for one in results), results
        await execute(url, "DROP TRIGGER failing ON events")
        # Whatever it was, that connection is not used again.
        assert before - {await channel.run(_process) for channel in ledger._writers}
        seqs = [(await ledger.record(numbered(n))).seq for n in range(2, 6)]
        assert seqs == [2, 3, 4, 5]
    await asyncio.to_thread(verify, url)
