"""How soon a notification is acknowledged and on a till, against what the disk takes alone."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from bench import disk, native, servers
from bench.measuring import Bench, quantiles

RATES: Final = (100, 1000)
LOADED_SHARE: Final = 0.8
CONNECTIONS: Final = 64
WARMUP_SECONDS: Final = 0.5
SERVERS: Final = (servers.LISTENER, servers.NODE_GROUP, servers.NODE_EACH, servers.TEXTBOOK)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPoint:
    """What was sent at one rate, and from which request on."""

    name: str
    rate: float
    first: int
    load: native.Load


def latency(bench: Bench) -> None:
    """Measure with an open loop, each latency from the time the request was due."""
    seconds = bench.pick(full=8.0, quick=1.5)

    def measure_disk() -> None:
        for rate in RATES:
            taken = disk.sync_ms(bench.directory, rate=rate, seconds=seconds)
            bench.results.add("latency", "disk", f"{rate}/s", **quantiles(taken, "ack_"))

    def measure(running: servers.Running) -> None:
        if running.server.till_path is None:
            for point in _points(bench, running, seconds):
                add_point(bench, "latency", running.server.name, point, None)
            return
        with running.tills(bench.generator, count=1) as tills:
            points = _points(bench, running, seconds)
        for point in points:
            add_point(bench, "latency", running.server.name, point, tills.arrivals)

    bench.alternate("latency", bench.contenders(*SERVERS), measure, before_round=measure_disk)


def _points(bench: Bench, running: servers.Running, seconds: float) -> list[LatencyPoint]:
    port, post = running.place.port, bench.generator.post
    points: list[LatencyPoint] = []
    # The first requests pay for what a server only does once.
    first = len(post(port, connections=CONNECTIONS, seconds=WARMUP_SECONDS).shots)
    for rate in RATES:
        load = post(port, connections=CONNECTIONS, seconds=seconds, rate=rate, first=first)
        points.append(LatencyPoint(name=f"{rate}/s", rate=rate, first=first, load=load))
        first += len(load.shots)
    peak = post(port, connections=CONNECTIONS, seconds=2.0, first=first)
    first += len(peak.shots)
    rate = LOADED_SHARE * peak.rate(warmup_seconds=WARMUP_SECONDS)
    # Few enough for the requests that are left.
    load = post(port, connections=CONNECTIONS, seconds=seconds / 2, rate=rate, first=first)
    points.append(LatencyPoint(name="80 % of the maximum", rate=rate, first=first, load=load))
    return points


def add_point(
    bench: Bench, section: str, server: str, point: LatencyPoint, arrivals: np.ndarray | None
) -> None:
    """Add what one rate showed to a section's results."""
    shots = point.load.shots
    metrics = {"due_rate": point.rate, **quantiles(point.load.latency_ms(), "ack_")}
    if arrivals is not None:
        index = arrivals["request"].astype(np.int64) - point.first
        mine = (index >= 0) & (index < len(shots))
        shot, at = shots[index[mine]], arrivals["at"][mine]
        metrics |= quantiles((at - shot["due"]) / 1e6, "till_")
        metrics |= quantiles((at - shot["answered"]) / 1e6, "after_ack_")
        metrics["missing"] = len(point.load.good) - int(mine.sum())
    bench.results.add(section, server, point.name, **metrics)
