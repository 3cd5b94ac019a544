"""Run the real program: once, started and stopped, or at a terminal."""

import os
import pty
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import pytest

from listener.cli import main
from tests.support.forked import Forked

DEADLINE_SECONDS = 30
PROGRAM = (sys.executable, "-m", "listener")
SETTINGS = """
host = "127.0.0.1"
port = 0
database = "sqlite:///{database}"
{more}

[merchants.200043]
tokens = ["5cbfb079f15b150122261c8537086d77a"]
stores = ["303660", "300014"]
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that a command which failed leaves on stderr."""
        assert self.status != 0, self
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        return line.removeprefix("listener: ")


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", **(changes or {})}


def here(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Done:
    """Run a command in this process, which is quicker."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return Done(left.value.code, captured.out, captured.err)


def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Done:
    """Run a command in a process of its own."""
    with Forked(arguments, env=environment(env)) as process, ThreadPoolExecutor() as reading:
        out, err = reading.submit(process.stdout.read), reading.submit(process.stderr.read)
        try:
            status = process.wait(DEADLINE_SECONDS)
            return Done(status, out.result(DEADLINE_SECONDS), err.result(DEADLINE_SECONDS))
        finally:
            process.kill()


def without(stream: Literal["stdout", "stderr"], *arguments: str | Path) -> Done:
    """Run a command as `>&-` or `2>&-` in a shell does, with one stream less."""
    closing = {"stdout": ">&-", "stderr": "2>&-"}[stream]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *PROGRAM, *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def before_a_person(*arguments: str | Path, status: int = 0, until: str | None = None) -> str:
    """Run a command with a terminal as stdout and stderr; return everything that it shows.

    With ``until`` it is interrupted once it has shown that text.
    """
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environment({"TERM": "xterm", "COLUMNS": "120"}),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        try:
            text = _read_terminal(ours, process, until=until)
        finally:
            os.close(ours)
        assert process.wait(DEADLINE_SECONDS) == (130 if until else status), text
    return text


def _read_terminal(ours: int, process: "subprocess.Popen[bytes]", *, until: str | None) -> str:
    text = b""
    while select.select([ours], [], [], DEADLINE_SECONDS)[0]:
        try:
            chunk = os.read(ours, 65_536)
        except OSError:
            chunk = b""  # How Linux says that the other end of a terminal is closed.
        if not chunk:
            return text.decode()
        text += chunk
        if until is not None and until.encode() in text:
            process.send_signal(signal.SIGINT)
            until = None
    process.kill()
    raise AssertionError(f"it shows nothing more, and does not end: {text!r}")


class Started:
    """A command that runs until it is stopped."""

    def __init__(self, process: subprocess.Popen[str] | Forked, *, reads: bool) -> None:
        self.process = process
        self.out = _lines(process.stdout if reads else None)
        self.err = _lines(process.stderr)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)

    def until(self, lines: "queue.Queue[str | None]", text: str) -> str:
        """Return the next line that holds a text."""
        seen: list[str] = []
        while True:
            try:
                line = lines.get(timeout=DEADLINE_SECONDS)
            except queue.Empty:
                line = None
            if line is None:
                lines.put(None)
                raise AssertionError(f"no {text!r} in {seen}; {self.left(self.err)}")
            seen.append(line)
            if text in line:
                return line

    def left(self, lines: "queue.Queue[str | None]") -> list[str]:
        """Return the lines that no wait has returned yet; of one that has ended, all of them."""
        ends_at = time.monotonic() + DEADLINE_SECONDS
        while self.process.poll() is not None and None not in lines.queue:
            # A child that lives on may hold it open.
            if time.monotonic() > ends_at:
                break
            time.sleep(0.01)
        return [line for line in [*lines.queue] if line]


@contextmanager
def started(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    program: Sequence[str] = PROGRAM,
    reads: bool = True,
) -> Iterator[Started]:
    """Start a command; it is killed at the end if it still runs.

    Without ``reads`` its stdout is left to the test, and it is not forked but started, as another
    ``program`` is: how a stream ends is up to the interpreter.
    """
    changed = environment({"PYTHONUNBUFFERED": "1", **(env or {})})
    with (
        Forked(arguments, env=changed)
        if reads and program == PROGRAM
        else subprocess.Popen(
            [*program, *arguments],
            env=changed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ) as process:
        try:
            yield Started(process, reads=reads)
        finally:
            if process.poll() is None:
                process.kill()


def _lines(stream: IO[str] | None) -> "queue.Queue[str | None]":
    """Read a stream in a thread, so that it can be waited for; None at its end."""
    lines: queue.Queue[str | None] = queue.Queue()
    if stream is None:
        lines.put(None)
        return lines

    def read() -> None:
        # It may be closed in the middle, as the program ends.
        with suppress(ValueError):
            for line in stream:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def write_settings(directory: Path, *, more: str = "") -> Path:
    """Write settings whose ledger lies in the same directory."""
    path = directory / "listener.toml"
    path.write_text(SETTINGS.format(database=directory / "ledger.db", more=more))
    return path
