"""Notice that the files of a served ledger were moved away or deleted.

SQLite goes on writing to a file that has lost its name, and what is acknowledged then is lost when
the process ends. From the index of the log, `-shm`, each process knows what the others have
written; once that has lost its name, the next process makes another, and both write to the same
place in the log. Source: SQLite, "How To Corrupt An SQLite Database File", 2.5.
"""

import os
from pathlib import Path
from time import monotonic
from typing import Final

from listener.errors import LedgerUnavailableError

# Looking before each commit of one item would take a tenth of its time.
LOOK_SECONDS: Final = 0.25


class LedgerFiles:
    """Remembers which files a ledger has, by what is there when it is made.

    It is made once the ledger has been written to, so that its log is there. SQLite replaces
    none of them while it has them open.
    """

    def __init__(self, path: Path) -> None:
        file = os.path.realpath(path)
        found = {name: _identity(name) for name in (file, f"{file}-wal", f"{file}-shm")}
        self._files = [(name, one) for name, one in found.items() if one is not None]
        self._looked_at = monotonic()

    def check(self) -> None:
        """Return if the files are still there, or were a moment ago.

        Raises:
            LedgerUnavailableError: One of them is not; what is committed now would be lost.
        """
        now = monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        for name, identity in self._files:
            try:
                found = _identity(name)
            except OSError:
                # If we cannot look, it may well be there.
                continue
            if found != identity:
                raise LedgerUnavailableError(
                    "a file of the ledger was moved away or deleted while it was served: put it"
                    " back, or stop the listener"
                )
        self._looked_at = now


def _identity(name: str) -> tuple[int, int] | None:
    """Return which file has a name now, or None."""
    try:
        found = os.stat(name)  # noqa: PTH116 - half the time of a Path
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
