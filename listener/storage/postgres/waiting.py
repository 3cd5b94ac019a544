"""Find out, while a server does not answer, whether it waits for a standby, and report it.

A commit waits for its synchronous standby as long as that is away. Nothing fails, and neither this
node nor the server reports it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from listener.errors import LedgerError, LedgerUnavailableError
from listener.storage.postgres.connection import FAULTS, connect
from listener.storage.postgres.location import Location

# A commit that takes longer than this is looked into.
LOOK_SECONDS: Final = 3.0
WAITS_FOR_STANDBY: Final = (
    "PostgreSQL waits for a synchronous standby, and none answers: bring one back, or change"
    " synchronous_standby_names"
)

_NAME: Final = "pockyt-listener look"
_WAITING: Final = (
    "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
    " AND starts_with(application_name, $1) AND wait_event = 'SyncRep')"
)


@asynccontextmanager
async def watched(
    location: Location, *, name: str, tell: Callable[[str], None]
) -> AsyncIterator[None]:
    """Watch work on a server while the context lasts.

    Args:
        location: Where the server is.
        name: The prefix of the names of the connections that do the work.
        tell: Called once, with a sentence, if the server makes the work wait for a standby.
    """
    watching = asyncio.create_task(_watch(location, name=name, tell=tell))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(location: Location, *, name: str, tell: Callable[[str], None]) -> None:
    pause = LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        # Look less and less often at work that is merely long.
        pause *= 2
        try:
            if await _waits(location, name=name):
                tell(WAITS_FOR_STANDBY)
                return
        except (*FAULTS, LedgerError, LedgerUnavailableError):
            # The work meets the same fault, and reports it.
            continue


async def _waits(location: Location, *, name: str) -> bool:
    db = await connect(location, name=_NAME)
    try:
        found: bool = await db.fetchval(_WAITING, name)
    finally:
        db.terminate()
    return found
