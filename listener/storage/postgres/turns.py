"""Turns between nodes: leases by the database's clock, renewed while they are held."""

import asyncio
import logging
import time
from typing import Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import SERVER_NOW_MS

LEASE_SECONDS: Final = 6.0
RENEW_SECONDS: Final = 2.0

_CLAIM: Final = (
    f"INSERT INTO turns AS t (name, node, until) VALUES ($1, $2, {SERVER_NOW_MS} + $3)"
    " ON CONFLICT (name) DO UPDATE SET node = excluded.node, until = excluded.until"
    f" WHERE t.until < {SERVER_NOW_MS} OR t.node = excluded.node RETURNING true"
)
_EXTEND: Final = (
    f"UPDATE turns SET until = greatest(until, {SERVER_NOW_MS} + $3)"
    " WHERE node = $2 AND name = ANY ($1::text[]) RETURNING name"
)
_RELEASE: Final = "DELETE FROM turns WHERE name = $1 AND node = $2"
_LEAVE: Final = "DELETE FROM turns WHERE node = $1"
_FORGET: Final = f"DELETE FROM turns WHERE until < {SERVER_NOW_MS} - 3600000"

_LOG: Final = logging.getLogger(__name__)


class NodeTurns:
    """The turns that this node holds."""

    def __init__(self, channel: Channel, *, node: str) -> None:
        self._channel = channel
        self._node = node
        # Until when each is certainly ours, by this machine's monotonic clock.
        self._held: dict[str, float] = {}

    @property
    def held(self) -> list[str]:
        """The names of the turns that this node holds."""
        return [*self._held]

    async def claim(self, name: str) -> bool:
        """Claim a turn that is free or has expired; return False where another node holds it."""
        asked_at = time.monotonic()
        lease_ms = int(LEASE_SECONDS * 1_000)
        taken = await self._channel.run(lambda db: db.fetchval(_CLAIM, name, self._node, lease_ms))
        if taken:
            self._held[name] = asked_at + LEASE_SECONDS
        return bool(taken)

    async def ensure(self, name: str, *, seconds: float) -> bool:
        """Extend a turn for a time from now; return False if this node no longer holds it."""
        if self._held.get(name, 0.0) - time.monotonic() >= seconds:
            return True
        return name in await self._extend([name], seconds=seconds)

    async def release(self, name: str) -> None:
        """Release a turn; if that fails, it expires by itself."""
        self._held.pop(name, None)
        try:
            await self._channel.run(lambda db: db.execute(_RELEASE, name, self._node))
        except LedgerUnavailableError as error:
            log.event(_LOG, "turn_kept", level=logging.WARNING, cause=str(error))

    async def renew(self) -> None:
        """Renew all turns that are held; a lost one is not held any more."""
        names = self.held
        if not names:
            return
        kept = await self._extend(names, seconds=LEASE_SECONDS)
        for name in set(names) - kept:
            self._held.pop(name, None)

    async def leave(self) -> None:
        """Release all turns, and delete those of nodes that died."""
        self._held.clear()
        await self._channel.run(lambda db: db.execute(_LEAVE, self._node))
        await self._channel.run(lambda db: db.execute(_FORGET))

    async def _extend(self, names: list[str], *, seconds: float) -> set[str]:
        asked_at = time.monotonic()
        lease_ms = int(seconds * 1_000)
        rows = await self._channel.run(lambda db: db.fetch(_EXTEND, names, self._node, lease_ms))
        kept = {str(row[0]) for row in rows}
        for name in kept & set(self._held):
            self._held[name] = max(self._held[name], asked_at + seconds)
        return kept


async def run_renewal(turns: NodeTurns) -> None:
    """Renew the turns that are held, for ever."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await turns.renew()
        except LedgerUnavailableError as error:
            log.event(_LOG, "turns_not_renewed", level=logging.WARNING, cause=str(error))
