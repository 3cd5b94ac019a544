"""Answer and log what could not be read as HTTP, without quoting it: it may hold a key."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong
from aiohttp.log import server_logger

from listener import log
from listener.web.problem import ProblemError, problem

_LOG: Final = logging.getLogger(__name__)

# aiohttp's messages about a broken rule that quote nothing but a header's name.
_HEADER_RULE: Final = re.compile(
    r"Duplicate '[A-Za-z-]{1,40}' header found\.|Missing 'Host' header in request\."
    r"|Too many headers received"
)
# The beginning of its parser's message, before the line that it quotes; a constant of the parser.
_PARSER_RULE: Final = re.compile(r"(?:Bad status line:\n\s+)?([ -~]{1,100}?):\n\n")


class Unread:
    """Handles requests that are not HTTP, and failures that no handler caught."""

    def __init__(self, *, count: Callable[[], None] = lambda: None) -> None:
        self._count = count
        self._log = log.Throttle(_LOG, "unread_request", level=logging.WARNING)
        self._failures = log.Throttle(_LOG, "request_failed", level=logging.ERROR)

    def answer(
        self, status: int, error: BaseException | None, *, sender: str | None
    ) -> web.Response:
        """Build the answer to what aiohttp could not read, or failed at."""
        if isinstance(error, HttpProcessingError):
            self.note(error, sender=sender)
            # A till's library speaks HTTP: what garbled the request, or made its head so long, is
            # in between, and may be repaired.
            why = "this is not HTTP; the log says by which rule"
            if isinstance(error, LineTooLong):
                why = "the request's first line, or one of its headers, is too long"
            told = ProblemError(400, "malformed", why, members={"retry": True})
        else:
            self._failures.event(status, status=status, error=type(error).__name__, sender=sender)
            told = ProblemError(status, "failed", "the listener failed; its log says how")
        response = problem(told)
        response.force_close()
        return response

    def note(self, error: BaseException, *, sender: str | None = None) -> None:
        """Count and log what could not be read."""
        self._count()
        rule = rule_of(error)
        self._log.event(rule, rule=rule, sender=sender)

    def __call__(self, record: logging.LogRecord) -> bool:
        """Drop aiohttp's own log lines about such requests: they quote them."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, (HttpProcessingError, web.RequestPayloadError)):
            return True
        self.note(error)
        return False


def rule_of(error: BaseException) -> str:
    """Return the rule of HTTP that was broken, without anything that was sent."""
    text = error.message if isinstance(error, HttpProcessingError) else ""
    if _HEADER_RULE.fullmatch(text):
        return text
    found = _PARSER_RULE.match(text)
    return found[1] if found else type(error).__name__


@contextmanager
def unquoted(unread: Unread) -> Iterator[None]:
    """Remove quotes of strangers from aiohttp's log for as long as the context lasts."""
    server_logger.addFilter(unread)
    try:
        yield
    finally:
        server_logger.removeFilter(unread)
