"""Notice that this process was paused: what waits to be read may then be long outdated."""

import asyncio
from typing import Final

BEAT_SECONDS: Final = 0.25
# The shortest pause that counts; a machine that is merely busy is late by less.
PAUSE_SECONDS_MIN: Final = 2.0
# How long after a pause there may be something to read that arrived during it.
BACKLOG_SECONDS: Final = 1.0


class Pulse:
    """A timer that ticks, and that is late after a pause."""

    def __init__(self) -> None:
        self._beaten_at: float | None = None
        self._back_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start ticking."""
        loop = asyncio.get_running_loop()
        if self._was_paused(loop.time()):
            self._back_until = loop.time() + BACKLOG_SECONDS
        self._beaten_at = loop.time()
        self._timer = loop.call_later(BEAT_SECONDS, self.start)

    def stop(self) -> None:
        """Stop ticking."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def is_just_back(self) -> bool:
        """Whether a pause has just ended."""
        now = asyncio.get_running_loop().time()
        # What is read before the next tick may have arrived during the pause as well.
        return now < self._back_until or self._was_paused(now)

    def _was_paused(self, now: float) -> bool:
        return self._beaten_at is not None and now - self._beaten_at > PAUSE_SECONDS_MIN
