"""Who asks while a read is under way is read for with all others who do."""

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest

from listener.errors import LedgerUnavailableError
from listener.storage.gathered import GATHERED_MAX, Gathered

TURNS: Final = 5
SECONDS: Final = 2.0


class Source:
    """Answers each number with its double once it is let; notes what each read was asked."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []
        self.tasks: list[object] = []
        self.let = asyncio.Event()
        self.error: Exception | None = None

    async def read(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.reads.append([*numbers])
        self.tasks.append(asyncio.current_task())
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return [number * 2 if number >= 0 else ValueError(number) for number in numbers]


@pytest.fixture(name="source")
def _source() -> Source:
    return Source()


@pytest.fixture(name="gathered")
def _gathered(source: Source) -> Gathered[int, int]:
    return Gathered(source.read)


async def asked(gathered: Gathered[int, int], *numbers: int) -> list["asyncio.Task[int]"]:
    """Ask, each in a task of its own, and let them come so far as they can."""
    tasks = [asyncio.create_task(gathered.ask(number)) for number in numbers]
    await turns()
    return tasks


async def answers(tasks: Sequence["asyncio.Task[int]"]) -> list[int | BaseException]:
    async with asyncio.timeout(SECONDS):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_who_asks_alone_reads_in_its_own_task(
    source: Source, gathered: Gathered[int, int]
) -> None:
    source.let.set()
    assert [await gathered.ask(1), await gathered.ask(2)] == [2, 4]
    assert source.reads == [[1], [2]]
    assert source.tasks == [asyncio.current_task()] * 2


async def test_those_who_ask_during_a_read_are_answered_by_the_next_together(
    source: Source, gathered: Gathered[int, int]
) -> None:
    tasks = await asked(gathered, 1, 2, 1, 3)
    assert source.reads == [[1]]
    source.let.set()
    assert await answers(tasks) == [2, 4, 2, 6]
    assert source.reads == [[1], [2, 1, 3]]


async def test_a_read_takes_only_so_many_and_those_first_who_came_first(
    source: Source, gathered: Gathered[int, int]
) -> None:
    tasks = await asked(gathered, *range(GATHERED_MAX + 2))
    source.let.set()
    assert await answers(tasks) == [number * 2 for number in range(GATHERED_MAX + 2)]
    assert source.reads == [[0], [*range(1, GATHERED_MAX + 1)], [GATHERED_MAX + 1]]


async def test_as_many_reads_are_under_way_as_there_may_be(source: Source) -> None:
    gathered = Gathered(source.read, at_once=2)
    tasks = await asked(gathered, 1, 2, 3, 4)
    assert source.reads == [[1], [2]]
    source.let.set()
    await answers(tasks)
    assert source.reads == [[1], [2], [3, 4]]
    source.let.clear()
    tasks = await asked(gathered, 5, 6, 7)
    assert source.reads[3:] == [[5], [6]]
    source.let.set()
    await answers(tasks)


async def test_an_unavailable_ledger_is_an_error_to_each_who_asked_and_to_nobody_later(
    source: Source, gathered: Gathered[int, int]
) -> None:
    tasks = await asked(gathered, 1, 2, 3)
    source.error = LedgerUnavailableError("gone")
    source.let.set()
    found = await answers(tasks)
    assert found == [source.error] * 3
    assert source.reads == [[1], [2, 3]]
    source.error = None
    assert await gathered.ask(4) == 8


async def test_a_question_that_cannot_be_asked_fails_alone(source: Source) -> None:
    async def read(numbers: Sequence[int]) -> list[int | Exception]:
        found = await source.read(numbers)
        if 3 in numbers:
            raise ValueError("3")
        return found

    tasks = await asked(Gathered(read), 1, 2, 3, 4)
    source.let.set()
    with pytest.raises(ValueError, match="3"):
        await tasks.pop(2)
    assert await answers(tasks) == [2, 4, 8]


async def test_nobody_who_has_left_is_read_for(
    source: Source, gathered: Gathered[int, int]
) -> None:
    first, second, third = await asked(gathered, 1, 2, 3)
    second.cancel()
    await turns()
    source.let.set()
    assert await answers([first, third]) == [2, 6]
    assert source.reads == [[1], [3]]


async def test_a_read_that_is_cancelled_leaves_nobody_waiting(gathered: Gathered[int, int]) -> None:
    first, second, third = await asked(gathered, 1, 2, 3)
    first.cancel()
    await turns()
    for reading in gathered._tasks:
        reading.cancel()
    found = await answers([second, third])
    assert [type(one) for one in found] == [asyncio.CancelledError] * 2


async def test_an_answer_that_is_an_error_is_so_to_its_own_asker_alone(
    source: Source, gathered: Gathered[int, int]
) -> None:
    tasks = await asked(gathered, -1, 2, -3, 4)
    source.let.set()
    for task in (tasks[0], tasks[2]):
        with pytest.raises(ValueError, match="-"):
            await task
    assert await answers([tasks[1], tasks[3]]) == [4, 8]


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_one_who_is_cancelled_cancels_nobody_else(
    source: Source, gathered: Gathered[int, int], cancelled: int
) -> None:
    tasks = await asked(gathered, 0, 1, 2, 3)
    tasks.pop(cancelled).cancel()
    await turns()
    source.let.set()
    assert await answers(tasks) == [number * 2 for number in range(4) if number != cancelled]
    assert await answers(await asked(gathered, 5)) == [10]


async def test_one_who_is_cancelled_during_a_shared_read_cancels_nobody_else(
    source: Source, gathered: Gathered[int, int]
) -> None:
    first, second, third = await asked(gathered, 1, 2, 3)
    # The read of the second and third begins, and waits.
    first.cancel()
    await turns()
    assert source.reads == [[1], [2, 3]]
    second.cancel()
    await turns()
    source.let.set()
    assert await answers([third]) == [6]
    assert second.cancelled()
