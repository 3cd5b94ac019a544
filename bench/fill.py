"""Fill a ledger with signed notifications through the storage's own writer, in big batches.

``python -m bench.fill DATABASE COUNT``. Nothing is synced until the end: a ledger that is being
filled is worth nothing yet.
"""

import asyncio
import hashlib
import json
import sqlite3
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import work

if TYPE_CHECKING:
    from listener.ledger.model import Fact

BATCH: Final = 4_000
MADE_PER_SECOND: Final = 20
START_MS: Final = 1_760_000_000_000


def fill(database: Path, *, count: int, advance: Callable[[int], None] = lambda _: None) -> None:
    """Append notifications until the ledger has ``count`` entries.

    ``advance`` is told how many were added. Repeats of the same call add only what is missing.
    """
    # Imported here: the peers are measured without the listener, too.
    from listener.storage.sqlite.commit import commit
    from listener.storage.sqlite.opening import connect

    epoch = asyncio.run(_make(database))
    db = connect(database, create=False)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA wal_autocheckpoint = 20000")
    db.execute("PRAGMA cache_size = -1000000")
    (first,) = db.execute("SELECT seq FROM ledger").fetchone()
    made = work.notifications(count=count - first, seed=first, first=first)
    while facts := [_fact(fields) for fields in islice(made, BATCH)]:
        now_ms = START_MS + first * 1000 // MADE_PER_SECOND
        db.execute("BEGIN IMMEDIATE")
        commit(db, facts, epoch=epoch, now_ms=now_ms, confirm="off")
        db.execute("COMMIT")
        first += len(facts)
        advance(len(facts))
    _finish(db)


def _fact(fields: dict[str, str]) -> "Fact":
    """Make what ingest makes of a notification; the fingerprint has its length, not its recipe."""
    from listener.ledger.model import Fact, Kind
    from listener.ledger.status import read_word

    text = json.dumps(fields, separators=(",", ":"))
    return Fact(
        kind=Kind.NOTIFICATION,
        merchant_no=work.MERCHANT_NO,
        store_no=work.STORE_NO,
        transaction_no=fields["transactionNo"],
        reference=fields["reference"],
        provider_status=fields["status"],
        says=read_word(fields["status"]),
        amount=fields["amount"],
        currency=fields["currency"],
        settle_currency=fields["settleCurrency"],
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        fields=text,
    )


async def _make(database: Path) -> str:
    """Make the ledger, or open it once; return its epoch."""
    from listener.storage.sqlite.ledger import SqliteLedger

    async with await SqliteLedger.open(database) as ledger:
        return ledger.epoch


def _finish(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


if __name__ == "__main__":
    fill(Path(sys.argv[1]), count=int(sys.argv[2]))
