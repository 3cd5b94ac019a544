"""Back-ends of the ledger, by the setting ``database``."""

from pathlib import Path
from typing import Final

from listener.errors import LedgerError
from listener.schedule import Confirm
from listener.storage.connection import now_ms
from listener.storage.sqlite import Clock, SqliteLedger
from listener.storage.writer import OnCommit

__all__ = ["SqliteLedger", "open_ledger", "sqlite_path"]

_SQLITE: Final = "sqlite:///"


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


def sqlite_path(url: str) -> Path:
    """Return the file of ``sqlite:///PATH``: relative, unless PATH begins with a slash.

    Raises:
        LedgerError: It is another kind of database; the text holds nothing of the URL.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path:
        raise LedgerError(
            "this version keeps its ledger in SQLite only: set database to sqlite:///PATH"
        )
    return Path(path)
