"""Limit the questions to Pockyt: how often, how many at once, and not while it is down; pure.

Only the chaser waits here. A cashier's own wish is tried immediately, or refused immediately if the
key has used up its share.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from listener.errors import TooManyWishesError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much Pockyt may be asked, and how long a till waits.

    After ``failures_max`` failures in a row nothing is chased for ``pause_seconds``; the pause is
    doubled with each failed probe, up to ``pause_seconds_max``. Then one question at a time is let
    through until one is answered.
    """

    asks_per_second: float = 10.0
    asks_burst: int = 20
    asks_at_once: int = 8
    # How many of those are reserved for cancels that somebody waits for.
    asks_reserved: int = 3
    failures_max: int = 5
    pause_seconds: float = 5.0
    pause_seconds_max: float = 60.0
    # For each key: how many wishes may be under way at once, and how many may come in a second.
    wishes_at_once: int = 16
    wishes_per_second: float = 50.0
    wishes_burst: int = 200
    # How long a till waits for its cancel before it is told that the cancel is being chased.
    wait_seconds: float = 4.0


class Breaker:
    """Stops the questions to a failing Pockyt, and probes whether it is back."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failures = 0
        self._pause_seconds = limits.pause_seconds
        self._until_ms: int | None = None
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Return whether Pockyt is taken to be down."""
        return self._until_ms is not None

    def would_admit(self, now_ms: int) -> bool:
        """Return whether a question may be sent now."""
        return self._until_ms is None or (now_ms >= self._until_ms and not self._is_probing)

    def admit(self, now_ms: int) -> bool:
        """Admit a question if it may be sent now; while Pockyt is down, it is the probe."""
        if not self.would_admit(now_ms):
            return False
        self._is_probing = self._until_ms is not None
        return True

    def succeed(self) -> None:
        """Count an answer, whatever it said."""
        self._failures = 0
        self._pause_seconds = self._limits.pause_seconds
        self._until_ms = None
        self._is_probing = False

    def fail(self, now_ms: int) -> None:
        """Count a call without an answer."""
        self._failures += 1
        if self._until_ms is None:
            if self._failures >= self._limits.failures_max:
                self._until_ms = now_ms + int(self._pause_seconds * 1_000)
        elif now_ms >= self._until_ms:
            self._pause_seconds = min(self._pause_seconds * 2, self._limits.pause_seconds_max)
            self._until_ms = now_ms + int(self._pause_seconds * 1_000)
        self._is_probing = False

    def leave(self) -> None:
        """Return an unused probe: the question turned out not to be needed."""
        self._is_probing = False


class Bucket:
    """Lets a number of calls a second through, with a burst after a quiet time."""

    def __init__(self, *, per_second: float, burst: int, now_ms: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._left = self._burst
        self._filled_at_ms = now_ms

    def take(self, now_ms: int) -> bool:
        """Spend one token; return False if there is none now."""
        # A clock that steps back must not leave the bucket empty for that long.
        passed = max(0, now_ms - self._filled_at_ms) / 1_000
        self._filled_at_ms = now_ms
        self._left = min(self._burst, self._left + passed * self._per_second)
        if self._left < 1:
            return False
        self._left -= 1
        return True


class WishShares:
    """Gives each key its share: a number of wishes at once, and a number in a second.

    Without it, one till that starts sales in a loop would block the calls of all others.
    """

    def __init__(self, limits: Limits, *, now_ms: Callable[[], int]) -> None:
        self._limits = limits
        self._now_ms = now_ms
        self._under_way: Counter[str] = Counter()
        self._buckets: dict[str, Bucket] = {}

    @contextmanager
    def of(self, key_id: str) -> Iterator[None]:
        """Use a part of a key's share for as long as the context lasts.

        Raises:
            TooManyWishesError: The key has used up its share.
        """
        now_ms = self._now_ms()
        if key_id not in self._buckets:
            self._buckets[key_id] = Bucket(
                per_second=self._limits.wishes_per_second,
                burst=self._limits.wishes_burst,
                now_ms=now_ms,
            )
        if self._under_way[key_id] >= self._limits.wishes_at_once:
            raise TooManyWishesError
        if not self._buckets[key_id].take(now_ms):
            raise TooManyWishesError
        self._under_way[key_id] += 1
        try:
            yield
        finally:
            self._under_way[key_id] -= 1
