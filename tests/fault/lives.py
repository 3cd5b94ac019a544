"""Run the real service as a process that is killed, signalled, traced, starved: one life after
the other.
"""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.support import needs

DEADLINE_SECONDS: Final = 20.0
ROOT: Final = Path(__file__).parents[2]


class Life:
    """One service, which has been forked and waits for its :meth:`begin`."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        # Its exit code once it has ended; -9 where it was killed.
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Start it."""
        self._nursery.order(pid=self.pid)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still lives."""
        self._nursery.order(pid=self.pid, signal=int(number))

    async def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send it a signal, and wait for its end."""
        self.send(number)
        return await self.wait()

    async def wait(self) -> int:
        """Wait for its end; return its exit code."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await asyncio.shield(self.ended)

    @property
    def memory_bytes(self) -> int:
        """What of it is in memory and nobody else's."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        (line,) = (line for line in rollup.splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024


class Nursery:
    """Forks services; :func:`nursery` starts it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = count()
        self._awaited: dict[int, asyncio.Future[Life]] = {}
        self._lives: dict[int, Life] = {}
        self._reading = asyncio.create_task(self._read())

    async def fork(self, config: Path, *, twists: Sequence[str] = ()) -> Life:
        """Fork a service, whose log goes beside its settings; it waits to begin."""
        log = config.with_suffix(".log")
        number = next(self._numbers)
        life: asyncio.Future[Life] = asyncio.get_running_loop().create_future()
        self._awaited[number] = life
        self.order(serve=str(config), log=str(log), twists=list(twists), number=number)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await life
        finally:
            # One that comes too late is nobody's.
            del self._awaited[number]

    def order(self, **order: object) -> None:
        """Send an order."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def close(self) -> None:
        """End it, and with it whatever it has forked and still lives."""
        self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "forked" in answer:
                life = self._lives[answer["forked"]] = Life(self, answer["forked"])
                if answer["number"] in self._awaited:
                    self._awaited[answer["number"]].set_result(life)
            else:
                self._lives.pop(answer["ended"]).ended.set_result(answer["status"])


@asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    """Run a process that forks services."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fault.nursery"), cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    made = Nursery(process)
    try:
        yield made
    finally:
        await made.close()


def find_strace() -> str:
    """Return the program that looks at system calls, and makes them fail."""
    return needs.program("strace")


@asynccontextmanager
async def traced(life: Life, *options: str) -> AsyncIterator[None]:
    """Trace a service with strace until the block is left, or the service ends."""
    process = await asyncio.create_subprocess_exec(
        *(find_strace(), "-f", *options, "-p", str(life.pid)), stderr=PIPE
    )
    assert process.stderr
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            said = b""
            while b" attached" not in said:
                line = await process.stderr.readline()
                said += line
                assert line, f"strace cannot look at it: {said.decode()}"
        # It tells of each thread, and must not have to wait for somebody to read that.
        reading = asyncio.create_task(process.stderr.read())
        yield
    finally:
        # It ends with the service.
        if not life.ended.done():
            with suppress(ProcessLookupError):
                process.terminate()
        await process.wait()
    await reading
