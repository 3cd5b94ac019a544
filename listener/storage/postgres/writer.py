"""The writer of one node: decide a batch without the lock, append it in one call under it.

Nothing is locked while this node computes or is paused: the lock is taken and released within one
statement. If another node's commit got in the way of a batch, it is read and decided again; the
third time with the lock held, which the server takes back after two seconds.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from msgspec.structs import replace

from listener import log
from listener.errors import LedgerUnavailableError, ListenerError
from listener.ledger.batch import Changes, decide
from listener.ledger.model import Event, Fact
from listener.ledger.results import Recorded
from listener.ledger.schedule import Confirm
from listener.ledger.wanted import wanted
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.rehearsal import rehearse
from listener.storage.postgres.schema import LOCK
from listener.storage.postgres.statements import append, append_arguments, see
from listener.storage.queue import CommitQueue, OnCommit, Waiter, fail, fail_alone, halves, refuse

# A larger batch would block the event loop for too long.
BATCH_MAX: Final = 128
# So many make a batch of their own while another is under way.
BESIDE_MIN: Final = 64
# A caller that waits longer is told to send again; a batch that is under way goes on.
ANSWER_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 0.25
# Tries without the lock; then one more with it.
TRIES: Final = 2
PAUSE_SECONDS: Final = 0.1
# Anybody may ask whether this node is ready, so appends are rehearsed no more often than this.
REHEARSAL_SECONDS: Final = 1.0
PAUSE_SECONDS_MAX: Final = 1.0

# Errors that the content of a batch can cause: data, constraints, limits. Nothing was written
# then.
_MISTAKES: Final = ("22", "23", "54")

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What a batch became: the place of each fact, the events, the head before and the new one."""

    recorded: list[Recorded | ListenerError]
    events: list[Event]
    after: int
    seq: int
    hash: str


class Writer(CommitQueue[Fact, Appended]):
    """Queues facts, appends them in groups, answers, then publishes their events."""

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        epoch: Callable[[], str],
        witness: Callable[[], int],
        confirm: Confirm,
        now_ms: Callable[[], int],
        on_append: Callable[[Appended], None],
        on_commit: OnCommit | None = None,
    ) -> None:
        super().__init__(publish=on_append, on_commit=on_commit)
        self._channels = channels
        self._epoch = epoch
        self._witness = witness
        self._confirm: Confirm = confirm
        self._now_ms = now_ms
        self._under_way: dict[Channel, Sequence[Waiter[Fact]]] = {}
        # Whether the last batch failed, whatever was in it, and when an append was rehearsed.
        self._has_failed = False
        self._rehearsed_at = -math.inf
        self._more = asyncio.Event()
        self._pause_seconds = PAUSE_SECONDS
        self._tasks = [
            asyncio.create_task(self._run(channel), name="ledger-writer") for channel in channels
        ]
        self._sweep = asyncio.create_task(self._run_sweep(), name="ledger-sweep")

    async def close(self) -> None:
        """Append what waits, and stop; cancelling the caller does not interrupt it."""
        self._closing = True
        self._more.set()
        _, late = await asyncio.wait(self._tasks, timeout=ANSWER_SECONDS)
        self._sweep.cancel()
        if late:
            # A statement may still go on at the server: nobody is told that it succeeded.
            for channel in self._channels:
                channel.drop()
        await asyncio.gather(*self._tasks, self._sweep, return_exceptions=True)

    async def check(self) -> None:
        """Return if the next batch can be appended, judged by the last one and a connection.

        If there is no connection, one is made. If the last batch failed, an append is rehearsed: a
        proxy that was told "not ready" may send nothing that would show that this node is ready
        again.

        Raises:
            LedgerUnavailableError: There is no server that can be used now, or it takes nothing.
        """
        idle = [channel for channel in self._channels if channel not in self._under_way]
        if self._has_failed:
            now = time.monotonic()
            if not idle or now - self._rehearsed_at < REHEARSAL_SECONDS:
                raise LedgerUnavailableError("the last commit failed; send it again")
            self._rehearsed_at = now
            await idle[0].run(lambda db: rehearse(db, self._append))
            self._has_failed = False
        elif len(idle) == len(self._channels) and not any(one.is_connected for one in idle):
            await idle[0].run(_nothing)

    def _wake(self) -> None:
        if self._is_enough():
            self._more.set()

    def _is_enough(self) -> bool:
        """Return whether what waits is to be appended now, or shares the next commit.

        A batch beside another is worth its own commit only if it is large.
        """
        least = BESIDE_MIN if self._under_way and not self._closing else 1
        return len(self._waiting) >= least

    async def _run(self, channel: Channel) -> None:
        try:
            while self._waiting or not self._closing:
                if not self._is_enough():
                    self._more.clear()
                    await self._more.wait()
                    continue
                await self._serve_next(channel)
        except Exception:  # noqa: BLE001 - whoever waits is answered all the same
            _LOG.exception("writer_failed")
        finally:
            # However this ended, nobody is left waiting.
            self._closing = True
            refuse(self._waiting, "the ledger's writer has ended")

    async def _serve_next(self, channel: Channel) -> None:
        """Serve what waits, once there is a connection; until then it stays in the queue."""
        try:
            await channel.run(_nothing)
        except LedgerUnavailableError as error:
            log.event(_LOG, "no_connection", level=logging.ERROR, cause=str(error))
            if self._closing:
                refuse(self._waiting, "the ledger cannot be used now; send it again")
                self._waiting.clear()
            await asyncio.sleep(self._pause_seconds)
            self._pause_seconds = min(self._pause_seconds * 2, PAUSE_SECONDS_MAX)
            return
        self._pause_seconds = PAUSE_SECONDS
        await self._serve(channel, self._take(BATCH_MAX))

    async def _serve(self, channel: Channel, batch: Sequence[Waiter[Fact]]) -> None:
        """Append a batch, and answer everybody in it, whatever happens."""
        if not batch:
            return
        self._under_way[channel] = batch
        started = time.perf_counter()
        facts = [waiter.item for waiter in batch]
        try:
            appended = await channel.run(lambda db: self._append(db, facts))
        except LedgerUnavailableError as error:
            if _is_mistake(error):
                await self._isolate(channel, batch, error)
                return
            self._has_failed = True
            fail(batch, error)
            self._drop_idle()
        except Exception as error:  # noqa: BLE001 - whatever one item raises, the writer lives on
            await self._isolate(channel, batch, error)
        else:
            self._has_failed = False
            self._finish(batch, appended.recorded, appended, time.perf_counter() - started)
        finally:
            self._under_way.pop(channel, None)

    def _drop_idle(self) -> None:
        """Drop the other connections after one has failed: they may have the same fault."""
        for channel in self._channels:
            if channel not in self._under_way:
                channel.drop()

    async def _append(self, db: Connection, facts: Sequence[Fact]) -> Appended:
        for _ in range(TRIES):
            appended = await self._try(db, facts)
            if appended is not None:
                return appended
        async with db.transaction():
            # Two statements: a read in the one that locks would see the state before the lock.
            await db.execute(LOCK)
            appended = await self._try(db, facts)
        if appended is None:
            raise LedgerUnavailableError("the ledger was changed under its lock")
        return appended

    async def _try(self, db: Connection, facts: Sequence[Fact]) -> Appended | None:
        wants = wanted(facts)
        # Read before any await: what is acknowledged meanwhile may be too new for what is seen.
        witness = self._witness()
        seen = await see(db, facts, wants)
        if seen.seq < witness:
            # The next connection meets the ledger, and begins a new epoch.
            raise LedgerUnavailableError("the ledger went back; send it again")
        epoch, now_ms = self._epoch(), self._now_ms()
        changes = decide(facts, seen, epoch=epoch, now_ms=now_ms, confirm=self._confirm)
        arguments = append_arguments(changes, wants, seen, epoch=epoch, now_ms=now_ms)
        row = await append(db, arguments)
        return None if row is None else _placed(changes, row, seen=seen.seq)

    async def _isolate(
        self, channel: Channel, batch: Sequence[Waiter[Fact]], error: Exception
    ) -> None:
        """Append the halves of a failed batch separately, until only the bad item fails."""
        if len(batch) == 1:
            fail_alone(batch[0], error)
            return
        for half in halves(batch):
            await self._serve(channel, half)

    async def _run_sweep(self) -> None:
        """Answer those who have waited for too long, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            late = time.monotonic() - ANSWER_SECONDS
            while self._waiting and (
                self._waiting[0].since <= late or self._waiting[0].is_answered
            ):
                refuse([self._waiting.popleft()], "the ledger takes too long; send it again")
            batches = self._under_way.values()
            overdue = [one for batch in batches for one in batch if one.since <= late]
            refuse(overdue, "the ledger takes too long; send it again")


async def _nothing(_db: Connection) -> None:
    """Do nothing but connect."""


def _is_mistake(error: LedgerUnavailableError) -> bool:
    """Return whether the content of a batch was refused, so that none of it was written."""
    cause = error.__cause__
    if isinstance(cause, asyncpg.PostgresError):
        return (cause.sqlstate or "").startswith(_MISTAKES)
    # What asyncpg itself could not write never left this node.
    return isinstance(cause, ValueError)


def _placed(changes: Changes, row: Any, *, seen: int) -> Appended:  # noqa: ANN401 - a record
    """Renumber what was numbered before the lock to where it was appended."""
    shift = row["head"] - seen
    recorded = [_moved(one, seen=seen, shift=shift) for one in changes.recorded]
    events = [
        Event(
            number=row["number"] + n,
            stream=new.stream,
            offset=offset,
            seq=new.seq + shift,
            body=new.body(new.seq + shift),
        )
        for n, (new, offset) in enumerate(zip(changes.events, row["offsets"], strict=True))
    ]
    return Appended(
        recorded=recorded,
        events=events,
        after=row["head"],
        seq=row["head"] + len(changes.entries),
        hash=row["hash"],
    )


def _moved(one: Recorded | ListenerError, *, seen: int, shift: int) -> Recorded | ListenerError:
    if isinstance(one, ListenerError) or not shift or one.seq <= seen:
        return one
    transaction = one.transaction
    if transaction is not None:
        sale_seq, judge_seq = transaction.sale_seq, transaction.judge_seq
        transaction = replace(
            transaction,
            first_seq=_past(transaction.first_seq, seen, shift),
            sale_seq=None if sale_seq is None else _past(sale_seq, seen, shift),
            judge_seq=None if judge_seq is None else _past(judge_seq, seen, shift),
        )
    return replace(one, seq=one.seq + shift, transaction=transaction)


def _past(seq: int, seen: int, shift: int) -> int:
    return seq + shift if seq > seen else seq
