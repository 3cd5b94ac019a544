"""One listener among several: its heartbeat, and what it does when the database went back.

The heartbeat is a commit a second. Its age says whether this node can take anything now, so that
nobody who asks for readiness causes a commit.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.schema import LOCK, begin_epoch
from listener.storage.postgres.turns import NOW

BEAT_SECONDS: Final = 1.0
# A node whose last heartbeat is older can take nothing.
FRESH_SECONDS: Final = 3.0
LEASE_SECONDS: Final = 6.0

_HEAD: Final = "SELECT n.seq, n.hash FROM entries n ORDER BY n.seq DESC LIMIT 1"
_BEAT: Final = (
    "WITH beat AS (INSERT INTO nodes (id, url, version, started_at, lag, clock_ms, lease_until)"
    f" VALUES ($1, $2, $3, $4, $5, $4 - {NOW}, {NOW} + $6)"
    " ON CONFLICT (id) DO UPDATE SET url = excluded.url, lag = excluded.lag,"
    " clock_ms = excluded.clock_ms, lease_until = excluded.lease_until)"
    f" SELECT l.epoch, current_setting('fsync') AS fsync, {NOW} AS now_ms FROM ledger l"
)
_LEAVE: Final = "DELETE FROM nodes WHERE id = $1"
_FORGET: Final = f"DELETE FROM nodes WHERE lease_until < {NOW} - 86400000"
_EPOCH: Final = "SELECT epoch FROM ledger"
_WITNESSED: Final = "SELECT hash FROM entries WHERE seq = $1"
_STATE: Final = (
    "SELECT l.epoch, coalesce(e.seq, 0) AS seq, coalesce(e.hash, '') AS hash,"
    " coalesce((SELECT max(number) FROM events), 0) AS number"
    f" FROM ledger l LEFT JOIN ({_HEAD}) e ON true"
)

_LOG: Final = logging.getLogger(__name__)


class Node:
    """What this listener knows of the ledger, and tells the others of itself.

    ``seq`` and ``hash`` are of the newest entry that it has acknowledged or published: the witness.
    A database that does not hold it has gone back, and gets a new epoch.
    """

    def __init__(
        self, *, node_id: str, url: str, version: str, epoch: str, clock: Callable[[], int]
    ) -> None:
        self.id = node_id
        self.epoch = epoch
        self.seq = 0
        self.hash = ""
        self.lag: Callable[[], int] = lambda: 0
        # Told the number of the newest event of a ledger that has a new epoch.
        self.on_epoch: Callable[[int], None] = lambda _number: None
        self._url = url
        self._version = version
        self._clock = clock
        self._beaten_at = -FRESH_SECONDS

    @property
    def age_seconds(self) -> float:
        """How long ago the last heartbeat was sent that came to be on disk."""
        return time.monotonic() - self._beaten_at

    def witness(self, seq: int, digest: str) -> None:
        """Remember the newest entry that was acknowledged or published here."""
        if seq > self.seq:
            self.seq, self.hash = seq, digest

    def check(self) -> None:
        """Raise where nothing can be committed now.

        Raises:
            LedgerUnavailableError: The last heartbeat is too old.
        """
        if self.age_seconds > FRESH_SECONDS:
            raise LedgerUnavailableError("the ledger takes nothing now; send it again")

    async def beat(self, db: Connection) -> None:
        """Show that this node lives, and look whether the ledger is still the same."""
        sent_at, lease_ms = time.monotonic(), int(LEASE_SECONDS * 1_000)
        row = await db.fetchrow(
            _BEAT, self.id, self._url, self._version, self._clock(), self.lag(), lease_ms
        )
        if row is None or row["fsync"] != "on":
            raise LedgerUnavailableError("fsync is off: what is acknowledged could be lost")
        if row["epoch"] != self.epoch:
            await self.meet(db)
        self._beaten_at = sent_at

    async def leave(self, db: Connection) -> None:
        """Tell the others that this node has gone, and forget those that died."""
        await db.execute(_LEAVE, self.id)
        await db.execute(_FORGET)

    async def meet(self, db: Connection) -> None:
        """Find out on a new connection whether this is the ledger as this node knew it."""
        # Taken before anything is awaited: another connection may find out the same meanwhile.
        epoch, seq, digest = self.epoch, self.seq, self.hash
        if seq and await db.fetchval(_WITNESSED, seq) != digest:
            await self._go_back(db, old=epoch, seq=seq, digest=digest)
        state = await db.fetchrow(_STATE)
        if state is not None and state["epoch"] != self.epoch:
            self._adopt(state)

    async def _go_back(self, db: Connection, *, old: str, seq: int, digest: str) -> None:
        """Give a ledger that lost entries a new epoch: no position of before fits it any more."""
        async with db.transaction():
            await db.execute(LOCK)
            if await db.fetchval(_WITNESSED, seq) == digest:
                return
            if await db.fetchval(_EPOCH) == old:
                log.event(_LOG, "ledger_went_back", level=logging.ERROR, seq=seq, epoch=old)
                await begin_epoch(
                    db, old=old, reason="went_back", now_ms=self._clock(), missing=seq
                )

    def _adopt(self, state: Any) -> None:  # noqa: ANN401 - asyncpg's record
        log.event(_LOG, "new_epoch", level=logging.ERROR, epoch=state["epoch"], seq=state["seq"])
        self.epoch = state["epoch"]
        self.seq, self.hash = state["seq"], state["hash"]
        self.on_epoch(state["number"])


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
