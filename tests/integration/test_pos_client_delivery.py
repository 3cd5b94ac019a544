"""The POS client: events come once, in order, and are acknowledged once they are handled."""

import asyncio
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from listener.pos.acking import Acking
from listener.pos.client import Event, Follower, FollowStatus, Timing, follow
from listener.pos.codes import CloseCode
from tests.support.scripted import (
    EPOCH,
    FAST,
    KEY,
    STREAM,
    WAIT_SECONDS,
    Call,
    Scripted,
    follower,
    server_saw,
    stay,
    take,
)


async def test_events_come_in_order_and_each_is_acked_once_the_next_is_asked_for(
    server: Scripted,
) -> None:
    acked = asyncio.Event()

    async def script(call: Call) -> None:
        connect = await call.begin()
        assert connect["streams"] == [{"stream": STREAM, "after": "acked"}]
        # In the frame as well: a proxy may have changed the header.
        assert connect["key"] == KEY
        for offset in (1, 2):
            await call.event(offset)
        ack = await call.expect("ack")
        assert ack == {"type": "ack", "stream": STREAM, "epoch": EPOCH, "offset": 1}
        acked.set()
        assert await call.until_closed() == CloseCode.DONE
        assert call.acks() == [1]

    server.scripts = [script]
    async with follower(server) as client:
        assert await take(client, 1) == ["t1"]
        assert client.positions == {}
        assert await take(client, 1) == ["t2"]
        async with asyncio.timeout(WAIT_SECONDS):
            await acked.wait()
        assert client.positions[STREAM].offset == 1
    assert (client.status.state, client.status.why) == ("stopped", "the program closed it")
    await client.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(client)


async def test_closing_sends_the_ack_that_waits_but_not_for_the_event_in_hand(
    server: Scripted,
) -> None:
    gone = asyncio.Event()

    async def script(call: Call) -> None:
        await call.begin()
        for offset in (1, 2, 3):
            await call.event(offset)
        await call.until_closed()
        gone.set()

    server.scripts = [script]
    async with follower(server, timing=Timing(ack_seconds=60)) as client:
        await take(client, 2)
        await server_saw(server, "ack")
        await take(client, 1)
    async with asyncio.timeout(WAIT_SECONDS):
        await gone.wait()
    assert server.calls[0].acks() == [1, 2]


async def test_a_close_that_is_cancelled_still_closes(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = asyncio.Event()

    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()
        gone.set()

    async def hang(_acking: Acking, _link: object) -> None:
        await asyncio.Event().wait()

    server.scripts = [script]
    client = follower(server)
    await take(client, 1)
    monkeypatch.setattr(Acking, "send", hang)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.aclose()
    async with asyncio.timeout(WAIT_SECONDS):
        await gone.wait()


async def test_closing_from_elsewhere_ends_the_wait_for_an_event(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client, asyncio.timeout(WAIT_SECONDS):
        await take(client, 1)
        waiting = asyncio.create_task(take(client, 1))
        await server_saw(server, "ack")
        await client.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        with pytest.raises(StopAsyncIteration):
            await anext(client)


async def test_nothing_is_acked_while_the_handler_runs(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1)
        # Pings are answered meanwhile.
        await call.send(type="ping", t=5, heads={STREAM: 1})
        assert await call.expect("pong") == {"type": "pong", "t": 5}
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        await take(client, 1)
        await server_saw(server, "pong")
    assert server.calls[0].acks() == []


async def test_the_function_follows_and_lets_go_when_the_loop_is_left(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.event(2)
        await call.until_closed()

    server.scripts = [script]
    seen = []
    url = server.url.replace("http", "ws") + "/v1/pos/stream"
    events = follow(url, key=KEY, streams=[STREAM], timing=FAST)
    async for got in events:
        seen.append(got.data.transaction_no)
        if len(seen) == 2:
            break
    await events.aclose()
    assert seen == ["t1", "t2"]
    assert server.calls[0].ws.close_code in (CloseCode.DONE, None)


async def test_unknown_frames_and_members_are_ignored(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin(colour="red")
        await call.send(type="weather", t=1)
        await call.send(type="error", code="ack-ahead", message="beyond the head")
        await call.ws.send_bytes(b"\x00")
        await call.event(1)
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        assert await take(client, 1) == ["t1"]


async def test_only_a_higher_state_version_is_shown_but_every_offset_is_acked(
    server: Scripted,
) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        await call.event(1, no="t", version=2)
        await call.event(2, no="t", version=2)
        await call.event(3, no="t", version=1)
        await call.event(4, no="t", version=3)
        while (await call.expect("ack"))["offset"] != 3:
            pass
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        async with asyncio.timeout(WAIT_SECONDS):
            assert [(await anext(client)).data.state_version for _ in range(2)] == [2, 3]
            while server.calls[0].acks()[-1:] != [3]:
                await asyncio.sleep(0.005)
        assert client.positions[STREAM].offset == 3


async def test_a_client_may_follow_without_acks(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin()
        for offset in (1, 2):
            await call.event(offset)
        await call.until_closed()

    server.scripts = [script]
    async with follower(server, acks=False) as client:
        await take(client, 2)
        await asyncio.sleep(FAST.ack_seconds * 3)
    assert server.calls[0].acks() == []


async def test_a_fault_of_the_programs_own_callback_reaches_the_program(server: Scripted) -> None:
    server.scripts = [stay]

    def broken(status: FollowStatus) -> None:
        raise RuntimeError(status.state)

    async with follower(server, on_status=broken) as client:
        with pytest.raises(RuntimeError, match="live"):
            async with asyncio.timeout(WAIT_SECONDS):
                await anext(client)
        assert (client.status.state, client.status.transport) == ("stopped", None)


async def test_a_slow_program_reads_no_further_than_it_can_hold(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin(deadSeconds=0.2)
        for offset in range(1, 601):
            await call.event(offset)
        await call.expect("ack")
        await call.until_closed()

    server.scripts = [script]
    async with follower(server) as client:
        first: Event = await anext(client)
        assert first.data.transaction_no == "t1"
        # Longer than deadSeconds: while the program is busy, nobody is taken for dead.
        await asyncio.sleep(0.4)
        assert await take(client, 599) == [f"t{n}" for n in range(2, 601)]
    assert server.upgrades == 1


async def test_a_program_that_takes_nothing_for_long_is_not_live_and_misses_nothing(
    server: Scripted,
) -> None:
    async def rest(call: Call) -> None:
        await call.hello()
        connect: Any = await call.expect("connect")
        position = connect["streams"][0]["after"]
        after = 0 if position == "acked" else position["offset"]
        await call.ready(head=600, after=after)
        for offset in range(after + 1, 601):
            await call.event(offset)
        await call.until_closed()

    server.scripts = [rest]
    told: list[tuple[str, str]] = []
    client = follower(
        server,
        timing=replace(FAST, take_seconds=0.1),
        on_status=lambda status: told.append((status.state, status.why)),
    )
    async with client:
        await anext(client)
        await asyncio.sleep(0.3)
        assert told == [("live", ""), ("connecting", "the program is slower")]
        assert (client.status.state, client.status.why) == told[-1]
        assert await take(client, 599) == [f"t{n}" for n in range(2, 601)]
        assert told[-1] == ("live", "")
    assert server.upgrades == 2


@pytest.mark.parametrize("ends", [True, False])
def test_in_another_event_loop_it_says_that_nobody_follows_any_more(
    unused_tcp_port: int, *, ends: bool
) -> None:
    client = Follower(f"http://127.0.0.1:{unused_tcp_port}", key=KEY, streams=STREAM, timing=FAST)

    async def begin() -> None:
        await client.__aenter__()

    async def go_on() -> None:
        assert (client.status.state, client.status.transport) == ("stopped", None)
        with pytest.raises(RuntimeError, match="of another event loop"):
            async with asyncio.timeout(WAIT_SECONDS):
                await anext(client)
        if ends:
            await client.aclose()

    if ends:
        asyncio.run(begin())
        asyncio.run(go_on())
        return
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(begin())
        asyncio.run(go_on())
        loop.run_until_complete(client.aclose())


async def test_whoever_waits_is_told_that_what_followed_was_cancelled(server: Scripted) -> None:
    server.scripts = [stay]
    async with follower(server) as client:
        waiting = asyncio.create_task(anext(client))
        await server_saw(server, "connect")
        for task in asyncio.all_tasks():
            if "Follower._run" in repr(task.get_coro()):
                task.cancel()
        with pytest.raises(RuntimeError, match="was cancelled"):
            async with asyncio.timeout(WAIT_SECONDS):
                await waiting
        assert client.status.state == "stopped"


async def test_every_event_of_the_ledger_is_followed_and_never_acked(server: Scripted) -> None:
    async def script(call: Call) -> None:
        await call.begin("*")
        await call.event(1, stream="*")
        await call.event(2, stream="*")
        await call.until_closed()
        assert call.acks() == []

    server.scripts = [script]
    async with follower(server, streams="*") as client:
        assert await take(client, 2) == ["t1", "t2"]
        assert client.positions["*"].offset == 1
