"""Notice that the machine slept: a connection may be gone, and no timer has run meanwhile."""

import asyncio
import time
from typing import Final

from listener.pos.causes import Cause, Outage

LOOK_SECONDS: Final = 1.0
ASLEEP_SECONDS: Final = 10.0
SLEPT: Final = Outage(cause=Cause.SILENT, why="this machine slept, or its clock was set")


def lasting_seconds() -> float:
    """Return the time of a clock that goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    # Not Linux: only the clock of the day goes on. Where that is set, it costs a new connection.
    return time.time() if clock is None else time.clock_gettime(clock)


class Sleeps:
    """Compares two clocks: the one of the event loop stands still while the machine sleeps.

    On systems where it does not, overdue timers end dead connections.
    """

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._ahead = lasting_seconds() - self._clock()

    def since(self) -> float:
        """Return how many seconds the machine slept since the last look; 0 for a moment."""
        slept = lasting_seconds() - self._clock() - self._ahead
        self._ahead += slept
        return slept if slept >= ASLEEP_SECONDS else 0.0
