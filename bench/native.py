"""Build and run the C programs that load a server and hold its tills."""

import json
import resource
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from bench import work

SOURCES: Final = Path(__file__).parent / "native"
SHOT: Final = np.dtype([("due", "i8"), ("sent", "i8"), ("answered", "i8"), ("status", "i8")])
ARRIVAL: Final = np.dtype([("till", "u4"), ("request", "u4"), ("at", "i8")])
KEYS_END: Final = "\n"
ARRIVE_SECONDS_MAX: Final = 60.0
FILES_WANTED: Final = 20_000


class BenchError(Exception):
    """A measurement that did not come about; its text says why."""


def build(directory: Path) -> None:
    """Compile the programs into a directory."""
    for name in ("post", "tills", "answer", "crowd"):
        command = ["cc", "-O2", "-o", str(directory / name), str(SOURCES / f"{name}.c")]
        subprocess.run(command, check=True)


def pinned(cores: str, *command: str) -> list[str]:
    """Run a command on some cores only, given as `taskset -c` takes them."""
    return ["taskset", "-c", cores, *command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What ``post`` measured; times in ns, one row a request."""

    shots: np.ndarray
    cpu_share: float
    # How often the server closed a connection, so that a request went again on a new one.
    reconnects: int

    @property
    def good(self) -> np.ndarray:
        return self.shots[self.shots["status"] == 200]

    @property
    def failed(self) -> int:
        return len(self.shots) - len(self.good)

    def rate(self, *, warmup_seconds: float) -> float:
        """Return answers a second, the warm-up left out."""
        good = self.good
        if not len(good):
            raise BenchError("no request was answered with `success`")
        start = self.shots["sent"][0] + int(warmup_seconds * 1e9)
        # Up to the last request: what is answered after it is the tail of an emptying queue.
        end = self.shots["sent"][-1]
        counted = np.count_nonzero((good["answered"] >= start) & (good["answered"] < end))
        return float(counted / ((end - start) / 1e9))

    def latency_ms(self, *, warmup_seconds: float = 0.0) -> np.ndarray:
        """Return the time from when each request was due to its answer."""
        good = self.good
        start = self.shots["sent"][0] + int(warmup_seconds * 1e9)
        good = good[good["due"] >= start]
        return (good["answered"] - good["due"]) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Where the compiled programs and the requests are, and which cores they run on."""

    directory: Path
    requests: Path
    cores: str

    def post(
        self,
        port: int,
        *,
        connections: int,
        seconds: float = 3600.0,
        rate: float = 0.0,
        first: int = 0,
        most: int = 10_000_000,
    ) -> Load:
        """Send requests from the ``first`` on; closed loop, or ``rate`` a second (open loop)."""
        out = self.directory / f"shots.{port}"
        numbers = (connections, seconds, rate, first, most)
        program = str(self.directory / "post")
        arguments = [str(port), str(self.requests), str(out), *(str(number) for number in numbers)]
        done = subprocess.run(
            pinned(self.cores, program, *arguments), check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise BenchError(f"post: {done.stderr.strip()}")
        said = json.loads(done.stdout)
        shots = np.fromfile(out, SHOT)
        out.unlink()
        return Load(
            shots=shots,
            cpu_share=said["cpu"] / max(said["wall"], 1e-9),
            reconnects=said["reconnects"],
        )


class Tills:
    """Tills held open by ``tills``, from enter to exit."""

    def __init__(
        self,
        generator: Generator,
        *,
        port: int,
        path: str,
        count: int,
        keys: list[str],
        connect: str,
        stalled: int = 0,
        expected: int = 0,
    ) -> None:
        self._out = generator.directory / f"arrivals.{port}"
        self._keys = keys
        numbers = (count, stalled, work.TRANSACTION_BASE, expected)
        program = str(generator.directory / "tills")
        arguments = [str(port), path, str(self._out), *(str(n) for n in numbers), connect]
        self._command = pinned(generator.cores, program, *arguments)
        self.arrivals = np.zeros(0, ARRIVAL)
        self.cpu_share = 0.0
        self.lost = 0

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        if self._process.stdin is None or self._process.stdout is None:
            raise BenchError("tills: no pipes")
        self._asked, self._said = self._process.stdin, self._process.stdout
        self._asked.write("".join(f"{key}\n" for key in self._keys) + KEYS_END)
        self._asked.flush()
        self._expect("ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            # Killed, it says no more; its pipes are closed with it.
            self._process.kill()
            self._process.wait()
            self._said.close()
            self._out.unlink(missing_ok=True)

    def wait_for_all(self) -> None:
        """Wait until the expected events have come."""
        too_late = threading.Timer(ARRIVE_SECONDS_MAX, self._process.kill)
        too_late.start()
        try:
            self._expect("done")
        finally:
            too_late.cancel()

    def _expect(self, word: str) -> None:
        if (line := self._said.readline().strip()) != word:
            raise BenchError(f"tills: {word} was expected, came {line!r}")

    def _finish(self) -> None:
        self._asked.close()
        lines = self._said.read().split("\n")
        said = json.loads(next(line for line in lines if line.startswith("{")))
        self._process.wait()
        self.arrivals = np.fromfile(self._out, ARRIVAL)
        self.cpu_share = said["cpu"] / max(said["wall"], 1e-9)
        self.lost = said["lost"]


def raise_file_limit() -> None:
    """Allow this process and its children to hold the sockets of 5,000 tills."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_WANTED:
        most = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
