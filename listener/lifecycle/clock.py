"""Tell the time and wait, so that tests and simulations can have a time of their own."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time as Unix ms, and how to let seconds of it pass."""

    now_ms: Callable[[], int] = _now_ms
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
