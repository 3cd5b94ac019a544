"""The listener and its peers: how each is started, asked, and ended."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import psutil

from bench import native, work

START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 40.0
POLL_SECONDS: Final = 0.002
KEYS: Final = 16
ROOT: Final = Path(__file__).parent.parent
PEERS: Final = Path(__file__).parent / "peers"

CONNECT: Final = json.dumps(
    {"type": "connect", "id": 1, "streams": [{"stream": work.STREAM, "after": "latest"}]}
)
CONFIG: Final = """\
host = "127.0.0.1"
port = {port}
database = "sqlite:///{database}"
public_url = "https://pos.example.com"

[pockyt]
url = "http://127.0.0.1:9"

[merchants.{merchant_no}]
tokens = ["{token}"]
stores = ["{store_no}"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server runs: its own directory, its ports."""

    directory: Path
    database: Path
    port: int
    till_port: int

    @property
    def config(self) -> Path:
        return self.directory / "listener.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One contender. ``till_path`` is None where it has no tills.

    One that stores nothing may be sent the same requests again.
    """

    name: str
    title: str
    command: Callable[[Place], list[str]]
    environment: dict[str, str] = field(default_factory=dict)
    till_path: str | None = None
    connect: str = ""
    own_till_port: bool = False
    stores: bool = True
    is_listener: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers."""

    server: Server
    place: Place
    process: subprocess.Popen[bytes]
    started_seconds: float
    keys: list[str]

    def _family(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def rss_bytes(self) -> int:
        """Return the memory of the server and its children."""
        return sum(member.memory_info().rss for member in self._family())

    def cpu_seconds(self) -> float:
        """Return the processor time that the server and its children have used."""
        return sum(sum(member.cpu_times()[:2]) for member in self._family())

    def tills(
        self, generator: native.Generator, *, count: int, stalled: int = 0, expected: int = 0
    ) -> native.Tills:
        """Connect tills to it."""
        if self.server.till_path is None:
            raise native.BenchError(f"{self.server.name} has no tills")
        place = self.place
        return native.Tills(
            generator,
            port=place.till_port if self.server.own_till_port else place.port,
            path=self.server.till_path,
            count=count,
            keys=self.keys,
            connect=self.server.connect,
            stalled=stalled,
            expected=expected,
        )


def _python(module: str) -> Callable[[Place], list[str]]:
    return lambda _place: [sys.executable, "-m", module]


def _gunicorn(place: Place) -> list[str]:
    options = ["--worker-class", "gthread", "--threads", "16", "--keep-alive", "60"]
    bind = ["--bind", f"127.0.0.1:{place.port}", "--log-level", "error", "--no-control-socket"]
    return [sys.executable, "-m", "gunicorn", *options, *bind, "bench.peers.flask_app:app"]


def _node(program: str) -> Callable[[Place], list[str]]:
    return lambda _place: ["node", str(PEERS / program)]


def _serve(place: Place) -> list[str]:
    return [sys.executable, "-m", "listener", "serve", "--config", str(place.config)]


def _node_server(store: str, title: str) -> Server:
    return Server(
        name=f"node-{store}",
        title=title,
        command=_node("node.js"),
        environment={"BENCH_STORE": store},
        till_path="/till",
        stores=store != "none",
    )


LISTENER: Final = Server(
    name="listener",
    title="the listener",
    command=_serve,
    till_path="/v1/pos/stream",
    connect=CONNECT,
    is_listener=True,
)
LISTENER_ORDINARY: Final = replace(
    LISTENER,
    name="listener-ordinary",
    title="the listener, `fast_path = false`",
    environment={"LISTENER_FAST_PATH": "false"},
)
BARE: Final = Server(
    name="bare",
    title="bare aiohttp handler, stores nothing",
    command=_python("bench.peers.bare"),
    stores=False,
)
TEXTBOOK: Final = Server(
    name="textbook",
    title="aiohttp + aiosqlite, locked: a commit a request",
    command=_python("bench.peers.textbook"),
    environment={"BENCH_LOCK": "yes"},
)
TEXTBOOK_UNLOCKED: Final = replace(
    TEXTBOOK,
    name="textbook-unlocked",
    title="aiohttp + aiosqlite, no lock: commits shared by luck",
    environment={"BENCH_LOCK": "no"},
)
FASTAPI: Final = Server(
    name="fastapi", title="FastAPI + uvicorn", command=_python("bench.peers.fastapi_app")
)
FLASK: Final = Server(name="flask", title="Flask + gunicorn", command=_gunicorn)
NODE_FAIR: Final = Server(
    name="node-fair",
    title="fair Node.js: group commit, the listener's own work",
    command=_node("node_fair.js"),
    till_path="/till",
)
NODE_EACH: Final = _node_server("each", "small Node.js: one table, a commit a request")
NODE_GROUP: Final = _node_server("group", "small Node.js: one table, group commit")
NODE_FANOUT: Final = _node_server("none", "Node.js `ws`, plain send, stores nothing")
BARE_FANOUT: Final = Server(
    name="bare-fanout",
    title="frames written bare to asyncio transports, stores nothing",
    command=_python("bench.peers.bare_fanout"),
    till_path="/till",
    stores=False,
)
WEBSOCKETS: Final = Server(
    name="websockets",
    title="`websockets` broadcast(), stores nothing",
    command=_python("bench.peers.websockets_fanout"),
    till_path="/till",
    own_till_port=True,
    stores=False,
)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _make_keys(place: Place, count: int) -> list[str]:
    """Make keys without a terminal, which tills may share."""
    command = [sys.executable, "-m", "listener", "keys", "create", "--config", str(place.config)]
    scope = ["--role", "pos", "--merchant", work.MERCHANT_NO, "--store", work.STORE_NO, "--json"]
    made = []
    for _ in range(count):
        done = subprocess.run(
            [*command, *scope], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise native.BenchError(f"listener keys create: {done.stderr.strip()}")
        made.append(json.loads(done.stdout)["key"])
    return made


def answers(port: int) -> bool:
    """Return whether a server answers HTTP; any status will do."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as asked:
            asked.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return asked.recv(12).startswith(b"HTTP/1.1 ")
    except OSError:
        return False


def _await_start(process: subprocess.Popen[bytes], place: Place, server: Server) -> float:
    started = time.perf_counter()
    while not answers(place.port):
        waited = time.perf_counter() - started
        if process.poll() is not None or waited > START_SECONDS_MAX:
            said = (place.directory / "log").read_text(errors="replace")[-2000:]
            raise native.BenchError(f"{server.name} did not start:\n{said}")
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - started


def stop(process: subprocess.Popen[bytes]) -> float:
    """Ask a server to end, make it if it does not; return how long that took, in seconds."""
    started = time.perf_counter()
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS_MAX)
    taken = time.perf_counter() - started
    with suppress(ProcessLookupError):
        # Its own session: whatever it started ends with it.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return taken


def _spawn(server: Server, place: Place, cores: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        **server.environment,
        "BENCH_DATABASE": str(place.database),
        "BENCH_PORT": str(place.port),
        "BENCH_TILL_PORT": str(place.till_port),
        "BENCH_TOKEN": work.TOKEN,
        "BENCH_MERCHANT_NO": work.MERCHANT_NO,
        "BENCH_STORE_NO": work.STORE_NO,
        "BENCH_SCHEMA": str(ROOT / "schema.sql"),
    }
    with (place.directory / "log").open("wb") as log:
        return subprocess.Popen(
            native.pinned(cores, *server.command(place)),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@contextmanager
def run(
    server: Server, *, cores: str, keys: int = KEYS, ledger: Path | None = None
) -> Iterator[Running]:
    """Start a server in a fresh directory and end it after, whatever happens.

    ``ledger`` is a database to serve in place of a new one; it stays.
    """
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        port, till_port = free_ports(2)
        database = ledger or directory / "ledger.db"
        place = Place(directory=directory, database=database, port=port, till_port=till_port)
        if server.is_listener:
            write_config(place)
        process = _spawn(server, place, cores)
        try:
            seconds = _await_start(process, place, server)
            yield Running(
                server=server,
                place=place,
                process=process,
                started_seconds=seconds,
                keys=_make_keys(place, keys) if server.is_listener else [],
            )
        finally:
            stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def write_config(place: Place) -> None:
    """Write the settings that the listener is measured with: the defaults, but for names."""
    text = CONFIG.format(
        port=place.port,
        database=place.database,
        merchant_no=work.MERCHANT_NO,
        store_no=work.STORE_NO,
        token=work.TOKEN,
    )
    place.config.write_text(text)
