"""Give each key a share of requests, searches and waits, so that no key uses them all up.

A request past its key's share is answered 429 with `Retry-After`. Notifications have no key, and no
share.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from listener.web.problem import RETRY_SECONDS, ProblemError

# Requests of one key: so many at once, and so many a second in the long run. All tills of a
# merchant may use one key, and all return at once after a restart.
REQUESTS_AT_ONCE_MAX: Final = 1_000
REQUESTS_PER_SECOND: Final = 200
# Searches and drawings of one key that may wait for the one under way.
SEARCHES_WAITING_MAX: Final = 8
# Long-polls of one key that may wait for an event: as many as it may have connections. And those
# that may wait for an entry, which costs a look every second.
EVENT_WAITS_MAX: Final = 1_000
ENTRY_WAITS_MAX: Final = 16
# Above this many keys, those that were not used for a long time are forgotten.
KEYS_MAX: Final = 10_000


class Shares:
    """What each key is using."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        # For each key: how many requests it had left, and when.
        self._requests: dict[str, tuple[float, float]] = {}
        self._searching: dict[str, asyncio.Lock] = {}
        self._searches: Counter[str] = Counter()
        self._waits: Counter[tuple[str, int]] = Counter()

    def count_request(self, key_id: str) -> None:
        """Count one request against a key's share.

        Raises:
            ProblemError: None is left (429).
        """
        now = self._clock()
        left, at = self._requests.pop(key_id, (float(REQUESTS_AT_ONCE_MAX), now))
        left = min(REQUESTS_AT_ONCE_MAX, left + (now - at) * REQUESTS_PER_SECOND)
        # Moved to the end of the dictionary, so that its first key is the one unused for longest.
        self._requests[key_id] = (max(0.0, left - 1), now)
        if len(self._requests) > KEYS_MAX:
            del self._requests[next(iter(self._requests))]
        if left < 1:
            raise _too_many("too many requests with this key")

    @property
    def waits(self) -> int:
        """How many requests wait for an event or an entry."""
        return self._waits.total()

    @asynccontextmanager
    async def searching(self, key_id: str) -> AsyncIterator[None]:
        """Hold a key's one search, or drawing; a few more may wait for it.

        Raises:
            ProblemError: Too many are waiting (429).
        """
        if self._searches[key_id] > SEARCHES_WAITING_MAX:
            raise _too_many("too many searches or drawings with this key at a time")
        lock = self._searching.setdefault(key_id, asyncio.Lock())
        self._searches[key_id] += 1
        try:
            async with lock:
                yield
        finally:
            self._searches[key_id] -= 1
            if not self._searches[key_id]:
                del self._searches[key_id], self._searching[key_id]

    @contextmanager
    def waiting(self, key_id: str, *, limit: int) -> Iterator[None]:
        """Hold one of the waits of a key; waits with another limit are counted separately.

        Raises:
            ProblemError: None is left (429).
        """
        place = (key_id, limit)
        if self._waits[place] >= limit:
            raise _too_many("too many requests with this key wait at a time")
        self._waits[place] += 1
        try:
            yield
        finally:
            self._waits[place] -= 1
            if not self._waits[place]:
                del self._waits[place]


def _too_many(detail: str) -> ProblemError:
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return ProblemError(429, "too-many", f"{detail}; come back in a moment", headers=headers)
