"""A process that has imported the service, and forks one after the other.

    python -m tests.fault.nursery

What it forks is the real command, ``listener serve``, without the half second that its imports
take. It reads orders and writes answers, a JSON object a line; ``tests/fault/lives.py`` gives them.
"""

import asyncio
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Final

from msgspec.structs import replace

from listener.cli import main as listener
from listener.ledger.model import Fact
from listener.ledger.results import Recorded
from listener.ledger.schedule import Confirm
from listener.storage.queue import Answer
from listener.storage.sqlite import checkpoints, commit, opening, writer
from listener.storage.sqlite import ledger as sqlite
from listener.storage.sqlite.plain import Committed

PR_SET_PDEATHSIG: Final = 1
PR_SET_PTRACER: Final = 0x59616D61
ANYBODY: Final = -1
# Pages: one commit has as many.
CHECKPOINT_AFTER: Final = 12
# Imported by whoever serves such a ledger, and is an extra.
POSTGRES: Final = ["listener.storage.postgres.ledger"] if find_spec("asyncpg") else []


def _checkpoint_often() -> None:
    """Make a short run see many checkpoints."""
    vars(checkpoints).update(
        CHECKPOINT_AFTER=CHECKPOINT_AFTER, CHECKPOINT_AT_LATEST=2 * CHECKPOINT_AFTER
    )
    vars(writer).update(QUIET_SECONDS=0.001)


def _never_sync() -> None:
    """Leave out what makes a commit durable."""
    prepare = opening.prepare

    def carelessly(db: sqlite3.Connection) -> None:
        prepare(db)
        db.execute("PRAGMA synchronous = OFF")

    vars(opening).update(prepare=carelessly)


def _acknowledge_early() -> None:
    """Answer before the commit."""
    record, queue = sqlite.SqliteLedger.record, sqlite.SqliteLedger.queue
    waiting = set[asyncio.Task[Recorded]]()

    async def at_once(self: sqlite.SqliteLedger, fact: Fact) -> Recorded:
        task = asyncio.create_task(record(self, fact))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
        return Recorded(seq=0, is_new=True)

    def soon(self: sqlite.SqliteLedger, fact: Fact, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(answer, Recorded(seq=0, is_new=True))
        # Later than in the turn that answers: a kill would never come between the two.
        loop.call_later(0.02, queue, self, fact, lambda _recorded: None)

    # What is to be broken, on the ordinary way and on the fast path.
    sqlite.SqliteLedger.record = at_once  # type: ignore[method-assign]
    sqlite.SqliteLedger.queue = soon  # type: ignore[method-assign]


def _forget_fingerprints() -> None:
    """Treat every repeat as something new."""
    add = commit.commit

    def forgetful(
        db: sqlite3.Connection, facts: Sequence[Fact], *, epoch: str, now_ms: int, confirm: Confirm
    ) -> Committed:
        news = [replace(fact, fingerprint=os.urandom(8).hex()) for fact in facts]
        return add(db, news, epoch=epoch, now_ms=now_ms, confirm=confirm)

    vars(writer).update(commit=forgetful)


def _next_version() -> None:
    """Be a later version: it adds a column, and calls a function of its own."""
    # An extra; whoever is twisted so has it.
    from listener.storage.postgres import schema, statements

    function = schema.function_text("append_v1").replace("append_v1", "append_v2")
    vars(schema).update(
        SCHEMA_VERSION=2,
        MIGRATIONS={1: 'ALTER TABLE transactions ADD COLUMN note text COLLATE "C"'},
        FUNCTIONS=("append_v2",),
        function_text=lambda _name: function,
    )
    call = vars(statements)["_APPEND"].replace("append_v1", "append_v2")
    vars(statements).update(_APPEND=call)


# How a service may be changed before it starts; all but the first two break it, so that the checks
# can be seen to find that.
TWISTS: Final[dict[str, Callable[[], None]]] = {
    "checkpoint-often": _checkpoint_often,
    "next-version": _next_version,
    "never-sync": _never_sync,
    "acknowledge-early": _acknowledge_early,
    "forget-fingerprints": _forget_fingerprints,
}


def live(order: dict[str, Any], *, begin: int) -> int:
    """Be the service; what comes back is its exit code."""
    libc = ctypes.CDLL(None)
    # It ends with this process, and a strace that is not its parent may look on.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_PTRACER, ANYBODY)
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for ours, theirs in ((nothing, 0), (nothing, 1), (log, 2)):
        os.dup2(ours, theirs)
    os.close(nothing)
    os.close(log)
    for twist in order["twists"]:
        TWISTS[twist]()
    os.read(begin, 1)
    try:
        listener(["serve", "--config", order["serve"]])
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1


class Nursery:
    """The services that live, by their process."""

    def __init__(self) -> None:
        self._begin: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    def obey(self, order: dict[str, Any]) -> None:
        """Do what is asked; what concerns a service that has ended is of no use any more."""
        if "serve" in order:
            self._fork(order)
        elif order["pid"] in self._begin:
            if "signal" in order:
                os.kill(order["pid"], order["signal"])
            else:
                os.write(self._begin[order["pid"]], b"!")

    def _fork(self, order: dict[str, Any]) -> None:
        begin, go = os.pipe()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                status = live(order, begin=begin)
            finally:
                sys.stderr.flush()
                os._exit(status)
        os.close(begin)
        self._begin[pid] = go
        self._ends[os.pidfd_open(pid)] = pid
        say({"forked": pid, "number": order["number"]})

    def run(self) -> None:
        """Obey until nobody gives orders any more."""
        orders = b""
        while True:
            ready, _, _ = select.select([0, *self._ends], [], [])
            for ended in set(ready) & set(self._ends):
                self._bury(ended)
            if 0 not in ready:
                continue
            chunk = os.read(0, 65_536)
            if not chunk:
                return
            orders += chunk
            *lines, orders = orders.split(b"\n")
            for line in lines:
                self.obey(json.loads(line))

    def _bury(self, ended: int) -> None:
        pid = self._ends.pop(ended)
        _, status = os.waitpid(pid, 0)
        os.close(ended)
        os.close(self._begin.pop(pid))
        say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def say(answer: dict[str, int]) -> None:
    """Write an answer."""
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    for module in ("listener.commands.serve", "listener.web.process", *POSTGRES):
        # The command imports them only once it runs.
        importlib.import_module(module)
    gc.freeze()
    Nursery().run()
