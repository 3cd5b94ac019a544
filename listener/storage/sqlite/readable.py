"""The reads of a ledger that is being served on SQLite, each on a connection of a pool."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

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
from listener.storage.sqlite import keys, reading, searching
from listener.storage.sqlite.connection import Connection
from listener.storage.sqlite.faults import faults_told

T = TypeVar("T")

# For reads of a page or less, which never wait behind a search through many rows.
READERS: Final = 2
SEARCHERS: Final = 1
SEARCH_SECONDS: Final = 1.0


class ReadableLedger:
    """The part of a ledger on SQLite that only reads."""

    def __init__(self, readers: Sequence[Connection]) -> None:
        self._readers = Pool(readers[:READERS])
        self._searchers = Pool(readers[READERS:])
        self._gathered = Gathered[Callable[[sqlite3.Connection], object], Any](
            self._read_all, at_once=READERS
        )

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read of a page or less on any reader that is free."""
        async with self._readers.one() as reader:
            return await reader.run(work)

    async def _seek(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a short read together with all that wait: each till that comes back asks for some."""
        result: T = await self._gathered.ask(work)
        return result

    async def _read_all(
        self, works: Sequence[Callable[[sqlite3.Connection], object]]
    ) -> list[object]:
        async with self._readers.one() as reader:
            if len(works) == 1:
                # A read that is alone needs no other's errors kept apart.
                return [await reader.run(works[0])]
            return await reader.run(lambda db: [_outcome(db, work) for work in works])

    async def _search(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read that may go through many rows, for as long as a search may take."""
        async with self._searchers.one() as searcher:
            return await searcher.search(work, seconds=SEARCH_SECONDS)

    async def seq(self) -> int:
        return (await self._read(reading.head)).seq

    async def head(self) -> Head:
        return await self._read(reading.head)

    async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
        return await self._seek(partial(reading.stream_heads, streams=streams))

    async def read_events(self, stream: str, *, after: int, limit: int) -> list[Event]:
        return await self._read(partial(reading.events, stream=stream, after=after, limit=limit))

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
            partial(
                reading.transactions_of_number,
                transaction_no=transaction_no,
                merchant_no=merchant_no,
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
            partial(
                reading.lines_of,
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
        return await self._read(partial(reading.doubts, now_ms=now_ms))

    async def read_due(self, *, now_ms: int, limit: int) -> list[Transaction]:
        return await self._read(partial(reading.due, now_ms=now_ms, limit=limit))

    async def read_due_sales(self, *, now_ms: int, limit: int) -> list[RecordedSale]:
        return await self._read(partial(reading.due_sales, now_ms=now_ms, limit=limit))

    async def read_open_sales(self, *, scope: Scope, now_ms: int, limit: int) -> list[RecordedSale]:
        return await self._read(
            partial(reading.open_sales, scope=scope, now_ms=now_ms, limit=limit)
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
        return await self._seek(partial(reading.acked, terminal=terminal, stream=stream))

    async def find_key(self, key_id: str) -> Key | None:
        return await self._seek(partial(keys.find, key_id=key_id))

    async def keys_version(self) -> int:
        return await self._read(keys.version)

    async def revoked_keys(self) -> frozenset[str]:
        return await self._read(keys.revoked)


def _outcome(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], object]) -> object:
    """Return what a read found, or its error, so that it fails no other read."""
    try:
        with faults_told():
            return work(db)
    except Exception as error:  # noqa: BLE001 - whoever asked raises it
        return error
