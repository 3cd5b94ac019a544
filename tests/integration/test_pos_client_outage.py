"""The POS client through ten minutes of an edge that answers for itself, in simulated time.

Real sockets and the client's own waits; only the clock jumps. `tests.fault.edges` takes the real
minutes.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from listener.pos.client import Cause, Follower, FollowStatus, Timing
from tests.support.edges import FAULTS, Edge, edge
from tests.support.scripted import KEY, STREAM, Call, Scripted, scripted_listener, stay
from tests.support.simulated import simulate

OUTAGE_SECONDS = 600.0
STALL_SECONDS = 6.0
BACK_OFF_SECONDS = Timing().retry_max_seconds
# What a try takes until it is live: the upgrade, hello, ready, or a page by long-poll.
TRY_SECONDS = 12.0


def fail(name: str) -> Callable[[Edge], None]:
    def apply(one: Edge) -> None:
        one.fault = FAULTS[name]

    return apply


def stall(*, up: bool, down: bool) -> Callable[[Edge], None]:
    def apply(one: Edge) -> None:
        one.stall_up_seconds = STALL_SECONDS if up else 0.0
        one.stall_down_seconds = STALL_SECONDS if down else 0.0

    return apply


OUTAGES: dict[str, Callable[[Edge], None]] = {
    # A flood is a matter of bytes, not of time: it has a test of its own.
    **{name: fail(name) for name in FAULTS if name != "a page without an end"},
    "what is sent is held up": stall(up=True, down=False),
    "what comes is held up": stall(up=False, down=True),
    "both are held up": stall(up=True, down=True),
}


class Watched:
    """A follower, and what it said with its time."""

    def __init__(self, url: str) -> None:
        self.told: list[tuple[float, FollowStatus]] = []
        self.follower = Follower(url, key=KEY, streams=STREAM, on_status=self._tell)

    def _tell(self, status: FollowStatus) -> None:
        self.told.append((asyncio.get_running_loop().time(), status))

    @property
    def is_live(self) -> bool:
        return bool(self.told) and self.told[-1][1].state == "live"

    async def until_live(self, seconds: float) -> float:
        """Wait until it is live, for so long at most; return how long it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self.is_live and loop.time() - began < seconds:
            await asyncio.sleep(0.1)
        assert self.is_live, self.told[-3:]
        return loop.time() - began


async def run(break_it: Callable[[Edge], None]) -> tuple[Watched, float, float]:
    """Break an edge for ten minutes; return what was told, its start, and the time to recover."""
    async with scripted_listener() as server:
        server.scripts = [stay]
        port = urlsplit(server.url).port
        assert port
        async with edge(port) as one:
            watched = Watched(f"http://127.0.0.1:{one.port}")
            async with watched.follower as follower:
                taking = asyncio.create_task(_drain(follower))
                await watched.until_live(TRY_SECONDS)
                began = asyncio.get_running_loop().time()
                break_it(one)
                one.cut()
                await asyncio.sleep(OUTAGE_SECONDS)
                assert not taking.done(), taking
                one.fault, one.stall_up_seconds, one.stall_down_seconds = None, 0.0, 0.0
                took = await watched.until_live(BACK_OFF_SECONDS + TRY_SECONDS)
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)
    return watched, began, took


async def _drain(follower: Follower) -> None:
    async for _ in follower:
        pass


@pytest.mark.parametrize("name", OUTAGES)
def test_after_ten_minutes_it_is_live_again_within_its_back_off(name: str) -> None:
    watched, began, took = simulate(run(OUTAGES[name]))
    assert took <= BACK_OFF_SECONDS + TRY_SECONDS
    after = [(at - began, status) for at, status in watched.told if at >= began]
    # Within a second it says that it is not live, and why; and never anything without a reason.
    first_at, first = after[0]
    assert first_at <= 1.0
    assert first.state == "connecting"
    for _, status in after:
        assert (status.state == "live") is (status.cause is None)
        assert bool(status.why) is (status.state != "live")
        assert KEY not in status.why


@pytest.mark.parametrize(
    "name",
    ["silence", "half a head", "another's websocket that is silent", "a page a byte at a time"],
)
def test_from_the_start_it_says_within_a_second_that_nothing_answers(name: str) -> None:
    async def start() -> tuple[float, FollowStatus]:
        loop = asyncio.get_running_loop()
        async with edge(1) as one:
            one.fault = FAULTS[name]
            watched = Watched(f"http://127.0.0.1:{one.port}")
            began = loop.time()
            async with watched.follower:
                while not watched.told and loop.time() - began < 5:
                    await asyncio.sleep(0.05)
        at, status = watched.told[0]
        return at - began, status

    after, status = simulate(start())
    assert after <= 1.0
    assert status.cause is Cause.SILENT
    assert status.why


def test_a_line_that_holds_up_each_step_for_six_seconds_becomes_live() -> None:
    async def slow(call: Call) -> None:
        await asyncio.sleep(STALL_SECONDS)
        await call.hello()
        await call.expect("connect")
        await asyncio.sleep(STALL_SECONDS)
        await call.ready()
        await call.until_closed()

    async def start() -> int:
        async with scripted_listener() as server:
            server.scripts = [slow]
            watched = Watched(server.url)
            async with watched.follower:
                await watched.until_live(STALL_SECONDS * 2 + 1)
            return server.upgrades

    assert simulate(start()) == 1


async def test_a_page_without_an_end_is_not_read_to_it(server: Scripted) -> None:
    server.scripts = [stay]
    port = urlsplit(server.url).port
    assert port
    async with edge(port) as one:
        one.fault = FAULTS["a page without an end"]
        watched = Watched(f"http://127.0.0.1:{one.port}")
        async with watched.follower, asyncio.timeout(20):
            while not watched.told:
                await asyncio.sleep(0.01)
            one.fault = None
            await watched.until_live(15)
