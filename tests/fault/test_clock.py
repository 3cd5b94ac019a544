"""A machine whose clock is set back and forth under the service."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from listener.keys import Role
from listener.lifecycle import Clock, Steady
from listener.sandbox.tasks import SandboxClock as PassingClock
from listener.storage.sqlite.verify import verify
from tests.support.service import STREAM, Serving, serving
from tests.support.stored import url_of
from tests.support.tills import DEADLINE_SECONDS, till

HOUR_SECONDS = 3_600.0
STEPS_SECONDS = (0.0, HOUR_SECONDS, -HOUR_SECONDS, 5.0, -5.0, -24 * HOUR_SECONDS, 48 * HOUR_SECONDS)
EACH = 6
# Half a minute of the sandbox's time more than it takes, 1.5 s, is what a busy machine may add.
SCALE = 20.0


class Wall:
    """The machine's clock, which somebody sets."""

    def __init__(self) -> None:
        self.set_by_seconds = 0.0

    def now_ns(self) -> int:
        return time.time_ns() + int(self.set_by_seconds * 1e9)

    def now_ms(self) -> int:
        return self.now_ns() // 1_000_000


async def sell(service: Serving, *numbers: int) -> None:
    sent = (service.notify({"transactionNo": f"{number}"}) for number in numbers)
    assert set(await asyncio.gather(*sent)) == {(200, "success")}


async def pages(service: Serving, key: str, wall: Wall, *, seed: int) -> list[str]:
    """Read all transactions page by page, while the clock is set and new ones come."""
    chance = random.Random(seed)
    found: list[str] = []
    cursor = ""
    while True:
        _, body = await service.get(f"/v1/transactions?limit=4{cursor}", key)
        assert isinstance(body, dict)
        found += [one["transactionNo"] for one in body["data"]]
        if body["nextCursor"] is None:
            return found
        cursor = f"&cursor={body['nextCursor']}"
        wall.set_by_seconds += chance.uniform(-HOUR_SECONDS, HOUR_SECONDS)
        await sell(service, 1_000_000 + len(found))


async def test_the_order_is_that_of_the_commits_whatever_the_clock_says(tmp_path: Path) -> None:
    path, wall = tmp_path / "ledger.db", Wall()
    # The machine's clock as it is, since a restart sees it so.
    clock = Clock(now_ms=wall.now_ms)
    numbers = [str(number) for number in range(1, EACH * len(STEPS_SECONDS) + 1)]
    async with serving(path, clock=clock) as service:
        key = service.key(Role.ADMIN, merchant_no=None, store_no=None)
        async with till(service.url, service.key()) as one:
            await one.join({"stream": STREAM, "after": "earliest"})
            for step, seconds in enumerate(STEPS_SECONDS):
                wall.set_by_seconds += seconds
                await sell(service, *map(int, numbers[step * EACH : (step + 1) * EACH]))
            assert await one.offsets(len(numbers)) == list(range(1, len(numbers) + 1))
        _, body = await service.get("/v1/entries?limit=500", key)
        assert isinstance(body, dict)
        assert [entry["seq"] for entry in body["data"]] == list(range(1, len(numbers) + 1))
        # Who reads page by page sees each that was there, once.
        found = await pages(service, key, wall, seed=5)
        assert len(found) == len(set(found))
        assert set(numbers) <= set(found)
        epoch = service.ledger.epoch
    # The next service starts two days earlier than the last one stopped.
    wall.set_by_seconds -= 48 * HOUR_SECONDS
    async with serving(path, clock=clock) as service:
        head = (await service.ledger.head()).events
        async with till(service.url, service.key()) as one:
            await one.join({"stream": STREAM, "after": {"epoch": epoch, "offset": head}})
            await sell(service, 2_000_000)
            assert await one.offsets(1) == [head + 1]
    verify(url_of(path))


@pytest.mark.parametrize("set_by_seconds", [0.0, -HOUR_SECONDS, -24 * HOUR_SECONDS])
async def test_a_doubt_is_raised_within_a_minute_although_the_clock_is_set_back(
    tmp_path: Path, set_by_seconds: float
) -> None:
    passing = PassingClock(time_scale=SCALE)
    wall = Wall()

    def now_ns() -> int:
        return int((passing.now_seconds() + wall.set_by_seconds) * 1e9)

    def steady_ns() -> int:
        return int(passing.now_seconds() * 1e9)

    clock = Clock(now_ms=Steady(wall_ns=now_ns, steady_ns=steady_ns), sleep=passing.sleep)
    # Nobody answers where Pockyt should be.
    async with (
        serving(tmp_path / "ledger.db", clock=clock) as service,
        till(service.url, service.key()) as one,
    ):
        await one.join({"stream": STREAM, "after": "earliest"})
        began = passing.now_seconds()
        assert await service.notify({"status": "mystery"}) == (200, "success")
        wall.set_by_seconds = set_by_seconds
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await one.hear("event"))["event"]["type"] != "transaction.unresolved":
                pass
        assert 50 < passing.now_seconds() - began < 90


async def test_a_doubt_from_when_the_clock_was_ahead_is_raised_after_a_restart(
    tmp_path: Path,
) -> None:
    passing = PassingClock(time_scale=SCALE)
    wall = Wall()

    def now_ns() -> int:
        return int((passing.now_seconds() + wall.set_by_seconds) * 1e9)

    def steady_ns() -> int:
        return int(passing.now_seconds() * 1e9)

    def clock() -> Clock:
        return Clock(now_ms=Steady(wall_ns=now_ns, steady_ns=steady_ns), sleep=passing.sleep)

    wall.set_by_seconds = 30 * 24 * HOUR_SECONDS
    async with serving(tmp_path / "ledger.db", clock=clock()) as service:
        assert await service.notify({"status": "mystery"}) == (200, "success")
    wall.set_by_seconds = 0.0
    async with (
        serving(tmp_path / "ledger.db", clock=clock()) as service,
        till(service.url, service.key()) as one,
    ):
        await one.join({"stream": STREAM, "after": "earliest"})
        began = passing.now_seconds()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await one.hear("event"))["event"]["type"] != "transaction.unresolved":
                pass
        assert passing.now_seconds() - began < 90
