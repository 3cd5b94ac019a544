"""SIGKILL at every step: between any two system calls of a service's life."""

from pathlib import Path

import pytest

from tests.fault import points
from tests.fault.lives import Nursery
from tests.fault.points import Point

EACH = 3


async def test_a_kill_at_any_step_loses_and_doubles_nothing(
    nursery: Nursery, tmp_path: Path
) -> None:
    looked_at, killed = tmp_path / "survey", tmp_path / "killed"
    looked_at.mkdir()
    killed.mkdir()
    found = await points.survey(nursery, looked_at)
    # Each step of the path is among them: the log, its sync, the answer, the checkpoint, the end.
    assert {"pwrite64", "fdatasync", "sendto", "accept4", "unlink"} <= {one.call for one in found}
    chosen = points.spread(found, each=EACH)
    outcome = await points.run(nursery, killed, points=chosen)
    assert outcome.kills > 0.8 * len(chosen) > 30


@pytest.mark.parametrize(
    ("flaw", "call", "complaint"),
    [
        ("acknowledge-early", "fdatasync", "acknowledged, and lost"),
        ("forget-fingerprints", "sendto", "an entry is double"),
    ],
)
async def test_this_finds_a_service_that(
    nursery: Nursery, tmp_path: Path, flaw: str, call: str, complaint: str
) -> None:
    where = [Point(call=call, nth=nth) for nth in range(1, 25)]
    with pytest.raises(AssertionError, match=complaint):
        await points.run(nursery, tmp_path, points=where, twists=(flaw,))
