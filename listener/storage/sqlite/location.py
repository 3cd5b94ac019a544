"""The file that a ``sqlite:///`` URL names."""

import os
import sys
from pathlib import Path
from typing import Final

from listener.errors import LedgerError

_SQLITE: Final = "sqlite:///"


def sqlite_path(url: str) -> Path:
    """Return the file of ``sqlite:///PATH``: relative, unless PATH begins with a slash.

    Raises:
        LedgerError: It is another kind of database, or no plain name of a file; the message quotes
            nothing of the URL.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path:
        raise LedgerError(
            "the ledger is in SQLite or PostgreSQL: set database to sqlite:///PATH or"
            " postgresql://USER@HOST/NAME"
        )
    # SQLite would keep the first in memory, and read the second as a URL of its own.
    if path.startswith((":", "file:")):
        raise LedgerError(
            "the ledger is a file on disk: set database to sqlite:///PATH, and nothing else"
        )
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
    else:
        return Path(path)
    raise LedgerError(
        f"the name of the ledger's file cannot be written in {encoding}, this system's encoding of"
        " names: set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
    )


def refuse_no_file(path: Path) -> None:
    """Check that what is at a path, if anything, is a file.

    Raises:
        LedgerError: It is a folder, a device or the like.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise LedgerError(
            f"{path} is {kind}, which cannot be a ledger: set database to sqlite:///PATH, a file"
        )
