"""Move SQLite's log into the database file, to overwrite it from its beginning.

The longer the log, the slower every sync. Moving it takes time too, so that waits until nothing has
arrived for a moment, unless the log has grown too long.
"""

import logging
import math
import sqlite3
import time
from typing import Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.storage.sqlite.faults import faults_told

# What a commit adds to the log: about so many pages, and one for two of its items.
COMMIT_PAGES: Final = 12
# From the first number of pages on it is moved once it is quiet, from the second immediately.
CHECKPOINT_AFTER: Final = 1_000
CHECKPOINT_AT_LATEST: Final = 4_000
# How often a checkpoint is tried while commits fail.
EVERY_SECONDS: Final = 1.0

_LOG: Final = logging.getLogger(__name__)


class Checkpoints:
    """Counts what the log holds, and moves it into the file when that is due."""

    def __init__(self) -> None:
        # About how many the log has gained since it was last moved.
        self.pages = 0
        self._is_asked_for = False
        self._next_try = -math.inf

    @property
    def is_worthwhile(self) -> bool:
        """Whether to make a checkpoint as soon as nothing else is to be done."""
        return self.pages >= CHECKPOINT_AFTER

    @property
    def is_overdue(self) -> bool:
        """Whether to make a checkpoint although more is waiting."""
        return self.pages >= CHECKPOINT_AT_LATEST

    @property
    def is_due(self) -> bool:
        """Whether to make a checkpoint now."""
        return self._is_asked_for or self.is_overdue

    def count(self, items: int) -> None:
        """Count a commit of so many items."""
        self.pages += COMMIT_PAGES + items // 2

    def ask(self) -> None:
        """Ask for a checkpoint now."""
        self._is_asked_for = True

    def ask_while_failing(self) -> None:
        """Ask for a checkpoint after a failed commit, to make room; not after each one."""
        self._is_asked_for = time.monotonic() >= self._next_try

    def make(self, db: sqlite3.Connection) -> None:
        """Move the log into the database file; if that fails, the log only grows longer."""
        self.pages, self._is_asked_for = 0, False
        self._next_try = time.monotonic() + EVERY_SECONDS
        try:
            with faults_told():
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except LedgerUnavailableError as error:
            log.event(_LOG, "checkpoint_failed", level=logging.WARNING, cause=str(error))
