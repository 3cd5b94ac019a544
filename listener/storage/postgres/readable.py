"""The reads of a ledger that is being served on PostgreSQL, each on a connection of a pool."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import asyncpg

from listener.errors import LedgerUnavailableError, SearchTooLongError
from listener.keys import Key
from listener.ledger.model import Event, Transaction
from listener.ledger.promise import ACKS_PAGE
from listener.ledger.results import (
    Acked,
    Doubts,
    Head,
    ReadEntry,
    RecordedSale,
    StoredAck,
    Totals,
    Unacked,
)
from listener.ledger.scope import EVERYWHERE, Cursor, Scope, Search
from listener.storage import ranges
from listener.storage.gathered import Gathered
from listener.storage.pool import Pool
from listener.storage.postgres import keys, reading, searching
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import Connection

T = TypeVar("T")

READERS: Final = 2
SEARCHERS: Final = 2
SEARCH_MS: Final = 1_000


class ReadableLedger:
    """The part of a ledger on PostgreSQL that only reads."""

    def __init__(
        self,
        channel: Callable[..., Channel],
        *,
        on_connect: Callable[[Connection], Awaitable[None]],
    ) -> None:
        self._readers = Pool([channel("reader", on_connect=on_connect) for _ in range(READERS)])
        self._searchers = Pool(
            [channel("searcher", timeout_ms=SEARCH_MS) for _ in range(SEARCHERS)]
        )
        # Each till that comes back asks for these three, perhaps thousands at a time, and each
        # statement costs a round trip and some turns of a busy loop.
        self._keys = Gathered(self._find_keys)
        self._heads = Gathered(self._read_heads)
        self._acked = Gathered(self._read_acked)

    async def _find_keys(self, ids: Sequence[str]) -> list[Key | None]:
        found = await self._read(lambda db: keys.find_all(db, ids))
        return [found.get(key_id) for key_id in ids]

    async def _read_heads(self, asked: Sequence[Sequence[str]]) -> list[dict[str, int]]:
        streams = [*{stream for streams in asked for stream in streams}]
        heads = await self._read(lambda db: reading.stream_heads(db, streams=streams))
        return [{stream: heads[stream] for stream in streams} for streams in asked]

    async def _read_acked(self, places: Sequence[tuple[str, str]]) -> list[Acked | None]:
        found = await self._read(lambda db: reading.acked(db, places=places))
        return [found.get(place) for place in places]

    async def _read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run a read of a few rows; repeat it once if the connection was lost."""
        async with self._readers.one() as reader:
            try:
                return await reader.run(work)
            except LedgerUnavailableError:
                return await reader.run(work)

    async def _search(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run a read that may go through many rows, for as long as a search may take."""
        async with self._searchers.one() as searcher:
            try:
                return await searcher.run(work)
            except LedgerUnavailableError as error:
                if isinstance(error.__cause__, asyncpg.QueryCanceledError):
                    raise SearchTooLongError from error
                return await searcher.run(work)

    async def seq(self) -> int:
        return await self._read(reading.seq)

    async def head(self) -> Head:
        return await self._read(reading.head)

    async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
        return await self._heads.ask(streams)

    async def read_events(self, stream: str, *, after: int, limit: int) -> list[Event]:
        return await self._read(
            lambda db: reading.events(db, stream=stream, after=after, limit=limit)
        )

    async def read_entries(self, *, after: int, limit: int, scope: Scope) -> list[ReadEntry]:
        def read(after: int, upto: int, limit: int) -> Awaitable[list[ReadEntry]]:
            return self._search(
                partial(reading.lines, after=after, upto=upto, limit=limit, scope=scope)
            )

        return await ranges.entries(read, after=after, end=await self.seq(), limit=limit)

    async def read_counts(self, scope: Scope) -> Totals:
        head = await self.head()
        if scope.merchant_no is None:
            return ranges.all_of(head)

        def count(after: int, upto: int) -> Awaitable[tuple[int, int]]:
            return self._search(
                partial(reading.counts_between, after=after, upto=upto, scope=scope)
            )

        entries, repeats = await ranges.counts(count, end=head.seq)
        transactions, events = await self._search(partial(reading.count_transactions, scope=scope))
        return Totals(entries=entries, transactions=transactions, events=events, repeats=repeats)

    async def read_transactions(
        self, search: Search, *, before: Cursor | None, limit: int
    ) -> list[Transaction]:
        return await self._search(
            partial(searching.transactions, search=search, before=before, limit=limit)
        )

    async def read_transaction(
        self, transaction_no: str, *, merchant_no: str | None
    ) -> list[Transaction]:
        return await self._read(
            lambda db: reading.transactions_of_number(
                db, transaction_no=transaction_no, merchant_no=merchant_no
            )
        )

    async def read_transaction_entries(
        self,
        transaction: Transaction,
        *,
        after: int = 0,
        limit: int | None = None,
        notifications: bool = True,
    ) -> list[ReadEntry]:
        return await self._read(
            lambda db: reading.lines_of(
                db,
                transaction=transaction,
                after=after,
                limit=limit,
                notifications=notifications,
            )
        )

    async def read_unacked(
        self, *, before_ms: int, limit: int, scope: Scope = EVERYWHERE
    ) -> list[Unacked]:
        return await self._read(
            partial(reading.unacked, before_ms=before_ms, scope=scope, limit=limit)
        )

    async def read_doubts(self, *, now_ms: int) -> list[Doubts]:
        return await self._read(lambda db: reading.doubts(db, now_ms=now_ms))

    async def read_due(self, *, now_ms: int, limit: int) -> list[Transaction]:
        return await self._read(lambda db: reading.due(db, now_ms=now_ms, limit=limit))

    async def read_due_sales(self, *, now_ms: int, limit: int) -> list[RecordedSale]:
        return await self._read(lambda db: reading.due_sales(db, now_ms=now_ms, limit=limit))

    async def read_open_sales(self, *, scope: Scope, now_ms: int, limit: int) -> list[RecordedSale]:
        return await self._read(
            lambda db: reading.open_sales(db, scope=scope, now_ms=now_ms, limit=limit)
        )

    async def read_sales(
        self, *, merchant_no: str, reference: str, store_no: str | None
    ) -> list[RecordedSale]:
        return await self._read(
            partial(
                reading.sales_of_reference,
                merchant_no=merchant_no,
                reference=reference,
                store_no=store_no,
            )
        )

    async def next_due_ms(self) -> int | None:
        return await self._read(reading.next_due_ms)

    async def acks(
        self,
        *,
        after: tuple[str, str] = ("", ""),
        scope: Scope = EVERYWHERE,
        limit: int = ACKS_PAGE,
    ) -> list[StoredAck]:
        return await self._read(partial(reading.acks, after=after, scope=scope, limit=limit))

    async def acked(self, *, terminal: str, stream: str) -> Acked | None:
        return await self._acked.ask((terminal, stream))

    async def find_key(self, key_id: str) -> Key | None:
        return await self._keys.ask(key_id)

    async def keys_version(self) -> int:
        return await self._read(keys.version)

    async def revoked_keys(self) -> frozenset[str]:
        return await self._read(keys.revoked)
