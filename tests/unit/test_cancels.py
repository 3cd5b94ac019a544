"""How a cancel that could not be settled now is told in the log."""

import asyncio

import pytest

from listener.errors import LedgerUnavailableError
from listener.lifecycle import Clock
from listener.lifecycle.cancels import CancelsUnderWay


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (LedgerUnavailableError("the server restarts"), "chase_postponed"),
        (RuntimeError("a fault of ours"), "settle_failed"),
    ],
)
async def test_a_ledger_that_takes_nothing_now_is_no_fault_of_the_listener(
    caplog: pytest.LogCaptureFixture, error: Exception, event: str
) -> None:
    async def settle() -> None:
        raise error

    cancels = CancelsUnderWay(Clock(), wait_seconds=1.0)
    cancels.start(("200043", "1"), settle())
    assert await cancels.wait(("200043", "1"))
    await asyncio.sleep(0)
    assert caplog.messages == [event]
