"""What good notifications feel while others misbehave: 200 a second beside each kind of load.

Everything stays on loopback, is bounded in time, connections and rate, and ends with the run. All
comes from one address, as it does behind a proxy.
"""

import gzip
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Final

from bench import native, servers, work
from bench.measuring import SEED, Bench, quantiles

GOOD_RATE: Final = 200
GOOD_CONNECTIONS: Final = 16
SECONDS: Final = 20.0
SECONDS_QUICK: Final = 4.0
# Recorded before each load, so that what a listener keeps in memory of its ledger is there: pages
# of SQLite's, and the newest events. What it grows by afterwards is the load's.
WARMUP: Final = 50_000
WARMUP_CONNECTIONS: Final = 64
WARMUP_SECONDS_MAX: Final = 60.0
# How much sooner a load begins, and how much later it ends, than the good notifications.
MARGIN_SECONDS: Final = 0.5
MIB: Final = 1024 * 1024

UNSIGNED_RATE: Final = 10_000
DEAR_RATE: Final = 50
DEAR_FIELDS: Final = 10_900
DEAR_VALUES: Final = 12_000
COMPRESSED_CONNECTIONS: Final = 4
HALF_CONNECTIONS: Final = 5_000
SILENT_CONNECTIONS: Final = 1_000
LOOP_CONNECTIONS: Final = 4
# More than a key can be answered in the time.
LOOPED: Final = 100_000
SENT_MAX: Final = 10_000_000
# For how long good notifications may be late before they are given up.
LATE_SECONDS_MAX: Final = 30.0

_UPGRADE: Final = (
    b"GET /v1/pos/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: pos.v1\r\n\r\n"
)
_POST: Final = f"POST /notify/{work.MERCHANT_NO}/{work.STORE_NO} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_HALF: Final = f"{_POST}Content-Type: application/x-www-form-urlencoded\r\nContent-Le".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a load is made: the bench, the listener it is for, and for how long."""

    bench: Bench
    running: servers.Running
    seconds: float

    def post(
        self, name: str, requests: Iterator[bytes], *, connections: int, rate: int = 0
    ) -> list[str]:
        """Return what sends requests at a rate; 0: a connection's next once it has its answer."""
        path, out = self._path(name), self._path(f"{name}.shots")
        work.write_requests(path, requests)
        return self._command("post", path, out, connections, self.seconds, rate, 0, SENT_MAX)

    def crowd(self, name: str, text: bytes, *, connections: int, repeated: int = 0) -> list[str]:
        """Return what holds connections that say a text, and then its last bytes for ever."""
        path = self._path(name)
        path.write_bytes(text)
        return self._command("crowd", path, connections, self.seconds, repeated)

    def _command(self, program: str, *arguments: object) -> list[str]:
        generator = self.bench.generator
        command = [str(generator.directory / program), str(self.running.place.port)]
        return native.pinned(generator.cores, *command, *(str(one) for one in arguments))

    def _path(self, name: str) -> Path:
        return self.bench.directory / f"hostile.{name}"


# Writes what is to be sent, and returns the command that sends it.
Attack = Callable[[Site], list[str]]


def _unsigned(site: Site) -> list[str]:
    request = work.request(work.form({"transactionNo": "3", "status": "success", "amount": "1"}))
    count = int(UNSIGNED_RATE * site.seconds)
    return site.post("unsigned", repeat(request, count), connections=64, rate=UNSIGNED_RATE)


def _dear(site: Site) -> list[str]:
    form = work.request("a=%41&" * DEAR_FIELDS)
    text = '{"a":[' + "true," * DEAR_VALUES + "0]}"
    head = f"{_POST}Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    both = (form, f"{head}{text}".encode())
    count = int(DEAR_RATE * site.seconds)
    return site.post("dear", (both[n % 2] for n in range(count)), connections=8, rate=DEAR_RATE)


def _compressed(site: Site) -> list[str]:
    # Each member of the stream is 8 KiB, and 8 MiB once somebody decompresses it.
    member = gzip.compress(b"\0" * (8 * MIB))
    head = f"{_POST}Content-Encoding: gzip\r\nContent-Length: {10**10}\r\n\r\n".encode()
    return site.crowd(
        "compressed", head + member, connections=COMPRESSED_CONNECTIONS, repeated=len(member)
    )


def _half(site: Site) -> list[str]:
    return site.crowd("half", _HALF, connections=HALF_CONNECTIONS)


def _silent(site: Site) -> list[str]:
    return site.crowd("silent", _UPGRADE, connections=SILENT_CONNECTIONS)


def _cancelling(site: Site) -> list[str]:
    # The first that is paid is among the notifications of the warm-up.
    first = work.notifications(count=LOOPED, seed=SEED)
    number = next(one["transactionNo"] for one in first if one["status"] == "success")
    request = _asked("POST", f"/v1/transactions/{number}/cancel", site.running.keys[0])
    return site.post("cancelling", repeat(request, LOOPED), connections=LOOP_CONNECTIONS)


def _reading(site: Site) -> list[str]:
    # One finds nothing wherever it looks, the other all that one page can hold.
    paths = ("/v1/transactions?status=conflict&reference=nobody", "/v1/transactions?limit=500")
    both = [_asked("GET", path, site.running.keys[1]) for path in paths]
    requests = (both[n % 2] for n in range(LOOPED))
    return site.post("reading", requests, connections=LOOP_CONNECTIONS)


def _asked(method: str, path: str, key: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Length: 0\r\n\r\n".encode()


ATTACKS: Final[dict[str, Attack]] = {
    "10,000 unsigned notifications/s": _unsigned,
    "50 dear bodies/s": _dear,
    "compressed bodies on 4 connections": _compressed,
    "5,000 half requests": _half,
    "1,000 websockets that never connect": _silent,
    "one key cancelling in a loop": _cancelling,
    "one key reading in a loop": _reading,
}
LOADS: Final[dict[str, tuple[Attack, ...]]] = {
    "nothing": (),
    **{name: (attack,) for name, attack in ATTACKS.items()},
    "a mix of all": tuple(ATTACKS.values()),
}


def hostile(bench: Bench) -> None:
    """Measure good notifications beside each load, each on a fresh listener."""
    if not bench.contenders(servers.LISTENER):
        return
    task = bench.progress.add_task("hostile", total=len(LOADS))
    for name, attacks in LOADS.items():
        bench.show(f"hostile: {name}")
        try:
            with servers.run(servers.LISTENER, cores=bench.server_cores, keys=2) as running:
                _measure(bench, running, name, attacks)
        except native.BenchError as error:
            bench.failed("hostile", servers.LISTENER, error)
        bench.progress.advance(task)
    bench.show("hostile")


def _measure(
    bench: Bench, running: servers.Running, name: str, attacks: tuple[Attack, ...]
) -> None:
    seconds = bench.pick(full=SECONDS, quick=SECONDS_QUICK)
    site = Site(bench=bench, running=running, seconds=seconds + 2 * MARGIN_SECONDS)

    def good(seconds: float, first: int) -> native.Load:
        return bench.generator.post(
            running.place.port,
            connections=GOOD_CONNECTIONS,
            seconds=seconds + LATE_SECONDS_MAX,
            rate=GOOD_RATE,
            first=first,
            # All that fall due, however late: those that wait for a connection count.
            most=int(GOOD_RATE * seconds),
        )

    warm_up = bench.generator.post(
        running.place.port,
        connections=WARMUP_CONNECTIONS,
        seconds=WARMUP_SECONDS_MAX,
        most=bench.pick(full=WARMUP, quick=WARMUP // 10),
    )
    first = len(warm_up.shots)
    # Else their last pages are written beside the load.
    os.sync()
    before = running.rss_bytes()
    halfway: list[int] = []
    look = threading.Timer(seconds / 2, lambda: halfway.append(running.rss_bytes()))
    with _under_way(site, attacks) as said:
        time.sleep(MARGIN_SECONDS)
        look.start()
        try:
            load = good(seconds, first)
        finally:
            look.join()
        after = running.rss_bytes()
    taken = load.latency_ms()
    bench.results.add(
        "hostile",
        servers.LISTENER.name,
        name,
        due=int(GOOD_RATE * seconds),
        failed=int(GOOD_RATE * seconds) - len(load.good),
        reconnects=load.reconnects,
        **quantiles(taken),
        longest=float(taken.max()) if len(taken) else 0.0,
        before_mib=before / MIB,
        halfway_mib=halfway[0] / MIB,
        after_mib=after / MIB,
        seconds=seconds,
        requests=sum(one.get("answered", 0) for one in said),
        connections=sum(one.get("opened", 0) for one in said),
        closed=sum(one.get("closed", 0) for one in said),
    )


@contextmanager
def _under_way(site: Site, attacks: tuple[Attack, ...]) -> Iterator[list[dict[str, int]]]:
    """Make loads as long as this lasts; in the end the list has what each program says it did."""
    said: list[dict[str, int]] = []
    # Prepared first, so that a mix begins at once.
    commands = [attack(site) for attack in attacks]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands
    ]
    try:
        yield said
        # They end by themselves; ``post`` waits a while for its last answers.
        for process in processes:
            out, _ = process.communicate(timeout=site.seconds + 30)
            said.append(json.loads(out))
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        raise native.BenchError(f"a load did not end as it should: {error}") from error
    finally:
        for process in processes:
            process.kill()
            process.wait()


def table(section: dict[str, dict[str, dict[str, list[float]]]]) -> list[str]:
    """Return what was measured as markdown, a row a load."""
    what = (
        f"{GOOD_RATE} good notifications/s on {GOOD_CONNECTIONS} connections (open loop, timed from"
        f" when each was due) beside each load, each on a fresh listener, all from one address."
        f" Each has recorded {WARMUP:,} notifications before, so that what it keeps in memory of"
        " its ledger is there. Aimed at, in 20 s: all acknowledged, p99 below 250 ms, memory flat."
    )
    heads = (
        "| beside | good: due · not acknowledged · connections lost | p50 | p99 | longest |"
        " memory before → halfway → at the end | for |"
        " the load: answered · connections opened · closed |"
    )
    lines = [what, "", heads, "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, found in section.get(servers.LISTENER.name, {}).items():
        lines += [_row(name, {metric: values[-1] for metric, values in found.items()})]
    return [*lines, ""]


def _row(name: str, of: dict[str, float]) -> str:
    good = f"{of['due']:,.0f} · {of['failed']:,.0f} · {of['reconnects']:,.0f}"
    times = " | ".join(f"{of.get(each, 0.0):,.2f} ms" for each in ("p50", "p99", "longest"))
    memory = f"{of['before_mib']:.0f} → {of['halfway_mib']:.0f} → {of['after_mib']:.0f} MiB"
    load = f"{of['requests']:,.0f} · {of['connections']:,.0f} · {of['closed']:,.0f}"
    return f"| {name} | {good} | {times} | {memory} | {of['seconds']:.0f} s | {load} |"
