"""SIGKILL at random while notifications stream in, again and again."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fault.lives import Nursery
from tests.fault.load import Outcome, Shop, shop

SENDERS: Final = 6
# A service lives for so long under load before it is killed.
LIFE_SECONDS: Final = (0.01, 0.3)
# One in so many is killed while it starts, which takes it about as long.
YOUNG_EVERY: Final = 5
YOUNG_SECONDS: Final = (0.0, 0.08)


async def run(
    nursery: Nursery, directory: Path, *, kills: int, seed: int, twists: Sequence[str] = ()
) -> Outcome:
    """Kill a service so many times on one ledger, and look at the ledger after each.

    In the end all is sent that was not acknowledged, the till catches up, and all is checked.
    """
    chance = random.Random(seed)
    async with shop(nursery, directory, twists=twists) as one:
        for number in range(kills):
            if number % YOUNG_EVERY == YOUNG_EVERY - 1:
                await _kill_young(one, chance.uniform(*YOUNG_SECONDS))
            else:
                await _kill_at_work(one, chance.uniform(*LIFE_SECONDS))
            one.outcome.kills += 1
            one.check()
        await one.settle()
        one.check_all()
        return one.outcome


async def _kill_at_work(one: Shop, seconds: float) -> None:
    async with one.life() as life:
        sending = [asyncio.create_task(one.send()) for _ in range(SENDERS)]
        await asyncio.wait({life.ended}, timeout=seconds)
        assert await life.end() == -9
    await asyncio.gather(*sending)


async def _kill_young(one: Shop, seconds: float) -> None:
    async with one.life(is_begun=False) as life:
        life.begin()
        await asyncio.wait({life.ended}, timeout=seconds)
        assert await life.end() == -9
