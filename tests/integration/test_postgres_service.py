"""The service on PostgreSQL: one node, and two that answer as one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from listener.keys import Role
from listener.lifecycle import Clock, Steady
from listener.web.till import sessions
from listener.web.till.sessions import SessionTiming
from tests.support.databases import NEW_EPOCH, execute
from tests.support.frozen import Line, line_to
from tests.support.service import FIELDS, STREAM, Serving, serving
from tests.support.tills import till


async def test_a_notification_reaches_ledger_and_till_once_however_often_it_comes(
    one: Serving,
) -> None:
    key = one.key(terminal="T-42")
    async with till(one.url, key) as following:
        await following.join()
        for _ in range(3):
            assert await one.notify() == (200, "success")
        event = await following.hear("event")
        assert event["offset"] == 1
        assert event["event"]["data"]["transactionNo"] == FIELDS["transactionNo"]
        await following.ack(STREAM, 1)
        await following.nothing_more()
    admin = one.key(Role.ADMIN, merchant_no=None, store_no=None)
    status, head = await one.get("/v1/ledger", admin)
    assert (status, head["seq"], head["counts"]["repeats"]) == (200, 1, 2)  # type: ignore[index]
    async with asyncio.timeout(5):
        while [t["ackedOffset"] for t in await _terminals(one, admin)] != [1]:
            await asyncio.sleep(0.02)
    assert (await one.get("/readyz"))[0] == 200


async def _terminals(served: Serving, key: str) -> list[dict[str, object]]:
    status, found = await served.get("/v1/terminals", key)
    assert status == 200
    return found["data"]  # type: ignore[index,no-any-return]  # as JSON has it


async def test_a_notification_at_one_node_reaches_a_till_at_the_other(
    one: Serving, other: Serving
) -> None:
    key = other.key(terminal="T-42")
    async with till(other.url, key) as following:
        await following.join()
        assert await one.notify() == (200, "success")
        assert (await following.hear("event"))["offset"] == 1
        # The same message to the other node is a repeat.
        assert await other.notify() == (200, "success")
        assert await one.notify({"transactionNo": "2"}) == (200, "success")
        assert (await following.hear("event"))["offset"] == 2


async def test_a_till_that_hops_between_nodes_sees_each_event_once_and_in_order(
    one: Serving, other: Serving
) -> None:
    key = one.key(terminal="T-42")
    seen: list[int] = []
    async with till(one.url, key) as following:
        await following.join()
    for number in range(6):
        here, there = (one, other) if number % 2 else (other, one)
        for part in range(3):
            assert (await there.notify({"transactionNo": f"{number} {part}"}))[0] == 200
        async with till(here.url, key) as following:
            await following.join()
            seen += await following.offsets(3)
            await following.ack(STREAM, seen[-1])
            await following.nothing_more()
            # An ack is stored within a moment; a till that leaves at once is told some again.
            await asyncio.sleep(0.2)
    assert seen == list(range(1, 19))


@pytest.mark.parametrize("off_seconds", [-3_600, 172_800])
async def test_a_node_whose_machine_has_another_time_goes_by_the_databases(
    url: str, off_seconds: int
) -> None:
    # Else the one that chases would ask about what the others record so much later or earlier.
    clock = Clock(now_ms=Steady(wall_ns=lambda: time.time_ns() + off_seconds * 1_000_000_000))
    async with serving(Path(), database=url, clock=clock) as served:
        assert await served.notify() == (200, "success")
        db = await asyncpg.connect(url)
        try:
            age = await db.fetchval(
                "SELECT extract(epoch FROM clock_timestamp()) * 1000 - recorded_at FROM entries"
            )
        finally:
            await db.close()
    assert 0 <= age < 5_000


async def test_a_role_that_may_only_read_and_write_the_tables_serves(url: str) -> None:
    async with serving(Path(), database=url):
        pass
    parts = urlsplit(url)
    role = f"writer_{parts.path[1:]}"
    db = await asyncpg.connect(url)
    try:
        # As on a ledger that an earlier version made.
        await db.execute("DROP INDEX transactions_held")
        await db.execute(f"CREATE ROLE {role} LOGIN")
        await db.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
        )
        its = f"postgresql://{role}@{parts.hostname}:{parts.port or 5432}{parts.path}"
        async with serving(Path(), database=its) as served:
            async with till(served.url, served.key(terminal="T-42")) as following:
                await following.join()
                assert await served.notify() == (200, "success")
                assert (await following.hear("event"))["offset"] == 1
                await following.ack(STREAM, 1)
            assert await served.notify() == (200, "success")
            assert (await served.get("/readyz"))[0] == 200
    finally:
        await db.execute(f"DROP OWNED BY {role}")
        await db.execute(f"DROP ROLE {role}")
        await db.close()


async def test_a_key_that_is_revoked_ends_its_tills_at_every_node(
    one: Serving, other: Serving
) -> None:
    key, text = one.keyed()
    async with till(one.url, text) as here, till(other.url, text) as there:
        await here.join()
        await there.join()
        one.revoke(key)
        # Within a second; two more for a machine that is busy.
        async with asyncio.timeout(3):
            assert [await here.code(), await there.code()] == [4010, 4010]


async def test_a_new_epoch_makes_every_till_come_back(
    one: Serving, other: Serving, url: str
) -> None:
    key = one.key()
    assert (await one.notify())[0] == 200
    async with till(one.url, key) as here, till(other.url, key) as there:
        epoch = (await here.join())["streams"][0]["epoch"]
        await there.join()
        await execute(url, *NEW_EPOCH)
        assert [await here.code(), await there.code()] == [4200, 4200]
    async with till(other.url, key) as again:
        position = {"stream": STREAM, "after": {"epoch": epoch, "offset": 1}}
        ready = await again.join(position)
        assert ready["streams"][0]["recovered"] is False
        resync = await again.hear("resync")
        assert (resync["reason"], resync["epoch"]) == ("epoch_changed", "new")


@asynccontextmanager
async def on_a_line(
    url: str, *, timing: SessionTiming | None = None
) -> AsyncIterator[tuple[Serving, Line]]:
    """Serve a ledger that is reached over a line."""
    parts = urlsplit(url)
    async with line_to(str(parts.hostname), parts.port or 5432) as line:
        its = f"postgresql://{parts.username}@127.0.0.1:{line.port}{parts.path}"
        async with serving(Path(), database=its, timing=timing) as served:
            yield served, line
            line.thaw.set()


async def until_unread(caplog: pytest.LogCaptureFixture) -> None:
    """Wait until a node has noticed that it cannot read the ledger."""
    async with asyncio.timeout(30):
        while "keys_unread" not in caplog.text:
            await asyncio.sleep(0.02)


async def test_a_till_of_a_node_that_is_cut_off_from_the_database_is_sent_away(
    one: Serving, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = one.key(terminal="T-42")
    async with on_a_line(url, timing=SessionTiming(unread_seconds=1)) as (cut_off, line):
        async with till(cut_off.url, key) as following:
            await following.join()
            line.freeze()
            # Nobody here hears of it.
            assert await one.notify() == (200, "success")
            await until_unread(caplog)
            assert await following.code() == 1011
        async with till(one.url, key) as again:
            await again.join()
            assert (await again.hear("event"))["offset"] == 1


async def test_a_till_stays_while_its_node_cannot_read_the_ledger_for_a_moment(
    one: Serving, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = one.key(terminal="T-42")
    async with on_a_line(url) as (cut_off, line), till(cut_off.url, key) as following:
        await following.join()
        line.freeze()
        assert await one.notify() == (200, "success")
        await until_unread(caplog)
        line.thaw.set()
        assert (await following.hear("event"))["offset"] == 1


async def test_a_terminal_that_comes_to_another_node_is_replaced_at_the_first(
    one: Serving, other: Serving
) -> None:
    key = one.key(terminal="T-42")
    async with till(one.url, key) as here:
        await here.join()
        # Both have shown their sessions before the next comes.
        await asyncio.sleep(1)
        async with till(other.url, key) as there:
            await there.join()
            async with asyncio.timeout(2):
                assert await here.code() == 4009
            await there.nothing_more()


async def test_terminals_are_online_wherever_they_are(one: Serving, other: Serving) -> None:
    key = one.key(terminal="T-42")
    admin = one.key(Role.ADMIN, merchant_no=None, store_no=None)
    async with till(other.url, key) as there:
        await there.join()
        async with asyncio.timeout(5):
            while [t["online"] for t in await _terminals(one, admin)] != [True]:
                await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        while [t["online"] for t in await _terminals(one, admin)] != [False]:
            await asyncio.sleep(0.05)


async def test_while_the_database_is_gone_tills_stay_and_their_places_are_stored_later(
    one: Serving, url: str
) -> None:
    parts = urlsplit(url)
    name, server = parts.path[1:], parts._replace(path="/postgres").geturl()
    admin = one.key(Role.ADMIN, merchant_no=None, store_no=None)
    async with till(one.url, one.key(terminal="T-42")) as following:
        await following.join()
        assert await one.notify() == (200, "success")
        await following.hear("event")
        db = await asyncpg.connect(server)
        await db.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        await following.ack(STREAM, 1)
        async with asyncio.timeout(10):
            while (await one.get("/readyz"))[0] != 503:
                await asyncio.sleep(0.05)
        # It lives, and says so: nobody is to start it again for this.
        assert (await one.get("/healthz"))[0] == 200
        assert (await one.notify({"transactionNo": "2"}))[0] == 503
        await following.nothing_more()
        await db.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await db.close()
        async with asyncio.timeout(10):
            while (await one.get("/readyz"))[0] != 200:
                await asyncio.sleep(0.05)
        assert await one.notify({"transactionNo": "2"}) == (200, "success")
        assert (await following.hear("event"))["offset"] == 2
        async with asyncio.timeout(10):
            while [t["ackedOffset"] for t in await _terminals(one, admin)] != [1]:
                await asyncio.sleep(0.05)


async def test_a_till_that_is_gone_at_once_replaces_nobody_elsewhere(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow this machine is.
    monkeypatch.setattr(sessions, "YOUNG_SECONDS", 5.0)
    timing = SessionTiming(tick_seconds=0.005)
    async with (
        serving(Path(), database=url, timing=timing) as one,
        serving(Path(), database=url, timing=timing) as other,
    ):
        key = one.key(terminal="T-42")
        async with till(one.url, key) as here:
            await here.join()
            for _ in range(20):
                async with till(other.url, key) as gone:
                    await gone.join()
            await asyncio.sleep(0.2)
            await here.nothing_more()
