"""The limits of what is asked: a breaker, a bucket, and turns."""

import asyncio

import pytest

from listener.errors import TooManyWishesError
from listener.lifecycle import caller
from listener.lifecycle.facts import Outcome
from listener.lifecycle.gate import Breaker, Bucket, Limits, WishShares
from listener.lifecycle.turns import Turns
from listener.pockyt.answer import Answer, PockytRefusedError, PockytUnavailableError

LIMITS = Limits(
    asks_per_second=2, asks_burst=3, failures_max=3, pause_seconds=5, pause_seconds_max=20
)


def _broken(at_ms: int = 0) -> Breaker:
    breaker = Breaker(LIMITS)
    for _ in range(LIMITS.failures_max):
        breaker.fail(at_ms)
    return breaker


def test_a_few_failures_close_nothing() -> None:
    breaker = Breaker(LIMITS)
    breaker.fail(0)
    breaker.fail(0)
    assert breaker.admit(0)
    assert not breaker.is_open


def test_an_answer_makes_the_failures_forgotten() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(5):
        breaker.fail(0)
        breaker.fail(0)
        breaker.succeed()
    assert not breaker.is_open


def test_after_failures_in_a_row_nothing_is_let_through_for_a_while() -> None:
    breaker = _broken()
    assert breaker.is_open
    assert not breaker.admit(0)
    assert not breaker.admit(4_999)


def test_then_one_probe_is_let_through_at_a_time() -> None:
    breaker = _broken()
    assert breaker.admit(5_000)
    assert not breaker.admit(5_001)
    breaker.leave()
    assert breaker.admit(5_002)


def test_a_probe_that_is_answered_opens_the_way() -> None:
    breaker = _broken()
    assert breaker.admit(5_000)
    breaker.succeed()
    assert breaker.admit(5_001)
    assert breaker.admit(5_001)


@pytest.mark.parametrize(("failed", "pause_ms"), [(1, 10_000), (2, 20_000), (3, 20_000)])
def test_each_probe_that_fails_doubles_the_pause_up_to_a_limit(failed: int, pause_ms: int) -> None:
    breaker = _broken()
    now_ms = 5_000
    for _ in range(failed):
        now_ms += 100_000
        assert breaker.admit(now_ms)
        breaker.fail(now_ms)
    assert not breaker.would_admit(now_ms + pause_ms - 1)
    assert breaker.would_admit(now_ms + pause_ms)


def test_failures_of_calls_that_were_under_way_do_not_lengthen_the_pause() -> None:
    breaker = _broken()
    for _ in range(8):
        breaker.fail(1_000)
    assert breaker.would_admit(5_000)


def test_the_pause_begins_small_again_after_an_answer() -> None:
    breaker = _broken()
    breaker.fail(50_000)
    breaker.succeed()
    for _ in range(3):
        breaker.fail(60_000)
    assert breaker.would_admit(65_000)


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(per_second=2.0, burst=3, now_ms=0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(499)
    assert bucket.take(500)
    assert not bucket.take(500)


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(per_second=2.0, burst=3, now_ms=0)
    assert [bucket.take(3_600_000) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_steps_back_does_not_empty_a_bucket() -> None:
    bucket = Bucket(per_second=2.0, burst=3, now_ms=1_000_000)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(500)


async def test_one_at_a_time_has_the_turn_of_a_key_and_others_wait_for_none() -> None:
    turns, log = Turns(), list[str]()
    first_is_in = asyncio.Event()

    async def take(name: str, key: str) -> None:
        async with turns.of(key):
            log.append(f"{name} in")
            if name == "first":
                first_is_in.set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            log.append(f"{name} out")

    await asyncio.gather(take("first", "a"), take("second", "a"), take("other", "b"))
    assert log.index("second in") > log.index("first out")
    assert log.index("other out") < log.index("first out")
    assert len(turns) == 0


async def test_a_turn_that_is_given_up_while_waiting_leaves_nothing_behind() -> None:
    turns = Turns()
    async with turns.of("a"):
        waiting = asyncio.create_task(_hold(turns))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert len(turns) == 1
    assert len(turns) == 0


async def _hold(turns: Turns) -> None:
    async with turns.of("a"):
        await asyncio.sleep(0)


def _shares(now: list[int]) -> WishShares:
    limits = Limits(wishes_at_once=2, wishes_per_second=1.0, wishes_burst=3)
    return WishShares(limits, now_ms=lambda: now[0])


def test_the_wishes_of_a_key_under_way_at_once_are_limited() -> None:
    shares = _shares([0])
    with shares.of("one"), shares.of("one"):
        with pytest.raises(TooManyWishesError), shares.of("one"):
            pass
        with shares.of("other"):
            pass


def test_the_wishes_of_a_key_in_a_second_are_limited() -> None:
    now = [0]
    shares = _shares(now)
    for _ in range(3):
        with shares.of("one"):
            pass
    with pytest.raises(TooManyWishesError), shares.of("one"):
        pass
    now[0] = 1_000
    with shares.of("one"):
        pass
    with pytest.raises(TooManyWishesError), shares.of("one"):
        pass


@pytest.mark.parametrize(
    ("outcome", "is_up"),
    [
        (Answer(), True),
        (PockytRefusedError("000021", "no such record"), True),
        # Nobody knows what became of the call, but Pockyt has answered.
        (PockytRefusedError("000099", "pending review"), True),
        (PockytRefusedError("000000", "data error : verifySign"), True),
        (PockytRefusedError("000000", "system error"), False),
        (PockytRefusedError("000080", "supplier error"), False),
        (PockytUnavailableError("silence", reason="timeout"), False),
    ],
)
def test_only_silence_and_its_own_failures_count_against_pockyt(
    outcome: Outcome, is_up: bool
) -> None:
    assert caller._is_up(outcome) is is_up
