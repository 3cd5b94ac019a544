"""An event loop whose time jumps to the next timer whenever nothing is to be read or written."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
# What a socket on this machine needs to bring what was just written to it.
_IO_SECONDS = 0.001


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for no timer: it is told how long it may, and moves the clock on by that."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(_IO_SECONDS if timeout > 0 else 0)
        if not ready:
            self.now += max(0.0, timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Runs hours of waiting in the time that the work between takes.

    What waits for a thread is not simulated: names are to be addresses, and nothing may go to a
    file.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)
