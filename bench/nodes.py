"""Several listeners on one PostgreSQL: how many notifications a second, and how soon elsewhere."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import native, postgres, servers, size, work
from bench.latency import LatencyPoint, add_point
from bench.measuring import Bench, quantiles

# Of each process: a listener beside others is as busy as one alone.
CONNECTIONS: Final = 256
WARMUP_SECONDS: Final = 0.5
RATE: Final = 500
SIZES: Final = (10_000, 1_000_000)
SNAPSHOT_COMMITS: Final = 100_000
PGBENCH_CLIENTS: Final = (1, 4, 16)
# What a commit with a row of a notification's size costs, with a bell and without.
ROW: Final = "INSERT INTO bench (text) VALUES (repeat('x', 700));"
BELL: Final = "INSERT INTO bench (text) VALUES (repeat('x', 700) || pg_notify('bench', '1')::text);"


@dataclass(frozen=True, slots=True)
class Setup:
    """How many listeners, and how many processes each."""

    name: str
    count: int
    workers: int = 1


SETUPS: Final = (
    Setup("nodes-1", 1),
    Setup("nodes-2", 2),
    Setup("nodes-4", 4),
    Setup("workers-2", 1, workers=2),
    Setup("workers-4", 1, workers=4),
)


def nodes(bench: Bench) -> None:
    """Measure how the rate grows with nodes, and how soon a till at another node is told."""
    task = bench.progress.add_task("nodes", total=bench.rounds * (len(SETUPS) + 3))
    for _ in range(bench.rounds):
        with servers.run(servers.LISTENER, cores=bench.server_cores, keys=1) as file:
            _throughput(bench, "listener", [file])
        bench.progress.advance(task)
        for setup in SETUPS:
            bench.progress.update(task, description=f"nodes: {setup.name}")
            with postgres.database() as url:
                _measured(bench, url, setup)
            bench.progress.advance(task)
        with servers.run(servers.LISTENER, cores=bench.server_cores, keys=1) as file:
            _latency(bench, "listener", sent=file, heard=file)
        bench.progress.advance(task)
        with (
            postgres.database() as url,
            postgres.nodes(url, count=2, cores=bench.server_cores) as (here, there),
        ):
            _latency(bench, "same-node", sent=here, heard=here)
            _latency(bench, "other-node", sent=here, heard=there, first=_points_sent(bench))
        bench.progress.advance(task)


def _measured(bench: Bench, url: str, setup: Setup) -> None:
    before: Any = postgres.run(url, lambda db: db.fetchrow(_USED))
    with postgres.nodes(
        url, count=setup.count, workers=setup.workers, cores=bench.server_cores
    ) as running:
        _throughput(bench, setup.name, running, connections=CONNECTIONS * setup.workers)
    after: Any = postgres.run(url, lambda db: db.fetchrow(_USED))
    entries = postgres.run(url, lambda db: db.fetchval("SELECT max(seq) FROM entries"))
    bench.results.add(
        "nodes",
        setup.name,
        "-",
        disk_bytes=(after["bytes"] - before["bytes"]) / entries,
        wal_bytes=float(after["wal"] - before["wal"]) / entries,
    )


_USED: Final = (
    "SELECT pg_database_size(current_database()) AS bytes,"
    " pg_current_wal_lsn() - '0/0'::pg_lsn AS wal"
)


def _throughput(
    bench: Bench, name: str, running: list[servers.Running], *, connections: int = CONNECTIONS
) -> None:
    """Load all nodes at once, each with so many connections and its share of the requests."""
    seconds = WARMUP_SECONDS + bench.pick(full=4.0, quick=1.0)
    share = 100_000 if not bench.quick else 30_000

    def load(place: int) -> native.Load:
        return bench.generator.post(
            running[place].place.port,
            connections=connections,
            seconds=seconds,
            first=place * share,
            most=share,
        )

    cpu = sum(one.cpu_seconds() for one in running)
    with ThreadPoolExecutor(len(running)) as threads:
        loads = [*threads.map(load, range(len(running)))]
    cpu = sum(one.cpu_seconds() for one in running) - cpu
    latency = np.concatenate([one.latency_ms(warmup_seconds=WARMUP_SECONDS) for one in loads])
    bench.results.add(
        "nodes",
        name,
        "-",
        rate=sum(one.rate(warmup_seconds=WARMUP_SECONDS) for one in loads),
        cpu_us=cpu * 1e6 / sum(len(one.good) for one in loads),
        failed=sum(one.failed for one in loads),
        **quantiles(latency, "loaded_"),
    )


def _points_sent(bench: Bench) -> int:
    """Return how many requests one measurement of latency takes, the warm-up's included."""
    return 2_000 + int(RATE * bench.pick(full=8.0, quick=1.5)) + 64


def _latency(
    bench: Bench, name: str, *, sent: servers.Running, heard: servers.Running, first: int = 0
) -> None:
    """Measure at a fixed rate from when a notification was due: its answer, and a till."""
    seconds = bench.pick(full=8.0, quick=1.5)
    post, port = bench.generator.post, sent.place.port
    with heard.tills(bench.generator, count=1) as tills:
        warm = post(port, connections=64, seconds=WARMUP_SECONDS, first=first, most=2_000)
        first += len(warm.shots)
        load = post(port, connections=64, seconds=seconds, rate=RATE, first=first)
    point = LatencyPoint(name=f"{RATE}/s", rate=RATE, first=first, load=load)
    add_point(bench, "nodes", name, point, tills.arrivals)


def bell(bench: Bench) -> None:
    """Measure PostgreSQL's own commit, and what NOTIFY costs it: one lock of the whole server."""
    for _ in range(bench.rounds):
        _commit_alone(bench)
        for name, rings in (("commit", False), ("with-bell", True)):
            for clients in PGBENCH_CLIENTS:
                with postgres.database() as url, _pgbench(url, rings=rings) as script:
                    rate = _run_pgbench(bench, url, script, clients)
                bench.results.add("bell", name, clients, commits=rate)


def _commit_alone(bench: Bench) -> None:
    """Measure how long a commit of one row takes, at the rate of the listeners' latencies."""
    with postgres.database() as url, _pgbench(url, rings=False) as script:
        log = Path(script).parent / "commits"
        options = ["-R", str(RATE), "-l", f"--log-prefix={log}"]
        _run_pgbench(bench, url, script, 4, *options)
        (found,) = log.parent.glob("commits.*")
        # client, number, latency (µs), script, second, µs, behind the schedule (µs)
        took = np.loadtxt(found, usecols=2) / 1e3
        bench.results.add("bell", "commit", f"{RATE}/s", **quantiles(took, "ack_"))


@contextmanager
def _pgbench(url: str, *, rings: bool) -> Iterator[str]:
    """Make a table and a script that commits one row of a notification's size."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    script = folder / "script.sql"
    script.write_text(BELL if rings else ROW)
    postgres.run(url, lambda db: db.execute("CREATE TABLE bench (id bigserial, text text)"))
    try:
        yield str(script)
    finally:
        shutil.rmtree(folder)


def _run_pgbench(bench: Bench, url: str, script: str, clients: int, *options: str) -> float:
    seconds = int(bench.pick(full=4.0, quick=1.0))
    program = max(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    command = [str(program), "-n", "-T", str(seconds), "-c", str(clients), "-j", "1", "-f", script]
    done = subprocess.run(
        [*command, *options, url], check=True, capture_output=True, text=True, env=os.environ
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("tps")]
    return float(line.split()[2])


def growth(bench: Bench) -> None:
    """Measure inserts as the ledger grows, and while a snapshot stays open."""
    requests = bench.directory / "requests.beyond"
    each = size.INSERTS_ALONE + size.INSERTS_TOGETHER
    sizes = [count for count in SIZES if count <= bench.entries_max]
    commits = int(bench.pick(full=SNAPSHOT_COMMITS, quick=SNAPSHOT_COMMITS / 20))
    made = work.notify_requests(count=bench.rounds * each + commits, seed=1, first=size.FIRST)
    work.write_requests(requests, made)
    beyond = native.Generator(
        directory=bench.directory, requests=requests, cores=bench.generator.cores
    )
    for count in sizes:
        file = bench.ledgers / f"ledger.{count}.db"
        postgres.filled(f"bench_filled_{count}", file=file, count=count)
    for turn in range(bench.rounds):
        for count in sizes:
            with postgres.database(template=f"bench_filled_{count}") as url:
                _inserts(bench, beyond, url, count, first=turn * each)
    _snapshot(bench, beyond, first=bench.rounds * each, commits=commits)


def _inserts(bench: Bench, beyond: native.Generator, url: str, count: int, *, first: int) -> None:
    with postgres.nodes(url, cores=bench.server_cores) as (running,):
        port = running.place.port
        alone = beyond.post(port, connections=1, first=first, most=size.INSERTS_ALONE)
        together = beyond.post(
            port, connections=64, first=first + size.INSERTS_ALONE, most=size.INSERTS_TOGETHER
        )
    held = postgres.run(url, lambda db: db.fetchval("SELECT pg_database_size(current_database())"))
    bench.results.add(
        "growth",
        "nodes-1",
        count,
        insert_p50=quantiles(alone.latency_ms())["p50"],
        insert_rate=together.rate(warmup_seconds=0.0),
        disk_bytes=held / (count + size.INSERTS_ALONE + size.INSERTS_TOGETHER),
    )


def _snapshot(bench: Bench, beyond: native.Generator, *, first: int, commits: int) -> None:
    """Hold a snapshot open while one connection commits each notification separately."""
    with (
        postgres.database() as url,
        postgres.nodes(url, cores=bench.server_cores) as (running,),
        _open_snapshot(url),
    ):
        load = beyond.post(running.place.port, connections=1, first=first, most=commits)
    part = max(1, len(load.shots) // 10)
    took = (load.good["answered"] - load.good["due"]) / 1e6
    for name, some in (("first tenth", took[:part]), ("last tenth", took[-part:])):
        bench.results.add("growth", "snapshot", name, **quantiles(some, "snapshot_"))
    bench.results.add("growth", "snapshot", "last tenth", failed=load.failed)


@contextmanager
def _open_snapshot(url: str) -> Iterator[None]:
    holder = subprocess.Popen(
        ["psql", "--no-psqlrc", "--quiet", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    if holder.stdin is None:
        raise native.BenchError("psql: no pipe")
    holder.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM entries;\n")
    holder.stdin.flush()
    held = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    ends_at = time.monotonic() + servers.START_SECONDS_MAX
    try:
        while not postgres.run(url, lambda db: db.fetchval(held)):
            if time.monotonic() > ends_at:
                raise native.BenchError("psql holds no snapshot")
            time.sleep(servers.POLL_SECONDS)
        yield
    finally:
        holder.kill()
        holder.wait()
