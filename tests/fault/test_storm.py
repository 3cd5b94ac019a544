"""Tills that all come back at once, after a kill, while notifications go on."""

from pathlib import Path

import pytest

from tests.fault import storm
from tests.fault.lives import Nursery
from tests.support import backends

# 5,000 of them in the long run: `make faults`.
TILLS = 300
SPREAD_SECONDS = 1.0
SLOWEST_SECONDS = 10.0


@pytest.mark.parametrize("backend", backends.NAMES)
async def test_tills_that_all_come_back_at_once_get_what_they_missed_and_memory_stays_bounded(
    nursery: Nursery, tmp_path: Path, backend: str
) -> None:
    with backends.backend(backend, tmp_path) as place:
        found = await storm.run(
            nursery,
            tmp_path,
            tills=TILLS,
            seconds=SPREAD_SECONDS,
            seed=6,
            database=place.url,
        )
    assert found.events > TILLS * storm.EVENTS / 3
    assert found.slowest_seconds < SLOWEST_SECONDS
    assert found.returns == 0
    assert found.memory_bytes < storm.memory_bytes_max(TILLS)
