"""Patroni loses its primary's machine: the listener follows, and nothing acknowledged is lost.

It takes more than a minute, so it is a part of `make faults-postgres`, not of `make test`.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import pytest

from listener.errors import LedgerUnavailableError
from listener.storage import check_up, verify
from listener.storage.postgres.ledger import PostgresLedger
from tests.support.patroni import PASSWORD, Member, patroni_cluster
from tests.support.stored import Clock, numbered

NOTIFICATIONS = 3_000
SENDERS = 16
DEADLINE_SECONDS = 120.0


@pytest.fixture(name="members")
def _members() -> Iterator[tuple[Member, Member]]:
    with patroni_cluster() as members:
        yield members


async def wait_until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await asyncio.to_thread(is_so):
            await asyncio.sleep(0.1)


async def record(ledger: PostgresLedger, numbers: Iterator[int], taken: dict[int, float]) -> None:
    """Send notifications as Pockyt does: each again, until it is acknowledged."""
    for number in numbers:
        while number not in taken:
            with suppress(LedgerUnavailableError):
                await ledger.record(numbered(number))
                taken[number] = time.monotonic()
        await asyncio.sleep(0.05)


async def test_the_primarys_machine_is_killed_and_nothing_acknowledged_is_lost(
    members: tuple[Member, Member],
) -> None:
    first, second = members
    await wait_until(lambda: first.cluster().get("a") == "leader")
    second.start()
    await wait_until(lambda: first.cluster() == {"a": "leader", "b": "sync_standby"})
    url = f"postgresql://postgres:{PASSWORD}@{first.server.host},{second.server.host}/postgres"
    async with await PostgresLedger.open(url, clock=Clock()) as ledger:
        epoch, taken = ledger.epoch, dict[int, float]()
        numbers = iter(range(NOTIFICATIONS))
        sending = [asyncio.create_task(record(ledger, numbers, taken)) for _ in range(SENDERS)]
        await wait_until(lambda: len(taken) > NOTIFICATIONS // 3)
        await asyncio.to_thread(first.kill)
        acknowledged = set(taken)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*sending)
        assert ledger.epoch == epoch
        times = sorted(taken.values())
        away = max(after - before for before, after in pairwise(times))
        print(f"nothing was taken for {away:.1f} s")  # noqa: T201 - shown by pytest -rP
        assert len(acknowledged) < NOTIFICATIONS == len(taken)
        # What was lost comes back as a copy of the one that is primary now.
        first.start()
        await wait_until(lambda: second.cluster() == {"a": "sync_standby", "b": "leader"})
        assert (await ledger.record(numbered(NOTIFICATIONS))).seq == NOTIFICATIONS + 1
    found = await asyncio.to_thread(verify, url)
    assert (found.entries, found.transactions) == (NOTIFICATIONS + 1, NOTIFICATIONS + 1)
    findings = {one.name: one for one in await asyncio.to_thread(check_up, url)}
    assert findings["synchronous_standbys"].value == 1
    assert "went_back" not in findings
