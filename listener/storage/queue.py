"""The queue before every back-end's commits: it is limited, and each caller is answered once.

A writer is such a queue. It adds how a batch of its back-end is committed, and when.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from listener import log
from listener.errors import LedgerUnavailableError, OverloadedError

WAITING_MAX: Final = 4_096

_LOG: Final = logging.getLogger(__name__)

Item = TypeVar("Item")
# What a commit brought, for those who listen.
News = TypeVar("News")
# Called in the loop with an item's result, or with the error that it ended in.
Answer = Callable[[Any], None]
# Called in the loop after a commit: how long it took (seconds), and how many items it carried.
OnCommit = Callable[[float, int], None]


class Waiter(Struct, Generic[Item]):
    """A caller that waits for its item to be committed, since a time of the steady clock."""

    item: Item
    answer: Answer
    since: float
    is_answered: bool = False


class CommitQueue(ABC, Generic[Item, News]):
    """Queues items for the next commit; after it, answers, then publishes what it brought."""

    def __init__(
        self, *, publish: Callable[[News], None], on_commit: OnCommit | None = None
    ) -> None:
        self._publish = publish
        self._on_commit = on_commit
        self._waiting: deque[Waiter[Item]] = deque()
        self._closing = False
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        """How many wait for a commit."""
        return len(self._waiting)

    def queue(self, item: Item, answer: Answer) -> None:
        """Queue an item for the next commit; ``answer`` is called once that is on disk.

        Raises:
            OverloadedError: More are waiting than the writer can serve in good time.
            LedgerUnavailableError: The ledger is closing.
        """
        if self._closing:
            raise LedgerUnavailableError("the ledger is closing; send it again")
        if len(self._waiting) >= WAITING_MAX:
            raise OverloadedError("too much is waiting for the ledger; send it again")
        self._waiting.append(Waiter(item, answer, monotonic()))
        self._wake()

    def submit(self, item: Item) -> "asyncio.Future[Any]":
        """Queue an item, and return its result as a future; raises as :meth:`queue` does."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self.queue(item, partial(settle, done))
        return done

    @abstractmethod
    def _wake(self) -> None:
        """See to it that what waits is committed."""

    def _take(self, most: int) -> list[Waiter[Item]]:
        """Take the next batch from the queue."""
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    def _finish(
        self, batch: Sequence[Waiter[Item]], results: Sequence[object], news: News, seconds: float
    ) -> None:
        """Answer, and publish what a commit brought; an error of one must not affect the others.

        Answers come first, so that an acknowledgement does not wait for thousands of tills. Nothing
        else runs in between, so a caller that has its answer finds the events published.
        """
        answer(batch, results)
        try:
            self._publish(news)
        except Exception:  # noqa: BLE001 - what is committed is counted all the same
            _LOG.exception("bell_failed")
        try:
            if self._on_commit:
                self._on_commit(seconds, len(batch))
        except Exception:  # noqa: BLE001 - nor does that stop the writer
            _LOG.exception("count_failed")


def answer(batch: Sequence[Waiter[Any]], results: Sequence[object]) -> None:
    """Answer those in a batch who are not answered yet; an error of one affects no other."""
    for waiter, result in zip(batch, results, strict=True):
        if waiter.is_answered:
            continue
        waiter.is_answered = True
        try:
            waiter.answer(result)
        except Exception:  # noqa: BLE001 - whoever waits beside this one is answered too
            _LOG.exception("answer_failed")


def refuse(batch: Sequence[Waiter[Any]], reason: str) -> None:
    """Refuse everybody in a batch: the ledger cannot be used."""
    # One error each: a raised error carries the traceback of the caller that awaits it.
    answer(batch, [LedgerUnavailableError(reason) for _ in batch])


def fail(batch: Sequence[Waiter[Any]], error: LedgerUnavailableError) -> None:
    """Refuse a batch whose commit failed."""
    log.event(_LOG, "commit_failed", level=logging.ERROR, cause=str(error), items=len(batch))
    refuse(batch, str(error))


def fail_alone(waiter: Waiter[Any], error: Exception) -> None:
    """Refuse an item that could not be committed even alone."""
    _LOG.error("item_failed", exc_info=error)
    failure = LedgerUnavailableError("the ledger could not take this")
    failure.__cause__ = error
    answer([waiter], [failure])


def halves(batch: Sequence[Waiter[Item]]) -> tuple[Sequence[Waiter[Item]], Sequence[Waiter[Item]]]:
    """Halve a failed batch, to commit its parts separately until only the bad item fails."""
    middle = len(batch) // 2
    return batch[:middle], batch[middle:]


def settle(done: "asyncio.Future[Any]", result: object) -> None:
    """Settle a future; an error is raised where it is awaited. A caller that left cancelled it."""
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)
