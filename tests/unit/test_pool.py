"""The connections that many readers share: each has its turn."""

import asyncio

from listener.storage.pool import Pool


async def test_who_takes_a_connection_again_at_once_does_not_pass_those_who_wait() -> None:
    pool = Pool(["only"])
    turns: list[str] = []

    async def read(name: str, times: int) -> None:
        for _ in range(times):
            async with pool.one() as connection:
                assert connection == "only"
                turns.append(name)
                await asyncio.sleep(0)

    await asyncio.gather(read("a", 3), read("b", 1), read("c", 2))
    assert turns == ["a", "b", "c", "a", "c", "a"]


async def test_a_connection_is_lent_to_one_at_a_time_and_comes_back_whatever_happens() -> None:
    pool = Pool(["one", "other"])
    async with pool.one() as first, pool.one() as second:
        assert {first, second} == {"one", "other"}
        third = asyncio.create_task(pool.one().__aenter__())
        await asyncio.sleep(0)
        assert not third.done()
        third.cancel()
        await asyncio.wait([third])
    try:
        async with pool.one():
            raise ValueError("whatever")
    except ValueError:
        pass
    async with pool.one() as first, pool.one() as second:
        assert {first, second} == {"one", "other"}
