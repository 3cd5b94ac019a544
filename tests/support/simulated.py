"""An event loop whose time jumps to the next timer whenever there is nothing to read or write."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
# How long a socket on this machine may take to deliver what was just written to it.
_IO_SECONDS = 0.001


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait for timers: it advances the clock by the time it was asked to wait."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(_IO_SECONDS if timeout > 0 else 0)
        if not ready:
            self.now += max(0.0, timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Runs hours of waiting in the time that the work in between takes.

    Waiting for a thread is not simulated: use addresses instead of names, and write to no file.
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
