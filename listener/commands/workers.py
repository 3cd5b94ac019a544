"""Run several listeners on one port: start, watch and stop them together.

The kernel spreads connections over the sockets that share a port. Each worker is a node of its own;
they share only the ledger.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from listener import log
from listener.settings import Settings
from listener.stopping import stop_signals
from listener.web.address import bind

# A worker that dies is started again, but with a pause.
RESTART_SECONDS: Final = 1.0
# If more workers than there are have refused to start, and none has run this long, none will.
START_SECONDS: Final = 10.0
# How long a worker may take to send its tills away and finish what it has begun.
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.1
# The exit code of a worker that refuses to start, and ours.
FAILED: Final = 1

_LOG: Final = logging.getLogger(__name__)


class Workers:
    """The processes of one service; the parent only reserves the port, and watches them."""

    def __init__(self, settings: Settings, arguments: Sequence[str], *, count: int) -> None:
        # Bound without sharing first: this fails if a service listens there already.
        with bind(settings.host, settings.port) as alone:
            port = alone.getsockname()[1]
        # Bound without listening: no connection comes here, and nobody else gets the port.
        self._port = bind(settings.host, port, reuse_port=True, listens=False)
        self._command = [*_program(), "serve", *arguments, "--shared-port"]
        self._environment = os.environ | {"LISTENER_PORT": str(port)}
        self._count = count
        # When each was started, by the steady clock.
        self._running: dict[subprocess.Popen[bytes], float] = {}
        self._started_at = 0.0
        # How many have refused to start; None once one has run for a while.
        self._refusals: int | None = 0
        self._stopping = False

    def run(self) -> int:
        """Run all workers until told to stop; then stop them, and wait.

        Returns:
            0 if all ended by themselves in time; 1 if none could start.
        """
        for number in stop_signals():
            signal.signal(number, self._stop)
        while not self._stopping:
            self._tend()
            time.sleep(POLL_SECONDS)
        for worker in self._running:
            worker.send_signal(signal.SIGTERM)
        return self._wait()

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _tend(self) -> None:
        for worker in [one for one in self._running if one.poll() is not None]:
            del self._running[worker]
            log.event(
                _LOG, "worker_ended", level=logging.ERROR, pid=worker.pid, status=worker.returncode
            )
            if self._refusals is not None and worker.returncode == FAILED:
                self._refusals += 1
        now = time.monotonic()
        if any(now - started_at > START_SECONDS for started_at in self._running.values()):
            self._refusals = None
        if self._have_refused:
            # Each worker has said why. One that is still trying may succeed.
            self._stopping = self._stopping or not self._running
            return
        is_first = not self._started_at
        is_soon = not is_first and now - self._started_at < RESTART_SECONDS
        if is_soon or len(self._running) == self._count:
            return
        self._started_at = now
        while len(self._running) < self._count:
            worker = subprocess.Popen(self._command, env=self._environment)  # noqa: S603 - ourselves
            self._running[worker] = now
            log.event(_LOG, "worker_started", pid=worker.pid)

    @property
    def _have_refused(self) -> bool:
        return self._refusals is not None and self._refusals > self._count

    def _wait(self) -> int:
        ends_at = time.monotonic() + STOP_SECONDS
        status = FAILED if self._have_refused and not self._running else 0
        for worker in self._running:
            try:
                ended = worker.wait(max(0.1, ends_at - time.monotonic()))
                status = status or ended
            except subprocess.TimeoutExpired:
                log.event(_LOG, "worker_killed", level=logging.ERROR, pid=worker.pid)
                worker.kill()
                worker.wait()
                status = FAILED
        self._port.close()
        return status


def _program() -> list[str]:
    """Return how to start a worker: it looks into the present folder only where its parent did.

    What is called `listener` there, a folder or a file, is not always this program.
    """
    own_path = [] if str(Path.cwd()) in sys.path else ["-P"]
    return [sys.executable, *own_path, "-m", "listener"]


def shares_port() -> bool:
    """Return whether this system spreads connections over the sockets of one port."""
    return hasattr(socket, "SO_REUSEPORT")
