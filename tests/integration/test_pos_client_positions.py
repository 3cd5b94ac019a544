"""The POS client: where it begins, what it remembers, and how it goes on from a lost position."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from listener.errors import UnreadableError
from listener.pos.client import SNAPSHOT, FilePositions, MemoryPositions, Position
from listener.pos.codes import CloseCode
from listener.pos.events import ResyncMembers
from tests.support.scripted import (
    EPOCH,
    OTHER,
    STREAM,
    WAIT_SECONDS,
    Call,
    Scripted,
    follower,
    lost,
    problem,
    rows,
    stop,
    take,
)


async def test_without_streams_it_follows_those_of_the_key(server: Scripted) -> None:
    async def first(call: Call) -> None:
        connect = await call.begin(STREAM, OTHER)
        assert "streams" not in connect
        await call.event(1)
        await call.event(1, stream=OTHER, no="o1")
        await call.ws.close(code=CloseCode.COME_BACK)

    async def second(call: Call) -> None:
        connect = await call.begin(STREAM, OTHER, after=1)
        assert [s["after"]["offset"] for s in connect["streams"]] == [1, 1]  # type: ignore[attr-defined]  # JSON.
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, streams=None) as client:
        assert await take(client, 3) == ["t1", "o1", "t2"]


async def test_a_listener_that_begins_past_our_position_is_asked_again(server: Scripted) -> None:
    async def first(call: Call) -> None:
        connect = await call.begin(after=4)
        assert "streams" not in connect
        await call.until_closed()

    async def second(call: Call) -> None:
        connect = await call.begin(after=3)
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 3}}]
        await call.event(4)
        await call.until_closed()

    server.scripts = [first, second]
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=3)})
    async with follower(server, streams=None, position=store) as client:
        assert await take(client, 1) == ["t4"]


async def test_a_listener_that_ends_before_our_position_is_asked_again(server: Scripted) -> None:
    async def first(call: Call) -> None:
        await call.hello()
        assert "streams" not in await call.expect("connect")
        await call.ready(head=9, after=8)
        await call.event(9)
        await call.event(10)
        await call.until_closed()

    async def second(call: Call) -> None:
        await call.hello()
        connect = await call.expect("connect")
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 12}}]
        stream = {"stream": STREAM, "epoch": EPOCH, "head": 10, "after": 10, "recovered": False}
        await call.send(type="ready", id=2, streams=[stream])
        reason = {"reason": "offset_ahead", "snapshot": "/v1/transactions?merchantNo=200043"}
        await call.send(type="resync", stream=STREAM, epoch=EPOCH, head=10, **reason)
        await call.until_closed()

    server.scripts = [first, second]
    server.answers["snapshot"] = [rows(10)]
    told: list[ResyncMembers] = []
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=12)})
    async with follower(server, streams=None, position=store, on_resync=told.append) as client:
        assert await take(client, 1) == ["t10"]
    assert [one.reason for one in told] == ["offset_ahead"]


async def test_the_position_survives_a_restart_in_a_file(server: Scripted, tmp_path: Path) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        for offset in (1, 2):
            await call.event(offset)
        await call.until_closed()

    async def second(call: Call) -> None:
        connect = await call.begin(after=1)
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 1}}]
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    path = tmp_path / "positions.json"
    async with follower(server, position=FilePositions(path)) as client:
        await take(client, 2)
    async with follower(server, position=FilePositions(path)) as client:
        assert await take(client, 1) == ["t2"]


class FullPositions(MemoryPositions):
    """A store of a program's own that cannot save."""

    async def save(self, stream: str, position: Position) -> None:
        raise OSError(f"no room for {stream}, {position.offset}")


async def three(call: Call) -> None:
    await call.begin()
    for offset in (1, 2, 3):
        await call.event(offset)
    await call.until_closed()


async def test_a_store_of_the_programs_own_that_fails_reaches_the_program(
    server: Scripted,
) -> None:
    server.scripts = [three]
    async with follower(server, position=FullPositions()) as client:
        await take(client, 1)
        with pytest.raises(OSError, match="no room for"):
            await take(client, 1)
    assert server.calls[0].acks() == []


async def test_a_full_disk_stops_no_till(
    server: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.scripts = [three]
    path = tmp_path / "disk" / "positions.json"
    path.parent.mkdir()
    async with follower(server, position=FilePositions(path)) as client:
        path.parent.rename(tmp_path / "gone")
        assert await take(client, 3) == ["t1", "t2", "t3"]
        assert caplog.text.count("positions_not_saved") == 1
        (tmp_path / "gone").rename(path.parent)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(client)
    assert server.calls[0].acks()[-1] == 3
    assert (await FilePositions(path).load())[STREAM].offset == 3


@pytest.mark.parametrize("torn", ["", "[]", '{"200043/303660": {"epoch": "e1", "off', "\x00\x00"])
async def test_with_a_torn_file_it_goes_on_from_what_was_acknowledged(
    server: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: str
) -> None:
    async def script(call: Call) -> None:
        connect = await call.begin(after=4)
        assert connect["streams"] == [{"stream": STREAM, "after": "acked"}]
        await call.event(5)
        await call.event(6)
        await call.until_closed()

    server.scripts = [script]
    path = tmp_path / "positions.json"
    path.write_text(torn)
    # "latest" would skip what nobody has handled.
    store = FilePositions(path)
    async with follower(server, position=store, start="latest") as client:
        assert await take(client, 2) == ["t5", "t6"]
    assert "positions_lost" in caplog.text
    assert (await FilePositions(path).load())[STREAM].offset == 5


async def test_without_acks_a_torn_file_is_a_matter_for_the_program(
    server: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "torn").write_text("[]")
    client = follower(server, position=FilePositions(tmp_path / "torn"), acks=False)
    with pytest.raises(UnreadableError, match="torn"):
        await anext(client)


async def test_a_file_that_cannot_be_read_counts_as_torn(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="cannot be read"):
        await FilePositions(tmp_path).load()


async def test_a_folder_that_does_not_exist_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the folder for the positions, does not exist"):
        await FilePositions(tmp_path / "missing" / "positions.json").load()


async def test_a_lost_position_is_replaced_by_a_snapshot(server: Scripted) -> None:
    server.scripts = [lost]
    server.answers["snapshot"] = [
        web.Response(status=503),
        web.json_response({"data": [{"transactionNo": 5}]}),
        rows(9, 8, cursor="c/1"),
        rows(8, 7),
    ]
    told: list[ResyncMembers] = []
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=3)})
    client = follower(server, position=store, on_resync=told.append)
    async with client:
        async with asyncio.timeout(WAIT_SECONDS):
            events = [await anext(client) for _ in range(3)]
        assert [e.data.transaction_no for e in events] == ["t9", "t8", "t7"]
        assert {e.type for e in events} == {SNAPSHOT}
        assert {e.data.reason for e in events} == {"resync"}
        # Until all of it is handled, the old position is kept: a crash reads it again.
        assert (await store.load())[STREAM].epoch == EPOCH
        async with asyncio.timeout(WAIT_SECONDS):
            live = await anext(client)
        assert (live.type, live.data.state_version) == ("transaction.cancelled", 6)
        assert (await store.load())[STREAM] == Position(epoch="e2", offset=41)
        async with asyncio.timeout(WAIT_SECONDS):
            while 41 not in server.calls[0].acks():
                await asyncio.sleep(0.005)
    assert told[0].reason == "epoch_changed"
    assert server.snapshots[-1]["cursor"] == "c/1"
    assert server.snapshots[-1]["storeNo"] == "303660"


async def test_state_versions_are_forgotten_with_the_position(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1, no="t7", version=9)
        await call.send(
            type="resync",
            stream=STREAM,
            reason="epoch_changed",
            epoch="e2",
            head=4,
            snapshot="/v1/transactions",
        )
        await call.event(5, no="t7", version=6)
        await call.until_closed()

    server.scripts = [script]
    server.answers["snapshot"] = [rows(7)]
    async with follower(server) as client:
        async with asyncio.timeout(WAIT_SECONDS):
            versions = [(await anext(client)).data.state_version for _ in range(3)]
        assert versions == [9, 5, 6]


async def test_a_snapshot_that_is_refused_stops_it(server: Scripted) -> None:
    server.scripts = [lost]
    server.answers["snapshot"] = [web.Response(status=401), problem(401, "unauthorized")]
    async with follower(server) as client:
        assert (await stop(client)).code == CloseCode.BAD_KEY


@pytest.mark.parametrize(
    "snapshot", ["@elsewhere.example/", "//elsewhere.example/", "http://elsewhere.example/"]
)
async def test_the_key_is_not_taken_to_another_host(server: Scripted, snapshot: str) -> None:
    async def script(call: Call) -> None:
        await call.hello()
        await call.expect("connect")
        await call.ready()
        await call.send(
            type="resync",
            stream=STREAM,
            reason="offset_ahead",
            epoch=EPOCH,
            head=1,
            snapshot=snapshot,
        )
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(client)
    assert server.snapshots == []


async def test_a_redirect_is_not_followed_with_the_key(server: Scripted) -> None:
    server.scripts = [lost]
    moved = {"Location": f"{server.url}/v1/transactions?moved=1"}
    server.answers["snapshot"] = [web.Response(status=302, headers=moved), rows(7)]
    async with follower(server) as client:
        assert await take(client, 1) == ["t7"]
    assert not any("moved" in query for query in server.snapshots)


async def test_a_program_may_begin_elsewhere_than_at_its_acks(server: Scripted) -> None:
    async def first(call: Call) -> None:
        connect = await call.begin()
        assert connect["streams"] == [{"stream": STREAM, "after": "earliest"}]
        await call.event(1)
        await call.ws.close(code=CloseCode.COME_BACK)

    async def second(call: Call) -> None:
        connect = await call.begin(after=1)
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 1}}]
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, start="earliest") as client:
        assert await take(client, 2) == ["t1", "t2"]


async def test_the_keys_streams_are_learnt_before_beginning_elsewhere(server: Scripted) -> None:
    async def first(call: Call) -> None:
        assert "streams" not in await call.begin(STREAM, OTHER, after=7)
        # Sent from where nobody wanted to begin.
        await call.event(8)
        assert await call.until_closed() == CloseCode.DONE

    async def second(call: Call) -> None:
        connect = await call.begin(STREAM, OTHER)
        assert connect["streams"] == [
            {"stream": STREAM, "after": "earliest"},
            {"stream": OTHER, "after": "earliest"},
        ]
        await call.event(1)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, streams=None, start="earliest") as client:
        assert await take(client, 1) == ["t1"]
