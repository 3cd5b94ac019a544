"""The sandbox's time and its tasks: time can be compressed, and every task is ended."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Final

TASKS_MAX: Final = 1_000
TIME_SCALE_MAX: Final = 100_000.0


class SandboxClock:
    """The sandbox's own time: ``time_scale`` of its seconds pass in each real one."""

    def __init__(self, *, time_scale: float = 1.0) -> None:
        if not 0 < time_scale <= TIME_SCALE_MAX:
            raise ValueError(f"time_scale is above 0 and at most {TIME_SCALE_MAX:g}")
        self._scale = time_scale
        self._began_seconds = time.time()
        self._began = time.monotonic()

    def now_seconds(self) -> float:
        """Return the sandbox's time as Unix seconds; it starts as the real time."""
        return self._began_seconds + (time.monotonic() - self._began) * self._scale

    def real_seconds(self, seconds: float) -> float:
        """Return how long a number of sandbox seconds really takes."""
        return seconds / self._scale

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of sandbox seconds."""
        await asyncio.sleep(self.real_seconds(seconds))


class Tasks:
    """The work that goes on after an answer, up to ``tasks_max`` tasks at a time."""

    def __init__(self, *, tasks_max: int = TASKS_MAX) -> None:
        self._tasks_max = tasks_max
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> bool:
        """Start some work; return False, without starting it, if there is too much already."""
        if len(self._running) >= self._tasks_max:
            work.close()
            return False
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True

    async def idle(self) -> None:
        """Wait until no work is left, including what is started meanwhile."""
        while self._running:
            await asyncio.wait(self._running)

    async def stop(self) -> None:
        """Cancel what is still going on, and wait until it has ended."""
        for task in self._running:
            task.cancel()
        await self.idle()
