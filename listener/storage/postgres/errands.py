"""Small work that needs no lock on the ledger: acknowledgements, remembered answers, plans."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.ledger.promise import ANSWER_DAYS, ANSWERS_DELETED
from listener.ledger.results import Remembered
from listener.storage.postgres import reading
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import Connection

# Acknowledgements that arrive within this time are stored together.
GATHER_SECONDS: Final = 0.05

# Sorted, so that two nodes never wait for each other. A node that has not heard of a new epoch yet
# stores nothing: a terminal may have begun in it elsewhere.
_PUT_ACKS: Final = (
    'INSERT INTO acks AS a (terminal, stream, epoch, "offset", acked, acked_at)'
    " SELECT x.terminal, x.stream, $1, x.until, x.until, $4"
    " FROM unnest($2::text[], $3::text[], $5::bigint[]) x(terminal, stream, until)"
    " WHERE $1 = (SELECT epoch FROM ledger) ORDER BY x.stream, x.terminal"
    ' ON CONFLICT (stream, terminal) DO UPDATE SET epoch = excluded.epoch, "offset" ='
    " CASE WHEN a.epoch = excluded.epoch AND a.acked IS NOT NULL"
    ' THEN greatest(a."offset", excluded."offset") ELSE excluded."offset" END,'
    " acked = greatest(a.acked, excluded.acked),"
    " acked_at = excluded.acked_at"
    " WHERE a.epoch <> excluded.epoch OR a.acked IS NULL OR excluded.acked >= a.acked"
)
# In the same epoch it changes nothing.
_PUT_START: Final = (
    'INSERT INTO acks AS a (terminal, stream, epoch, "offset", acked_at)'
    " SELECT $1, x.stream, $3, x.beginning, $5::bigint"
    " FROM unnest($2::text[], $4::bigint[]) x(stream, beginning)"
    " WHERE $3 = (SELECT epoch FROM ledger) ORDER BY x.stream"
    " ON CONFLICT (stream, terminal) DO UPDATE SET epoch = excluded.epoch,"
    ' "offset" = excluded."offset" WHERE a.epoch <> excluded.epoch'
)
_FORGET: Final = (
    "DELETE FROM answers WHERE (key_id, idempotency_key) IN (SELECT key_id, idempotency_key"
    f" FROM answers WHERE recorded_at < $1 ORDER BY recorded_at LIMIT {ANSWERS_DELETED})"
)
_CLAIM: Final = (
    "INSERT INTO answers (key_id, idempotency_key, request, recorded_at) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT DO NOTHING RETURNING request"
)
_KEEP: Final = (
    "UPDATE answers SET status = $1, body = $2 WHERE key_id = $3 AND idempotency_key = $4"
)
_ANALYZE: Final = "ANALYZE entries, events, transactions, repeats, sales"

_LOG: Final = logging.getLogger(__name__)


class Acks:
    """Stores acknowledgements together, and answers once they are on disk."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._gathered: dict[tuple[str, str], tuple[int, int]] = {}
        self._epoch = ""
        self._storing: asyncio.Task[None] | None = None

    async def put(
        self, *, epoch: str, terminal: str, stream: str, offset: int, now_ms: int
    ) -> None:
        """Store how far a terminal has come; an offset below the newest ack changes nothing."""
        if self._storing is None or self._epoch != epoch:
            # Acknowledgements of another epoch are stored separately.
            self._gathered, self._epoch = {}, epoch
            self._storing = asyncio.create_task(self._store(self._gathered, epoch))
        kept = self._gathered.get((stream, terminal), (-1, 0))
        self._gathered[stream, terminal] = max(kept, (offset, now_ms))
        await asyncio.shield(self._storing)

    async def start(
        self, *, epoch: str, terminal: str, offsets: Mapping[str, int], now_ms: int
    ) -> None:
        """Store where a terminal begins, in each stream where it has no place of this epoch."""
        values = (terminal, [*offsets], epoch, [*offsets.values()], now_ms)
        await self._channel.run(lambda db: db.execute(_PUT_START, *values))

    async def _store(self, gathered: dict[tuple[str, str], tuple[int, int]], epoch: str) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        if self._gathered is gathered:
            self._storing = None
        names = sorted(gathered)
        values = (
            epoch,
            [terminal for _, terminal in names],
            [stream for stream, _ in names],
            max(at_ms for _, at_ms in gathered.values()),
            [gathered[name][0] for name in names],
        )
        await self._channel.run(lambda db: db.execute(_PUT_ACKS, *values))


class Answers:
    """Remembers the answers to requests that have an Idempotency-Key."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def claim(
        self, *, key_id: str, idempotency_key: str, request: str, now_ms: int
    ) -> Remembered | None:
        """Claim an Idempotency-Key; return what is stored for it if it was claimed before."""

        async def claim(db: Connection) -> Remembered | None:
            await db.execute(_FORGET, now_ms - ANSWER_DAYS * 86_400_000)
            claimed: Any = await db.fetchval(_CLAIM, key_id, idempotency_key, request, now_ms)
            if claimed is not None:
                return None
            return await reading.remembered(db, key_id=key_id, idempotency_key=idempotency_key)

        return await self._channel.run(claim)

    async def keep(self, *, key_id: str, idempotency_key: str, status: int, body: str) -> None:
        """Store the answer to the request that claimed an Idempotency-Key."""
        values = (status, body, key_id, idempotency_key)
        await self._channel.run(lambda db: db.execute(_KEEP, *values))


async def analyze(channel: Channel) -> None:
    """Run ANALYZE, so that PostgreSQL plans for what the tables hold now."""
    try:
        await channel.run(lambda db: db.execute(_ANALYZE))
    except LedgerUnavailableError as error:
        log.event(_LOG, "not_analyzed", level=logging.WARNING, cause=str(error))
