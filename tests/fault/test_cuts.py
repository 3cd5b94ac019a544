"""A power cut at any moment: what was synced is there, the rest may be, and is never half."""

import random
from pathlib import Path

import pytest

from tests.fault import cuts
from tests.fault.cuts import LostError, Recording
from tests.fault.disk import Disk
from tests.fault.lives import Nursery
from tests.fault.tape import Create, Sync, Write

EACH = 8
PROMISES_MAX = EACH * cuts.SENDERS
MORE = 10


def some_points(recording: Recording, *, seed: int) -> list[int]:
    """Choose moments at which something was promised, all if they are few, and some others."""
    chance = random.Random(seed)
    promised = [*recording.points()]
    others = chance.sample(range(len(recording.steps)), MORE)
    return [*chance.sample(promised, min(len(promised), PROMISES_MAX)), *others]


@pytest.mark.parametrize("is_new", [False, True], ids=["ledger", "ledger-that-is-being-made"])
async def test_after_a_power_cut_all_that_was_promised_is_there(
    nursery: Nursery, tmp_path: Path, *, is_new: bool
) -> None:
    recording = await cuts.record(nursery, tmp_path, each=EACH, is_new=is_new)
    assert recording.promises == EACH * cuts.SENDERS
    # The file itself was written under load, and not only as the service ended.
    promised = list(recording.points())
    assert recording.synced_between(promised[0], promised[-1]) >= 2
    points = some_points(recording, seed=1)
    assert await cuts.check(recording, points=points, seed=1) == 3 * len(points) > 90


@pytest.mark.parametrize(
    "fault", ["fdatasync:error=EIO:when=4+2", "pwrite64:error=ENOSPC:when=90+31"]
)
async def test_entries_lost_by_a_failing_disk_were_never_acknowledged(
    nursery: Nursery, tmp_path: Path, fault: str
) -> None:
    # So many that some meet the fault, also where a few large commits carry them.
    each = 5 * EACH
    recording = await cuts.record(nursery, tmp_path, each=each, faults=[fault])
    # Some were told to come again; Linux drops what it could not sync, whatever is synced later.
    assert 0 < recording.promises < each * cuts.SENDERS
    assert bool(recording.failed_syncs) == ("fdatasync" in fault)
    assert await cuts.check(recording, points=some_points(recording, seed=2), seed=2) > 20


@pytest.mark.parametrize("flaw", ["never-sync", "acknowledge-early"])
async def test_this_finds_a_service_that(nursery: Nursery, tmp_path: Path, flaw: str) -> None:
    recording = await cuts.record(nursery, tmp_path, each=EACH, twists=[flaw])
    with pytest.raises(LostError):
        await cuts.check(recording, points=[*recording.points()], seed=3)


def test_the_disk_of_these_tests_keeps_what_was_synced_and_may_lose_and_tear_the_rest() -> None:
    drive = Disk({"": b"old" * 1_000})
    drive.take(Write("", 0, b"1" * 1_024))
    drive.take(Sync(""))
    drive.take(Write("", 600, b"2" * 1_024))
    drive.take(Create("-wal"))
    kept = b"1" * 1_024 + (b"old" * 1_000)[1_024:]
    chance = random.Random(4)
    assert drive.cut(chance, "nothing") == {"": kept}
    found = {tuple(sorted(drive.cut(chance, "any").items())) for _ in range(200)}
    # The new file is there or not; and each of three sectors is of the new write or of the old.
    assert len(found) == 2 * 2**3
    drive.take(Sync("", is_good=False))
    drive.take(Sync("folder"))
    assert drive.cut(chance, "any") == {"": kept, "-wal": b""}
