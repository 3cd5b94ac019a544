"""Every interleaving of record, publish and read gives a subscriber each event once, in order."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listener.hub import hub as hub_module
from listener.hub import reads as reads_module
from listener.hub import tail as tail_module
from listener.hub.hub import Hub
from listener.hub.subscription import Subscription
from listener.hub.tail import TAIL_EVENTS_MAX
from listener.ledger.model import EVERY_STREAM
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support.followers import HeldBell, KeptFrames, fact, places
from tests.support.told import MERCHANT

STORES = ("303660", "300014")
NAMES = (f"{MERCHANT}/{STORES[0]}", f"{MERCHANT}/{STORES[1]}", EVERY_STREAM)
DEADLINE_SECONDS = 20.0


@dataclass
class Following:
    """A subscriber, and where it began."""

    name: str
    begin: int
    sink: KeptFrames
    subscription: Subscription
    is_over: bool = False


class World:
    """A ledger, a hub that hears its bell late or never, and those who follow."""

    def __init__(self, ledger: SqliteLedger, *, tail_events_max: int) -> None:
        self.ledger = ledger
        self.bell = HeldBell(ledger)
        self.hub = Hub(self.bell, tail_events_max=tail_events_max)
        self.followings: list[Following] = []
        self.recorded = 0

    async def record(self, store: int, count: int) -> None:
        """Record so many facts; those that wait together share a commit."""
        numbers = range(self.recorded, self.recorded + count)
        self.recorded += count
        facts = [fact(number, store_no=STORES[store]) for number in numbers]
        await asyncio.gather(*(self.ledger.record(one) for one in facts))

    async def ring(self, times: int) -> None:
        self.bell.ring(times)

    async def lose(self) -> None:
        self.bell.lose()

    async def subscribe(self, stream: int, share: float) -> None:
        """Follow from somewhere between the beginning and the head."""
        name = NAMES[stream]
        after = int((await self.hub.heads([name]))[name] * share)
        sink = KeptFrames()
        subscription = self.hub.subscribe(name, after=after, sink=sink)
        self.followings.append(Following(name, after, sink, subscription))
        subscription.advance()

    async def room(self, which: int, room: bool) -> None:
        if self.followings:
            self.followings[which % len(self.followings)].sink.room = room

    async def leave(self, which: int) -> None:
        if self.followings:
            leaving = self.followings[which % len(self.followings)]
            leaving.subscription.end()
            leaving.is_over = True

    async def turn(self, times: int) -> None:
        """Run the work under way for a few turns of the loop."""
        for _ in range(times):
            await asyncio.sleep(0)

    async def page(self, stream: int, share: float, limit: int) -> None:
        """Read a page, as a long-poll does."""
        name = NAMES[stream]
        after = int((await self.hub.heads([name]))[name] * share)
        read = places(await self.hub.page(name, after=after, limit=limit), name)
        stored = places(await self.ledger.read_events(name, after=after, limit=limit), name)
        assert read
        assert read == stored[: len(read)]

    async def page_or_nothing(self, stream: int, share: float, limit: int) -> None:
        if self.recorded and (await self.hub.heads([NAMES[stream]]))[NAMES[stream]] > 0:
            await self.page(stream, share * 0.99, limit)

    async def check(self, *, to_the_end: bool) -> None:
        """Compare what each was told with what the ledger holds."""
        for one in self.followings:
            told = one.sink.told()
            events = await self.ledger.read_events(one.name, after=one.begin, limit=10_000)
            stored = places(events, one.name)
            assert told == stored[: len(told)]
            if to_the_end and not one.is_over:
                assert told == stored

    async def end(self) -> None:
        """Ring for one more commit of each store, and wait until nobody is behind."""
        self.bell.ring()
        for one in self.followings:
            one.sink.room = True
        for store in range(len(STORES)):
            await self.record(store, 1)
        self.bell.ring()
        heads = await self.hub.heads(NAMES)
        assert heads == await self.ledger.stream_heads(NAMES)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while any(
                one.subscription.offset < heads[one.name]
                for one in self.followings
                if not one.is_over
            ):
                await asyncio.sleep(0.001)
        await self.check(to_the_end=True)
        await self.hub.close()
        assert self.hub.followers == 0


Command = Callable[[World], Awaitable[None]]
streams = st.integers(0, len(NAMES) - 1)
shares = st.floats(0, 1)
whiches = st.integers(0, 7)
commands = st.one_of(
    st.builds(
        lambda store, count: lambda world: world.record(store, count),
        st.integers(0, len(STORES) - 1),
        st.integers(1, 4),
    ),
    st.builds(lambda times: lambda world: world.ring(times), st.integers(1, 3)),
    st.just(World.lose),
    st.builds(lambda n, share: lambda world: world.subscribe(n, share), streams, shares),
    st.builds(lambda n, room: lambda world: world.room(n, room), whiches, st.booleans()),
    st.builds(lambda n: lambda world: world.leave(n), whiches),
    st.builds(lambda times: lambda world: world.turn(times), st.integers(1, 5)),
    st.builds(
        lambda n, share, limit: lambda world: world.page_or_nothing(n, share, limit),
        streams,
        shares,
        st.integers(1, 5),
    ),
)


async def play(history: list[Command], *, before: int, tail_events_max: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with await SqliteLedger.open(Path(folder) / "ledger.db") as ledger:
            world = World(ledger, tail_events_max=tail_events_max)
            # Their bell is held back as well: what rings for them is known from the start.
            await world.record(0, before)
            await world.hub.start()
            for command in history:
                await command(world)
                await world.check(to_the_end=False)
            await world.end()


@pytest.mark.parametrize("tail_events_max", [TAIL_EVENTS_MAX, 3])
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(commands, max_size=25), before=st.integers(0, 6))
def test_each_subscriber_is_told_each_event_once_and_in_order(
    tail_events_max: int, history: list[Command], before: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Pages so short that a history has several.
        patch.setattr(hub_module, "PAGE_EVENTS_MAX", 3)
        patch.setattr(reads_module, "PAGE_EVENTS_MAX", 3)
        patch.setattr(tail_module, "PAGE_EVENTS_MAX", 2)
        asyncio.run(play(history, before=before, tail_events_max=tail_events_max))
