"""Allow only one service at a time to serve a ledger, under whatever name its file is opened.

There are two locks, taken in this order and released in the other. The one on ``<ledger>.lock`` is
for the name: SQLite's log lies beside that name, and the file itself may have been moved away. The
one on the ledger's own file is for its other names: a hard link, a bind mount.
"""

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Final

from listener.errors import LedgerError
from listener.storage.sqlite.location import refuse_no_file

# `listener check` tests whether a lock is free, and holds it for that moment.
TRIES: Final = 5
TRY_SECONDS: Final = 0.05
NOTE_BYTES_MAX: Final = 256


class ServiceLock:
    """The lock that one service holds on a ledger, so that two never write the same chain.

    It is released with the process, however that ends. The file ``<ledger>.lock`` stays, with a
    note from the service that held the lock last.
    """

    def __init__(self, path: Path) -> None:
        """Lock the ledger; create an empty file if there is none.

        Lock before SQLite opens the file, and release after SQLite has closed it: closing a file
        drops every lock that SQLite has on it in the same process.

        Raises:
            LedgerError: Another service has it, or it is no file that can be opened.
        """
        refuse_no_file(path)
        self._held: list[int] = []
        # How long the note is that this process wrote.
        self._note_bytes = 0
        try:
            for name in _names(path):
                self._held.append(os.open(name, os.O_CREAT | os.O_RDWR, 0o600))
                if not _lock_soon(self._held[-1]):
                    raise LedgerError(f"another listener is serving {path}; stop it first")
        except OSError as error:
            self.release()
            raise LedgerError(f"cannot open {error.filename}: {error.strerror}") from error
        except BaseException:
            self.release()
            raise

    @property
    def note(self) -> str:
        """The note; empty if there is none, or it cannot be read."""
        return os.pread(self._held[0], NOTE_BYTES_MAX, 0).decode("ascii", "replace")

    def write_note(self, text: str) -> None:
        """Replace the note. It is not synced: losing it loses a hint, and no entry."""
        # Written before the rest is cut off: a process that is killed in between leaves a line of
        # its own, and not half of one.
        line = f"{text}\n".encode("ascii")
        os.pwrite(self._held[0], line, 0)
        if len(line) != self._note_bytes:
            os.ftruncate(self._held[0], len(line))
            self._note_bytes = len(line)

    def release(self) -> None:
        """Allow another service to serve the ledger."""
        while self._held:
            os.close(self._held.pop())


def read_note(path: Path) -> str:
    """Return the note of the service that served a ledger last; empty if none can be read."""
    name, *_ = _names(path)
    try:
        with Path(name).open("rb") as file:
            return file.read(NOTE_BYTES_MAX).decode("ascii", "replace")
    except OSError:
        return ""


def is_served(path: Path) -> bool:
    """Return whether a service is serving a ledger now, under this name or another.

    Raises:
        LedgerError: That cannot be found out.
    """
    return any(_is_locked(name) for name in _names(path))


def refuse_other_name(path: Path) -> None:
    """Check that the log of a served ledger is beside the name that is used here.

    Raises:
        LedgerError: What has the name is no file; or the log is beside another name, so that
            reading here would miss what is in it, and writing here would damage the file.
    """
    refuse_no_file(path)
    name, *file = _names(path)
    # The name is checked once more at the end: a service that starts meanwhile locks it first.
    if not _is_locked(name) and any(map(_is_locked, file)) and not _is_locked(name):
        raise LedgerError(
            f"a listener is serving {path} under another name, a hard link or a mount; use that"
        )


def has_lost_its_file(path: Path) -> bool:
    """Return whether a service serves this name although a file was moved away or deleted.

    Without the index of its log, ``-shm``, what is written here would be lost: the service would
    not see it, and would write over it.

    Raises:
        LedgerError: That cannot be found out.
    """
    name, *file = _names(path)
    index = f"{os.path.realpath(path)}-shm"
    for attempt in range(TRIES):
        is_whole = path.exists() and os.path.lexists(index) and all(map(_is_locked, file))
        if is_whole or not _is_locked(name):
            return False
        if attempt < TRIES - 1:
            # A service that starts takes the second lock shortly after the first, then opens it.
            time.sleep(TRY_SECONDS)
    return True


def _names(path: Path) -> list[str]:
    """Return the files to lock, the one for the name first."""
    # Links are followed, as SQLite follows them before it looks for its log.
    file = os.path.realpath(path)
    # Elsewhere flock takes the same lock that SQLite needs for itself.
    return [f"{file}.lock", file] if sys.platform == "linux" else [f"{file}.lock"]


def _lock_soon(descriptor: int) -> bool:
    for attempt in range(TRIES):
        if _lock(descriptor, fcntl.LOCK_EX):
            return True
        if attempt < TRIES - 1:
            time.sleep(TRY_SECONDS)
    return False


def _is_locked(name: str) -> bool:
    try:
        descriptor = os.open(name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LedgerError(f"cannot open {name}: {error.strerror}") from error
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
