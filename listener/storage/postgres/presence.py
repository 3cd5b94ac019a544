"""Share with every node who is connected where: a terminal's newer session replaces the older.

A session is as new as its connection, however late its node has shown it. Only what changes is
written. The table is unlogged: after a crash of the database it is empty, and each node writes its
sessions again, with their old times.
"""

import time
from collections import deque
from collections.abc import Mapping
from typing import Final

from listener.ledger.nodes import Seat
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import SERVER_NOW_MS, Connection

# A session that was written earlier than another may become visible this much later.
OVERLAP_US: Final = 5_000_000
# So many readings of the database's clock are compared; the quickest is the most exact.
LOOKS: Final = 20

_SERVER_NOW_US: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_LEFT: Final = "DELETE FROM presence WHERE session = ANY ($1::text[])"
_ARRIVED: Final = (
    "INSERT INTO presence (subscriber, session, node, since, shown_at, terminal)"
    f" SELECT x.subscriber, x.session, $1, x.since, {_SERVER_NOW_US}, x.terminal"
    " FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[])"
    " x(subscriber, session, since, terminal)"
    " ON CONFLICT (session) DO UPDATE SET since = excluded.since, shown_at = excluded.shown_at"
)
_LOOK: Final = (
    f"SELECT {_SERVER_NOW_US}, EXISTS (SELECT 1 FROM presence WHERE session = $1) AS is_there"
)
_NEWER: Final = (
    "SELECT subscriber, since, shown_at FROM presence"
    " WHERE terminal IS NOT NULL AND node <> $1 AND shown_at > $2"
)
_ELSEWHERE: Final = (
    "SELECT p.subscriber, count(*) FROM presence p JOIN nodes n ON n.id = p.node"
    f" WHERE p.node <> $1 AND n.lease_until >= {SERVER_NOW_MS} GROUP BY p.subscriber"
)
_LEAVE: Final = "DELETE FROM presence WHERE node = $1"
_FORGET: Final = "DELETE FROM presence WHERE node NOT IN (SELECT id FROM nodes)"


class NodeSessions:
    """The sessions of this node, as the others see them."""

    def __init__(self, channel: Channel, *, node: str) -> None:
        self._channel = channel
        self._node = node
        # When each session began, as the database has it.
        self._since: dict[str, int] = {}
        # How far the database's clock was ahead of this machine's steady one, in µs. A reading is
        # late if this node was paused or the server slow, and then it is too high.
        self._apart: deque[int] = deque(maxlen=LOOKS)
        # The newest of the others' that was looked at.
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
        if gone := [*(self._since.keys() - seats.keys())]:
            await db.execute(_LEFT, gone)
            for session in gone:
                del self._since[session]
        known = next(iter(self._since), "")
        asked_at = time.monotonic()
        (row,) = await db.fetch(_LOOK, known)
        self._apart.append(row[0] - int(asked_at * 1_000_000))
        missing = seats.keys() - self._since.keys()
        if known and not row["is_there"]:
            missing, self._seen = {*seats}, 0
        if missing:
            arrived = {
                session: min(self._apart) + int(seats[session].since * 1_000_000)
                for session in missing
            } | {session: self._since[session] for session in missing & self._since.keys()}
            await self._write(db, [seats[session] for session in arrived], [*arrived.values()])
            self._since |= arrived
        newest: dict[str, int] = {}
        for subscriber, since, shown_at in await db.fetch(
            _NEWER, self._node, self._seen - OVERLAP_US
        ):
            newest[subscriber] = max(since, newest.get(subscriber, 0))
            self._seen = max(self._seen, shown_at)
        return frozenset(
            seat.session
            for seat in seats.values()
            if seat.terminal and newest.get(seat.subscriber, 0) > self._since[seat.session]
        )

    async def _write(self, db: Connection, seats: list[Seat], since: list[int]) -> None:
        await db.execute(
            _ARRIVED,
            self._node,
            [seat.subscriber for seat in seats],
            [seat.session for seat in seats],
            since,
            [seat.terminal for seat in seats],
        )
