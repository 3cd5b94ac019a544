"""One listener among several: its heartbeat, and what it does when the database went back.

The heartbeat is a commit each second. Its age shows whether this node can take anything now, so
that a check of readiness causes no commit.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from listener import log
from listener.clock import now_ms
from listener.errors import LedgerUnavailableError
from listener.ledger.nodes import NodeState
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import SERVER_NOW_MS, Connection
from listener.storage.postgres.schema import LOCK, begin_epoch, read_reason

BEAT_SECONDS: Final = 1.0
# A node whose last heartbeat is older than this takes nothing.
FRESH_SECONDS: Final = 3.0
LEASE_SECONDS: Final = 6.0

_HEAD: Final = "SELECT n.seq, n.hash FROM entries n ORDER BY n.seq DESC LIMIT 1"
_BEAT: Final = (
    "WITH beat AS (INSERT INTO nodes (id, url, version, started_at, lag, clock_ms, lease_until)"
    f" VALUES ($1, $2, $3, {SERVER_NOW_MS}, $5, $4 - {SERVER_NOW_MS}, {SERVER_NOW_MS} + $6)"
    " ON CONFLICT (id) DO UPDATE SET url = excluded.url, lag = excluded.lag,"
    " clock_ms = excluded.clock_ms, lease_until = excluded.lease_until)"
    f" SELECT l.epoch, current_setting('fsync') AS fsync, {SERVER_NOW_MS} AS now_ms,"
    " (SELECT e.hash FROM entries e WHERE e.seq = $7) AS witnessed FROM ledger l"
)
_NODES: Final = (
    "SELECT id, url, version, started_at, lag, clock_ms FROM nodes"
    f" WHERE lease_until >= {SERVER_NOW_MS} ORDER BY started_at, id"
)
_LEAVE: Final = "DELETE FROM nodes WHERE id = $1"
_FORGET: Final = f"DELETE FROM nodes WHERE lease_until < {SERVER_NOW_MS} - 86400000"
_EPOCH: Final = "SELECT epoch FROM ledger"
# Whether a ledger holds an entry that this node knew, whether it has had that epoch, and which
# start of which server this is. Compared with a bare 0, $1 would have only 32 bits.
_HOLDS: Final = (
    "SELECT ($1::bigint = 0 OR EXISTS (SELECT FROM entries WHERE seq = $1 AND hash = $2))"
    " AND EXISTS (SELECT FROM epochs WHERE epoch = $3) AS holds,"
    " extract(epoch FROM pg_postmaster_start_time()) AS server"
)
_HAS_HAD: Final = "SELECT EXISTS (SELECT FROM epochs WHERE epoch = $1)"
# One that was lost with a server or by a restore: the others that knew it need begin no second one.
_HAD: Final = (
    "INSERT INTO epochs (epoch, began_at, reason, seq) SELECT $1, $2, 'went_back',"
    " coalesce(max(seq), 0) FROM entries ON CONFLICT DO NOTHING"
)
_STATE: Final = (
    "SELECT l.epoch, coalesce(e.seq, 0) AS seq, coalesce(e.hash, '') AS hash,"
    " coalesce((SELECT max(number) FROM events), 0) AS number"
    f" FROM ledger l LEFT JOIN ({_HEAD}) e ON true"
)

_LOG: Final = logging.getLogger(__name__)


class Node:
    """What this listener knows of the ledger, and what it publishes about itself.

    ``seq`` and ``hash`` are those of the newest entry that it has acknowledged or published: the
    witness. A database without that entry, or that never had this epoch, has gone back, and gets a
    new epoch. The node looks on each new connection and with each heartbeat: restoring the tables
    in one transaction cuts no connection.
    """

    def __init__(
        self, *, node_id: str, url: str, version: str, epoch: str, clock: Callable[[], int]
    ) -> None:
        self.id = node_id
        self.epoch = epoch
        self.seq = 0
        self.hash = ""
        self.lag: Callable[[], int] = lambda: 0
        # Called with the number of the newest event when the ledger has a new epoch.
        self.on_epoch: Callable[[int], None] = lambda _number: None
        # Called when a new connection reaches another server, or one that was restarted.
        self.on_server: Callable[[], None] = lambda: None
        # Called with the server's time, as Unix ms, just after it was read.
        self.on_time: Callable[[int], None] = lambda _server_ms: None
        self._url = url
        self._version = version
        self._clock = clock
        self._server: object = None
        self._beaten_at = -FRESH_SECONDS

    @property
    def age_seconds(self) -> float:
        """How long ago the last heartbeat that reached the disk was sent."""
        return time.monotonic() - self._beaten_at

    def witness(self, seq: int, digest: str) -> None:
        """Remember the newest entry that was acknowledged or published here."""
        if seq > self.seq:
            self.seq, self.hash = seq, digest

    def check(self) -> None:
        """Raise if nothing can be committed now.

        Raises:
            LedgerUnavailableError: The last heartbeat is too old.
        """
        if self.age_seconds > FRESH_SECONDS:
            raise LedgerUnavailableError("the ledger takes nothing now; send it again")

    async def beat(self, db: Connection) -> None:
        """Record that this node is alive, and check that the ledger is still the same."""
        sent_at, lease_ms = time.monotonic(), int(LEASE_SECONDS * 1_000)
        # Read before any await: what is acknowledged meanwhile may be too new for this statement.
        seq, digest = self.seq, self.hash
        # How far the machine's own clock is off; the listener's time may follow the server's.
        machine_ms = now_ms()
        state = self.id, self._url, self._version, machine_ms, self.lag(), lease_ms
        row = await db.fetchrow(_BEAT, *state, seq)
        if row is None or row["fsync"] != "on":
            raise LedgerUnavailableError("fsync is off: what is acknowledged could be lost")
        self.on_time(row["now_ms"])
        if row["epoch"] != self.epoch or (seq and row["witnessed"] != digest):
            await self.meet(db)
        self._beaten_at = sent_at

    async def leave(self, db: Connection) -> None:
        """Record that this node has gone, and delete nodes that died."""
        await db.execute(_LEAVE, self.id)
        await db.execute(_FORGET)

    async def meet(self, db: Connection) -> None:
        """Check that this is the ledger this node knew, on each new connection above all."""
        # Read before any await: another connection may find out the same meanwhile.
        epoch, seq, digest = self.epoch, self.seq, self.hash
        found: Any = await db.fetchrow(_HOLDS, seq, digest, epoch)
        if found["server"] != self._server:
            last, self._server = self._server, found["server"]
            if last is not None:
                self.on_server()
        if not found["holds"]:
            await self._go_back(db, old=epoch, seq=seq, digest=digest)
        state = await db.fetchrow(_STATE)
        if state is not None and state["epoch"] != self.epoch:
            self._adopt(state)

    async def _go_back(self, db: Connection, *, old: str, seq: int, digest: str) -> None:
        """Begin a new epoch for a ledger that lost entries: no earlier position fits any more."""
        async with db.transaction():
            await db.execute(LOCK)
            if await db.fetchval(_HOLDS, seq, digest, old):
                return
            # A new epoch follows the old one: what never had that one is a dump or a standby from
            # before, and its own epoch's positions were given out already.
            found = await db.fetchval(_EPOCH)
            is_new = found != old and await db.fetchval(_HAS_HAD, old)
            if not is_new or await read_reason(db) is not None:
                log.event(_LOG, "ledger_went_back", level=logging.ERROR, seq=seq, epoch=old)
                at_ms = self._clock()
                await db.execute(_HAD, old, at_ms)
                await begin_epoch(db, old=found, reason="went_back", now_ms=at_ms, missing=seq)

    def _adopt(self, state: Any) -> None:  # noqa: ANN401 - asyncpg's record
        log.event(_LOG, "new_epoch", level=logging.ERROR, epoch=state["epoch"], seq=state["seq"])
        self.epoch = state["epoch"]
        self.seq, self.hash = state["seq"], state["hash"]
        self.on_epoch(state["number"])


async def read_nodes(db: Connection, *, here: str = "") -> list[NodeState]:
    """Return the nodes whose lease has not run out, the oldest first."""
    return [
        NodeState(
            id=row["id"],
            url=row["url"],
            version=row["version"],
            started_at_ms=row["started_at"],
            lag=row["lag"],
            clock_ms=row["clock_ms"],
            is_here=row["id"] == here,
        )
        for row in await db.fetch(_NODES)
    ]


async def run_heartbeat(node: Node, channel: Channel) -> None:
    """Send a heartbeat each second, for ever."""
    has_failed = False
    while True:
        try:
            await channel.run(node.beat)
            has_failed = False
        except LedgerUnavailableError as error:
            if not has_failed:
                log.event(_LOG, "heartbeat_failed", level=logging.ERROR, cause=str(error))
            has_failed = True
        except Exception:  # noqa: BLE001 - nothing may end the heartbeat
            _LOG.exception("heartbeat_failed")
        await asyncio.sleep(BEAT_SECONDS if not has_failed else BEAT_SECONDS / 4)
