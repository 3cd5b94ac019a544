"""How many durable notifications a second, how soon each is answered, how soon a start is over."""

import subprocess
import time
from typing import Final

from bench import native, servers
from bench.measuring import Bench, quantiles

CONNECTIONS: Final = (1, 16, 64, 256)
CONNECTIONS_QUICK: Final = (1, 64)
WARMUP_SECONDS: Final = 0.5
ALL: Final = (
    servers.LISTENER,
    servers.BARE,
    servers.TEXTBOOK,
    servers.NODE_EACH,
    servers.NODE_GROUP,
    servers.FASTAPI,
    servers.FLASK,
)


def generator(bench: Bench) -> None:
    """Show what the load generator can do at most: against a server that only answers."""
    (port,) = servers.free_ports(1)
    program = str(bench.directory / "answer")
    process = subprocess.Popen(native.pinned(bench.server_cores, program, str(port)))
    try:
        while not servers.answers(port):
            time.sleep(servers.POLL_SECONDS)
        for _ in range(bench.rounds):
            for connections in CONNECTIONS:
                load = bench.generator.post(port, connections=connections, seconds=1.0)
                rate = load.rate(warmup_seconds=0.2)
                bench.results.add(
                    "generator", "answer", connections, rate=rate, generator=load.cpu_share
                )
    finally:
        process.kill()
        process.wait()


def throughput(bench: Bench) -> None:
    """Measure every server with a closed loop at each number of connections."""
    seconds = WARMUP_SECONDS + bench.pick(full=4.0, quick=1.0)
    counts = CONNECTIONS_QUICK if bench.quick else CONNECTIONS

    def measure(running: servers.Running) -> None:
        first = 0
        for connections in counts:
            load = bench.generator.post(
                running.place.port, connections=connections, seconds=seconds, first=first
            )
            if running.server.stores:
                first += len(load.shots)
            bench.results.add(
                "throughput",
                running.server.name,
                connections,
                rate=load.rate(warmup_seconds=WARMUP_SECONDS),
                failed=load.failed,
                generator=load.cpu_share,
                **quantiles(load.latency_ms(warmup_seconds=WARMUP_SECONDS)),
            )

    bench.alternate("throughput", bench.contenders(*ALL), measure)


def startup(bench: Bench) -> None:
    """Measure the time from starting a process to its first answer."""

    def measure(running: servers.Running) -> None:
        bench.results.add("startup", running.server.name, "-", seconds=running.started_seconds)

    bench.alternate("startup", bench.contenders(*ALL), measure, keys=0)
