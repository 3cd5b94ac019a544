"""The time, and waiting for it; tests and simulations provide their own clock."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from msgspec import MsgspecError

from listener import log
from listener.ledger.promise import Ledger
from listener.ledger.scope import EVERYWHERE

# How far one answer of the server may hold the time back; one comes each second.
SLEW_NS: Final = 1_000_000
# If the newest entry is this far ahead of the clock, it is logged that the time goes on from it.
TOLD_MS: Final = 1_000

_LOG: Final = logging.getLogger(__name__)


class Steady:
    """The time as Unix ms: it follows the machine's clock, but never goes back.

    Due times are stored as times of day. If the clock were set back by an hour, every cancel would
    wait an hour longer for its answer. So the time goes on at its own pace, ahead of the machine's
    clock, until that has caught up or the listener restarts.

    If several listeners share a ledger, it follows the server's clock instead, so that one does in
    time what another recorded.
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
        self._is_led = False

    def follow(self, server_ms: int) -> None:
        """Go by the server's clock from now on, which has just shown ``server_ms``.

        Each answer is late by the time that it took, so the one that is furthest ahead is the most
        exact. Only the first sets the time back: nothing has been timed before it. After that the
        time gives way by a thousandth at most, so that a machine that runs fast stays with the
        server, and nothing goes back.
        """
        ahead_ns = server_ms * 1_000_000 - self._steady_ns()
        if self._is_led and self._ahead_ns is not None:
            ahead_ns = max(ahead_ns, self._ahead_ns - SLEW_NS)
        self._ahead_ns = ahead_ns
        self._is_led = True

    def go_on_from(self, at_ms: int) -> int:
        """Move the time forward to ``at_ms``, if it is earlier; return by how many ms."""
        ahead_ms = max(0, at_ms - self())
        if self._ahead_ns is not None:
            self._ahead_ns += ahead_ms * 1_000_000
        return ahead_ms

    def __call__(self) -> int:
        # The wall clock is read first: if this thread is paused in between, the time is not pushed
        # ahead.
        wall_ns = self._wall_ns()
        steady_ns = self._steady_ns()
        ahead_ns = wall_ns - steady_ns
        if self._is_led and self._ahead_ns is not None:
            ahead_ns = self._ahead_ns
        elif self._ahead_ns is None or ahead_ns > self._ahead_ns:
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

    def follow(self, server_ms: int) -> None:
        """Go by the clock of the ledger's server; a clock that a test provides goes its own way."""
        if isinstance(self.now_ms, Steady):
            self.now_ms.follow(server_ms)

    async def resume(self, ledger: Ledger) -> None:
        """Go on from the newest entry, if that is later and anything is to be asked about.

        The clock was set back since, which would delay everything that is due by as much.

        Raises:
            LedgerUnavailableError: The ledger cannot be read.
        """
        if not isinstance(self.now_ms, Steady) or await ledger.next_due_ms() is None:
            return
        try:
            newest = await ledger.read_entries(
                after=await ledger.seq() - 1, limit=1, scope=EVERYWHERE
            )
        except MsgspecError:
            # The ledger is damaged, which must not stop the service: `listener verify` reports it.
            return
        for read in newest:
            ahead_ms = self.now_ms.go_on_from(read.entry.recorded_at_ms)
            if ahead_ms >= TOLD_MS:
                seconds = ahead_ms // 1_000
                log.event(_LOG, "time_ahead", level=logging.WARNING, seconds=seconds)
