"""A process whose disk is full for a while, as its file size limit makes it.

    python -m tests.fault.limited LEDGER

It fills the ledger until a commit fails, makes room, and goes on; then it says what happened.
"""

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Final

from listener.errors import LedgerUnavailableError
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support.stored import numbered

ROOM_BYTES: Final = 200_000
PAGE_BYTES: Final = 4_096


async def main(path: Path) -> None:
    acknowledged: dict[int, int] = {}
    refused: list[int] = []
    async with await SqliteLedger.open(path) as ledger:
        log = path.with_name(f"{path.name}-wal")
        await ledger.record(numbered(0))
        _limit(log.stat().st_size + ROOM_BYTES)
        number = 0
        while not refused:
            batch = range(number + 1, number + 9)
            number = batch[-1]
            results = await asyncio.gather(
                *(ledger.record(numbered(n)) for n in batch), return_exceptions=True
            )
            for n, result in zip(batch, results, strict=True):
                if isinstance(result, LedgerUnavailableError):
                    refused.append(n)
                elif isinstance(result, BaseException):
                    raise result
                else:
                    acknowledged[n] = result.seq
        # Moved into the file, the log could be written over. Where there is no room for that
        # either, the next is refused again, and reading goes on.
        _limit(PAGE_BYTES)
        try:
            await ledger.record(numbered(refused[0], mark="x" * 50_000))
        except LedgerUnavailableError:
            still = True
        else:
            still = False
        readable = (await ledger.head()).seq
        _limit(resource.RLIM_INFINITY)
        again = await asyncio.gather(*(ledger.record(numbered(n)) for n in refused))
    told = {
        "acknowledged": acknowledged,
        "refused": refused,
        "still": still,
        "readable": readable,
        "again": [one.is_new for one in again],
    }
    sys.stdout.write(json.dumps(told))


def _limit(size: int) -> None:
    # Python ignores SIGXFSZ, so that a write past it fails as one on a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
