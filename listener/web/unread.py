"""Tell of what could not be read as HTTP, without a word of it: a torn header may hold a key."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.log import server_logger

from listener import log

PAUSE_SECONDS: Final = 1.0

_LOG: Final = logging.getLogger(__name__)


class Unread:
    """A filter of aiohttp's own log: its errors quote what was sent, and come one a request."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._told_at = -PAUSE_SECONDS

    def __call__(self, record: logging.LogRecord) -> bool:
        """Let a record pass, or tell in its stead, one line a second at most."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
            return True
        self._count += 1
        now = self._clock()
        if now - self._told_at >= PAUSE_SECONDS:
            level = min(record.levelno, logging.WARNING)
            reason = type(error).__name__
            log.event(_LOG, "unread_request", level=level, reason=reason, count=self._count)
            self._count, self._told_at = 0, now
        return False


@contextmanager
def unquoted() -> Iterator[None]:
    """Keep what strangers sent out of the log for as long as the context lasts."""
    unread = Unread()
    server_logger.addFilter(unread)
    try:
        yield
    finally:
        server_logger.removeFilter(unread)
