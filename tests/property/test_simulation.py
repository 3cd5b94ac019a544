"""A part of the simulation in every test run; the whole of it is ``make simulate``."""

import asyncio
from pathlib import Path

from click.testing import CliRunner

from tests.property.scenario import play
from tests.property.simulate import main, play_some
from tests.support import needs

SCENARIOS = 40
NODES_SCENARIOS = 6


def test_every_scenario_ends_in_the_truth() -> None:
    report, failures = play_some(range(1, SCENARIOS + 1))
    assert not failures
    assert report.counts["scenarios"] == SCENARIOS
    # A simulation in which nothing goes wrong shows nothing.
    for what in ("cancels", "kills", "unresolved", "notifications", "cancels by reference"):
        assert report.counts[what] > SCENARIOS / 20, what
    for what in ("late calls", "refunds", "numbers repeated", "restarts of Pockyt"):
        assert report.counts[what] > 0, what
    assert {"cancelled", "paid", "refunded", "failed"} <= set(report.statuses)


def test_every_scenario_of_two_nodes_on_one_ledger_ends_in_the_truth() -> None:
    needs.postgres()
    report, failures = play_some(range(1, NODES_SCENARIOS + 1), nodes=2)
    assert not failures
    assert report.counts["scenarios"] == NODES_SCENARIOS
    for what in ("cancels", "kills", "notifications", "wishes at two nodes"):
        assert report.counts[what] > 0, what


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
