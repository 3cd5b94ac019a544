"""A lifecycle on a ledger of either back-end, with a Pockyt that a test scripts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from listener.lifecycle import Clock as Passing
from listener.lifecycle import Lifecycle
from listener.pockyt.calls import PockytCalls
from listener.storage import AnyLedger
from tests.support.backends import Backend
from tests.support.service import settings
from tests.support.stored import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """What lives on the ledger; ``clock`` is the time of all of it."""

    ledger: AnyLedger
    life: Lifecycle
    clock: Clock


@asynccontextmanager
async def living(place: Backend, pockyt: PockytCalls, folder: Path) -> AsyncIterator[Living]:
    """Begin a lifecycle, and end it; the ledger must add up then, whatever has happened."""
    clock = Clock()
    ledger = await place.open(clock=clock)
    life = Lifecycle(
        ledger=ledger,
        pockyt=pockyt,
        merchants=settings(folder / "unused.db").merchants,
        clock=Passing(now_ms=clock, sleep=asyncio.sleep),
    )
    yield Living(ledger=ledger, life=life, clock=clock)
    await life.close()
    await ledger.close()
    await place.verify()
