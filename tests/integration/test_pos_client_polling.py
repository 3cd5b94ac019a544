"""The POS client where WebSocket is blocked: the same by long-poll."""

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web

from listener.pos import link, polling
from listener.pos.causes import Cause
from listener.pos.client import FollowStatus, MemoryPositions, Position, Timing
from listener.pos.codes import CloseCode
from tests.support.scripted import (
    EPOCH,
    FAST,
    OTHER,
    STREAM,
    WAIT_SECONDS,
    Call,
    Scripted,
    follower,
    page,
    problem,
    rows,
    stop,
    take,
)


async def test_where_websocket_is_blocked_it_polls_and_acks_by_post(blocked: Scripted) -> None:
    blocked.pages = [page(1, 2), page(2, 3)]
    blocked.answers["ack"] = [web.Response(status=503)]
    statuses: list[FollowStatus] = []
    async with follower(blocked, on_status=statuses.append) as client:
        assert await take(client, 3) == ["t1", "t2", "t3"]
        await blocked.until(lambda: bool(blocked.acks) and blocked.acks[-1]["offset"] == 2)
        # The one that failed is sent again.
        await blocked.until(lambda: len(blocked.acks) >= 2)
    assert blocked.acks[-1] == {"stream": STREAM, "epoch": EPOCH, "offset": 2}
    assert blocked.polls[0] == {"stream": STREAM, "wait": "0"}
    assert {"stream": STREAM, "after": f"{EPOCH}:2", "wait": "1"} in blocked.polls or {
        "stream": STREAM,
        "after": f"{EPOCH}:2",
        "wait": "0",
    } in blocked.polls
    assert next(s.transport for s in statuses if s.state == "live") == "long-poll"


async def test_long_poll_without_a_named_stream_learns_it(blocked: Scripted) -> None:
    blocked.pages = [page(4), page(5)]
    async with follower(blocked, streams=None) as client:
        assert await take(client, 2) == ["t4", "t5"]
    assert "stream" not in blocked.polls[0]
    assert blocked.polls[1]["stream"] == STREAM
    assert blocked.polls[1]["after"] == f"{EPOCH}:4"


async def test_long_poll_without_a_named_stream_begins_at_its_own_position(
    blocked: Scripted,
) -> None:
    # Another till with the same key is further, and so is what the key has acknowledged.
    blocked.pages = [page(10), page(6, 7)]
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=5)})
    told: list[FollowStatus] = []
    async with follower(blocked, streams=None, position=store, on_status=told.append) as client:
        assert await take(client, 2) == ["t6", "t7"]
    # That is no hole.
    assert Cause.CLOSED not in {status.cause for status in told}
    assert "stream" not in blocked.polls[0]
    assert (blocked.polls[1]["stream"], blocked.polls[1]["after"]) == (STREAM, f"{EPOCH}:5")


async def test_long_poll_without_a_named_stream_resyncs_in_another_ledger(
    blocked: Scripted,
) -> None:
    gone = {"stream": STREAM, "reason": "epoch_changed", "epoch": "e2", "head": 40}
    blocked.pages = [
        page(next_=40, epoch="e2"),
        web.json_response(gone | {"snapshot": "/v1/transactions"}, status=410),
        page(41, epoch="e2"),
    ]
    blocked.answers["snapshot"] = [rows(7)]
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=5)})
    async with follower(blocked, streams=None, position=store) as client:
        assert await take(client, 2) == ["t7", "t41"]


@pytest.mark.parametrize(("count", "waits"), [(3, {"0", "1"}), (4, {"0"})])
async def test_of_many_streams_none_is_waited_for(
    blocked: Scripted, monkeypatch: pytest.MonkeyPatch, count: int, waits: set[str]
) -> None:
    monkeypatch.setattr(polling, "WAITING_MAX", 3)
    monkeypatch.setattr(polling, "ASKED_MAX", 2)
    monkeypatch.setattr(polling, "EMPTY_SECONDS_MIN", 0.1)
    names = [f"200043/{number}" for number in range(count)]
    timing = replace(FAST, blocked_tries=0)
    async with follower(blocked, streams=names, timing=timing) as client:
        asked = asyncio.ensure_future(anext(client))
        # The first of each, before and after WebSocket is tried once more, waits for nothing.
        await blocked.until(lambda: len(blocked.polls) >= 3 * count)
        assert {poll["wait"] for poll in blocked.polls} == waits
        # Together they are not asked more often than that, once the first have rested.
        await asyncio.sleep(1.0)
        assert len(blocked.polls) <= 4 * count
        asked.cancel()


async def test_long_poll_follows_several_streams_at_once(blocked: Scripted) -> None:
    timing = Timing(
        retry_first_seconds=0.01, retry_max_seconds=0.01, blocked_tries=1, ack_seconds=0.01
    )
    blocked.pages = [page(1), page(1, stream=OTHER)]
    async with follower(blocked, streams=[STREAM, OTHER], timing=timing) as client:
        # One of the two may be asked a second time before the other, hence a hole or a repeat.
        blocked.pages = [page(1, stream=STREAM)]
        assert await take(client, 1) == ["t1"]
        await blocked.until(lambda: {p["stream"] for p in blocked.polls} == {STREAM, OTHER})


async def test_long_poll_resyncs_on_410(blocked: Scripted) -> None:
    gone = {
        "type": "about:blank",
        "status": 410,
        "stream": STREAM,
        "reason": "offset_ahead",
        "epoch": EPOCH,
        "head": 40,
        "snapshot": "/v1/transactions?storeNo=303660",
    }
    blocked.pages = [
        web.json_response(gone, status=410, content_type="application/problem+json"),
        page(41),
    ]
    blocked.answers["snapshot"] = [rows(7)]
    store = MemoryPositions({STREAM: Position(epoch=EPOCH, offset=99)})
    async with follower(blocked, position=store) as client:
        assert await take(client, 2) == ["t7", "t41"]
    assert blocked.polls[0]["after"] == f"{EPOCH}:99"
    assert blocked.polls[1]["after"] == f"{EPOCH}:40"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, CloseCode.MALFORMED),
        (401, CloseCode.BAD_KEY),
        (403, CloseCode.STREAM_NOT_ALLOWED),
        (422, CloseCode.MALFORMED),
    ],
)
async def test_long_poll_stops_where_the_listener_refuses(
    blocked: Scripted, status: int, code: int
) -> None:
    blocked.pages = [problem(status, "no", detail="say\x1b[31m please")]
    async with follower(blocked) as client:
        stopped = await stop(client)
    assert stopped.code == code
    assert client.status.cause is Cause.STOPPED
    assert str(stopped) == client.status.why


async def test_a_key_of_several_stores_without_websocket_follows_those_that_it_is_told(
    blocked: Scripted,
) -> None:
    # It is asked for them twice: before websocket is tried once more, and after.
    told = [problem(400, "stream-missing", streams=[STREAM, OTHER]) for _ in range(2)]
    blocked.pages = [*told, page(1), page(2)]
    async with follower(blocked, streams=None) as client:
        assert await take(client, 2) == ["t1", "t2"]
        assert {poll.get("stream") for poll in blocked.polls} == {None, STREAM, OTHER}


async def test_a_listener_that_answers_at_once_with_nothing_is_not_asked_without_a_pause(
    blocked: Scripted,
) -> None:
    blocked.pages = [page(next_=0) for _ in range(99)]
    timing = replace(FAST, blocked_tries=0)
    async with follower(blocked, timing=timing) as client:
        asked = asyncio.ensure_future(anext(client))
        await blocked.until(lambda: client.status.state == "live")
        await asyncio.sleep(0.5)
        asked.cancel()
    assert len(blocked.polls) <= 5


async def test_a_refusal_that_names_no_streams_stops(blocked: Scripted) -> None:
    blocked.pages = [problem(400, "stream-missing")]
    async with follower(blocked, streams=None) as client:
        assert (await stop(client)).code == CloseCode.MALFORMED


async def test_long_poll_goes_on_after_faults_and_broken_pages(blocked: Scripted) -> None:
    blocked.pages = [
        web.Response(status=500),
        web.Response(text="<html>"),
        web.json_response(5),
        page(1),
        page(3),
        page(2, epoch="e9"),
        page(2),
    ]
    async with follower(blocked) as client:
        assert await take(client, 2) == ["t1", "t2"]


@pytest.mark.parametrize("streams", [STREAM, None])
async def test_long_poll_begins_where_it_is_told_to(blocked: Scripted, streams: str | None) -> None:
    blocked.pages = [page(1), page(2)]
    async with follower(blocked, streams=streams, start="earliest") as client:
        assert await take(client, 2) == ["t1", "t2"]
    assert blocked.polls[0]["after"] == "earliest"
    assert blocked.polls[1]["after"] == f"{EPOCH}:1"


async def test_an_ack_that_failed_is_sent_again(blocked: Scripted) -> None:
    # By the third page long-poll has settled: no change of the link brings the ack again.
    blocked.pages = [page(next_=0), page(next_=0), page(1, 2)]
    blocked.answers["ack"] = [web.Response(status=503)]
    async with follower(blocked) as client:
        assert await take(client, 2) == ["t1", "t2"]
        await blocked.until(lambda: len(blocked.acks) == 2)
    assert [ack["offset"] for ack in blocked.acks] == [1, 1]


async def test_an_ack_that_the_listener_refuses_is_not_sent_again(blocked: Scripted) -> None:
    blocked.pages = [page(1, 2)]
    blocked.answers["ack"] = [problem(400, "ack-ahead") for _ in range(20)]
    async with follower(blocked) as client:
        await take(client, 2)
        await blocked.until(lambda: len(blocked.acks) == 1)
        await asyncio.sleep(FAST.ack_seconds * 10)
    assert len(blocked.acks) <= 2


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 407])
async def test_an_ack_that_somebody_else_answers_is_sent_again(
    blocked: Scripted, status: int
) -> None:
    # By the third page long-poll has settled: no change of the link brings the ack again.
    blocked.pages = [page(next_=0), page(next_=0), page(1, 2)]
    blocked.answers["ack"] = [web.Response(status=status, text="<html>")] * 2
    async with follower(blocked) as client:
        assert await take(client, 2) == ["t1", "t2"]
        await blocked.until(lambda: len(blocked.acks) == 3)


async def test_acks_that_do_not_get_through_wait_longer_and_longer(blocked: Scripted) -> None:
    blocked.pages = [page(next_=0), page(next_=0), page(1, 2)]
    blocked.answers["ack"] = [web.Response(status=403) for _ in range(99)]
    timing = replace(FAST, retry_first_seconds=0.05, retry_max_seconds=9.0, chance=lambda: 1.0)
    async with follower(blocked, timing=timing) as client:
        await take(client, 2)
        await asyncio.sleep(0.5)
    # After 0.05 s, 0.1 s, 0.2 s …: not each 0.01 s.
    assert 2 <= len(blocked.acks) <= 5


async def test_websocket_is_tried_again_and_taken_when_it_is_back(blocked: Scripted) -> None:
    async def back(call: Call) -> None:
        await call.begin(after=1)
        await call.event(2)
        await call.until_closed()

    blocked.scripts = [back]
    blocked.pages = [page(1)]
    timing = Timing(
        retry_first_seconds=0.01,
        retry_max_seconds=0.01,
        blocked_tries=1,
        poll_seconds=1,
        websocket_again_seconds=0.2,
    )
    async with follower(blocked, timing=timing) as client:
        assert await take(client, 1) == ["t1"]
        waiting = asyncio.create_task(anext(client))
        await blocked.until(lambda: blocked.upgrades >= 3)
        blocked.answers["upgrade"] = []
        assert (await asyncio.wait_for(waiting, WAIT_SECONDS)).data.transaction_no == "t2"
        assert client.status.transport == "websocket"


async def test_while_websocket_is_tried_again_and_swallowed_it_is_not_live_and_soon_polls(
    blocked: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "AGAIN_SECONDS", 0.3)
    swallowed: list[FollowStatus] = []

    async def swallow(call: Call) -> None:
        await asyncio.sleep(0.2)
        swallowed.append(client.status)
        await call.until_closed()

    blocked.scripts = [swallow]
    blocked.pages = [page(1)]
    timing = replace(
        FAST,
        connect_seconds=60.0,
        slow_seconds=0.1,
        blocked_tries=1,
        websocket_again_seconds=0.2,
    )
    async with follower(blocked, timing=timing) as client:
        assert await take(client, 1) == ["t1"]
        waiting = asyncio.create_task(anext(client))
        await blocked.until(lambda: blocked.upgrades >= 3)
        blocked.answers["upgrade"] = []
        await blocked.until(lambda: bool(blocked.calls))
        blocked.pages = [page(2)]
        assert (await asyncio.wait_for(waiting, WAIT_SECONDS)).data.transaction_no == "t2"
    assert [(one.state, one.cause) for one in swallowed[:1]] == [("connecting", Cause.SILENT)]


async def test_a_listener_that_was_only_down_is_not_taken_for_a_blocked_one(
    blocked: Scripted,
) -> None:
    async def back(call: Call) -> None:
        await call.begin(after=1)
        await call.event(2)
        await call.until_closed()

    blocked.scripts = [back]
    blocked.pages = [page(1)]
    async with follower(blocked) as client:
        waiting = asyncio.create_task(take(client, 2))
        await blocked.until(lambda: bool(blocked.polls))
        blocked.answers["upgrade"] = []
        assert await waiting == ["t1", "t2"]
        assert client.status.transport == "websocket"
    assert len(blocked.polls) == 1


async def test_a_draining_listener_is_not_taken_for_a_blocked_one(server: Scripted) -> None:
    server.answers["upgrade"] = [web.Response(status=503)]
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: server.upgrades > FAST.blocked_tries + 2)
        waiting.cancel()
    assert server.polls == []
