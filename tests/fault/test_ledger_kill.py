"""A service that is killed in the middle of its work loses nothing that it acknowledged."""

import asyncio
import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from listener.ledger.model import Event
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.verify import verify
from tests.support.stored import STREAM, bare, numbered, url_of

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = 8
LINES_MAX: Final = 300
# Far enough apart that no two lives of the process name the same notification.
LIFE: Final = 1_000_000


def live_and_die(path: Path, *, first: int, lines: int) -> dict[int, int]:
    """Record until so many lines were acknowledged, then SIGKILL; return what was acknowledged."""
    command = [sys.executable, "-m", "tests.fault.recorder", str(path), str(first)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        told = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        # What it said before it died counts, read or not.
        told += process.stdout.readlines()
    assert process.returncode == -9
    return {int(number): int(seq) for number, seq in (line.split() for line in told)}


async def read_on(path: Path, seen: list[Event]) -> int:
    """Resume as a till does, from the last that it has; return how many times it is retold."""
    async with await SqliteLedger.open(path) as ledger:
        while page := await ledger.read_events(STREAM, after=len(seen), limit=100):
            seen += page
        again = [await ledger.record(numbered(int(_number(event)))) for event in seen[-3:]]
        assert not any(one.is_new for one in again)
        return len(again)


def _number(event: Event) -> str:
    return event.body.partition(b'"subject":"')[2].partition(b'"')[0].decode()


def test_a_kill_loses_nothing_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    chance = random.Random(20261123)
    acknowledged: dict[int, int] = {}
    seen: list[Event] = []
    for life in range(KILLS):
        lines = chance.randint(1, LINES_MAX)
        acknowledged |= live_and_die(path, first=life * LIFE, lines=lines)
        verify(url_of(path))
        asyncio.run(read_on(path, seen))
    with closing(bare(path)) as db:
        rows = db.execute("SELECT transaction_no, seq FROM entries ORDER BY seq").fetchall()
    recorded = {int(number): seq for number, seq in rows}
    assert len(recorded) == len(rows)
    assert [seq for _, seq in rows] == list(range(1, len(rows) + 1))
    assert acknowledged.items() <= recorded.items()
    assert len(acknowledged) >= KILLS
    # The till saw every entry once, in order: each of them made one event.
    assert [event.offset for event in seen] == list(range(1, len(rows) + 1))
    assert [event.seq for event in seen] == list(range(1, len(rows) + 1))
    assert verify(url_of(path)).entries == len(rows)
