"""How long a POS client waits for what, and when it reconnects."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from listener.pos.codes import Duty
from listener.pos.ended import Ended

AFTER_MS_MAX: Final = 600_000
_LONGER_SECONDS: Final = 1.0
# 0.5 s · 2¹⁶ is above any longest wait; the exponent is limited so that it cannot overflow.
_DOUBLINGS_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a client waits for what, in seconds; the defaults are those of the protocol."""

    connect_seconds: float = 10.0
    """For each step: the upgrade, then ``hello``, then ``ready``."""
    slow_seconds: float = 0.8
    """How long a try may last before the status says that nothing answers."""
    close_seconds: float = 2.0
    """For the closing handshake."""
    retry_first_seconds: float = 0.5
    retry_max_seconds: float = 30.0
    behind_seconds: float = 2.0
    """How long heads may stay ahead while no event comes."""
    take_seconds: float = 30.0
    """How long the program may take no event before it is told that it is not live."""
    ack_seconds: float = 0.25
    """Between two acks: what is handled in between is acknowledged together."""
    poll_seconds: int = 25
    """How long the listener may keep a long-poll waiting."""
    blocked_tries: int = 3
    """How many upgrades fail in a row before long-poll is tried."""
    websocket_again_seconds: float = 300.0
    """How long long-poll is used before WebSocket is tried again."""
    chance: Callable[[], float] = random.random
    """Returns numbers in [0, 1) for the jitter."""


class Schedule:
    """When to reconnect: full jitter, growing while nothing succeeds, for ever."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._tries = 0

    def progress(self) -> None:
        """Begin with short waits again: an event was new or a ping came."""
        self._tries = 0

    def next(self, ended: Ended) -> float:
        """Return how many seconds to wait before the next try."""
        tries = self._tries
        self._tries += 1
        if ended.after_ms is not None:
            return min(ended.after_ms, AFTER_MS_MAX) / 1000
        if ended.duty is Duty.AT_ONCE or ended.jitter_ms is None:
            seconds = self._backoff(tries)
        elif tries == 0:
            seconds = self._timing.chance() * ended.jitter_ms / 1000
        else:
            seconds = self._backoff(tries - 1)
        return max(seconds, _LONGER_SECONDS) if ended.duty is Duty.BACK_OFF_LONGER else seconds

    def _backoff(self, doublings: int) -> float:
        grown = self._timing.retry_first_seconds * 2.0 ** min(doublings, _DOUBLINGS_MAX)
        return self._timing.chance() * min(self._timing.retry_max_seconds, grown)
