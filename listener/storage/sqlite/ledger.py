"""The ledger on SQLite: one writer and a few readers, all on one file."""

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from listener import log
from listener.errors import LedgerUnavailableError
from listener.keys import Key
from listener.ledger.model import Event, Fact, Transaction
from listener.ledger.nodes import NodeState, Seat
from listener.ledger.promise import ACKS_PAGE, Bell
from listener.ledger.results import (
    Acked,
    Doubts,
    Head,
    ReadEntry,
    Recorded,
    RecordedSale,
    Remembered,
    StoredAck,
    Totals,
    Unacked,
)
from listener.ledger.schedule import Confirm
from listener.ledger.scope import EVERYWHERE, Cursor, Scope, Search
from listener.storage import ranges
from listener.storage.pool import Pool
from listener.storage.queue import OnCommit
from listener.storage.sqlite import keys, reading, statements
from listener.storage.sqlite.connection import Connection, connect, now_ms
from listener.storage.sqlite.epoch import begin, leave
from listener.storage.sqlite.lock import ServiceLock
from listener.storage.sqlite.writer import Writer

_LOG: Final = logging.getLogger(__name__)

T = TypeVar("T")
# Reads the time as Unix ms.
Clock = Callable[[], int]

# A till's reads are a few seeks, the look-up of its key among them. They never wait behind a
# search through many rows.
READERS: Final = 2
SEARCHERS: Final = 1
SEARCH_SECONDS: Final = 1.0
ANSWER_DAYS: Final = 7


class SqliteLedger:
    """``listener.ledger.Ledger`` and ``listener.keys.KeyStore`` on one SQLite file."""

    def __init__(
        self,
        *,
        lock: ServiceLock,
        writer: Connection,
        readers: Sequence[Connection],
        epoch: str,
        secret: str,
        confirm: Confirm,
        clock: Clock,
        on_commit: OnCommit | None,
    ) -> None:
        self._lock = lock
        self._epoch = epoch
        self._bells: list[Bell] = []
        self._write_connection = writer
        self._readers, self._searchers = Pool(readers[:READERS]), Pool(readers[READERS:])
        self._secret = secret
        self._writer = Writer(
            writer,
            epoch=epoch,
            confirm=confirm,
            now_ms=clock,
            bell=self._ring,
            on_commit=on_commit,
        )

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        confirm: Confirm = "suspicious",
        clock: Clock = now_ms,
        on_commit: OnCommit | None = None,
    ) -> Self:
        """Open a ledger to serve it; create it if there is none.

        Raises:
            LedgerError: It cannot be opened, or another listener is serving it.
        """
        lock = ServiceLock(path)
        opened: list[Connection] = []
        try:
            writer = partial(connect, path, create=True, clock=clock)
            reader = partial(_connect_reader, path)
            for connector in (writer, *[reader] * (READERS + SEARCHERS)):
                connection = await Connection.open(connector)
                opened.append(connection)
            epoch, why_new = await opened[0].run(partial(begin, path=path, lock=lock))
            secret = await opened[0].run(reading.secret)
        except BaseException:
            for connection in opened:
                await connection.close()
            lock.release()
            raise
        if why_new is not None:
            log.event(_LOG, "new_epoch", level=logging.WARNING, epoch=epoch, reason=why_new)
        return cls(
            lock=lock,
            writer=opened[0],
            readers=opened[1:],
            epoch=epoch,
            secret=secret,
            confirm=confirm,
            clock=clock,
            on_commit=on_commit,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def secret(self) -> bytes:
        return bytes.fromhex(self._secret)

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    async def check_writable(self) -> None:
        await self._writer.submit(lambda db, _at_ms: db.execute(statements.TOUCH).rowcount)

    def listen(self, bell: Bell, **_what_others_record: object) -> None:
        self._bells.append(bell)

    def on_epoch(self, hook: Callable[[], None]) -> None:
        """Do nothing: while a file is open nobody else writes it, so its epoch stays."""

    def _ring(self, events: Sequence[Event]) -> None:
        if events:
            for bell in self._bells:
                bell(events)

    async def record(self, fact: Fact) -> Recorded:
        recorded: Recorded = await self._writer.submit(fact)
        return recorded

    def queue(self, fact: Fact, answer: Callable[[Recorded | Exception], None]) -> None:
        self._writer.queue(fact, answer)

    async def ack(self, *, terminal: str, stream: str, offset: int) -> None:
        place = (terminal, stream, self._epoch, offset)
        await self._writer.submit(
            lambda db, at_ms: db.execute(statements.PUT_ACK, (*place, at_ms)).rowcount
        )

    async def start(self, *, terminal: str, stream: str, offset: int) -> None:
        place = (terminal, stream, self._epoch, offset)
        await self._writer.submit(
            lambda db, at_ms: db.execute(statements.PUT_START, (*place, at_ms)).rowcount
        )

    async def remember(
        self, *, key_id: str, idempotency_key: str, request: str
    ) -> Remembered | None:
        def claim(db: sqlite3.Connection, at_ms: int) -> Remembered | None:
            db.execute(statements.FORGET_ANSWERS, (at_ms - ANSWER_DAYS * 86_400_000,))
            found = reading.remembered(db, key_id=key_id, idempotency_key=idempotency_key)
            if found is None:
                db.execute(statements.CLAIM_ANSWER, (key_id, idempotency_key, request, at_ms))
            return found

        kept: Remembered | None = await self._writer.submit(claim)
        return kept

    async def remember_answer(
        self, *, key_id: str, idempotency_key: str, status: int, body: str
    ) -> None:
        values = (status, body, key_id, idempotency_key)
        await self._writer.submit(
            lambda db, _at_ms: db.execute(statements.PUT_ANSWER, values).rowcount
        )

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read of a few rows on any reader that is free."""
        async with self._readers.one() as reader:
            return await reader.run(work)

    async def _search(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a read that may go through many rows, for as long as a search may take."""
        async with self._searchers.one() as searcher:
            return await searcher.search(work, seconds=SEARCH_SECONDS)

    async def seq(self) -> int:
        return (await self._read(reading.head)).seq

    async def head(self) -> Head:
        return await self._read(reading.head)

    async def stream_heads(self, streams: Sequence[str]) -> dict[str, int]:
        return await self._read(partial(reading.stream_heads, streams=streams))

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
            partial(reading.transactions, search=search, before=before, limit=limit)
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
        return await self._read(partial(reading.acked, terminal=terminal, stream=stream))

    async def find_key(self, key_id: str) -> Key | None:
        return await self._read(partial(keys.find, key_id=key_id))

    async def keys_version(self) -> int:
        return await self._read(keys.version)

    async def revoked_keys(self) -> frozenset[str]:
        return await self._read(keys.revoked)

    # There is only one node, so nobody else can hold what this one has not locked.

    async def claim_turn(self, name: str) -> bool:
        del name
        return True

    async def keep_turn(self, name: str, *, seconds: float) -> bool:
        del name, seconds
        return True

    async def release_turn(self, name: str) -> None:
        del name

    async def announce(self, seats: Mapping[str, Seat]) -> frozenset[str]:
        del seats
        return frozenset()

    async def elsewhere(self) -> dict[str, int]:
        return {}

    async def nodes(self) -> list[NodeState]:
        return []

    async def close(self) -> None:
        # If the caller is cancelled here, everything stays open for the writer, which ends by
        # itself.
        await self._writer.close()
        with suppress(LedgerUnavailableError):
            await self._write_connection.run(partial(leave, lock=self._lock))
        # The writer's connection closes last, so that it moves the log into the file.
        readers = (*self._readers.all, *self._searchers.all)
        for connection in (*readers, self._write_connection):
            await connection.close()
        self._lock.release()


def _connect_reader(path: Path) -> sqlite3.Connection:
    db = connect(path, create=False)
    db.execute("PRAGMA query_only = ON")
    return db
