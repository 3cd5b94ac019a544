"""How fast a notification is taken, against the fair peer and the others, on the same work.

The order of the points moves the figures: a process that has served before is faster or slower than
a fresh one. So every number of connections is measured on a fresh process and on one that has
served others. Contenders take turns point by point, so that what is compared was measured within
seconds of each other; every round is kept.
"""

import time
from pathlib import Path
from typing import Final

from bench import disk, native, servers, work
from bench.fill import fill
from bench.latency import LatencyPoint, add_point
from bench.measuring import SEED, Bench, quantiles
from bench.peer_check import check_peer
from listener.storage.sqlite.verify import verify

MAIN: Final = (servers.LISTENER, servers.NODE_FAIR, servers.BARE)
OTHERS: Final = (servers.LISTENER_ORDINARY, servers.TEXTBOOK_UNLOCKED, servers.TEXTBOOK)
FRESH: Final = (1, 16, 256)
# On the process whose first point was 64 connections; the last is 64 again.
AFTER: Final = (1, 16, 256)
AFTER_QUICK: Final = (1,)
CONNECTIONS: Final = 64
RATES: Final = (100, 1000)
WARMUP_SECONDS: Final = 0.2
WARMUP_SECONDS_MAX: Final = 20.0
# What every process serves before its first point, by number and not by time: V8 compiles what has
# run often, and a busy machine must not leave one contender less warm than another. On one core
# its compiler has no other to run on.
WARMUP_REQUESTS: Final = 4_000
WARMUP_REQUESTS_PINNED: Final = 12_000
WARMUP_REQUESTS_ALONE: Final = 1_000
# Proxied requests are notifications of their own, with numbers that the others do not reach.
PROXIED_FIRST: Final = 10_000_000
PROXIED: Final = 60_000
VERIFIED: Final = 50_000
VERIFIED_QUICK: Final = 10_000


def speed(bench: Bench) -> None:
    """Measure all that the table of ratios shows."""
    check_peer(bench)
    proxied = _proxied(bench)
    ledger = bench.directory / "verified.db"
    fill(ledger, count=int(bench.pick(full=VERIFIED, quick=VERIFIED_QUICK)))
    task = bench.progress.add_task("speed", total=bench.rounds)
    for _ in range(bench.rounds):
        for connections in () if bench.quick else FRESH:
            for server in bench.contenders(*MAIN):
                _turn(bench, server, [(f"{connections} fresh", connections)])
        for server in bench.contenders(*MAIN):
            _turn(bench, server, _points(bench), proxied=proxied)
        for server in bench.contenders(*OTHERS):
            _turn(bench, server, [("64 fresh", CONNECTIONS), ("64 after", CONNECTIONS)])
        for server in bench.contenders(*MAIN):
            _turn(bench, server, [("64 pinned", CONNECTIONS)], cores="0")
        _latency(bench)
        _verify(bench, ledger)
        bench.progress.advance(task)


def _points(bench: Bench) -> list[tuple[str, int]]:
    counts = AFTER_QUICK if bench.quick else AFTER
    after = [(f"{count} after", count) for count in counts]
    return [("64 fresh", CONNECTIONS), *after, ("64 after", CONNECTIONS)]


def _proxied(bench: Bench) -> native.Generator:
    """Return a generator of requests that each have a head of their own."""
    path = bench.directory / "requests.proxied"
    requests = work.notify_requests(count=PROXIED, seed=SEED, first=PROXIED_FIRST, is_proxied=True)
    work.write_requests(path, requests)
    return native.Generator(directory=bench.directory, requests=path, cores=bench.generator.cores)


def _turn(
    bench: Bench,
    server: servers.Server,
    points: list[tuple[str, int]],
    *,
    cores: str | None = None,
    proxied: native.Generator | None = None,
) -> None:
    """Measure points in a row on one process; a point that fails is told of, and left out."""
    bench.show(f"speed: {server.name}: {points[0][0]}")
    try:
        with servers.run(server, cores=cores or bench.server_cores, keys=0) as running:
            first = _warm_up(bench, running, points[0][1], is_pinned=cores is not None)
            for name, connections in points:
                first += _throughput(bench, bench.generator, running, name, connections, first)
            if proxied is not None:
                _throughput(bench, proxied, running, "64 heads differ", CONNECTIONS, 0)
    except native.BenchError as error:
        bench.failed("speed", server, error)


def _warm_up(bench: Bench, running: servers.Running, connections: int, *, is_pinned: bool) -> int:
    """Serve so many requests that are not counted; return how many were used up."""
    count = WARMUP_REQUESTS_PINNED if is_pinned else WARMUP_REQUESTS
    if connections == 1:
        count = WARMUP_REQUESTS_ALONE
    load = bench.generator.post(
        running.place.port, connections=connections, seconds=WARMUP_SECONDS_MAX, most=count
    )
    return len(load.shots) if running.server.stores else 0


def _throughput(
    bench: Bench,
    generator: native.Generator,
    running: servers.Running,
    name: str,
    connections: int,
    first: int,
) -> int:
    """Measure one point with a closed loop; return how many requests were used up."""
    seconds = WARMUP_SECONDS + bench.pick(full=1.2, quick=0.8)
    port, cpu = running.place.port, running.cpu_seconds()
    load = generator.post(port, connections=connections, seconds=seconds, first=first)
    bench.results.add(
        "speed",
        running.server.name,
        name,
        rate=load.rate(warmup_seconds=WARMUP_SECONDS),
        failed=load.failed,
        cpu_us=(running.cpu_seconds() - cpu) * 1e6 / len(load.shots),
        generator=load.cpu_share,
        **quantiles(load.latency_ms(warmup_seconds=WARMUP_SECONDS)),
    )
    return len(load.shots) if running.server.stores else 0


def _latency(bench: Bench) -> None:
    """Measure acknowledgement and notify to till at fixed rates, beside the disk alone."""
    seconds = bench.pick(full=3.0, quick=1.5)
    for rate in RATES:
        taken = disk.sync_ms(bench.directory, rate=rate, seconds=seconds)
        bench.results.add("speed", "disk", f"{rate}/s", **quantiles(taken, "ack_"))
    for server in bench.contenders(servers.LISTENER, servers.NODE_FAIR):
        bench.show(f"speed: {server.name}: at fixed rates")
        try:
            with servers.run(server, cores=bench.server_cores, keys=1) as running:
                _at_rates(bench, running, seconds)
        except native.BenchError as error:
            bench.failed("speed", server, error)


def _at_rates(bench: Bench, running: servers.Running, seconds: float) -> None:
    points: list[LatencyPoint] = []
    with running.tills(bench.generator, count=1) as tills:
        port, post = running.place.port, bench.generator.post
        # The first requests pay for what a server only does once.
        first = _warm_up(bench, running, CONNECTIONS, is_pinned=False)
        for rate in RATES:
            load = post(port, connections=CONNECTIONS, seconds=seconds, rate=rate, first=first)
            points.append(LatencyPoint(name=f"{rate}/s", rate=rate, first=first, load=load))
            first += len(load.shots)
    for point in points:
        add_point(bench, "speed", running.server.name, point, tills.arrivals)


def _verify(bench: Bench, ledger: Path) -> None:
    """Measure ``listener verify`` in this process: what an entry costs, without the start."""
    started = time.perf_counter()
    entries = verify(f"sqlite:///{ledger}").entries
    taken_us = (time.perf_counter() - started) * 1e6
    bench.results.add("speed", "listener", "verify", verify_us=taken_us / entries)
