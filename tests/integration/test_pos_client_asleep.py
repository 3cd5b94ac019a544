"""The POS client on a machine that slept: its connection may be gone, and no timer says so."""

import asyncio
import time
from dataclasses import replace

import pytest

from listener.pos import asleep, link
from listener.pos.causes import Cause
from listener.pos.client import FollowStatus
from listener.pos.codes import CloseCode
from tests.support.scripted import (
    FAST,
    WAIT_SECONDS,
    Call,
    Scripted,
    follower,
    page,
    take,
)

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LOOK_SECONDS", 0.05)


def sleep_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock that goes on during a sleep be ahead; that of the event loop stood still."""
    awake = asleep.lasting_seconds
    monkeypatch.setattr(asleep, "lasting_seconds", lambda: awake() + seconds)


def slept(told: list[FollowStatus]) -> FollowStatus:
    (silent,) = [one for one in told if "slept" in one.why]
    assert (silent.state, silent.cause) == ("connecting", Cause.SILENT)
    # The listener's last word is as old as it is, and not as the loop's clock would have it.
    assert silent.age_seconds is not None
    assert silent.age_seconds >= HOUR
    return silent


async def test_it_connects_anew_and_is_not_live_until_then(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    told: list[FollowStatus] = []

    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        codes.append(await call.until_closed())

    async def second(call: Call) -> None:
        await call.begin(after=1)
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, on_status=told.append) as client:
        assert await take(client, 1) == ["t1"]
        sleep_for(HOUR, monkeypatch)
        assert await take(client, 1) == ["t2"]
        assert client.status.state == "live"
        slept(told)
    assert codes == [CloseCode.DEAD]


async def test_after_a_sleep_it_does_not_wait_for_the_rest_of_a_back_off(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarting = asyncio.Event()

    def hear(status: FollowStatus) -> None:
        if "restarts" in status.why:
            restarting.set()

    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        # Far longer than this test would wait.
        await call.send(type="reconnect", afterMs=600_000)
        await call.ws.close(code=CloseCode.RESTART)

    async def second(call: Call) -> None:
        await call.begin(after=1)
        await call.event(2)
        await call.until_closed()

    server.scripts = [first, second]
    async with follower(server, on_status=hear) as client:
        assert await take(client, 1) == ["t1"]
        waiting = asyncio.create_task(anext(client))
        await asyncio.wait_for(restarting.wait(), WAIT_SECONDS)
        sleep_for(HOUR, monkeypatch)
        event = await asyncio.wait_for(waiting, WAIT_SECONDS)
        assert event.data.transaction_no == "t2"
        # The new connection is not taken for the one that the machine slept over.
        await asyncio.sleep(0.2)
        assert client.status.state == "live"
        assert server.upgrades == 2


@pytest.mark.parametrize("after_seconds", [0.0, 0.1])
async def test_a_connection_that_was_made_after_the_sleep_is_kept(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, after_seconds: float
) -> None:
    told: list[FollowStatus] = []
    monkeypatch.setattr(link, "LOOK_SECONDS", WAIT_SECONDS)

    def fall_asleep() -> None:
        sleep_for(HOUR, monkeypatch)
        monkeypatch.setattr(link, "LOOK_SECONDS", 0.05)

    async def refused(_call: Call) -> None:
        # It sleeps between two tries: before the first look, or after the last.
        asyncio.get_running_loop().call_later(after_seconds, fall_asleep)

    async def stays(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()

    server.scripts = [refused, stays]
    timing = replace(
        FAST,
        slow_seconds=0.05,
        retry_first_seconds=0.3,
        retry_max_seconds=0.3,
        chance=lambda: 1.0,
    )
    async with follower(server, timing=timing, on_status=told.append) as client:
        assert await take(client, 1) == ["t1"]
        # Several looks later.
        await asyncio.sleep(0.3)
        assert client.status.state == "live"
        assert client.status.age_seconds is not None
        assert client.status.age_seconds < HOUR
        assert server.upgrades == 2
    assert not [one for one in told if "slept" in one.why]


async def test_long_poll_is_not_live_until_it_hears_anew(
    blocked: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[FollowStatus] = []
    blocked.pages = [page(1)]
    timing = replace(FAST, poll_seconds=20)
    async with follower(blocked, timing=timing, on_status=told.append) as client:
        assert await take(client, 1) == ["t1"]
        waiting = asyncio.create_task(anext(client))
        await blocked.until(lambda: any(poll.get("wait") == "20" for poll in blocked.polls))
        blocked.pages = [page(2)]
        sleep_for(HOUR, monkeypatch)
        event = await asyncio.wait_for(waiting, WAIT_SECONDS)
        assert event.data.transaction_no == "t2"
        assert client.status.state == "live"
        slept(told)


async def test_a_clock_of_the_day_that_is_set_back_is_no_sleep(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(call: Call) -> None:
        await call.begin()
        await call.event(1)
        await call.until_closed()

    server.scripts = [first]
    # As where there is no other clock that goes on during a sleep.
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    async with follower(server) as client:
        assert await take(client, 1) == ["t1"]
        sleep_for(-HOUR, monkeypatch)
        await asyncio.sleep(0.3)
        assert client.status.state == "live"
        assert server.upgrades == 1
