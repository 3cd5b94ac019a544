"""Nodes under load that are killed, paused and cut off: nothing is lost, doubled or skipped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault import nodes
from tests.fault.lives import Nursery
from tests.support.databases import database

FAULTS = 8


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.mark.parametrize("count", [2, 3])
async def test_nodes_that_fail_all_the_time_lose_and_double_nothing(
    nursery: Nursery, url: str, tmp_path: Path, count: int
) -> None:
    counts = await nodes.run(nursery, tmp_path, url, nodes=count, faults=FAULTS, seed=count)
    assert counts["faults"] == FAULTS
    # The load was real.
    assert counts["acknowledged"] > 20 * FAULTS
    assert counts["sales"]
    assert counts["hops"] > 2
