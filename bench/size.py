"""What an insert, a query, a resume and a check cost as the ledger grows."""

import http.client
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from websockets.sync.client import ClientConnection, connect

from bench import native, servers, work
from bench.fill import fill
from bench.measuring import Bench, quantiles

SIZES: Final = (10_000, 1_000_000, 10_000_000)
# Inserts go beyond what any ledger was filled with.
FIRST: Final = 100_000_000
INSERTS_ALONE: Final = 1_000
INSERTS_TOGETHER: Final = 10_000
QUERIES: Final = 100
RESUMES: Final = 20
RESUMED_EVENTS: Final = 100
PAGES: Final = {
    "page": "/v1/transactions?limit=50",
    "cancelled": "/v1/transactions?limit=50&status=cancelled",
}


def size(bench: Bench) -> None:
    """Fill a ledger to each size, once, and measure on it in rounds that alternate."""
    if not bench.contenders(servers.LISTENER):
        return
    sizes = [count for count in SIZES if count <= bench.entries_max]
    requests = bench.directory / "requests.beyond"
    each = INSERTS_ALONE + INSERTS_TOGETHER
    beyond_filled = work.notify_requests(count=bench.rounds * each, seed=1, first=FIRST)
    work.write_requests(requests, beyond_filled)
    ledgers = {count: _filled(bench, count) for count in sizes}
    beyond = native.Generator(
        directory=bench.directory, requests=requests, cores=bench.generator.cores
    )
    task = bench.progress.add_task("size", total=bench.rounds * len(sizes))
    for turn in range(bench.rounds):
        for count, ledger in ledgers.items():
            # Each round on a ledger of just this size; the largest is hardly changed by a few more.
            used = bench.directory / "ledger.used" if count == SIZES[0] else ledger
            if used != ledger:
                shutil.copy(ledger, used)
            first = turn * each if used == ledger else 0
            try:
                _measure(bench, beyond, count=count, ledger=used, first=first)
            except native.BenchError as error:
                bench.console.print(f"[red]size: {count}: {error}")
            bench.progress.advance(task)
    # Once: at the largest size it takes minutes, and it does not vary.
    for count, ledger in ledgers.items():
        bench.results.add("size", "listener", count, verify_us=_verify_us(bench, ledger, count))


def _filled(bench: Bench, count: int) -> Path:
    path = bench.ledgers / f"ledger.{count}.db"
    task = bench.progress.add_task(f"size: fill {count:,}", total=count)
    fill(path, count=count, advance=lambda added: bench.progress.advance(task, added))
    return path


def _measure(
    bench: Bench, beyond: native.Generator, *, count: int, ledger: Path, first: int
) -> None:
    with servers.run(servers.LISTENER, cores=bench.server_cores, keys=1, ledger=ledger) as running:
        port, key = running.place.port, running.keys[0]
        alone = beyond.post(port, connections=1, first=first, most=INSERTS_ALONE)
        cpu = running.cpu_seconds()
        together = beyond.post(
            port, connections=64, first=first + INSERTS_ALONE, most=INSERTS_TOGETHER
        )
        cpu = running.cpu_seconds() - cpu
        metrics = {
            "insert_p50": quantiles(alone.latency_ms())["p50"],
            "insert_rate": together.rate(warmup_seconds=0.0),
            "insert_cpu_us": cpu * 1e6 / len(together.shots),
            **{f"{name}_p50": _query_ms(port, key, path) for name, path in PAGES.items()},
            "resume_p50": _resume_ms(port, key),
        }
    bench.results.add("size", "listener", count, **metrics)


def _verify_us(bench: Bench, ledger: Path, count: int) -> float:
    """Return what `listener verify` takes for each entry."""
    place = servers.Place(directory=bench.directory, database=ledger, port=1, till_port=1)
    servers.write_config(place)
    started = time.perf_counter()
    command = [sys.executable, "-m", "listener", "verify", "--config", str(place.config)]
    done = subprocess.run(command, cwd=servers.ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise native.BenchError(f"listener verify: {done.stderr.strip()}")
    return (time.perf_counter() - started) * 1e6 / count


def _query_ms(port: int, key: str, path: str) -> float:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken = []
    for _ in range(QUERIES):
        started = time.perf_counter()
        client.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = client.getresponse()
        body = answer.read()
        taken.append((time.perf_counter() - started) * 1e3)
        if answer.status != http.client.OK:
            raise native.BenchError(f"GET {path}: {answer.status} {body[:200]!r}")
    client.close()
    return statistics.median(taken)


def _resume_ms(port: int, key: str) -> float:
    """Return how long a till takes from its upgrade to the last of the events it missed."""
    taken = []
    head = _follow(port, key, "latest", events=0)
    after = {"epoch": head["epoch"], "offset": head["head"] - RESUMED_EVENTS}
    for _ in range(RESUMES):
        started = time.perf_counter()
        _follow(port, key, after, events=RESUMED_EVENTS)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


def _follow(port: int, key: str, after: object, *, events: int) -> dict[str, object]:
    with connect(
        f"ws://127.0.0.1:{port}/v1/pos/stream",
        subprotocols=["pos.v1"],  # type: ignore[list-item]  # a NewType of str
        additional_headers={"Authorization": f"Bearer {key}"},
        compression=None,
    ) as till:
        streams = [{"stream": work.STREAM, "after": after}]
        till.send(json.dumps({"type": "connect", "id": 1, "streams": streams}))
        ready = _next(till, "ready")
        for _ in range(events):
            _next(till, "event")
        stream: dict[str, object] = ready["streams"][0]
        return stream


def _next(till: ClientConnection, kind: str) -> dict[str, list[dict[str, object]]]:
    while True:
        frame: dict[str, list[dict[str, object]]] = json.loads(till.recv(timeout=30))
        if frame["type"] == kind:
            return frame
