"""The file that a ``sqlite:///`` URL names."""

from pathlib import Path
from typing import Final

from listener.errors import LedgerError

_SQLITE: Final = "sqlite:///"


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
