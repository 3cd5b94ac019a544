"""The file that a ``sqlite:///`` URL names."""

from pathlib import Path
from typing import Final

from listener.errors import LedgerError

_SQLITE: Final = "sqlite:///"


def sqlite_path(url: str) -> Path:
    """Return the file of ``sqlite:///PATH``: relative, unless PATH begins with a slash.

    Raises:
        LedgerError: It is another kind of database; the message quotes nothing of the URL.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path:
        raise LedgerError(
            "the ledger is in SQLite or PostgreSQL: set database to sqlite:///PATH or"
            " postgresql://USER@HOST/NAME"
        )
    return Path(path)
