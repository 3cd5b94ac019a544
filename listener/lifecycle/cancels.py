"""Settle cancels while their tills wait, and go on after the tills were answered."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.lifecycle.clock import Clock

_LOG: Final = logging.getLogger(__name__)


class CancelsUnderWay:
    """The cancels that are being settled, by transaction or sale.

    What fails here, or is cancelled by :meth:`close`, is on the schedule, so the chaser goes on
    with it.
    """

    def __init__(self, clock: Clock, *, wait_seconds: float) -> None:
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._newest: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, key: tuple[str, ...], work: Coroutine[None, None, None]) -> None:
        """Start to settle a cancel."""
        task = asyncio.create_task(work, name="settle")
        self._newest[key] = task
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, key))

    async def wait(self, key: tuple[str, ...]) -> bool:
        """Wait until a cancel is settled, but no longer than a till waits.

        Returns:
            Whether there was something to wait for.
        """
        newest = self._newest.get(key)
        if newest is None:
            return False
        waiting = asyncio.ensure_future(self._clock.sleep(self._wait_seconds))
        try:
            await asyncio.wait([newest, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return True

    async def close(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, key: tuple[str, ...], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._newest.get(key) is task:
            del self._newest[key]
        if task.cancelled() or (error := task.exception()) is None:
            return
        # The schedule goes on with it; the till is told how far it has come.
        if isinstance(error, LedgerUnavailableError):
            log.event(_LOG, "chase_postponed", level=logging.WARNING, reason=str(error))
        else:
            _LOG.error("settle_failed", exc_info=error)
