"""What a node reads of what others record: all of a stream that is followed, else only its head."""

import asyncio
from collections.abc import Mapping

import pytest

from listener.hub.hub import Hub
from listener.ledger.model import EVERY_STREAM, Event
from listener.storage.postgres.bell import Publisher
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.location import read_location
from tests.support.databases import node
from tests.support.followers import KeptFrames, follow, until
from tests.support.stored import STREAM, numbered
from tests.support.told import MERCHANT

OTHER_STORE = "300014"
OTHER_STREAM = f"{MERCHANT}/{OTHER_STORE}"
EVENTS = 600


async def test_of_a_stream_that_is_not_followed_only_its_head_is_read(url: str) -> None:
    async with node(url) as one, node(url) as other:
        heard: list[Event] = []
        left_out: list[tuple[Mapping[str, int], int]] = []
        other.listen(
            heard.extend,
            follows=lambda stream: stream == OTHER_STREAM,
            skip=lambda heads, count: left_out.append((heads, count)),
        )
        for n in range(1, 4):
            await one.record(numbered(n))
        await one.record(numbered(4, store_no=OTHER_STORE))
        await until(lambda: len(heard) == 1)
        assert [(event.number, event.stream, event.offset) for event in heard] == [
            (4, OTHER_STREAM, 1)
        ]
        heads = {name: head for heads, _ in left_out for name, head in heads.items()}
        assert heads[STREAM] == 3
        assert OTHER_STREAM not in heads
        assert sum(count for _, count in left_out) == 3


async def test_a_till_that_comes_to_what_was_left_out_is_told_each_event_once(url: str) -> None:
    async with node(url) as one, node(url) as other:
        hub = Hub(other)
        await hub.start()
        sinks = [KeptFrames() for _ in range(8)]
        recording = asyncio.gather(
            *((one, other)[n % 2].record(numbered(n)) for n in range(EVENTS))
        )
        for sink in sinks:
            # Each comes in the middle of it, a little later than the one before.
            await follow(hub, sink, after=0)
        await recording
        late = KeptFrames()
        await follow(hub, late, after=EVENTS // 2, name=EVERY_STREAM)
        await until(lambda: all(len(sink.offsets()) >= EVENTS for sink in sinks))
        await until(lambda: len(late.offsets()) >= EVENTS // 2)
        assert all(sink.offsets() == [*range(1, EVENTS + 1)] for sink in sinks)
        assert late.offsets() == [*range(EVENTS // 2 + 1, EVENTS + 1)]
        await hub.close()


async def test_events_are_counted_although_they_were_left_out(url: str) -> None:
    async with node(url) as one, node(url) as other:
        hub, counted = Hub(other), list[int]()
        hub.on_publish = counted.append
        await hub.start()
        await asyncio.gather(*((one, other)[n % 2].record(numbered(n)) for n in range(40)))
        await until(lambda: sum(counted) >= 40)
        assert sum(counted) == 40
        await hub.close()


async def test_a_server_that_is_down_is_no_fault_of_the_bell(
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher = Publisher(
        channel=Channel(read_location("postgresql://nobody@127.0.0.1:1/none"), name="bell"),
        follows=lambda _stream: True,
        ring=lambda _events, _heads, _left_out: None,
        witness=lambda _seq, _hash: None,
    )
    publishing = asyncio.create_task(publisher.run())
    await until(lambda: bool(caplog.messages))
    publishing.cancel()
    assert caplog.messages == ["read_failed"]
