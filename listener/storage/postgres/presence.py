"""Share with every node who is connected where: a terminal's newer session replaces the older.

Only changes are written. The table is unlogged: after a crash of the database it is empty, and each
node writes its sessions again, with their old versions.
"""

from collections.abc import Mapping
from typing import Final

from listener.ledger.promise import Seat
from listener.storage.postgres.connection import Channel, Connection
from listener.storage.postgres.turns import NOW

# A session with a lower version may become visible this much later than another.
OVERLAP_US: Final = 5_000_000

_MICROSECONDS: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_LEFT: Final = "DELETE FROM presence WHERE session = ANY ($1::text[])"
_ARRIVED: Final = (
    "INSERT INTO presence (subscriber, session, node, version, terminal)"
    f" SELECT x.subscriber, x.session, $1, coalesce(x.version, {_MICROSECONDS} + x.i), x.terminal"
    " FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) WITH ORDINALITY"
    " x(subscriber, session, version, terminal, i)"
    " ON CONFLICT (session) DO UPDATE SET version = excluded.version"
    " RETURNING session, version"
)
_IS_THERE: Final = "SELECT EXISTS (SELECT 1 FROM presence WHERE session = $1)"
_NEWER: Final = (
    "SELECT subscriber, version FROM presence"
    " WHERE terminal IS NOT NULL AND node <> $1 AND version > $2"
)
_ELSEWHERE: Final = (
    "SELECT p.subscriber, count(*) FROM presence p JOIN nodes n ON n.id = p.node"
    f" WHERE p.node <> $1 AND n.lease_until >= {NOW} GROUP BY p.subscriber"
)
_LEAVE: Final = "DELETE FROM presence WHERE node = $1"
_FORGET: Final = "DELETE FROM presence WHERE node NOT IN (SELECT id FROM nodes)"


class Presence:
    """The sessions of this node, as the others see them."""

    def __init__(self, channel: Channel, *, node: str) -> None:
        self._channel = channel
        self._node = node
        self._versions: dict[str, int] = {}
        self._seen = 0

    async def announce(self, seats: Mapping[str, Seat]) -> frozenset[str]:
        """Write who has come and gone; return the sessions that a newer one elsewhere replaces."""
        seats = dict(seats)
        return await self._channel.run(lambda db: self._announce(db, seats))

    async def elsewhere(self) -> dict[str, int]:
        """Return how many sessions each subscriber has at the other nodes that are alive."""
        rows = await self._channel.run(lambda db: db.fetch(_ELSEWHERE, self._node))
        return {row[0]: row[1] for row in rows}

    async def leave(self) -> None:
        """Delete all sessions of this node, and those left by nodes that died."""
        await self._channel.run(lambda db: db.execute(_LEAVE, self._node))
        await self._channel.run(lambda db: db.execute(_FORGET))

    async def _announce(self, db: Connection, seats: dict[str, Seat]) -> frozenset[str]:
        if gone := [*(self._versions.keys() - seats.keys())]:
            await db.execute(_LEFT, gone)
            for session in gone:
                del self._versions[session]
        missing = [*(seats.keys() - self._versions.keys())]
        known = next(iter(self._versions), None)
        if known is not None and not await db.fetchval(_IS_THERE, known):
            missing = [*seats]
        if missing:
            await self._write(db, [seats[session] for session in missing])
        rows = await db.fetch(_NEWER, self._node, self._seen - OVERLAP_US)
        newest: dict[str, int] = {}
        for subscriber, version in rows:
            newest[subscriber] = max(version, newest.get(subscriber, 0))
        self._seen = max([self._seen, *newest.values()])
        return frozenset(
            seat.session
            for seat in seats.values()
            if seat.terminal and newest.get(seat.subscriber, 0) > self._versions[seat.session]
        )

    async def _write(self, db: Connection, seats: list[Seat]) -> None:
        rows = await db.fetch(
            _ARRIVED,
            self._node,
            [seat.subscriber for seat in seats],
            [seat.session for seat in seats],
            [self._versions.get(seat.session) for seat in seats],
            [seat.terminal for seat in seats],
        )
        self._versions.update({row[0]: row[1] for row in rows})
