"""A process that records notifications and says what was acknowledged, until it is killed.

    python -m tests.fault.recorder LEDGER FIRST

Each line of its output is the number of a notification and the seq that it was acknowledged with.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from listener.storage.sqlite.ledger import SqliteLedger
from tests.support.stored import numbered

CALLERS: Final = 16


async def main(path: Path, *, first: int) -> None:
    """Record the notifications from ``first`` on, each twice, as several callers at once."""
    numbers = iter(range(first, sys.maxsize))

    async def call(ledger: SqliteLedger) -> None:
        for number in numbers:
            recorded, again = await asyncio.gather(
                ledger.record(numbered(number)), ledger.record(numbered(number))
            )
            assert recorded.seq == again.seq
            # One write, so that no line is cut by the kill.
            os.write(1, f"{number} {recorded.seq}\n".encode())

    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(call(ledger) for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), first=int(sys.argv[2])))
