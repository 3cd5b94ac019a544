"""Commands in processes of their own, forked from one that has imported what they need.

Its imports are most of what a start of the command costs, and tests start it hundreds of times.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any, Final

END_SECONDS: Final = 30

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "__main__",
        "tests.support.forked",
        "listener.cli",
        "listener.pos.client",
        "listener.sandbox.servers",
        "listener.storage.sqlite.desk",
        "listener.storage.sqlite.ledger",
        "listener.web.process",
    ]
)


def _live(
    arguments: Sequence[str], env: Mapping[str, str], directory: str, out: int, err: int
) -> None:
    """Be the command; this leaves by `SystemExit`."""
    from listener.cli import main

    # A group of its own: whatever it starts ends with it.
    os.setsid()
    # As a terminal starts it, though the tests were started with nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for ours, its in ((out, 1), (err, 2)):
        os.dup2(ours, its)
        os.close(ours)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    # What it says is there at once.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a real stream
    main(arguments)


class Forked:
    """A command that runs; used like what `subprocess.Popen` returns."""

    def __init__(self, arguments: Sequence[str | Path], *, env: Mapping[str, str]) -> None:
        out, its_out = os.pipe()
        err, its_err = os.pipe()
        self.stdout: IO[str] = os.fdopen(out, encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(err, encoding="utf-8")
        self._process = _CONTEXT.Process(
            target=_live,
            args=(
                [str(one) for one in arguments],
                dict(env),
                str(Path.cwd()),
                _Pipe(its_out),
                _Pipe(its_err),
            ),
            daemon=True,
        )
        self._process.start()
        os.close(its_out)
        os.close(its_err)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait(END_SECONDS)
        self._process.close()
        self.stdout.close()
        self.stderr.close()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired("listener", timeout)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None and self._process.pid is not None:
            # It may end between the two.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill it, and what it has started and left behind."""
        if self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        # It may not have come as far as to a group of its own.
        self.send_signal(signal.SIGKILL)


class _Pipe:
    """The end of a pipe that is handed over as it is sent to the fork."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _taken, (DupFd(self._number),)


def _taken(handed_over: Any) -> int:  # noqa: ANN401 - its class depends on how it was handed over
    number: int = handed_over.detach()
    return number
