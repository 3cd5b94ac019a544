"""Write the log: one event, one line on stderr, as fields and not prose.

    2026-11-23T10:11:12.345Z info refused merchantNo=200043 reason="bad signature"

The form is logfmt, the time UTC. No token, key, signature or whole payload may be given to it.
"""

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

Value = str | int | float | None

NAME_CHARS_MAX: Final = 64
VALUE_CHARS_MAX: Final = 512
FIELDS_MAX: Final = 32

_PLAIN: Final = re.compile(r"[!#-<>-\[\]-~]+")
_UNFIT_FOR_A_NAME: Final = re.compile(r"[^0-9A-Za-z_.-]")


def set_up(*, level: int = logging.INFO) -> None:
    """Send every event of the process to stderr; called again, it replaces what it set up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Logfmt())
    logging.basicConfig(handlers=[handler], level=level, force=True)


def event(
    logger: logging.Logger, name: str, /, *, level: int = logging.INFO, **fields: Value
) -> None:
    """Log one event, such as ``event(logger, "refused", merchantNo="200043")``.

    Names and values are escaped and cut, so that nothing that came from outside can begin a
    line of its own or fill the disk. Fields that are None are left out.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", name, extra={"fields": fields})


class Logfmt(logging.Formatter):
    """Format a record as ``time level event key=value …``.

    A record that another library made is formatted in the same way, its message as the event.
    An exception becomes the fields ``error``, ``message`` and ``at`` (the innermost line).
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, without its end."""
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
    """Return a value on one line: bare if it can be, else in quotes and escaped as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if len(text) > VALUE_CHARS_MAX:
        text = text[: VALUE_CHARS_MAX - 1] + "…"
    # ASCII only: control characters, line separators and text that runs backwards are escaped.
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _place(error: BaseException) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None
