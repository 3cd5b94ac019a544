"""Connect to the primary, over TLS if asked for; refuse a server that may lose what it commits.

PostgreSQL reports a commit whose wait for its standby was cancelled as done, with a warning before
it: a connection remembers a warning, and :mod:`listener.storage.postgres.channel` drops it.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from listener.errors import LedgerError, LedgerUnavailableError
from listener.storage.postgres.location import Location
from listener.storage.postgres.passfile import password_for

CONNECT_SECONDS: Final = 1.0
VERSION_MIN: Final = 150_000
TOLD_CHARS_MAX: Final = 200
# A server that no longer answers is given up after this time.
UNHEARD_MS: Final = 5_000
# `on`, and settings that wait for more. With less, what was acknowledged can be lost.
SYNCED: Final = frozenset({"on", "remote_apply"})
ENCODING: Final = "UTF8"
# The present by the clock of the server, which all nodes share, as Unix ms; for statements.
SERVER_NOW_MS: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
VERIFIED: Final = frozenset({"verify-ca", "verify-full"})

# What PostgreSQL, the network, and asyncpg itself raise.
FAULTS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
    TimeoutError,
)

# On a new connection these show a pooler that lends the server's connection to others as well: what
# they prepared is there, and what was prepared here is not.
_LENT: Final = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)

# An idle transaction would hold the ledger's lock; nobody waits for that lock for ever.
_SETTINGS: Final = {
    "default_transaction_isolation": "read committed",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "2s",
    # Whatever the role's limits are: no time limit may end a statement that writes, or an idle
    # connection.
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    # A warning says that a commit may be lost; a higher level would hide it.
    "client_min_messages": "warning",
    # Every statement is a seek in an index, whatever its values. A plan is made once and kept, and
    # a table that was small then, and would have been read whole, grows by thousands a second.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
_SET: Final = (
    "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) x(name, value)"
)
# Identifies a process among those of all servers, from a row of pg_stat_activity.
PROCESS: Final = "a.pid || ' since ' || extract(epoch FROM a.backend_start)"
_PID: Final = "SELECT pg_backend_pid()"
_LOOK: Final = (
    f"SELECT (SELECT {PROCESS} FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()) AS process,"
    " pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS is_read_only,"
    " set_config('synchronous_commit', current_setting('synchronous_commit'), false) AS commits,"
    " current_setting('fsync') AS fsync, current_setting('server_encoding') AS encoding"
)
# Here the server warns, at each of the last 40 million commits, that transaction ids run short. It
# keeps these commits. Source: PostgreSQL, "Preventing Transaction ID Wraparound Failures".
_IDS_RUN_SHORT: Final = frozenset({"GetNewTransactionId", "GetNewMultiXactId"})


class Connection(asyncpg.Connection):
    """A connection that remembers whether a warning came, and notices a silent server."""

    def __init__(
        self,
        protocol: Any,  # noqa: ANN401 - asyncpg's own
        transport: asyncio.Transport,
        *rest: Any,  # noqa: ANN401 - asyncpg's own arguments, passed on as they are
    ) -> None:
        super().__init__(protocol, transport, *rest)
        self.warning: str | None = None
        # The server's process that serves it.
        self.process = ""
        self.add_log_listener(self._hear)
        _watch_line(transport.get_extra_info("socket"))

    def _hear(self, _connection: object, message: Any) -> None:  # noqa: ANN401 - asyncpg's own
        # A notice is not a warning; anything worse arrives as an error.
        if getattr(message, "severity_en", None) != "WARNING":
            return
        if getattr(message, "server_source_function", None) not in _IDS_RUN_SHORT:
            self.warning = str(message)


class NotPrimaryError(Exception):
    """There is a server, but it cannot be written to."""


async def connect(location: Location, *, name: str, timeout_ms: int | None = None) -> Connection:
    """Connect to the first host that can be written to; each has a second to answer.

    asyncpg's own list of hosts shares one time limit, so that a host that swallows packets would
    leave no time for the next. With ``timeout_ms`` the server interrupts a statement that takes
    longer: never use it on a connection that writes.

    Raises:
        LedgerError: The server does not keep what it commits, or is too old.
        LedgerUnavailableError: No host can be written to now.
    """
    reasons = []
    for host, port in location.in_order:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await _connect(location, host, port, name=name, timeout_ms=timeout_ms)
        except TimeoutError:
            reasons.append(f"{host}:{port}: no answer within {CONNECT_SECONDS:g} s")
        except (NotPrimaryError, *FAULTS) as error:
            reasons.append(f"{host}:{port}: {told_by(error)}")
        else:
            location.last[:] = [(host, port)]
            return connection
    raise LedgerUnavailableError(f"no server can be used now: {'; '.join(reasons)}")


async def _connect(
    location: Location, host: str, port: int, *, name: str, timeout_ms: int | None
) -> Connection:
    settings = dict(_SETTINGS)
    if timeout_ms is not None:
        settings["statement_timeout"] = f"{timeout_ms}ms"
    if "search_path" in location.options:
        settings["search_path"] = location.options["search_path"]
    connection = await _open(location, host, port, name=name)
    try:
        if await connection.fetchval(_PID) != connection.get_server_pid():
            await _check_pooler(connection, location, host, port)
        # Not while connecting: a pooler would refuse that.
        await connection.fetch(_SET, list(settings), list(settings.values()))
        look: Any = await connection.fetchrow(_LOOK)
        check_server(connection, look)
        connection.process = look["process"]
    except _LENT as error:
        connection.terminate()
        raise _pooled(host, port) from error
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _open(location: Location, host: str, port: int, *, name: str) -> Connection:
    connection: Connection = await asyncpg.connect(
        host=host,
        port=port,
        user=location.user,
        password=password_for(location, host, port),
        database=location.database,
        ssl=_tls(location.options),
        server_settings={"application_name": name},
        connection_class=Connection,
    )
    return connection


async def _check_pooler(connection: Connection, location: Location, host: str, port: int) -> None:
    """Refuse a pooler that lends one of the server's connections to several at once.

    What is set, listened to or prepared on a connection has to stay there.
    """
    other = await _open(location, host, port, name="pockyt-listener pooler")
    try:
        is_shared = await other.fetchval(_PID) == await connection.fetchval(_PID)
    finally:
        other.terminate()
    if is_shared:
        raise _pooled(host, port)


def _pooled(host: str, port: int) -> LedgerError:
    return LedgerError(
        f"{host}:{port} is a pooler in transaction mode: connect to the server itself, or to a"
        " pooler in session mode"
    )


def check_server(connection: Connection, row: Any) -> None:  # noqa: ANN401 - asyncpg's record
    """Refuse a server that cannot be written to, or does not keep what it commits."""
    version = connection.get_server_version()
    if version.major * 10_000 < VERSION_MIN:
        raise LedgerError(f"PostgreSQL {version.major} is too old: 15 or later is needed")
    if row["is_read_only"]:
        raise NotPrimaryError("it is a standby, or read-only")
    if row["commits"] not in SYNCED:
        raise LedgerError(
            f"synchronous_commit is {row['commits']}: what is acknowledged could be lost;"
            " set it to on for this role and database"
        )
    if row["fsync"] != "on":
        raise LedgerError("fsync is off: what is acknowledged could be lost; set it to on")
    if row["encoding"] != ENCODING:
        raise LedgerError(
            f"the database's encoding is {row['encoding']}, which cannot hold every text; make one"
            f" with ENCODING '{ENCODING}'"
        )


def _tls(options: Mapping[str, str]) -> Any:  # noqa: ANN401 - asyncpg lists the modes as literals
    """Return how to encrypt, as libpq's options say it; a password never needs it less.

    A certificate is checked if a root certificate is named, and in the modes that say so; if none
    is named, against those that the system trusts.
    """
    mode, root, cert = (options.get(name) for name in ("sslmode", "sslrootcert", "sslcert"))
    if mode == "disable" or not (root or cert or mode in VERIFIED):
        return mode
    files = "sslrootcert"
    try:
        context = ssl.create_default_context(cafile=root)
        context.check_hostname = mode == "verify-full" or (mode is None and root is not None)
        if root is None and mode not in VERIFIED:
            context.verify_mode = ssl.CERT_NONE
        if cert is not None:
            files = "sslcert and sslkey"
            context.load_cert_chain(cert, options.get("sslkey"))
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or error
        raise LedgerError(
            f"the certificate files of the setting database cannot be used: {files}: {why}"
        ) from error
    return context


def _watch_line(line: socket.socket | None) -> None:
    if line is None or line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_MS)


async def hang_up(connection: Connection) -> None:
    """Close a connection; a statement that was cancelled on it is given time to end."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.close()
    except FAULTS:
        connection.terminate()


def told_by(error: BaseException) -> str:
    """Return what PostgreSQL or the system said, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).partition("\n")[0] or type(error).__name__
    return text[:TOLD_CHARS_MAX].encode("unicode_escape").decode()
