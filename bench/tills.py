"""What many tills cost: how fast they come back, and what a proxy with TLS holds for each."""

import asyncio
import grp
import json
import os
import pwd
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from websockets.asyncio.client import connect

from bench import native, postgres, servers, work
from bench.measuring import Bench

# Each with a key and a terminal of its own; the native program takes so many keys.
TERMINALS: Final = 500
PROXIED: Final = 1_000
SETTLE_SECONDS: Final = 2.0
CONFIG: Final = servers.ROOT / "docs" / "deploy" / "haproxy.cfg"
_WORK: Final = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


def tills(bench: Bench) -> None:
    """Measure tills that come for the first time and that come back, on each back-end."""
    for _ in range(bench.rounds):
        with servers.run(servers.LISTENER, cores=bench.server_cores, keys=1) as file:
            _come(bench, "listener", file, f"sqlite:///{file.place.database}", work_of=lambda: 0)
        with (
            postgres.database() as url,
            postgres.nodes(url, cores=bench.server_cores) as (node,),
        ):
            _come(
                bench,
                "nodes-1",
                node,
                url,
                work_of=lambda url=url: postgres.run(url, lambda db: db.fetchval(_WORK)),
            )
    with servers.run(servers.LISTENER, cores=bench.server_cores, keys=8) as file:
        bench.results.add("tills", "haproxy", PROXIED, proxy_kib=_behind_proxy(file))


def _come(
    bench: Bench,
    name: str,
    running: servers.Running,
    database: str,
    *,
    work_of: Any,  # noqa: ANN401
) -> None:
    keys = _make_keys(running.place.config, database)
    for point in ("first time", "back again"):
        time.sleep(SETTLE_SECONDS)
        before = work_of()
        started = time.perf_counter()
        with native.Tills(
            bench.generator,
            port=running.place.port,
            path="/v1/pos/stream",
            count=TERMINALS,
            keys=keys,
            # From where each has come, as a till asks that has kept nothing itself.
            connect=json.dumps({"type": "connect", "id": 1}),
        ):
            rate = TERMINALS / (time.perf_counter() - started)
            # The statistics of the server are a second old.
            time.sleep(SETTLE_SECONDS)
            done = (work_of() - before) / TERMINALS
        metrics = {"connects": rate}
        if done:
            metrics["transactions"] = done
        bench.results.add("tills", name, point, **metrics)


def _make_keys(config: Path, database: str) -> list[str]:
    from listener.commands.keys import make_key
    from listener.keys import Role
    from listener.settings import load

    settings = load(config, {"LISTENER_DATABASE": database})
    scope = {"merchant_no": work.MERCHANT_NO, "store_no": work.STORE_NO}
    return [
        make_key(settings, role=Role.POS, terminal=f"T-{number}", **scope)[1]
        for number in range(TERMINALS)
    ]


def _behind_proxy(running: servers.Running) -> float:
    """Return what HAProxy holds for each idle till, in KiB."""
    with _proxy(running.place.port) as (port, certificate, process):
        before = process.memory_info().rss
        held = asyncio.run(_hold(port, certificate, running.keys, process))
    return (held - before) / 1024 / PROXIED


async def _hold(port: int, certificate: Path, keys: list[str], process: psutil.Process) -> int:
    trust = ssl.create_default_context(cafile=certificate)
    async with AsyncExitStack() as life:
        for number in range(PROXIED):
            till = await life.enter_async_context(
                connect(
                    f"wss://localhost:{port}/v1/pos/stream",
                    ssl=trust,
                    additional_headers={"Authorization": f"Bearer {keys[number % len(keys)]}"},
                    compression=None,
                    ping_interval=None,
                    proxy=None,
                )
            )
            await till.send(servers.CONNECT)
            while json.loads(await till.recv())["type"] != "ready":
                pass
        await asyncio.sleep(SETTLE_SECONDS)
        held: int = process.memory_info().rss
    return held


@contextmanager
def _proxy(listener_port: int) -> Iterator[tuple[int, Path, psutil.Process]]:
    """Run HAProxy as it is shipped before one listener."""
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    port, state_port = servers.free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / "pos.pem"
        made = subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", "-", "-out", "-"),
            ],
            check=True,
            capture_output=True,
        )
        certificate.write_bytes(made.stdout)
        environment = {
            "PROXY_BIND": f"127.0.0.1:{port}",
            "PROXY_CERTIFICATE": str(certificate),
            "PROXY_STATE": f"127.0.0.1:{state_port}",
            "PROXY_USER": pwd.getpwuid(os.getuid()).pw_name,
            "PROXY_GROUP": grp.getgrgid(os.getgid()).gr_name,
            **{f"LISTENER_{name}": f"127.0.0.1:{listener_port}" for name in "AB"},
        }
        process = subprocess.Popen(
            [program, "-db", "-f", str(CONFIG)],
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not servers.answers(state_port):
                if process.poll() is not None:
                    raise native.BenchError("haproxy did not start")
                time.sleep(servers.POLL_SECONDS)
            yield port, certificate, psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()
