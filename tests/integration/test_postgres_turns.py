"""One node at a time works on the same: turns, Idempotency-Keys, the chasing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from listener.errors import LedgerUnavailableError
from listener.keys import Role
from listener.ledger.model import Kind
from listener.ledger.scope import Scope
from listener.lifecycle.chaser import TURN
from listener.lifecycle.turns import Turns, keep_turns
from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.storage.postgres import turns
from listener.storage.postgres.connection import SERVER_NOW_MS
from listener.storage.postgres.ledger import PostgresLedger
from listener.web.context import LEDGER
from tests.property.world import Plan, World
from tests.support.service import Serving
from tests.support.shop import Shop, beside, order
from tests.support.stored import Clock


@pytest.fixture(name="nodes")
async def _nodes(url: str) -> AsyncIterator[tuple[PostgresLedger, PostgresLedger]]:
    async with (
        await PostgresLedger.open(url, clock=Clock()) as one,
        await PostgresLedger.open(url, clock=Clock()) as other,
    ):
        yield one, other


async def test_a_turn_is_held_by_one_node(nodes: tuple[PostgresLedger, PostgresLedger]) -> None:
    one, other = nodes
    assert await one.claim_turn("a")
    assert not await other.claim_turn("a")
    assert await other.claim_turn("b")
    await one.release_turn("a")
    assert await other.claim_turn("a")
    assert not await one.keep_turn("a", seconds=1)


async def test_a_turn_of_a_node_that_died_runs_out(
    nodes: tuple[PostgresLedger, PostgresLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LEASE_SECONDS", 0.4)
    one, other = nodes
    assert await one.claim_turn("a")
    # As one that is paused: it renews nothing.
    one._turns._held.clear()
    assert not await other.claim_turn("a")
    await asyncio.sleep(0.5)
    assert await other.claim_turn("a")


async def test_a_turn_that_is_held_is_renewed(
    nodes: tuple[PostgresLedger, PostgresLedger], url: str
) -> None:
    one, other = nodes
    assert await one.claim_turn("a")
    held = one._turns._held["a"]
    async with _connected(url) as db, asyncio.timeout(3 * turns.RENEW_SECONDS):
        first = await _until(db, "a")
        while one._turns._held["a"] == held:
            await asyncio.sleep(0.05)
        assert await _until(db, "a") > first
    assert not await other.claim_turn("a")


async def test_a_turn_is_kept_for_as_long_as_a_call_may_take(
    nodes: tuple[PostgresLedger, PostgresLedger], url: str
) -> None:
    one, other = nodes
    assert await one.claim_turn("a")
    assert await one.keep_turn("a", seconds=60)
    async with _connected(url) as db:
        now_ms: int = await db.fetchval(f"SELECT {SERVER_NOW_MS}")
        assert await _until(db, "a") - now_ms > 59_000
    assert not await other.keep_turn("a", seconds=1)


# Two services


@asynccontextmanager
async def shops(url: str, *faults: str) -> AsyncIterator[tuple[Shop, Shop]]:
    """Open two listeners on one database, beside one Pockyt."""
    async with (
        Sandbox.start(SandboxSettings()) as pockyt,
        beside(pockyt, Path(), database=url) as one,
        beside(pockyt, Path(), database=url) as other,
    ):
        key = one.key(terminal="T-42")
        pair = tuple(Shop(sandbox=pockyt, serving=served, key=key) for served in (one, other))
        pair[0].plan(*faults)
        yield pair[0], pair[1]


async def test_an_idempotency_key_at_two_nodes_is_one_sale(url: str) -> None:
    async with shops(url) as (one, other):
        body = order()
        answers = await asyncio.gather(
            *(shop.post("/v1/transactions", body, idempotency_key="k") for shop in (one, other))
        )
        statuses = sorted(answer.status for answer in answers)
        assert statuses in ([201, 409], [201, 201])
        again = await other.post("/v1/transactions", body, idempotency_key="k")
        assert again.status == 201
        assert again.headers["Idempotent-Replayed"] == "true"
        started = {answer.number for answer in (*answers, again) if answer.status == 201}
        assert len(started) == 1
        assert await _count(one.serving, kind="sale") == 1


async def test_a_reference_that_is_sold_at_two_nodes_is_sold_once(url: str) -> None:
    async with shops(url) as (one, other):
        for _ in range(5):
            body = order()
            answers = await asyncio.gather(
                *(shop.post("/v1/transactions", body) for shop in (one, other))
            )
            assert sorted(answer.status for answer in answers) == [201, 409]
        assert await _count(one.serving, kind="sale") == 5


async def test_a_cancel_at_two_nodes_is_sent_to_pockyt_once(url: str) -> None:
    async with shops(url) as (one, other):
        sale = await one.start()
        answers = await asyncio.gather(
            *(shop.post(f"/v1/transactions/{sale.number}/cancel") for shop in (one, other))
        )
        # The node that did not begin it does not wait for the other's.
        assert sorted(answer.status for answer in answers) in ([200, 200], [200, 202])
        detail = await one.detail(sale.number)
        entries = detail["entries"]
        assert isinstance(entries, list)
        sent = [e for e in entries if e["kind"] == "answer" and e["fields"]["call"] == "cancel"]
        assert len(sent) == 1
        assert detail["status"] == "cancelled"


async def test_an_idempotency_key_that_is_under_way_at_one_node_is_409_at_another(
    url: str,
) -> None:
    async with shops(url) as (one, _):
        made, text = one.serving.keyed(terminal="T-42")
        shop = replace(one, key=text)
        async with await PostgresLedger.open(url, clock=Clock()) as other:
            turn = f"Idempotency-Key/{made.id}/k"
            assert await other.claim_turn(turn)
            body = order()
            assert (await shop.post("/v1/transactions", body, idempotency_key="k")).status == 409
            await other.release_turn(turn)
            assert (await shop.post("/v1/transactions", body, idempotency_key="k")).status == 201


async def test_one_node_chases_and_another_goes_on_at_once(url: str) -> None:
    async with (
        Sandbox.start(SandboxSettings()) as pockyt,
        _connected(url) as db,
        AsyncExitStack() as stack,
    ):
        stops = {}
        for _ in range(2):
            own = await stack.enter_async_context(AsyncExitStack())
            served = await own.enter_async_context(beside(pockyt, Path(), database=url))
            ledger = served.service.app[LEDGER]
            assert isinstance(ledger, PostgresLedger)
            stops[ledger.node.id] = own.aclose
        first = await _chaser(db)
        await asyncio.sleep(2)
        assert await _chaser(db) == first
        (second,) = stops.keys() - {first}
        await stops[first]()
        # Sooner than its lease would run out.
        assert await _chaser(db, other_than=first) == second


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator["asyncpg.Connection"]:
    db = await asyncpg.connect(url)
    try:
        yield db
    finally:
        await db.close()


async def _until(db: "asyncpg.Connection", name: str) -> int:
    until: int = await db.fetchval("SELECT until FROM turns WHERE name = $1", name)
    return until


async def _chaser(db: "asyncpg.Connection", *, other_than: str = "") -> str:
    async with asyncio.timeout(4):
        while True:
            node: str | None = await db.fetchval("SELECT node FROM turns WHERE name = 'chaser'")
            if node not in (None, other_than):
                return str(node)
            await asyncio.sleep(0.05)


async def _count(served: Serving, *, kind: str) -> int:
    admin = served.key(Role.ADMIN, merchant_no=None, store_no=None)
    status, found = await served.get("/v1/entries?limit=500", admin)
    assert status == 200
    return sum(entry["kind"] == kind for entry in found["data"])  # type: ignore[index]


async def test_a_node_that_lost_the_chasing_raises_nothing(url: str, tmp_path: Path) -> None:
    world = World(Plan(seed=1), directory=tmp_path, url=url)
    await world.start()
    try:
        sold = await world.act(lambda life: life.start_sale(world.order("R-1")))
        assert sold is not None
        world.is_pockyt_down = True
        await world.act(lambda life: life.cancel(sold.transaction))
        world.now_ms += 61_000
        async with await PostgresLedger.open(url, clock=lambda: world.now_ms) as other:
            # As after a pause in which the other went on chasing.
            assert await other.claim_turn(TURN)
            await world.act(lambda life: life.chaser.start())
            assert await _alarms(other) == 0
            await other.release_turn(TURN)
            assert await world.ledger.claim_turn(TURN)
            await world.act(lambda life: life.chaser.start())
            assert await _alarms(other) == 1
    finally:
        await world.stop()


async def _alarms(ledger: PostgresLedger) -> int:
    lines = await ledger.read_entries(after=0, limit=99, scope=Scope())
    return sum(line.entry.fact.kind is Kind.ALARM for line in lines)


async def test_a_node_that_lost_its_turn_moves_no_money(
    nodes: tuple[PostgresLedger, PostgresLedger], url: str
) -> None:
    one, _ = nodes
    held = Turns(one)
    async with held.of("200043", "1"):
        await keep_turns(one, seconds=12)
        async with _connected(url) as db:
            # As after a pause that was longer than the lease, in which another node went on.
            await db.execute("UPDATE turns SET node = 'another'")
        with pytest.raises(LedgerUnavailableError, match="another node works on this"):
            await keep_turns(one, seconds=60)
    # Who holds none is in nobody's way.
    await keep_turns(one, seconds=60)
