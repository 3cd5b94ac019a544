"""A share for each key: of requests, searches and waits, so that no key takes what all need.

A share that is used up is answered 429 with `Retry-After`. A notification has no key, and none of
this is asked about it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from listener.web.problem import RETRY_SECONDS, ProblemError

# Requests of one key: so many at once, and so many a second for long. A key may be that of every
# till of a merchant, which all come back at once after a restart.
REQUESTS_AT_ONCE_MAX: Final = 1_000
REQUESTS_PER_SECOND: Final = 200
# Searches of one key that wait for the one that is under way.
SEARCHES_WAITING_MAX: Final = 8
# Long-polls of one key that wait for an event, as many as it may have connections; and that wait
# for an entry, which costs a look every second.
EVENT_WAITS_MAX: Final = 1_000
ENTRY_WAITS_MAX: Final = 16
# From so many keys on, those are forgotten that have not used anything for long.
KEYS_MAX: Final = 10_000


class Shares:
    """What each key has in use."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        # Of each key: how many requests it has left, and when that was so.
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
        # At the end of the dictionary, so that its first is the one that was quiet for longest.
        self._requests[key_id] = (max(0.0, left - 1), now)
        if len(self._requests) > KEYS_MAX:
            del self._requests[next(iter(self._requests))]
        if left < 1:
            raise _too_many("too many requests with this key")

    @asynccontextmanager
    async def searching(self, key_id: str) -> AsyncIterator[None]:
        """Hold a key's one search; a few more may wait for it.

        Raises:
            ProblemError: Too many wait (429).
        """
        if self._searches[key_id] > SEARCHES_WAITING_MAX:
            raise _too_many("too many searches with this key at a time")
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
        """Hold one of the waits of a key; those with another limit are counted apart.

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
