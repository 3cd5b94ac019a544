"""The time, and waiting for it; tests and simulations provide their own clock."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


class Steady:
    """The time as Unix ms: it follows the machine's clock, but never goes back.

    Due times are stored as times of day. If the clock were set back by an hour, every cancel would
    wait an hour longer for its answer. So the time goes on at its own pace, ahead of the machine's
    clock, until that has caught up or the listener restarts.
    """

    def __init__(
        self,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._ahead_ns: int | None = None

    def __call__(self) -> int:
        # The wall clock is read first: if this thread is paused in between, the time is not pushed
        # ahead.
        wall_ns = self._wall_ns()
        steady_ns = self._steady_ns()
        ahead_ns = wall_ns - steady_ns
        if self._ahead_ns is None or ahead_ns > self._ahead_ns:
            # In one step, because the ledger's thread reads the time too.
            self._ahead_ns = ahead_ns
        else:
            ahead_ns = self._ahead_ns
        return (steady_ns + ahead_ns) // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time as Unix ms, and a way to wait for some seconds of it."""

    now_ms: Callable[[], int] = field(default_factory=Steady)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
