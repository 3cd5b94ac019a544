"""SIGKILL in the middle of a stream of notifications."""

from pathlib import Path

from tests.fault import kills

KILLS = 20


async def test_after_twenty_kills_nothing_acknowledged_is_lost_double_or_out_of_order(
    tmp_path: Path,
) -> None:
    outcome = await kills.run(tmp_path, kills=KILLS, seed=20)
    assert outcome.kills == KILLS
    # The load was real: on average several notifications were acknowledged before each kill.
    assert len(outcome.acknowledged) > 5 * KILLS
    kills.check(outcome)
