"""What goes wrong, and when: a script of faults, seeded, pure.

A fault strikes at a place (a notification, a /cancel, a question to the wallet …). Written
``NAME`` it strikes every time, ``NAME@3`` the third time only, ``NAME%25`` a quarter of the
times, drawn from the seed.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self

FAULTS_MAX: Final = 100

_WRITTEN: Final = re.compile(r"([a-z0-9-]{1,64})(?:@([1-9][0-9]{0,6})|%([1-9][0-9]?|100))?")


class Place(StrEnum):
    """Where faults strike; each place counts its own occurrences."""

    NOTIFICATION = "notification"
    WALLET = "wallet"
    SALE = "sale"
    PAY = "pay"
    CANCEL = "cancel"
    QUERY = "query"


class Fault(StrEnum):
    """Everything that can be made to go wrong."""

    # These strike a whole notification, with every attempt to deliver it.
    NOTIFICATION_LOST = "notification-lost"
    NOTIFICATION_LATE = "notification-late"
    NOTIFICATION_REPEATED = "notification-repeated"
    NOTIFICATION_REORDERED = "notification-reordered"
    NOTIFICATION_WRONG_TOKEN = "notification-wrong-token"  # noqa: S105 - a name
    NOTIFICATION_OLD_TOKEN = "notification-old-token"  # noqa: S105 - a name
    NOTIFICATION_WRONG_AMOUNT = "notification-wrong-amount"
    NOTIFICATION_WRONG_CURRENCY = "notification-wrong-currency"
    NOTIFICATION_AS_JSON = "notification-as-json"
    NOTIFICATION_EMPTY_FIELDS = "notification-empty-fields"
    # These strike the first attempt only; the second delivers the whole notification.
    NOTIFICATION_TRUNCATED = "notification-truncated"
    NOTIFICATION_STALLED = "notification-stalled"
    NOTIFICATION_HUNG_BEFORE = "notification-hung-before"
    NOTIFICATION_HUNG_AFTER = "notification-hung-after"
    # The wallet server, each time it is told to abandon a sale.
    WALLET_SLOW = "wallet-slow"
    WALLET_DOWN = "wallet-down"
    WALLET_REFUSING = "wallet-refusing"
    WALLET_PAID = "wallet-paid"
    # Calls. "-unheard": nothing was done; otherwise the call took effect and its answer is lost.
    CANCEL_PAID_MEANWHILE = "cancel-paid-meanwhile"
    CANCEL_TIMEOUT = "cancel-timeout"
    CANCEL_TIMEOUT_UNHEARD = "cancel-timeout-unheard"
    CANCEL_5XX = "cancel-5xx"
    CANCEL_5XX_UNHEARD = "cancel-5xx-unheard"
    CANCEL_HTML = "cancel-html"
    CANCEL_NOT_NOTIFIED = "cancel-not-notified"
    QUERY_TIMEOUT = "query-timeout"
    QUERY_5XX = "query-5xx"
    QUERY_HTML = "query-html"
    SALE_TIMEOUT = "sale-timeout"
    SALE_TIMEOUT_UNHEARD = "sale-timeout-unheard"
    SALE_5XX = "sale-5xx"
    SALE_5XX_UNHEARD = "sale-5xx-unheard"
    SALE_HTML = "sale-html"
    PAY_TIMEOUT = "pay-timeout"
    PAY_TIMEOUT_UNHEARD = "pay-timeout-unheard"
    PAY_5XX = "pay-5xx"
    PAY_5XX_UNHEARD = "pay-5xx-unheard"
    PAY_HTML = "pay-html"

    @property
    def place(self) -> Place:
        """Where it strikes: the first word of its name."""
        return Place(self.split("-", 1)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A fault and when it strikes: the ``nth`` time, ``percent`` of the times, or every time."""

    fault: Fault
    nth: int | None = None
    percent: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``NAME``, ``NAME@N`` or ``NAME%P``.

        Raises:
            ValueError: There is no such fault, or it is written wrongly.
        """
        written = _WRITTEN.fullmatch(text)
        if written is None or written[1] not in list(Fault):
            raise ValueError(f"no such fault: {text[:80]!r}; there are {', '.join(Fault)}")
        nth, percent = written[2], written[3]
        return cls(
            fault=Fault(written[1]),
            nth=int(nth) if nth else None,
            percent=int(percent) if percent else None,
        )

    def __str__(self) -> str:
        if self.nth is not None:
            return f"{self.fault}@{self.nth}"
        return f"{self.fault}%{self.percent}" if self.percent is not None else str(self.fault)


class Script:
    """The planned faults, and how often each place was passed."""

    def __init__(self, planned: Iterable[Planned] = (), *, seed: int = 0) -> None:
        # Its own stream of randomness, so that faults do not change transaction numbers.
        self._random = random.Random(f"faults {seed}")  # noqa: S311 - repeatable on purpose
        self._planned: tuple[Planned, ...] = ()
        self._passed: Counter[Place] = Counter()
        self._struck: Counter[Fault] = Counter()
        self.replace(planned)

    @property
    def planned(self) -> tuple[Planned, ...]:
        """The faults that are planned now."""
        return self._planned

    @property
    def struck(self) -> Mapping[Fault, int]:
        """How often each fault has struck since the start."""
        return MappingProxyType(self._struck)

    def replace(self, planned: Iterable[Planned]) -> None:
        """Plan these faults instead of all others; counting begins anew, so @1 is the next time.

        Raises:
            ValueError: There are too many.
        """
        planned = tuple(planned)
        if len(planned) > FAULTS_MAX:
            raise ValueError(f"more than {FAULTS_MAX} faults")
        self._planned = planned
        self._passed.clear()

    def strike(self, place: Place) -> frozenset[Fault]:
        """Pass a place once, and return the faults that strike this time."""
        self._passed[place] += 1
        struck = frozenset(
            [p.fault for p in self._planned if p.fault.place is place and self._strikes(p)]
        )
        self._struck.update(struck)
        return struck

    def _strikes(self, planned: Planned) -> bool:
        if planned.nth is not None:
            return self._passed[planned.fault.place] == planned.nth
        return planned.percent is None or self._random.randrange(100) < planned.percent
