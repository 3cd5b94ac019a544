"""A disk that is full or fails under the real service: 503 while it lasts, and then as before."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from listener.web.problem import RETRY_SECONDS
from tests.fault.lives import DEADLINE_SECONDS, Life, Nursery, traced
from tests.fault.load import SUCCESS, Answer, Shop, shop

SENDERS = 6
ROUNDS = 5
REFUSED = Answer(503, retry_after=str(RETRY_SECONDS))


@asynccontextmanager
async def failing(life: Life, fault: str, *only: str) -> AsyncIterator[None]:
    """Make a system call of a service fail for as long as the block lasts."""
    call = fault.partition(":")[0]
    options = ("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}")
    async with traced(life, *options, *only):
        yield


@asynccontextmanager
async def full(life: Life) -> AsyncIterator[None]:
    """Stop every file of a service from growing while the block lasts: its disk is full."""
    # Python ignores SIGXFSZ, so that such a write fails as one on a full disk does.
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(life.pid, resource.RLIMIT_FSIZE, unlimited)


async def deliver(one: Shop, *, count: int = SENDERS) -> set[Answer]:
    """Send so many at the same time; return the different answers."""
    return set(await asyncio.gather(*(one.send_one() for _ in range(count))))


async def status(one: Shop, path: str) -> int:
    async with one.client.get(one.url + path) as answer:
        return answer.status


async def refuses_and_reads(one: Shop) -> None:
    """Check that nothing is taken while the disk fails, and that all else goes on."""
    for _ in range(ROUNDS):
        assert await deliver(one) == {REFUSED}
    # Not even a repeat: that it came cannot be kept.
    assert await one.deliver(f"{1:018d}") == REFUSED
    assert await status(one, "/readyz") == 503
    assert await status(one, "/healthz") == 200


@pytest.mark.parametrize(
    "fault",
    [
        "RLIMIT_FSIZE",
        "pwrite64:error=ENOSPC",
        "pwrite64:error=EIO",
        "fdatasync:error=EIO",
        "fdatasync:error=ENOSPC",
    ],
)
async def test_while_the_disk_fails_all_are_told_to_come_again_and_then_it_goes_on(
    nursery: Nursery, tmp_path: Path, fault: str
) -> None:
    async with shop(nursery, tmp_path) as one:
        async with one.life() as life:
            assert await deliver(one) == {SUCCESS}
            async with full(life) if fault == "RLIMIT_FSIZE" else failing(life, fault):
                await refuses_and_reads(one)
            # What was refused is taken now, by the same process.
            assert await deliver(one) == {SUCCESS}
            assert await status(one, "/readyz") == 200
            assert not life.ended.done()
        # It was killed: whatever was acknowledged after the fault is on the disk.
        verified = one.check()
        assert verified.entries == 2 * SENDERS
        # The one repeat was refused, and not counted.
        assert verified.head.repeats == 0
        await one.settle()
        one.check_all()


# Not every second sync fails: the checkpoints between commits could take all those that work.
@pytest.mark.parametrize("fault", ["fdatasync:error=EIO:when=1+5", "pwrite64:error=EIO:when=9+41"])
async def test_a_disk_that_fails_now_and_then_loses_nothing_that_was_acknowledged(
    nursery: Nursery, tmp_path: Path, fault: str
) -> None:
    async with shop(nursery, tmp_path, twists=["checkpoint-often"]) as one:
        async with one.life() as life, failing(life, fault):
            for _ in range(ROUNDS * 2):
                await deliver(one)
            # The calls that fail may be those of checkpoints, for a while.
            async with asyncio.timeout(DEADLINE_SECONDS):
                while one.outcome.answers.keys() != {SUCCESS, REFUSED}:
                    await deliver(one)
        one.check()
        await one.settle()
        one.check_all()


@pytest.mark.parametrize("fault", ["fdatasync:error=EIO", "pwrite64:error=ENOSPC"])
async def test_a_checkpoint_that_fails_only_leaves_the_log_longer(
    nursery: Nursery, tmp_path: Path, fault: str
) -> None:
    async with shop(nursery, tmp_path, twists=["checkpoint-often"]) as one:
        log = one.config.with_suffix(".log")
        async with one.life() as life:
            # Only the ledger's own file fails, which nothing but a checkpoint writes.
            async with failing(life, fault, "-P", str(one.ledger)):
                for _ in range(ROUNDS):
                    assert await deliver(one) == {SUCCESS}
                async with asyncio.timeout(5):
                    while "checkpoint_failed" not in log.read_text():
                        await asyncio.sleep(0.01)
            assert await deliver(one) == {SUCCESS}
        one.check()
        await one.settle()
        one.check_all()
