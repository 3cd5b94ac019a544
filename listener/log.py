"""Write the log: one line on stderr for each event, as fields and not prose.

    2026-11-23T10:11:12.345Z info refused merchantNo=200043 reason="bad signature"

The format is logfmt, the time is UTC. Never log a token, a key, a signature or a whole payload.
"""

import asyncio
import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Final

Value = str | int | float | None

NAME_CHARS_MAX: Final = 64
VALUE_CHARS_MAX: Final = 512
FIELDS_MAX: Final = 32
PAUSE_SECONDS: Final = 1.0
# The lines that one place in the code may log: so many in a burst, and so many a second.
LINES_AT_ONCE_MAX: Final = 20
LINES_PER_SECOND: Final = 1.0

_PLAIN: Final = re.compile(r"[!#-<>-\[\]-~]+")
_UNFIT_FOR_A_NAME: Final = re.compile(r"[^0-9A-Za-z_.-]")


def set_up(*, level: int = logging.INFO) -> None:
    """Log every event of the process to stderr. Calling it again replaces the earlier set-up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Logfmt())
    handler.addFilter(Limit())
    logging.basicConfig(handlers=[handler], level=level, force=True)


def event(
    logger: logging.Logger, name: str, /, *, level: int = logging.INFO, **fields: Value
) -> None:
    """Log one event, such as ``event(logger, "refused", merchantNo="200043")``.

    Names and values are escaped and cut, so that nothing from outside can begin a line of its
    own or fill the disk. Fields that are None are left out.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", name, extra={"fields": fields})


class Throttle:
    """Log an event that strangers can cause: at most one line a second of each kind, with a count.

        self._refused = log.Throttle(_LOG, "refused", level=logging.WARNING)
        self._refused.event("bad-signature", merchantNo="200043", sender="203.0.113.9")

    The first event of a kind is logged at once. Those within the next second are counted, and
    logged as one line at its end, with the fields of the last; ``count`` says how many events
    the line stands for. A kind is a word of our own, never text from outside. A throttle belongs
    to one event loop: create it with the service, not at import.
    """

    def __init__(
        self,
        logger: logging.Logger,
        name: str,
        *,
        level: int = logging.INFO,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._logger = logger
        self._name = name
        self._level = level
        self._pause_seconds = pause_seconds
        # The events since the last line, for each kind that was logged less than a pause ago.
        self._since: dict[Hashable, _Since] = {}

    def event(self, kind: Hashable = None, /, **fields: Value) -> None:
        """Log or count one event. Call it in the event loop's thread."""
        since = self._since.get(kind)
        if since is None:
            self._write(kind, 1, fields)
            return
        since.count += 1
        since.fields = fields

    def _write(self, kind: Hashable, count: int, fields: Mapping[str, Value]) -> None:
        event(self._logger, self._name, level=self._level, **fields, count=count)
        self._since[kind] = _Since()
        asyncio.get_running_loop().call_later(self._pause_seconds, self._end_pause, kind)

    def _end_pause(self, kind: Hashable) -> None:
        since = self._since.pop(kind)
        if since.count:
            self._write(kind, since.count, since.fields)


class Limit(logging.Filter):
    """Hold back lines if one place in the code logs too many, whoever causes them.

    A :class:`Throttle` is for events that strangers cause every day. This is for all others:
    faults, and what libraries log. The next line of its kind says how many were ``heldBack``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        # For each kind: how many lines were left, when, and how many were held back.
        self._kinds: dict[Hashable, tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written."""
        fields: Mapping[str, Value] = getattr(record, "fields", {})
        if "count" in fields:
            # A throttle has limited this line already.
            return True
        # All events come from one line of this module, and have names of ours.
        kind = (record.pathname, record.lineno, record.getMessage() if fields else "")
        now = time.monotonic()
        with self._lock:
            left, at, held_back = self._kinds.get(kind, (float(LINES_AT_ONCE_MAX), now, 0))
            left = min(LINES_AT_ONCE_MAX, left + (now - at) * LINES_PER_SECOND)
            is_written = left >= 1
            self._kinds[kind] = (left - 1, now, 0) if is_written else (left, now, held_back + 1)
        if is_written and held_back:
            own = fields or {"logger": record.name}
            record.__dict__["fields"] = {**own, "heldBack": held_back}
        return is_written


class _Since:
    """The events of one kind since its last line."""

    __slots__ = ("count", "fields")

    def __init__(self) -> None:
        self.count = 0
        self.fields: Mapping[str, Value] = {}


class Logfmt(logging.Formatter):
    """Formats a record as ``time level event key=value …``.

    Records of other libraries are formatted in the same way, with their message as the event.
    An exception becomes the fields ``error``, ``message`` and ``at`` (the innermost line).
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, without its line break."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Value] = dict(getattr(record, "fields", {"logger": record.name}))
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields |= {"error": type(error).__name__, "message": str(error), "at": _place(error)}
        head = (f"{moment}.{int(record.msecs):03d}Z", record.levelname.lower())
        return " ".join([*head, _written(record.getMessage()), *_pairs(fields)])


def _pairs(fields: Mapping[str, Value]) -> Iterator[str]:
    present = [(name, value) for name, value in fields.items() if value is not None]
    for name, value in present[:FIELDS_MAX]:
        yield f"{_UNFIT_FOR_A_NAME.sub('_', name[:NAME_CHARS_MAX])}={_written(value)}"


def _written(value: Value) -> str:
    """Write a value on one line: bare if possible, else quoted and escaped as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if len(text) > VALUE_CHARS_MAX:
        text = text[: VALUE_CHARS_MAX - 1] + "…"
    # ASCII only: this escapes control characters, line separators and right-to-left text.
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _place(error: BaseException) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None
