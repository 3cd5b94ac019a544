"""Back-ends of the ledger, opened by the setting ``database``."""

from listener.ledger.schedule import Confirm
from listener.storage.sqlite.connection import now_ms
from listener.storage.sqlite.ledger import Clock, SqliteLedger
from listener.storage.sqlite.location import sqlite_path
from listener.storage.sqlite.writer import OnCommit

__all__ = ["SqliteLedger", "open_ledger"]


async def open_ledger(
    url: str,
    *,
    confirm: Confirm = "suspicious",
    clock: Clock = now_ms,
    on_commit: OnCommit | None = None,
) -> SqliteLedger:
    """Open the ledger that a URL names, to serve it; make it where there is none.

    Args:
        url: As in the setting ``database``.
        confirm: When Pockyt is asked before a status is believed.
        clock: Reads the time as Unix ms.
        on_commit: Told of each commit how long it took (seconds), and how much it carried.

    Raises:
        LedgerError: It cannot be opened, or another listener is serving it.
    """
    path = sqlite_path(url)
    return await SqliteLedger.open(path, confirm=confirm, clock=clock, on_commit=on_commit)
