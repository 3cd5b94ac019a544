"""The servers and the database that a ``postgresql://`` URL names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from listener.errors import LedgerError

SCHEME: Final = "postgresql://"
# Hosting providers write it so, and libpq reads it.
SHORT_SCHEME: Final = "postgres://"
PORT: Final = 5432
HOSTS_MAX: Final = 16

OPTIONS: Final = frozenset(
    {"sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "search_path"}
)
MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# How the name of an option is written; anything else may be a piece of a password.
_NAME: Final = re.compile("[a-z_]{1,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a ledger is: the hosts in the order to try them, a database, and a user."""

    hosts: tuple[tuple[str, int], ...]
    database: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    # The host that could be written to last is tried first.
    last: list[tuple[str, int]] = field(default_factory=list, compare=False, repr=False)

    @property
    def in_order(self) -> list[tuple[str, int]]:
        """The hosts in the order in which to try them."""
        return [*self.last, *(host for host in self.hosts if host not in self.last)]

    @property
    def shown(self) -> str:
        """The hosts and the database, for a person, without user and password."""
        hosts = ",".join(_shown_host(host, port) for host, port in self.hosts)
        return f"{SCHEME}{hosts}/{self.database}"


def is_postgres(url: str) -> bool:
    """Return whether a URL names a ledger on PostgreSQL."""
    return url.startswith((SCHEME, SHORT_SCHEME))


def require_driver() -> None:
    """Check that the extra ``postgres`` is installed.

    Raises:
        LedgerError: asyncpg is not installed.
    """
    if find_spec("asyncpg") is None:
        raise LedgerError(
            "a ledger on PostgreSQL needs the extra postgres:"
            " python -m pip install 'pockyt-listener[postgres]'"
        )


def read_location(url: str) -> Location:
    """Read ``postgresql://user:password@host1:port,host2:port/name?sslmode=verify-full``.

    Raises:
        LedgerError: It cannot be read. The message quotes only the name of an unknown option, since
            the URL may hold a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise LedgerError(
            "the setting database has a [ without its ], or no address in it"
        ) from None
    if parts.fragment:
        raise LedgerError("the setting database has a # in it: write it as %23")
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database:
        raise LedgerError(
            "the setting database must end in /NAME, the name of a database;"
            " a / in a password or a folder is written %2F, a ? is %3F"
        )
    if hosts.count(",") >= HOSTS_MAX:
        raise LedgerError(f"the setting database names more than {HOSTS_MAX} hosts")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise LedgerError(
            f"the setting database has an option that is not known{_told(unknown, parts.query)};"
            f" known are {', '.join(sorted(OPTIONS))}"
        )
    if options.get("sslmode", MODES[0]) not in MODES:
        raise LedgerError(f"sslmode of the setting database is none of {', '.join(MODES)}")
    return Location(
        hosts=tuple(_read_host(text) for text in hosts.split(",")),
        database=database,
        user=unquote(name) or None,
        password=unquote(password) or None,
        options=options,
    )


def _told(names: Sequence[str], query: str) -> str:
    """Name the unknown options, unless they may be part of a password with a ? in it."""
    written = {part.partition("=")[0] for part in query.split("&") if "=" in part}
    shown = [name for name in names if name in written and _NAME.fullmatch(name)]
    return f": {', '.join(shown)}" if shown and "@" not in query else ""


def _read_host(text: str) -> tuple[str, int]:
    """Read ``host``, ``host:port`` or ``[::1]:port``."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif ":" in text:
        host, _, port = text.partition(":")
    if port and not (port.isdecimal() and 0 < int(port) < 65_536):
        raise LedgerError("the setting database has a port that is not a number from 1 to 65535")
    return unquote(host) or "localhost", int(port or PORT)


def _shown_host(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
