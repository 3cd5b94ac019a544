"""The ledger on SQLite: one writer and a few readers, all on one file."""

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from listener import log
from listener.clock import now_ms
from listener.ledger.model import Event, Fact
from listener.ledger.nodes import NodeState, Seat
from listener.ledger.promise import ANSWER_DAYS, Bell
from listener.ledger.results import Recorded, Remembered
from listener.ledger.schedule import Confirm
from listener.storage.queue import OnCommit
from listener.storage.sqlite import reading, statements
from listener.storage.sqlite.connection import Connection, wait_for_nobody
from listener.storage.sqlite.epoch import begin, leave
from listener.storage.sqlite.files import LedgerFiles
from listener.storage.sqlite.lock import ServiceLock
from listener.storage.sqlite.opening import connect, connect_query_only
from listener.storage.sqlite.readable import READERS, SEARCHERS, ReadableLedger
from listener.storage.sqlite.schema import add_indexes
from listener.storage.sqlite.writer import Writer

_LOG: Final = logging.getLogger(__name__)

# Reads the time as Unix ms.
Clock = Callable[[], int]


class SqliteLedger(ReadableLedger):
    """``listener.ledger.promise.Ledger`` and ``listener.keys.KeyStore`` on one SQLite file."""

    def __init__(  # noqa: PLR0913 - `open` alone makes one
        self,
        *,
        lock: ServiceLock,
        files: LedgerFiles,
        writer: Connection,
        readers: Sequence[Connection],
        epoch: str,
        secret: str,
        confirm: Confirm,
        clock: Clock,
        on_commit: OnCommit | None,
    ) -> None:
        super().__init__(readers)
        self._lock = lock
        self._epoch = epoch
        self._bells: list[Bell] = []
        self._write_connection = writer
        self._secret = secret
        self._writer = Writer(
            writer,
            epoch=epoch,
            confirm=confirm,
            now_ms=clock,
            bell=self._ring,
            check_files=files.check,
            leave_note=partial(leave, lock, epoch),
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
            reader = partial(connect_query_only, path)
            for connector in (writer, *[reader] * (READERS + SEARCHERS)):
                connection = await Connection.open(connector)
                opened.append(connection)
            epoch, why_new = await opened[0].run(partial(begin, path=path, lock=lock))
            await opened[0].run(add_indexes)
            secret = await opened[0].run(reading.secret)
            await opened[0].run(wait_for_nobody)
        except BaseException:
            for connection in opened:
                await connection.close()
            lock.release()
            raise
        if why_new is not None:
            log.event(_LOG, "new_epoch", level=logging.WARNING, epoch=epoch, reason=why_new)
        return cls(
            lock=lock,
            files=LedgerFiles(path),
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
        await self._writer.check()

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

    async def ack(
        self, *, terminal: str, stream: str, offset: int, epoch: str | None = None
    ) -> None:
        if epoch not in (None, self._epoch):
            return
        place = (terminal, stream, self._epoch, offset)
        await self._writer.submit(
            lambda db, at_ms: db.execute(statements.PUT_ACK, (*place, at_ms)).rowcount
        )

    async def start(self, *, terminal: str, offsets: Mapping[str, int]) -> None:
        def put(db: sqlite3.Connection, at_ms: int) -> None:
            for stream, offset in offsets.items():
                place = (terminal, stream, self._epoch, offset)
                db.execute(statements.PUT_START, (*place, at_ms))

        await self._writer.submit(put)

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

    # There is only one node, so no other can hold a turn.

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
        # The writer's connection closes last, so that it moves the log into the file.
        readers = (*self._readers.all, *self._searchers.all)
        for connection in (*readers, self._write_connection):
            await connection.close()
        self._lock.release()
