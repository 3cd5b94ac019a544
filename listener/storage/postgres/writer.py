"""The writer of one node: decide a batch without the lock, append it in one call under it.

Nothing is locked while this node computes or is paused: the lock is taken and released within one
statement. A batch that another node's commit got in the way of is read and decided again; the third
time with the lock held, which the server takes back after two seconds.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import asyncpg
from msgspec.structs import replace

from listener import log
from listener.errors import LedgerUnavailableError, ListenerError, OverloadedError
from listener.ledger.batch import Changes, decide, wanted
from listener.ledger.model import Event, Fact
from listener.ledger.promise import Recorded
from listener.ledger.schedule import Confirm
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.schema import LOCK
from listener.storage.postgres.statements import append, append_arguments, see

WAITING_MAX: Final = 4_096
# A larger batch would block the event loop for too long.
BATCH_MAX: Final = 128
# So many make a batch of their own while another is under way.
BESIDE_MIN: Final = 64
# Whoever waits longer is told to send it again; a batch that is under way goes on.
ANSWER_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 0.25
# Tries without the lock; then one more with it.
TRIES: Final = 2
PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 1.0

# Errors that the content of a batch can cause: data, constraints, limits. Nothing was written
# then.
_MISTAKES: Final = ("22", "23", "54")

_LOG: Final = logging.getLogger(__name__)

Answer = Callable[[Recorded | Exception], None]
# Called after a commit with its duration (seconds) and its number of items.
OnCommit = Callable[[float, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What a batch became: the place of each fact, the events, the head before and the new one."""

    recorded: list[Recorded | ListenerError]
    events: list[Event]
    after: int
    seq: int
    hash: str


class _Waiter:
    """A caller that waits for a commit, since a time of the event loop."""

    __slots__ = ("_answer", "fact", "is_answered", "since")

    def __init__(self, fact: Fact, answer: Answer, *, since: float) -> None:
        self.fact = fact
        self.since = since
        self.is_answered = False
        self._answer = answer

    def answer(self, result: Recorded | Exception) -> None:
        """Answer the caller, once; its error must not affect the others."""
        if self.is_answered:
            return
        self.is_answered = True
        try:
            self._answer(result)
        except Exception:  # noqa: BLE001 - whoever waits beside this one is answered too
            _LOG.exception("answer_failed")


class Writer:
    """Queues facts, appends them in groups, publishes their events, then answers."""

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        epoch: Callable[[], str],
        confirm: Confirm,
        now_ms: Callable[[], int],
        on_append: Callable[[Appended], None],
        on_commit: OnCommit | None = None,
    ) -> None:
        self._channels = channels
        self._epoch = epoch
        self._confirm: Confirm = confirm
        self._now_ms = now_ms
        self._on_append = on_append
        self._on_commit = on_commit
        self._waiting: deque[_Waiter] = deque()
        self._under_way: dict[Channel, Sequence[_Waiter]] = {}
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._pause_seconds = PAUSE_SECONDS
        self._tasks = [
            asyncio.create_task(self._run(channel), name="ledger-writer") for channel in channels
        ]
        self._sweep = asyncio.create_task(self._run_sweep(), name="ledger-sweep")

    @property
    def waiting(self) -> int:
        """How many wait for a commit."""
        return len(self._waiting)

    def queue(self, fact: Fact, answer: Answer) -> None:
        """Queue a fact for the next commit; ``answer`` is called once that is on disk.

        Raises:
            OverloadedError: More are waiting than the writer can serve in good time.
            LedgerUnavailableError: The ledger is closing.
        """
        if self._closing:
            raise LedgerUnavailableError("the ledger is closing; send it again")
        if len(self._waiting) >= WAITING_MAX:
            raise OverloadedError("too much is waiting for the ledger; send it again")
        self._waiting.append(_Waiter(fact, answer, since=self._loop.time()))
        if self._is_enough():
            self._wake.set()

    def submit(self, fact: Fact) -> "asyncio.Future[Recorded]":
        """Queue a fact, and return its place as a future; raises as :meth:`queue` does."""
        done: asyncio.Future[Recorded] = self._loop.create_future()
        self.queue(fact, partial(_settle, done))
        return done

    async def close(self) -> None:
        """Append what waits, and stop; cancelling the caller does not interrupt it."""
        self._closing = True
        self._wake.set()
        _, late = await asyncio.wait(self._tasks, timeout=ANSWER_SECONDS)
        self._sweep.cancel()
        if late:
            # A statement may still go on at the server: nobody is told that it succeeded.
            for channel in self._channels:
                channel.drop()
        await asyncio.gather(*self._tasks, self._sweep, return_exceptions=True)

    def _is_enough(self) -> bool:
        """Return whether what waits is to be appended now, or shares the next commit.

        A batch beside another is worth its own commit only where it is large.
        """
        least = BESIDE_MIN if self._under_way and not self._closing else 1
        return len(self._waiting) >= least

    async def _run(self, channel: Channel) -> None:
        try:
            while self._waiting or not self._closing:
                if not self._is_enough():
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                await self._serve_next(channel)
        except Exception:  # noqa: BLE001 - whoever waits is answered all the same
            _LOG.exception("writer_failed")
        finally:
            # However it ended, nobody is left waiting.
            self._closing = True
            self._refuse(self._waiting, "the ledger's writer has ended")

    async def _serve_next(self, channel: Channel) -> None:
        """Serve what waits, once there is a connection; until then it stays in the queue."""
        try:
            await channel.run(_nothing)
        except LedgerUnavailableError as error:
            log.event(_LOG, "no_connection", level=logging.ERROR, cause=str(error))
            if self._closing:
                self._refuse(self._waiting, "the ledger cannot be used now; send it again")
                self._waiting.clear()
            await asyncio.sleep(self._pause_seconds)
            self._pause_seconds = min(self._pause_seconds * 2, PAUSE_SECONDS_MAX)
            return
        self._pause_seconds = PAUSE_SECONDS
        count = min(len(self._waiting), BATCH_MAX)
        batch = [self._waiting.popleft() for _ in range(count)]
        await self._serve(channel, batch)

    async def _serve(self, channel: Channel, batch: Sequence[_Waiter]) -> None:
        """Append a batch, and answer everybody in it, whatever happens."""
        if not batch:
            return
        self._under_way[channel] = batch
        started = time.perf_counter()
        facts = [waiter.fact for waiter in batch]
        try:
            appended = await channel.run(lambda db: self._append(db, facts))
        except LedgerUnavailableError as error:
            if _is_mistake(error):
                await self._isolate(channel, batch, error)
                return
            log.event(
                _LOG, "commit_failed", level=logging.ERROR, cause=str(error), items=len(batch)
            )
            self._refuse(batch, str(error))
            self._drop_idle()
        except Exception as error:  # noqa: BLE001 - whatever one item raises, the writer lives on
            await self._isolate(channel, batch, error)
        else:
            self._announce(appended, seconds=time.perf_counter() - started, items=len(batch))
            for waiter, result in zip(batch, appended.recorded, strict=True):
                waiter.answer(result)
        finally:
            self._under_way.pop(channel, None)

    def _drop_idle(self) -> None:
        """Drop the connections beside one that has failed: whatever it was may be theirs too."""
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
        seen = await see(db, facts, wants)
        epoch, now_ms = self._epoch(), self._now_ms()
        changes = decide(facts, seen, epoch=epoch, now_ms=now_ms, confirm=self._confirm)
        arguments = append_arguments(changes, wants, seen, epoch=epoch, now_ms=now_ms)
        row = await append(db, arguments)
        return None if row is None else _placed(changes, row, seen=seen.seq)

    async def _isolate(self, channel: Channel, batch: Sequence[_Waiter], error: Exception) -> None:
        """Append the halves of a failed batch separately, until only the bad item fails."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._serve(channel, batch[:middle])
            await self._serve(channel, batch[middle:])
            return
        _LOG.error("item_failed", exc_info=error)
        failure = LedgerUnavailableError("the ledger could not take this")
        failure.__cause__ = error
        batch[0].answer(failure)

    def _announce(self, appended: Appended, *, seconds: float, items: int) -> None:
        """Publish events; an error there must not affect those who wait for the commit."""
        try:
            self._on_append(appended)
            if self._on_commit:
                self._on_commit(seconds, items)
        except Exception:  # noqa: BLE001 - what is committed is answered all the same
            _LOG.exception("bell_failed")

    def _refuse(self, waiters: Sequence[_Waiter] | deque[_Waiter], reason: str) -> None:
        for waiter in waiters:
            # A separate one for each: a raised error carries the traceback of whoever awaits it.
            waiter.answer(LedgerUnavailableError(reason))

    async def _run_sweep(self) -> None:
        """Answer those who have waited for too long, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            late = self._loop.time() - ANSWER_SECONDS
            while self._waiting and (
                self._waiting[0].since <= late or self._waiting[0].is_answered
            ):
                self._refuse([self._waiting.popleft()], "the ledger takes too long; send it again")
            batches = self._under_way.values()
            overdue = [one for batch in batches for one in batch if one.since <= late]
            self._refuse(overdue, "the ledger takes too long; send it again")


def _settle(done: "asyncio.Future[Recorded]", result: Recorded | Exception) -> None:
    """Settle a future, unless its caller has gone away."""
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)


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
            body=f"{new.before_seq}{new.seq + shift}{new.after_seq}".encode(),
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
