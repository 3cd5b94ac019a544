"""The POS client: when it comes back, when it stops, and what it takes for a dead connection."""

import asyncio

import pytest

from listener.pos.causes import Cause
from listener.pos.client import Follower, FollowStatus, Timing
from listener.pos.codes import CloseCode, Duty
from tests.support.scripted import (
    EPOCH,
    FAST,
    KEY,
    STREAM,
    WAIT_SECONDS,
    Call,
    Scripted,
    follower,
    rows,
    stay,
    stop,
    take,
)


@pytest.mark.parametrize(
    "code",
    [code for code in CloseCode if code.duty is Duty.STOP] + [4055],
)
async def test_it_stops_for_good_and_says_what_to_do(server: Scripted, code: int) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.ws.close(code=code)

    server.scripts = [script]
    states: list[str] = []
    async with follower(server, on_status=lambda status: states.append(status.state)) as client:
        error = await stop(client)
        assert await stop(client) is error
    assert error.code == code
    assert str(code) in str(error)
    assert KEY not in str(error)
    assert server.upgrades == 1
    assert states == ["live", "stopped"]


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3999, 4102, 4103, 4108, 4200, 4201])
async def test_it_comes_back_from_its_own_position(server: Scripted, code: int) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.ws.close(code=code)

    async def second(call: Call) -> None:
        connect = await call.begin(after=1)
        assert connect["streams"] == [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 1}}]
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    began = asyncio.get_running_loop().time()
    async with follower(server) as client:
        assert await take(client, 2) == ["t1", "t2"]
    waited = asyncio.get_running_loop().time() - began
    # 41xx: not before a second has passed.
    assert (waited >= 1.0) is (code // 100 == 41)


async def test_a_connection_that_brought_something_makes_the_next_wait_short(
    server: Scripted,
) -> None:
    async def script(call: Call) -> None:
        await call.begin(after=len(server.calls) - 1)
        await call.event(len(server.calls))
        await call.ws.close(code=CloseCode.COME_BACK)

    server.scripts = [script]
    timing = Timing(retry_first_seconds=0.01, chance=lambda: 1.0)
    async with follower(server, timing=timing) as client:
        async with asyncio.timeout(1.5):
            # Growing waits would take 0.01 s · 2¹⁰ = 10 s.
            assert await take(client, 10) == [f"t{n}" for n in range(1, 11)]


async def test_a_cut_connection_is_resumed_and_its_acks_are_sent_again(server: Scripted) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.event(2)
        assert call.request.transport is not None
        await call.expect("ack")
        call.request.transport.abort()

    async def second(call: Call) -> None:
        await call.begin(after=2)
        assert (await call.expect("ack"))["offset"] == 1
        await call.event(3)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server) as client:
        assert await take(client, 2) == ["t1", "t2"]
        async with asyncio.timeout(WAIT_SECONDS):
            while len(server.calls) < 2 or not server.calls[1].acks():
                await asyncio.sleep(0.005)
        assert await take(client, 1) == ["t3"]


async def test_a_restart_is_waited_for_as_long_as_was_asked(server: Scripted) -> None:
    async def first(call: Call) -> None:
        await call.begin(reconnectJitterMs=0)
        await call.send(type="reconnect", afterMs=300)
        await call.ws.close(code=CloseCode.RESTART)

    server.scripts = [first, stay]
    loop = asyncio.get_running_loop()
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: server.upgrades == 1)
        began = loop.time()
        await server.until(lambda: server.upgrades == 2)
        assert 0.25 <= loop.time() - began < 2.0
        waiting.cancel()


async def test_a_hole_makes_it_come_back_and_nothing_is_skipped(server: Scripted) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.event(3)
        await call.until_closed()

    async def second(call: Call) -> None:
        await call.begin(after=1)
        for offset in (1, 2, 3):
            await call.event(offset)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server) as client:
        assert await take(client, 3) == ["t1", "t2", "t3"]


async def test_a_silent_listener_is_given_up_with_4201(server: Scripted) -> None:
    codes: list[int] = []

    async def first(call: Call) -> None:
        await call.begin(deadSeconds=0.1)
        codes.append(await call.until_closed())

    server.scripts = [first, stay]
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: server.upgrades == 2)
        waiting.cancel()
    assert codes == [CloseCode.DEAD]


async def test_heads_that_stay_ahead_make_it_come_back(server: Scripted) -> None:
    codes: list[int] = []

    async def first(call: Call) -> None:
        await call.begin()
        await call.send(type="ping", t=1, heads={STREAM: 0, "x/y": 7})
        await call.send(type="ping", t=2, heads={STREAM: 2})
        await call.event(1)
        await call.send(type="ping", t=3, heads={STREAM: 2})
        codes.append(await call.until_closed())

    async def second(call: Call) -> None:
        await call.begin(after=1)
        await call.send(type="ping", t=1, heads={STREAM: 2})
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server) as client:
        assert await take(client, 2) == ["t1", "t2"]
        await asyncio.sleep(FAST.behind_seconds * 2)
        assert server.upgrades == 2
    assert codes == [CloseCode.DEAD]


async def test_heads_that_stay_ahead_without_any_event_make_it_come_back(
    server: Scripted,
) -> None:
    codes: list[int] = []

    async def first(call: Call) -> None:
        await call.begin()
        await call.send(type="ping", t=2, heads={STREAM: 1})
        codes.append(await call.until_closed())

    server.scripts = [first, stay]
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server.until(lambda: server.upgrades == 2)
        waiting.cancel()
    assert codes == [CloseCode.DEAD]


async def test_heads_of_before_a_resync_are_not_ahead_of_what_comes_after_it(
    server: Scripted,
) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.send(type="ping", t=1, heads={STREAM: 9})
        await call.send(
            type="resync",
            stream=STREAM,
            reason="epoch_changed",
            epoch="e2",
            head=2,
            snapshot="/v1/transactions",
        )
        await asyncio.sleep(FAST.behind_seconds * 2)
        await call.event(3)
        await call.until_closed()

    server.scripts = [script]
    server.answers["snapshot"] = [rows(7)]
    async with follower(server) as client:
        assert await take(client, 2) == ["t7", "t3"]
    assert server.upgrades == 1


async def test_a_listener_that_goes_on_talking_is_not_given_up(server: Scripted) -> None:
    """Behind for longer than allowed, but never without an event; then never without a ping."""

    async def script(call: Call) -> None:
        await call.begin(deadSeconds=0.15)
        await call.send(type="ping", t=1, heads={STREAM: 6})
        for offset in range(1, 7):
            await asyncio.sleep(FAST.behind_seconds * 0.5)
            await call.event(offset)
        for t in range(4):
            await asyncio.sleep(0.08)
            await call.send(type="ping", t=t, heads={STREAM: 6})
        await call.event(7)
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        assert await take(client, 7) == [f"t{n}" for n in range(1, 8)]
    assert server.upgrades == 1


async def test_a_listener_that_never_says_hello_or_ready_is_left(server: Scripted) -> None:
    async def mute(call: Call) -> None:
        await call.until_closed()

    async def not_ready(call: Call) -> None:
        await call.hello()
        await call.send(type="ping", t=1)
        await call.until_closed()

    async def good(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()

    server.scripts = [mute, not_ready, good]
    timing = Timing(connect_seconds=0.1, retry_first_seconds=0.01, close_seconds=0.1)
    async with follower(server, timing=timing) as client:
        assert (client.status.state, client.status.age_seconds) == ("connecting", None)
        assert await take(client, 1) == ["t1"]
        assert client.age_seconds is not None
        assert client.age_seconds < WAIT_SECONDS


@pytest.mark.parametrize("text", ["{", "[]", '{"type":"ready","streams":5}'])
async def test_an_unreadable_frame_ends_the_connection(server: Scripted, text: str) -> None:
    codes: list[int] = []

    async def first(call: Call) -> None:
        await call.begin()
        await call.ws.send_str(text)
        codes.append(await call.until_closed())

    async def second(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server) as client:
        assert await take(client, 1) == ["t1"]
    assert codes == [CloseCode.MALFORMED]


async def test_an_address_where_nobody_answers_is_tried_for_ever(unused_tcp_port: int) -> None:
    statuses: list[FollowStatus] = []
    url = f"http://127.0.0.1:{unused_tcp_port}/"
    client = Follower(url, key=KEY, timing=FAST, on_status=statuses.append)
    assert client.status.cause is Cause.STARTING
    async with client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await anext(client)
    assert {(s.state, s.transport, s.age_seconds) for s in statuses} == {("connecting", None, None)}
    assert {s.cause for s in statuses} == {Cause.UNREACHABLE}
