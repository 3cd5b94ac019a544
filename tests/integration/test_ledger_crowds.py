"""Many who read at once, as tills that all come back do: each gets its own, and none waits long."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import pytest

from listener.keys import Key, Role, mint
from listener.ledger.model import EVERY_STREAM
from listener.ledger.results import Acked
from listener.storage import AnyLedger, open_keys
from tests.support import told
from tests.support.backends import Backend
from tests.support.stored import STREAM, numbered

CROWD: Final = 100
# How long a turn of the event loop takes while it has much else to do, and how many all reads may
# need: one by one, on two connections, they would need 50 at least, and more than 150 on
# PostgreSQL.
TURN_SECONDS: Final = 0.01
TURNS_MAX: Final = 25


@pytest.fixture(name="ledger")
async def _ledger(place: Backend) -> AsyncIterator[AnyLedger]:
    async with await place.open() as ledger:
        yield ledger


@pytest.mark.parametrize("kind", ["keys", "heads", "places"])
async def test_a_crowd_of_reads_needs_few_turns_of_a_busy_event_loop(
    ledger: AnyLedger, kind: str
) -> None:
    async def ask(number: int) -> object:
        if kind == "keys":
            return await ledger.find_key(str(number))
        if kind == "heads":
            return await ledger.stream_heads([str(number)])
        return await ledger.acked(terminal=str(number), stream=STREAM)

    # On PostgreSQL the first read connects.
    await asyncio.gather(ask(0), ask(0))
    reads = [asyncio.create_task(ask(number)) for number in range(CROWD)]
    turns = 0
    while not all(read.done() for read in reads):
        turns += 1
        time.sleep(TURN_SECONDS)  # noqa: ASYNC251 - it is to be busy
        await asyncio.sleep(0)
    assert turns <= TURNS_MAX


async def test_each_who_asks_for_a_key_at_once_gets_its_own(
    place: Backend, ledger: AnyLedger
) -> None:
    made = [mint(role=Role.ADMIN, now_ms=told.START_MS + n)[0] for n in range(5)]
    await asyncio.to_thread(_store, place.url, made)
    ids = [key.id for key in made]
    # The text of anyone who connects; one that PostgreSQL cannot hold harms nobody else.
    asked = [*ids, "none", "a\0b", *reversed(ids), ids[0]]
    found = await asyncio.gather(*(ledger.find_key(key_id) for key_id in asked))
    assert found == [*made, None, None, *reversed(made), made[0]]


async def test_each_who_asks_for_heads_at_once_gets_those_of_its_streams(ledger: AnyLedger) -> None:
    await ledger.record(numbered(1))
    await ledger.record(numbered(2))
    asked = [[STREAM], [EVERY_STREAM, "a\0b"], [], ["none", STREAM], [STREAM]]
    found = await asyncio.gather(*(ledger.stream_heads(streams) for streams in asked))
    assert found == [
        {STREAM: 2},
        {EVERY_STREAM: 2, "a\0b": 0},
        {},
        {"none": 0, STREAM: 2},
        {STREAM: 2},
    ]
    assert found[0] is not found[4]


async def test_each_who_asks_for_its_place_at_once_gets_its_own(ledger: AnyLedger) -> None:
    places = [(terminal, stream) for terminal in ("T-1", "T-2") for stream in (STREAM, "other/")]
    for number, (terminal, stream) in enumerate(places):
        await ledger.ack(terminal=terminal, stream=stream, offset=number)
    asked = [*places, ("T-3", STREAM), *reversed(places)]
    found = await asyncio.gather(
        *(ledger.acked(terminal=terminal, stream=stream) for terminal, stream in asked)
    )
    here = [Acked(epoch=ledger.epoch, offset=number) for number in range(len(places))]
    assert found == [*here, None, *reversed(here)]


def _store(url: str, made: list[Key]) -> None:
    with open_keys(url, create=False) as stored:
        for key in made:
            stored.add(key)
