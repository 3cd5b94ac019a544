"""How fast one event reaches many tills, what an idle till costs, and what a stalled one does."""

import time
from typing import Final

import numpy as np

from bench import native, servers
from bench.measuring import Bench, quantiles

TILLS: Final = (100, 1000, 5000)
CONNECTIONS: Final = 16
WARMUP_EVENTS: Final = 5
SETTLE_SECONDS: Final = 0.5
PACED_DELIVERIES_PER_SECOND: Final = 50_000
SERVERS: Final = (
    servers.LISTENER,
    servers.BARE_FANOUT,
    servers.WEBSOCKETS,
    servers.NODE_FANOUT,
)


def fanout(bench: Bench) -> None:
    """Measure a burst of events (as fast as they go) and a paced row of them to all tills."""
    deliveries = int(bench.pick(full=500_000, quick=100_000))
    counts = [count for count in TILLS if not bench.quick or count < TILLS[-1]]

    def measure(running: servers.Running) -> None:
        first = 0
        for count in counts:
            first += _burst(bench, running, count, max(20, deliveries // count), first)
            first += _paced(bench, running, count, first)

    bench.alternate("fanout", bench.contenders(*SERVERS), measure)


def _burst(bench: Bench, running: servers.Running, count: int, events: int, first: int) -> int:
    port, post = running.place.port, bench.generator.post
    all_events = events + WARMUP_EVENTS
    with running.tills(bench.generator, count=count, expected=count * all_events) as tills:
        post(port, connections=1, first=first, most=WARMUP_EVENTS)
        time.sleep(SETTLE_SECONDS)
        cpu = running.cpu_seconds()
        load = post(port, connections=CONNECTIONS, first=first + WARMUP_EVENTS, most=events)
        tills.wait_for_all()
        cpu = running.cpu_seconds() - cpu
    arrivals = tills.arrivals[tills.arrivals["request"] >= first + WARMUP_EVENTS]
    seconds = (arrivals["at"].max() - load.shots["sent"].min()) / 1e9
    bench.results.add(
        "fanout",
        running.server.name,
        count,
        rate=len(arrivals) / seconds,
        cpu_us=cpu * 1e6 / len(arrivals),
        generator=tills.cpu_share,
    )
    return all_events


def _paced(bench: Bench, running: servers.Running, count: int, first: int) -> int:
    seconds = bench.pick(full=3.0, quick=1.0)
    rate = min(200.0, PACED_DELIVERIES_PER_SECOND / count)
    with running.tills(bench.generator, count=count) as tills:
        cpu = running.cpu_seconds()
        load = bench.generator.post(
            running.place.port, connections=CONNECTIONS, seconds=seconds, rate=rate, first=first
        )
        time.sleep(SETTLE_SECONDS)
        cpu = running.cpu_seconds() - cpu
    taken = _taken_ms(tills, load, first)
    bench.results.add(
        "fanout",
        running.server.name,
        count,
        paced_cpu_us=cpu * 1e6 / max(1, len(taken)),
        missing=count * len(load.shots) - len(taken),
        **quantiles(taken, "paced_"),
    )
    return len(load.shots)


def _taken_ms(tills: native.Tills, load: native.Load, first: int) -> np.ndarray:
    index = tills.arrivals["request"].astype(np.int64) - first
    mine = (index >= 0) & (index < len(load.shots))
    taken: np.ndarray = (tills.arrivals["at"][mine] - load.shots["due"][index[mine]]) / 1e6
    return taken


def memory(bench: Bench) -> None:
    """Measure what an idle till adds to the server's memory."""
    count = int(bench.pick(full=TILLS[-1], quick=TILLS[-2]))

    def measure(running: servers.Running) -> None:
        # A first few tills bring in what is needed once, whatever their number.
        with running.tills(bench.generator, count=50):
            time.sleep(SETTLE_SECONDS)
        before = running.rss_bytes()
        with running.tills(bench.generator, count=count):
            time.sleep(2 * SETTLE_SECONDS)
            after = running.rss_bytes()
        bench.results.add(
            "memory", running.server.name, count, kib=(after - before) / 1024 / count,
            base_mib=before / 1024 / 1024,
        )  # fmt: skip

    bench.alternate("memory", bench.contenders(*SERVERS), measure)


def stalled(bench: Bench) -> None:
    """Compare 1,000 tills with and without one that never reads; then time a stop."""
    count = int(bench.pick(full=1000, quick=300))
    seconds = bench.pick(full=15.0, quick=5.0)
    first = 0

    def measure(running: servers.Running) -> None:
        nonlocal first
        for stuck in (0, 1):
            with running.tills(bench.generator, count=count, stalled=stuck) as tills:
                load = bench.generator.post(
                    running.place.port,
                    connections=CONNECTIONS,
                    seconds=seconds,
                    rate=PACED_DELIVERIES_PER_SECOND / count,
                    first=first,
                )
                stop_seconds = servers.stop(running.process) if stuck else None
            taken = _taken_ms(tills, load, first)
            first += len(load.shots)
            stop = {} if stop_seconds is None else {"stop_seconds": stop_seconds}
            name = f"{stuck} stalled of {count}"
            bench.results.add("stalled", running.server.name, name, **quantiles(taken), **stop)
        first = 0

    bench.alternate("stalled", bench.contenders(servers.LISTENER), measure)
