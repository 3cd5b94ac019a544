"""What one key may take of what all share."""

import asyncio

import pytest

from listener.web import shares as shares_module
from listener.web.problem import ProblemError
from listener.web.shares import REQUESTS_AT_ONCE_MAX, SEARCHES_WAITING_MAX, Shares


async def test_a_key_has_a_burst_of_requests_and_then_a_rate() -> None:
    shares = Shares()
    now = 0.0
    shares._clock = lambda: now
    for _ in range(REQUESTS_AT_ONCE_MAX):
        shares.count_request("k")
    with pytest.raises(ProblemError) as refused:
        shares.count_request("k")
    assert (refused.value.status, refused.value.code) == (429, "too-many")
    assert refused.value.headers["Retry-After"] == "1"
    # Another key has a share of its own.
    shares.count_request("other")
    now = 1 / shares_module.REQUESTS_PER_SECOND
    shares.count_request("k")
    with pytest.raises(ProblemError):
        shares.count_request("k")


async def test_the_keys_that_are_kept_in_mind_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares_module, "KEYS_MAX", 2)
    shares = Shares()
    for key in ("a", "b", "a", "c"):
        shares.count_request(key)
    assert list(shares._requests) == ["a", "c"]


async def test_a_key_searches_once_at_a_time_and_only_a_few_wait() -> None:
    shares = Shares()
    running, most = 0, 0
    done = asyncio.Event()

    async def search(key: str) -> None:
        nonlocal running, most
        async with shares.searching(key):
            running += 1
            most = max(most, running)
            await done.wait()
            running -= 1

    tasks = [asyncio.create_task(search("k")) for _ in range(1 + SEARCHES_WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(ProblemError) as refused:
        async with shares.searching("k"):
            pass
    assert refused.value.status == 429
    other = asyncio.create_task(search("other"))
    await asyncio.sleep(0)
    # One of each key.
    assert (running, most) == (2, 2)
    done.set()
    await asyncio.gather(*tasks, other)
    assert (most, shares._searching, shares._searches) == (2, {}, {})


async def test_a_key_waits_only_so_often_at_a_time() -> None:
    shares = Shares()
    with shares.waiting("k", limit=2), shares.waiting("k", limit=2):
        with pytest.raises(ProblemError) as refused, shares.waiting("k", limit=2):
            pass
        assert refused.value.status == 429
        with shares.waiting("k", limit=1), shares.waiting("other", limit=2):
            pass
    with shares.waiting("k", limit=2):
        pass
    assert not shares._waits
