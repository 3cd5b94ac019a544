"""Count what an operator watches, as Prometheus metrics. No label holds anything from outside."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from enum import StrEnum
from itertools import accumulate, product
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, exposition
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from listener import __version__
from listener.ledger.model import Why
from listener.ledger.results import Doubts
from listener.lifecycle import CALLS, OUTCOMES
from listener.pos.codes import CloseCode

# A scraper that reads only Prometheus's older format refuses a whole page for one type that this
# does not have. OpenMetrics has such a type, `info`, for what never changes.
OPENMETRICS: Final = openmetrics.CONTENT_TYPE_LATEST
PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"

NOTIFY_STATUSES: Final = (200, 400, 401, 404, 405, 408, 413, 415, 417, 503)

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Cut(StrEnum):
    """Why an HTTP connection was cut off."""

    SLOW_HEAD = "slow-head"
    SLOW_READER = "slow-reader"
    CROWDED_OUT = "crowded-out"
    FULL = "full"


class Observed(Collector):
    """A histogram that is updated in one thread only, and so without locks."""

    def __init__(self, name: str, told: str, *, bounds: Sequence[float]) -> None:
        self._name = name
        self._told = told
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self._counts)

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the samples for the registry."""
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets = [*zip(bounds, accumulate(self._counts), strict=True)]
        yield HistogramMetricFamily(self._name, self._told, buckets=buckets, sum_value=self._sum)


class _Gathered(Collector):
    """What several registries hold, as one."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Metrics:
    """Every metric of one listener, in registries of its own.

    ``registry`` has what this listener did and sees; ``of_ledger`` has what is true of the whole
    ledger, which any of several listeners could report.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.of_ledger = CollectorRegistry()
        self.node = Info(
            "listener_node", "The listener that answers: its version.", registry=self.registry
        )
        self.node.info({"version": __version__})
        self.lag = Gauge(
            "listener_node_lag",
            "Events of other nodes that this one knows of, and has yet to publish.",
            registry=self.registry,
        )
        self.clock_seconds = Gauge(
            "listener_node_clock_seconds",
            "How far this node's clock is ahead of the database's.",
            registry=self.registry,
        )
        self.nodes = Gauge(
            "listener_nodes", "Listeners that serve the ledger now.", registry=self.of_ledger
        )
        self.notifications = Counter(
            "listener_notifications",
            "Notifications answered, by the answer's HTTP status.",
            ["status"],
            registry=self.registry,
        )
        # Each status of the table exists from the start, as do close codes and outcomes below: a
        # counter that appears with its first event has no increase that an alarm could see.
        self._by_status = {status: self.notifications.labels(status) for status in NOTIFY_STATUSES}
        self._acknowledged = self._by_status[200]
        self.unread = Counter(
            "listener_unread_requests",
            "Requests that could not be read as HTTP; the log has the rule.",
            registry=self.registry,
        )
        self.connections = Gauge(
            "listener_connections", "HTTP connections that are open.", registry=self.registry
        )
        self.cuts = Counter(
            "listener_connection_cuts",
            "HTTP connections that were cut off, by why.",
            ["why"],
            registry=self.registry,
        )
        for why in Cut:
            self.cuts.labels(why)
        # Added to the registry only when the metrics are read, since that takes a lock.
        self._counted = 0
        self._published = 0
        self.repeats = Counter(
            "listener_notification_repeats",
            "Notifications that were known already.",
            registry=self.registry,
        )
        self._notify_seconds = Observed(
            "listener_notify_seconds",
            "From a notification's head to its acknowledgement.",
            bounds=_SECONDS,
        )
        self._commit_seconds = Observed(
            "listener_commit_seconds",
            "A group commit, its sync to disk included.",
            bounds=_SECONDS,
        )
        self._commit_facts = Observed(
            "listener_commit_facts", "What one commit carried.", bounds=_BATCHES
        )
        for observed in (self._notify_seconds, self._commit_seconds, self._commit_facts):
            self.registry.register(observed)
        self.events = Counter("listener_events", "Events made for tills.", registry=self.registry)
        self.event_reads = Counter(
            "listener_event_reads",
            "Pages of events read from the ledger, for tills behind what is kept in memory.",
            registry=self.registry,
        )
        self.sessions = Gauge(
            "listener_pos_sessions", "POS connections that are open.", registry=self.registry
        )
        self.closes = Counter(
            "listener_pos_closes", "POS connections closed here.", ["code"], registry=self.registry
        )
        for code in CloseCode:
            self.closes.labels(code)
        self.waiting = Gauge(
            "listener_ledger_waiting", "What waits for a commit.", registry=self.registry
        )
        self.unacked = Gauge(
            "listener_unacknowledged_cancellations",
            "Cancellations that no terminal of their stream acknowledged in time.",
            registry=self.of_ledger,
        )
        self.pockyt_calls = Counter(
            "listener_pockyt_calls",
            "Calls to Pockyt, by call and by how they ended.",
            ["call", "outcome"],
            registry=self.registry,
        )
        for call, outcome in product(CALLS, OUTCOMES):
            self.pockyt_calls.labels(call, outcome)
        self.pockyt_seconds = Histogram(
            "listener_pockyt_seconds",
            "A call to Pockyt.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pockyt_down = Gauge(
            "listener_pockyt_down",
            "1 while Pockyt failed so often that nothing is asked for a moment.",
            registry=self.registry,
        )
        self.doubts = Gauge(
            "listener_doubts",
            "Transactions, and sales without a number, that Pockyt is asked about; raised once 60 s"
            " brought no answer.",
            ["why", "raised"],
            registry=self.of_ledger,
        )
        self.seq = Gauge("listener_ledger_seq", "The newest entry.", registry=self.of_ledger)

    def acknowledged(self, seconds: float, *, is_repeat: bool) -> None:
        """Count a notification that was acknowledged, and the time that took."""
        self._notify_seconds.observe(seconds)
        if is_repeat:
            self.repeats.inc()

    def refused(self, status: int) -> None:
        """Count a notification that was refused."""
        (self._by_status.get(status) or self.notifications.labels(status)).inc()

    def observe_commit(self, seconds: float, facts: int) -> None:
        """Count a commit."""
        self._commit_seconds.observe(seconds)
        self._commit_facts.observe(facts)

    def published(self, events: int) -> None:
        """Count events that were made for tills."""
        self._published += events

    def called(self, call: str, outcome: str, seconds: float) -> None:
        """Count a call to Pockyt."""
        self.pockyt_calls.labels(call, outcome).inc()
        self.pockyt_seconds.observe(seconds)

    def doubt(self, doubts: Iterable[Doubts]) -> None:
        """Set what is in doubt now, and reset the rest."""
        found: dict[tuple[Why, bool], int] = {}
        for one in doubts:
            place = (one.why, one.is_raised)
            found[place] = found.get(place, 0) + one.count
        for why in Why:
            for is_raised in (False, True):
                count = found.get((why, is_raised), 0)
                self.doubts.labels(why, str(is_raised).lower()).set(count)

    def closed(self, code: int) -> None:
        """Count a POS connection that was closed here."""
        self.closes.labels(code).inc()

    def text(
        self, *, node: str | None = None, with_ledger: bool = True, content_type: str = OPENMETRICS
    ) -> bytes:
        """Write all metrics.

        Args:
            node: A label for this listener's own metrics: workers share a port, and only the label
                distinguishes their counters.
            with_ledger: Whether this listener is the one that reports on the whole ledger.
            content_type: The format, one that :func:`choose_format` returns.
        """
        acknowledged = self._notify_seconds.count
        self._acknowledged.inc(acknowledged - self._counted)
        self._counted = acknowledged
        self.events.inc(self._published)
        self._published = 0
        families = [*self.registry.collect()]
        if node is not None:
            families = [_labelled(family, node) for family in families]
        if with_ledger:
            families += self.of_ledger.collect()
        form = openmetrics if content_type == OPENMETRICS else exposition
        text: bytes = form.generate_latest(_Gathered(families))
        return text


def choose_format(accept: str) -> str:
    """Return the media type of the format that an ``Accept`` header asks for."""
    is_plain = "text/plain" in accept and "application/openmetrics-text" not in accept
    return PLAIN if is_plain else OPENMETRICS


def _labelled(family: Metric, node: str) -> Metric:
    """Return a family whose samples name the node."""
    labelled = copy(family)
    labelled.samples = [
        sample._replace(labels={"node": node, **sample.labels}) for sample in family.samples
    ]
    return labelled
