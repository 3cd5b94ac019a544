"""Count and log refused notifications, in one place for both paths."""

import logging
import re
from typing import Final

from listener import log
from listener.ingest import Ingest
from listener.web.metrics import Metrics
from listener.web.problem import ProblemError

# Longer than any number of a merchant or a store, and shorter than a token or a key.
PART_CHARS_MAX: Final = 16
# The nearest proxy adds what it has seen at the end; before that anybody can write anything.
FORWARDED_CHARS_MAX: Final = 256

_LOG: Final = logging.getLogger(__name__)
_LONG: Final = re.compile(rf"([^/]{{4}})[^/]{{{PART_CHARS_MAX - 3},}}")


class Refusals:
    """Records refusals: a counter for each answer, and a log at a limited rate."""

    def __init__(self, *, ingest: Ingest, metrics: Metrics) -> None:
        self._ingest = ingest
        self._metrics = metrics
        self._log = log.Throttle(_LOG, "refused", level=logging.WARNING)

    def add(
        self,
        error: ProblemError,
        *,
        merchant_no: str | None,
        path: str,
        sender: str | None,
        forwarded_for: str | None,
    ) -> None:
        """Count and log one refusal; ``path`` is without its query, which may hold a secret.

        So may the path, where a token was put into the notify URL: of long parts the beginning is
        logged.
        """
        self._metrics.refused(error.status)
        if merchant_no is None or not self._ingest.knows(merchant_no):
            merchant_no = None
        self._log.event(
            (merchant_no, error.status, error.code),
            status=error.status,
            reason=error.code,
            merchantNo=merchant_no,
            path=_LONG.sub(r"\1…", path),
            sender=sender,
            forwardedFor=forwarded_for and forwarded_for[-FORWARDED_CHARS_MAX:],
        )
