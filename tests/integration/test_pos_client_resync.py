"""The POS client after a restore: what it acknowledges and says until the snapshot is read."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from listener.pos.api import SNAPSHOTS_AT_ONCE
from listener.pos.client import (
    SNAPSHOT,
    Cause,
    Event,
    Follower,
    FollowStatus,
    MemoryPositions,
    Position,
)
from listener.pos.codes import CloseCode
from tests.support.scripted import (
    EPOCH,
    OTHER,
    STREAM,
    WAIT_SECONDS,
    Call,
    Scripted,
    follower,
    page,
    problem,
    rows,
    scripted_listener,
    stop,
    take,
)

NEW = "e2"
OLD = Position(epoch=EPOCH, offset=3)


async def lose(call: Call, *, head: int = 40, epoch: str = NEW) -> None:
    """Say that the position of STREAM is lost: first `ready`, then, on its own, the resync."""
    await call.hello()
    await call.expect("connect")
    lost = {"stream": STREAM, "epoch": epoch, "head": head, "after": head, "recovered": False}
    await call.send(type="ready", id=1, streams=[lost])


async def resync(call: Call, *, head: int = 40, epoch: str = NEW, stream: str = STREAM) -> None:
    await call.send(
        type="resync",
        stream=stream,
        reason="epoch_changed",
        epoch=epoch,
        head=head,
        snapshot="/v1/transactions?merchantNo=200043",
    )


async def nothing_comes(call: Call) -> None:
    """Wait for many times the client's pause between acks, while nothing may come."""
    with pytest.raises(TimeoutError):
        await call.ws.receive(timeout=0.2)


async def refused(call: Call) -> None:
    """Lose the position, then go on with two cancellations."""
    await lose(call)
    await resync(call)
    await call.event(41, no="t8", version=5)
    await call.event(42, no="t8", version=6)
    await call.until_closed()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not done():
            await asyncio.sleep(0.005)


async def events(client: Follower, count: int) -> list[Event]:
    async with asyncio.timeout(WAIT_SECONDS):
        return [await anext(client) for _ in range(count)]


async def test_nothing_is_acknowledged_in_a_ledger_of_which_nothing_was_shown(
    server: Scripted,
) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        for offset in (1, 2, 3):
            await call.event(offset)
        await call.expect("ack")
        await call.ws.close(code=CloseCode.COME_BACK)

    async def second(call: Call) -> None:
        await lose(call)
        await nothing_comes(call)
        await resync(call)
        await nothing_comes(call)
        await call.event(41)
        await nothing_comes(call)
        server.may_read_snapshot.set()
        ack = await call.expect("ack")
        assert (ack["epoch"], ack["offset"]) in {(NEW, 40), (NEW, 41)}
        await call.until_closed()

    server.scripts = [first, second]
    server.may_read_snapshot.clear()
    server.answers["snapshot"] = [rows(7)]
    async with follower(server) as client:
        # It asks for more at once, as a till does: all three are handled, not all acknowledged.
        assert await take(client, 5) == ["t1", "t2", "t3", "t7", "t41"]
        waiting = asyncio.create_task(anext(client))
        await until(lambda: len(server.calls) == 2 and 41 in server.calls[1].acks())
        waiting.cancel()


async def test_of_several_streams_only_the_lost_one_waits_for_its_snapshot(
    server: Scripted,
) -> None:
    async def first(call: Call) -> None:
        await call.begin(STREAM, OTHER)
        await call.event(1)
        await call.event(1, stream=OTHER, no="o1")
        await call.event(2)
        await call.until_closed()

    async def second(call: Call) -> None:
        await call.hello()
        await call.expect("connect")
        lost = {"stream": STREAM, "epoch": EPOCH, "head": 9, "after": 9, "recovered": False}
        kept = {"stream": OTHER, "epoch": EPOCH, "head": 1, "after": 1, "recovered": True}
        await call.send(type="ready", id=1, streams=[lost, kept])
        ack = await call.expect("ack")
        assert (ack["stream"], ack["offset"]) == (OTHER, 1)
        await nothing_comes(call)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, streams=[STREAM, OTHER]) as client:
        assert await take(client, 3) == ["t1", "o1", "t2"]
        await server.calls[0].ws.close(code=CloseCode.COME_BACK)
        await until(lambda: len(server.calls) == 2)
        waiting = asyncio.create_task(anext(client))
        await until(lambda: bool(server.calls[1].acks()))
        await asyncio.sleep(0.3)
        waiting.cancel()


async def test_a_transaction_that_a_restore_took_to_another_stream_is_shown(
    server: Scripted,
) -> None:
    async def first(call: Call) -> None:
        await call.begin(STREAM, OTHER)
        await call.event(1, stream=OTHER, no="t7", version=6)
        await call.expect("ack")
        await call.ws.close(code=CloseCode.COME_BACK)

    async def second(call: Call) -> None:
        await call.hello()
        await call.expect("connect")
        lost = {"epoch": NEW, "head": 40, "after": 40, "recovered": False}
        streams = [{"stream": name} | lost for name in (STREAM, OTHER)]
        await call.send(type="ready", id=1, streams=streams)
        await resync(call)
        await resync(call, stream=OTHER)
        await call.until_closed()

    server.scripts = [first, second]
    server.answers["snapshot"] = [rows(7), rows(8)]
    async with follower(server, streams=[STREAM, OTHER]) as client:
        shown = await events(client, 3)
    # The version that was held of t7 is one of the ledger before.
    numbers = [(one.type, one.data.transaction_no) for one in shown]
    assert numbers == [("transaction.cancelled", "t7"), (SNAPSHOT, "t7"), (SNAPSHOT, "t8")]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (lambda: web.Response(status=403), Cause.REFUSED),
        (lambda: web.Response(text="<html>", content_type="text/html"), Cause.NOT_WEBSOCKET),
        (lambda: problem(503, "ledger-unavailable", retry=True), Cause.REFUSED),
    ],
)
async def test_while_the_snapshot_cannot_be_read_events_go_on_and_the_status_says_so(
    server: Scripted, answer: Callable[[], web.Response], cause: Cause
) -> None:
    server.scripts = [refused]
    server.answers["snapshot"] = [answer() for _ in range(1000)]
    store = MemoryPositions({STREAM: OLD})
    told: list[FollowStatus] = []
    async with follower(server, position=store, on_status=told.append) as client:
        shown = await events(client, 2)
        assert [(e.type, e.data.state_version) for e in shown] == [
            ("transaction.cancelled", 5),
            ("transaction.cancelled", 6),
        ]
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: len(server.snapshots) > 5)
        assert (client.status.state, client.status.cause) == ("connecting", cause)
        assert client.status.transport is None
        assert "the snapshot cannot be read" in client.status.why
        assert "live" not in {status.state for status in told}
        # A crash must read the snapshot again, and no alarm may end for what was not shown.
        assert await store.load() == {STREAM: OLD}
        assert server.calls[0].acks() == []
        server.answers["snapshot"] = [rows(9, 8, cursor="c/1"), rows(7)]
        async with asyncio.timeout(WAIT_SECONDS):
            first = await waiting
        (second,) = await events(client, 1)
        # Of t8 a newer state was shown.
        assert [(e.type, e.subject) for e in (first, second)] == [
            (SNAPSHOT, "t9"),
            (SNAPSHOT, "t7"),
        ]
        assert client.status.state == "connecting"
        waiting = asyncio.create_task(anext(client))
        await until(lambda: 42 in server.calls[0].acks())
        assert (client.status.state, client.status.why) == ("live", "")
        assert told[-1].state == "live"
        assert await store.load() == {STREAM: Position(epoch=NEW, offset=42)}
        assert server.calls[0].acks() == [42]
        waiting.cancel()


async def test_a_snapshot_that_is_never_answered_holds_up_no_event(server: Scripted) -> None:
    server.scripts = [refused]
    server.may_read_snapshot.clear()
    server.answers["snapshot"] = [rows(9)]
    async with follower(server, position=MemoryPositions({STREAM: OLD})) as client:
        assert [e.data.state_version for e in await events(client, 2)] == [5, 6]
        assert client.status.state == "connecting"
        assert "not read yet" in client.status.why
        server.may_read_snapshot.set()
        assert await take(client, 1) == ["t9"]


async def lose_and_leave(call: Call) -> None:
    """Say that the position is lost, tell one event of the new ledger, and restart."""
    await lose(call)
    await resync(call)
    await call.event(41)
    await call.ws.close(code=CloseCode.COME_BACK)


async def test_it_goes_on_from_the_new_position_while_the_snapshot_is_not_read(
    server: Scripted,
) -> None:
    async def second(call: Call) -> None:
        await call.hello()
        connect = await call.expect("connect")
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": NEW, "offset": 41}}]
        await call.ready(epoch=NEW, after=41)
        await call.event(42)
        await nothing_comes(call)
        await call.until_closed()

    server.scripts = [lose_and_leave, second]
    async with follower(server, position=MemoryPositions({STREAM: OLD})) as client:
        assert await take(client, 2) == ["t41", "t42"]
        assert client.status.state == "connecting"
        server.answers["snapshot"] = [rows(7)]
        assert await take(client, 1) == ["t7"]
        waiting = asyncio.create_task(anext(client))
        await until(lambda: client.status.state == "live")
        waiting.cancel()


async def test_a_later_resync_replaces_a_snapshot_that_was_not_read(server: Scripted) -> None:
    async def second(call: Call) -> None:
        await lose(call, head=2, epoch="e3")
        await resync(call, head=2, epoch="e3")
        await call.event(3)
        await call.until_closed()

    server.scripts = [lose_and_leave, second]
    told: list[str] = []
    store = MemoryPositions({STREAM: OLD})
    async with follower(
        server, position=store, on_resync=lambda resync: told.append(resync.epoch)
    ) as client:
        assert await take(client, 2) == ["t41", "t3"]
        # The older one may just have been asked for.
        server.answers["snapshot"] = [rows(7), rows(8)]
        (row,) = await events(client, 1)
        assert row.id.startswith("e3-snapshot")
        waiting = asyncio.create_task(anext(client))
        await until(lambda: client.status.state == "live")
        assert await store.load() == {STREAM: Position(epoch="e3", offset=3)}
        asked = len(server.snapshots)
        await asyncio.sleep(0.1)
        assert len(server.snapshots) == asked
        waiting.cancel()
    assert told == [NEW, "e3"]


async def test_closing_while_a_snapshot_is_awaited_ends_the_iteration(server: Scripted) -> None:
    server.scripts = [refused]
    server.may_read_snapshot.clear()
    client = follower(server, position=MemoryPositions({STREAM: OLD}))
    async with client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: bool(server.snapshots))
        await client.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
    server.may_read_snapshot.set()


async def test_a_snapshot_that_the_listener_refuses_says_so_in_the_status(server: Scripted) -> None:
    server.scripts = [refused]
    server.answers["snapshot"] = [problem(401, "unauthorized")]
    async with follower(server) as client:
        error = await stop(client)
        assert (client.status.state, client.status.why) == ("stopped", str(error))


async def test_a_fault_of_the_programs_own_callback_reaches_it_from_a_snapshot(
    server: Scripted,
) -> None:
    def complain(status: FollowStatus) -> None:
        if status.cause is Cause.REFUSED:
            raise LookupError("mine")

    server.scripts = [refused]
    async with follower(server, on_status=complain) as client:
        with pytest.raises(LookupError, match="mine"):
            await events(client, 3)


async def test_a_snapshot_of_a_store_that_is_gone_stops_nobody(server: Scripted) -> None:
    gone = {"stream": STREAM, "epoch": NEW, "head": 40, "after": 40, "recovered": False}
    kept = {"stream": OTHER, "epoch": EPOCH, "head": 0, "after": 0, "recovered": True}

    async def first(call: Call) -> None:
        await call.hello()
        await call.expect("connect")
        await call.send(type="ready", id=1, streams=[gone, kept])
        await resync(call)
        await call.until_closed()

    async def second(call: Call) -> None:
        await call.begin(OTHER)
        await call.event(1, stream=OTHER)
        await call.until_closed()

    server.scripts = [first, second]
    server.answers["snapshot"] = [problem(403, "stream-not-allowed") for _ in range(1000)]
    async with follower(server, streams=None) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: len(server.snapshots) > 2)
        states = [client.status.state]
        await server.calls[0].ws.close(code=CloseCode.COME_BACK)
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await waiting).subject == "t1"
        states.append(client.status.state)
        assert states == ["connecting", "live"]
        asked = len(server.snapshots)
        waiting = asyncio.create_task(anext(client))
        await asyncio.sleep(0.1)
        assert len(server.snapshots) <= asked + 1
        waiting.cancel()


async def test_of_many_snapshots_four_are_read_at_a_time(server: Scripted) -> None:
    names = [f"200043/{number}" for number in range(SNAPSHOTS_AT_ONCE + 2)]

    async def first(call: Call) -> None:
        await call.hello()
        await call.expect("connect")
        lost = {"epoch": NEW, "head": 40, "after": 40, "recovered": False}
        await call.send(type="ready", id=1, streams=[lost | {"stream": name} for name in names])
        for name in names:
            await resync(call, stream=name)
        await call.until_closed()

    server.scripts = [first]
    server.may_read_snapshot.clear()
    server.answers["snapshot"] = [rows(number) for number, _ in enumerate(names)]
    async with follower(server, streams=names) as client:
        waiting = asyncio.create_task(take(client, len(names)))
        await until(lambda: len(server.snapshots) == SNAPSHOTS_AT_ONCE)
        await asyncio.sleep(0.1)
        assert len(server.snapshots) == SNAPSHOTS_AT_ONCE
        server.may_read_snapshot.set()
        assert len(set(await waiting)) == len(names)


@pytest.fixture
async def polled() -> AsyncIterator[Scripted]:
    async with scripted_listener() as scripted:
        scripted.answers["upgrade"] = [web.Response(status=404)]
        yield scripted


async def test_long_poll_is_not_live_either_while_the_snapshot_cannot_be_read(
    polled: Scripted,
) -> None:
    gone = {"stream": STREAM, "reason": "epoch_changed", "epoch": NEW, "head": 40}
    polled.pages = [
        page(1, 2),
        web.json_response(gone | {"snapshot": "/v1/transactions"}, status=410),
        page(41, epoch=NEW),
        *[page(next_=41, epoch=NEW) for _ in range(100)],
    ]
    async with follower(polled) as client:
        assert await take(client, 3) == ["t1", "t2", "t41"]
        waiting = asyncio.create_task(anext(client))
        await polled.until(lambda: len(polled.snapshots) > 3)
        assert (client.status.state, client.status.cause) == ("connecting", Cause.REFUSED)
        assert {ack["epoch"] for ack in polled.acks} <= {EPOCH}
        polled.answers["snapshot"] = [rows(7)]
        async with asyncio.timeout(WAIT_SECONDS):
            assert (await waiting).subject == "t7"
        waiting = asyncio.create_task(anext(client))
        await polled.until(lambda: {"stream": STREAM, "epoch": NEW, "offset": 41} in polled.acks)
        await until(lambda: client.status.state == "live")
        assert client.status.transport == "long-poll"
        waiting.cancel()


async def test_long_poll_from_the_old_position_is_live_where_the_old_ledger_is_back(
    server: Scripted,
) -> None:
    async def first(call: Call) -> None:
        await lose(call)
        server.answers["upgrade"] = [web.Response(status=404)]
        await call.ws.close(code=CloseCode.COME_BACK)

    server.scripts = [first]
    server.pages = [page(4)]
    async with follower(server, position=MemoryPositions({STREAM: OLD})) as client:
        assert await take(client, 1) == ["t4"]
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: 4 in [ack["offset"] for ack in server.acks])
        # Between two polls WebSocket is tried again.
        await until(lambda: client.status.state == "live")
        waiting.cancel()
