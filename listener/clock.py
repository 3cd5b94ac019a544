"""Read the machine's clock."""

import time


def now_ms() -> int:
    """Return the time by the machine's clock, as Unix ms."""
    return time.time_ns() // 1_000_000
