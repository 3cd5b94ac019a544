"""SIGKILL in the middle of a stream of notifications."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fault import kills, load, long_run
from tests.fault.lives import Nursery

KILLS = 8


@pytest.mark.parametrize(
    "twists", [[], ["checkpoint-often"]], ids=["few-checkpoints", "many-checkpoints"]
)
async def test_after_many_kills_nothing_acknowledged_is_lost_double_or_out_of_order(
    nursery: Nursery, tmp_path: Path, twists: list[str]
) -> None:
    outcome = await kills.run(nursery, tmp_path, kills=KILLS, seed=20, twists=twists)
    # The load was real: on average several notifications were acknowledged before each kill.
    assert len(outcome.acknowledged) > 5 * KILLS


def test_the_long_run_writes_down_what_it_has_done(tmp_path: Path) -> None:
    results = tmp_path / "bench" / "faults.json"
    parts = ("--only", "kills", "--kills", "3")
    done = CliRunner().invoke(long_run.main, [*parts, "--results", str(results)])
    assert done.exit_code == 0, done.output
    found = json.loads(results.read_text())
    assert found["kills"]["kills"] == 3
    assert found["kills"]["sent"] == found["kills"]["acknowledged"] == found["kills"]["told"]
    assert "kills: " in done.output


def test_a_long_run_that_finds_something_says_the_seed_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complain(_shop: load.Shop) -> None:
        raise AssertionError("something is wrong")

    monkeypatch.setattr(load.Shop, "check", complain)
    results = tmp_path / "faults.json"
    parts = ("--only", "kills", "--kills", "1", "--seed", "77")
    done = CliRunner().invoke(long_run.main, [*parts, "--results", str(results)])
    assert done.exit_code != 0
    assert "--seed 77" in done.output
    assert not results.exists()
