"""SIGKILL at one system call after the other, on the whole way of a service's life.

A short life is looked at first: it starts on what a kill has left, takes notifications, tells a
till, is told to stop, checkpoints, ends. Then it is lived again and again, and each time strace
kills it where it enters the next call: so there is a kill before each step, which is after the one
before.
"""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fault.lives import Life, Nursery, traced
from tests.fault.load import Outcome, Shop, shop

SENDERS: Final = 2
SENT_EACH: Final = 3
# All that is a step towards the ledger, the disk, a till, Pockyt, or the end.
CALLS: Final = (
    "openat",
    "flock",
    "fcntl",
    "pread64",
    "pwrite64",
    "fdatasync",
    "ftruncate",
    "unlink",
    "mmap",
    "munmap",
    "bind",
    "listen",
    "accept4",
    "epoll_ctl",
    "epoll_wait",
    "recvfrom",
    "sendto",
    "futex",
    "write",
    "shutdown",
    "close",
)
_CALL: Final = re.compile(r"(\d+) +(\w+)\(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a service is killed: as one of its threads enters a call for the nth time."""

    call: str
    nth: int

    @property
    def injection(self) -> str:
        """As strace wants to hear it."""
        return f"inject={self.call}:signal=KILL:when={self.nth}"


async def survey(nursery: Nursery, directory: Path) -> list[Point]:
    """Look at such a life, and list all the points of it."""
    tape = directory / "survey"
    async with shop(nursery, directory) as one:
        async with one.life():
            await _send(one)
        options = ("-o", str(tape), "-e", f"trace={','.join(CALLS)}")
        async with one.life(is_begun=False) as life, traced(life, *options):
            await _live(one, life)
    counts: Counter[tuple[str, str]] = Counter()
    for line in tape.read_text(encoding="ascii").splitlines():
        if found := _CALL.match(line):
            counts[found[2], found[1]] += 1
    most: dict[str, int] = {}
    for (call, _thread), count in counts.items():
        most[call] = max(most.get(call, 0), count)
    return [Point(call=call, nth=nth) for call in CALLS for nth in range(1, most.get(call, 0) + 1)]


def spread(points: Sequence[Point], *, each: int) -> list[Point]:
    """Choose so many of each call, all over the life: no two lives make the very same calls, so
    that the last ones may not come.
    """
    chosen: list[Point] = []
    for call in CALLS:
        of_call = [point for point in points if point.call == call]
        count = min(each, len(of_call))
        chosen += [of_call[n * len(of_call) // count] for n in range(count)]
    return chosen


async def run(
    nursery: Nursery, directory: Path, *, points: Sequence[Point], twists: Sequence[str] = ()
) -> Outcome:
    """Kill at each of the points on one ledger, and look at the ledger after each.

    A life may also end before it comes to its point; such a one is not counted as killed.
    """
    async with shop(nursery, directory, twists=twists) as one:
        for point in points:
            async with one.life(is_begun=False) as life:
                options = ("-o", "/dev/null", "-e", f"trace={point.call}", "-e", point.injection)
                async with traced(life, *options):
                    await _live(one, life)
                    one.outcome.kills += await life.wait() == -9
            one.check()
        await one.settle()
        one.check_all()
        return one.outcome


async def _live(one: Shop, life: Life) -> None:
    """Run a service through start, work and stop, as far as it comes."""
    life.begin()
    if await one.answers(life):
        await _send(one)
        life.send(signal.SIGTERM)
    await life.wait()


async def _send(one: Shop) -> None:
    await asyncio.gather(*(one.send(count=SENT_EACH) for _ in range(SENDERS)))
