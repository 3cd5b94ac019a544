"""Clients handle each event once, in order, whatever becomes of the listener and of the line."""

from pathlib import Path

from tests.fault import clients
from tests.fault.line import Fate
from tests.fault.lives import Nursery

SECONDS = 10.0


async def test_clients_handle_each_event_once_in_order_over_kills_and_a_bad_line(
    nursery: Nursery, tmp_path: Path, node: str
) -> None:
    outcome, fates = await clients.run(nursery, tmp_path, node=node, seconds=SECONDS, seed=1)
    assert outcome.kills >= 3
    assert outcome.sent > 100
    assert set(fates) == set(Fate)
