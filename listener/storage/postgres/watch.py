"""Give up requests that no answer will come to: the server is silent, or not working on them.

A statement may take as long as it needs; a commit waits for its standby. So it is not given up by
its age: the bell, which only reads, shows whether the server answers, and asks it what it works on.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.storage.postgres.channel import SILENT_SECONDS, Channel, Work
from listener.storage.postgres.connection import PROCESS, Connection

LOOK_SECONDS: Final = 0.5

# Where the server does not track activities, each counts as working.
_WORKING: Final = (
    f"SELECT {PROCESS} FROM pg_stat_activity a"
    " WHERE coalesce(a.state, '') NOT LIKE 'idle%'"
    " AND coalesce(a.wait_event_type, '') <> 'Client'"
)

_LOG: Final = logging.getLogger(__name__)


class Watch:
    """Watches the slow requests on the connections of a node.

    A connection is dropped if its server works on nothing for it at two looks: its request or the
    answer was lost on the way, or the bell has found another server meanwhile.
    """

    def __init__(self, *, bell: Channel, channels: Sequence[Channel]) -> None:
        self._bell = bell
        self._channels = channels
        self._suspects: set[Work] = set()

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._bell.busy_seconds > SILENT_SECONDS:
                log.event(_LOG, "server_silent", level=logging.ERROR)
                for channel in self._channels:
                    channel.drop()
            elif late := self._late():
                with suppress(TimeoutError, LedgerUnavailableError):
                    async with asyncio.timeout(SILENT_SECONDS):
                        await self._look(late)

    def _late(self) -> dict[Work, Channel]:
        return {
            channel.work: channel
            for channel in self._channels
            if channel.work is not None and channel.busy_seconds > SILENT_SECONDS
        }

    async def _look(self, late: Mapping[Work, Channel]) -> None:
        working = await self._bell.run(_read_working)
        lost = {work for work in late if work.process not in working}
        for work in lost & self._suspects:
            if late[work].work is work:
                log.event(_LOG, "answer_lost", level=logging.ERROR, connection=late[work].name)
                late[work].drop()
        self._suspects = lost


async def _read_working(db: Connection) -> frozenset[str]:
    """Return the processes of the server that work on a statement."""
    return frozenset(row[0] for row in await db.fetch(_WORKING))
