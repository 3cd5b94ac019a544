"""The back-ends of the ledger, for tests of what each of them promises."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from listener.ledger.schedule import Confirm
from listener.storage import AnyLedger, open_ledger, verify
from listener.storage.checks import Verified
from listener.storage.postgres import writer as postgres
from listener.storage.sqlite import writer as sqlite
from tests.support.databases import database
from tests.support.stored import Clock, url_of

NAMES: Final = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class Backend:
    """An empty place for a ledger, by its URL."""

    url: str
    batch_max: int

    async def open(
        self,
        *,
        clock: Callable[[], int] | None = None,
        on_commit: Callable[[float, int], None] | None = None,
        confirm: Confirm = "suspicious",
    ) -> AnyLedger:
        """Open the ledger; the first call creates it."""
        return await open_ledger(
            self.url, clock=clock or Clock(), on_commit=on_commit, confirm=confirm
        )

    async def verify(self) -> Verified:
        """Check the ledger as `listener verify` does, which has no event loop."""
        return await asyncio.to_thread(verify, self.url)


@contextmanager
def backend(name: str, folder: Path) -> Iterator[Backend]:
    """Make a place for a ledger on a back-end, and remove it at the end."""
    if name == "sqlite":
        yield Backend(url_of(folder / "ledger.db"), sqlite.BATCH_MAX)
        return
    with database() as url:
        yield Backend(url, postgres.BATCH_MAX)
