"""A part of the simulation in every test run; the whole of it is ``make simulate``."""

import asyncio
from pathlib import Path

from click.testing import CliRunner

from tests.property.scenario import play
from tests.property.simulate import main, play_some

SCENARIOS = 120


def test_every_scenario_ends_in_the_truth() -> None:
    report, failures = play_some(range(1, SCENARIOS + 1))
    assert not failures
    assert report.counts["scenarios"] == SCENARIOS
    # A simulation in which nothing goes wrong shows nothing.
    for what in ("cancels", "kills", "unresolved", "notifications", "cancels by reference"):
        assert report.counts[what] > SCENARIOS / 20, what
    for what in ("refunds", "numbers repeated", "restarts of Pockyt"):
        assert report.counts[what] > 0, what
    assert {"cancelled", "paid", "refunded", "failed"} <= set(report.statuses)


def test_a_seed_plays_the_same_scenario_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    one = asyncio.run(play(7, directory=first))
    other = asyncio.run(play(7, directory=second))
    assert one == other


def test_the_command_says_what_held() -> None:
    told = CliRunner().invoke(main, ["--scenarios", "3", "--seed", "40", "--jobs", "1"])
    assert told.exit_code == 0
    assert "3 scenarios held" in told.output
    assert "0 failed" in told.output
