"""Let one service at a time have a ledger."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from listener.errors import LedgerError

# `listener check` looks whether the lock is free, and has it for as long as that takes.
TRIES: Final = 5
TRY_SECONDS: Final = 0.05


class ServiceLock:
    """A lock that one service holds on a ledger, so that two never write the same chain.

    It goes with the process that has it, however that ends. Its file stays.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            LedgerError: Another service has it, or its file cannot be made.
        """
        try:
            self._file: int | None = os.open(_file_of(path), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise LedgerError(f"cannot make {_file_of(path)}: {error.strerror}") from error
        for attempt in range(TRIES):
            if _try_lock(self._file, fcntl.LOCK_EX):
                return
            if attempt < TRIES - 1:
                time.sleep(TRY_SECONDS)
        self.release()
        raise LedgerError(f"another listener is serving {path}; stop it first")

    def release(self) -> None:
        """Let another service have the ledger."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def is_served(path: Path) -> bool:
    """Tell whether a service has a ledger now."""
    try:
        file = os.open(_file_of(path), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def _file_of(path: Path) -> str:
    return f"{path}.lock"


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
