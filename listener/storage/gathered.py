"""Answer many questions with one read: those asked during a read share the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from listener.errors import LedgerUnavailableError
from listener.storage.queue import settle

Q = TypeVar("Q")
A = TypeVar("A")

# How many questions one read takes: the first of them waits for the answer to the last.
GATHERED_MAX: Final = 64


class Gathered(Generic[Q, A]):
    """Answers many questions with one read; a question that is alone never waits.

    Args:
        read: Answers questions, in their order; an answer that is an error is raised to its caller.
            If ``read`` raises that the ledger is unavailable, all callers get that; after any other
            error each question is asked alone.
        at_once: How many reads are under way at a time.
    """

    def __init__(
        self,
        read: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]],
        *,
        at_once: int = 1,
    ) -> None:
        self._read = read
        self._at_once = at_once
        self._under_way = 0
        self._asked: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """Return the answer to a question, from a read that began after it was asked.

        Cancelling one caller does not affect the others.
        """
        if self._under_way >= self._at_once:
            waiting: asyncio.Future[A] = asyncio.get_running_loop().create_future()
            self._asked.append((question, waiting))
            return await waiting
        # Without a task, which would cost a turn of the loop.
        self._under_way += 1
        try:
            (answer,) = await self._read([question])
        finally:
            self._under_way -= 1
            self._go_on()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _go_on(self) -> None:
        """Read the answers to the questions asked meanwhile."""
        if self._asked:
            self._under_way += 1
            task = asyncio.create_task(self._read_on())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read_on(self) -> None:
        try:
            while asked := self._next():
                await self._answer(asked)
        finally:
            self._under_way -= 1

    def _next(self) -> "list[tuple[Q, asyncio.Future[A]]]":
        """Take the questions of the next read, without those of callers that left."""
        asked: list[tuple[Q, asyncio.Future[A]]] = []
        while self._asked and len(asked) < GATHERED_MAX:
            question, waiting = self._asked.popleft()
            if not waiting.done():
                asked.append((question, waiting))
        return asked

    async def _answer(self, asked: "Sequence[tuple[Q, asyncio.Future[A]]]") -> None:
        answers: Sequence[A | Exception]
        try:
            answers = await self._read([question for question, _ in asked])
        except LedgerUnavailableError as error:
            answers = [error] * len(asked)
        except Exception as error:  # noqa: BLE001 - whoever asked raises it
            if len(asked) > 1:
                # A question that cannot be asked fails alone.
                for one in asked:
                    await self._answer([one])
                return
            answers = [error]
        except BaseException:
            for _, waiting in asked:
                waiting.cancel()
            raise
        for (_, waiting), answer in zip(asked, answers, strict=True):
            settle(waiting, answer)
