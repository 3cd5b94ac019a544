"""The power is cut: only what was synced is sure to be there.

The real service is recorded at work, with all that it does to its disk and all that it tells.
Then the recording is cut at many points, and for each the files are built as the disk may have
them: the ledger must open, be sound, and hold all that anybody had been told by then.
"""

import asyncio
import random
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from listener.storage import open_ledger
from listener.storage.sqlite.verify import verify
from tests.fault import disk, tape
from tests.fault.disk import LUCK, Disk
from tests.fault.lives import Nursery, traced
from tests.fault.load import Shop, counter, shop
from tests.fault.tape import Step, Sync, Told
from tests.support.stored import STREAM, bare, numbered, url_of

SENDERS: Final = 4
# What a cut has left is looked at in memory, where there is one: nobody cuts the power of that.
MEMORY: Final = Path("/dev/shm")
AFTER: Final = 1_000_000


class LostError(Exception):
    """Something that somebody was told is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a service did, on which files, and how far it came."""

    files: dict[str, bytes]
    steps: list[Step]

    def points(self) -> Iterator[int]:
        """List where somebody has just been told something."""
        return (at for at, step in enumerate(self.steps, start=1) if isinstance(step, Told))

    @property
    def promises(self) -> int:
        """How many notifications were acknowledged."""
        return sum(isinstance(step, Told) and step.acknowledged is not None for step in self.steps)

    def synced_between(self, first: int, last: int) -> int:
        """How often the ledger's file, not its log, was synced."""
        return self.steps[first:last].count(Sync(""))

    @property
    def failed_syncs(self) -> int:
        """How many syncs failed."""
        return sum(isinstance(step, Sync) and not step.is_good for step in self.steps)


async def record(
    nursery: Nursery,
    directory: Path,
    *,
    each: int,
    twists: Sequence[str] = (),
    faults: Sequence[str] = (),
    is_new: bool = False,
) -> Recording:
    """Record a service from its start to its stop, while each sender sends so many.

    ``faults`` are injections of strace; ``is_new``: the ledger's file is made by it, too.
    """
    twists = ("checkpoint-often", *twists)
    if is_new:
        async with counter(nursery, directory, twists=twists) as one:
            return await _record(one, directory, each=each, faults=faults)
    async with shop(nursery, directory, twists=twists) as one:
        return await _record(one, directory, each=each, faults=faults)


async def _record(one: Shop, directory: Path, *, each: int, faults: Sequence[str]) -> Recording:
    recorded = directory / "tape"
    files = disk.pick_up(one.ledger)
    async with one.life(is_begun=False) as life:
        injections = [option for fault in faults for option in ("-e", f"inject={fault}")]
        async with traced(life, "-o", str(recorded), *tape.OPTIONS, *injections):
            life.begin()
            assert await one.answers(life)
            await asyncio.gather(*(one.send(count=each) for _ in range(SENDERS)))
            await life.end(signal.SIGTERM)
    steps = tape.read(recorded, ledger=one.ledger)
    recorded.unlink()
    return Recording(files=files, steps=steps)


async def check(recording: Recording, *, points: Sequence[int], seed: int) -> int:
    """Cut the power after so many steps, once for each point and each kind of luck.

    Returns:
        How many cuts were made.

    Raises:
        LostError: What had been told by then is not there.
    """
    chance = random.Random(seed)
    drive = Disk(recording.files)
    told: list[Told] = []
    cuts = done = 0
    memory = MEMORY if MEMORY.is_dir() else None
    for point in sorted(points):
        for step in recording.steps[done:point]:
            drive.take(step)
            if isinstance(step, Told):
                told.append(step)
        done = point
        for luck in LUCK:
            with tempfile.TemporaryDirectory(prefix="cut-", dir=memory) as made:
                ledger = disk.lay_out(drive.cut(chance, luck), Path(made))
                await _check_one(ledger, told)
            cuts += 1
    return cuts


async def _check_one(ledger: Path, told: Sequence[Told]) -> None:
    """Check what a cut has left, and that it can be gone on with."""
    async with await open_ledger(url_of(ledger)) as opened:
        events = await opened.read_events(STREAM, after=0, limit=AFTER)
        # A restart goes on with the numbers.
        again = await opened.record(numbered("after the cut"))
    found = verify(url_of(ledger))
    assert again.seq == found.entries
    with closing(bare(ledger)) as db:
        kept = {number for (number,) in db.execute("SELECT transaction_no FROM entries")}
    lost = {one.acknowledged for one in told if one.acknowledged} - kept
    if lost:
        raise LostError(f"{len(lost)} were acknowledged, and are not there")
    shown = max((one.offset for one in told if one.offset), default=0)
    if shown > len(events):
        raise LostError(f"a till was told of event {shown}, and there are {len(events)}")
