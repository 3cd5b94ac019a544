"""Find the password for a server in a password file of libpq: the option ``passfile``."""

import getpass
import os
import re
import stat
from pathlib import Path
from typing import Final

from listener.errors import LedgerError
from listener.storage.postgres.location import Location

# Four fields, with a backslash before each colon and backslash in them; then the password.
_LINE: Final = re.compile(r"((?:\\.|[^\\:])*+):" * 4 + r"(.*)")
_ESCAPED: Final = re.compile(r"\\(.)")
_FOR_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def password_for(location: Location, host: str, port: int) -> str | None:
    """Return the password to connect with; None where neither the URL nor its passfile has one.

    The first line that fits counts; a field ``*`` fits everything.

    Raises:
        LedgerError: The passfile cannot be read, or others can read it.
    """
    if location.password is not None or "passfile" not in location.options:
        return location.password
    user = location.user or os.environ.get("PGUSER") or getpass.getuser()
    # libpq looks for a server on this machine's socket under this name as well.
    hosts = {host, "localhost"} if host.startswith("/") else {host}
    wanted = (hosts, {str(port)}, {location.database}, {user})
    for line in _read(Path(location.options["passfile"])).splitlines():
        found = None if line.startswith("#") else _LINE.fullmatch(line)
        if found is None:
            continue
        *fields, password = (_ESCAPED.sub(r"\1", field) for field in found.groups())
        if all(
            field == "*" or field in any_of for field, any_of in zip(fields, wanted, strict=True)
        ):
            return password
    return None


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _unusable(error.strerror or "it cannot be read") from error
    except UnicodeDecodeError as error:
        raise _unusable("it is not UTF-8") from error
    if mode & _FOR_OTHERS:
        raise _unusable("others may read it; its mode must be 600")
    return text


def _unusable(why: str) -> LedgerError:
    return LedgerError(f"the passfile of the setting database cannot be used: {why}")
