"""Connect to the primary, and let nothing pass for a success that is not one.

A connection is dropped on any warning and any error. PostgreSQL reports a commit whose wait for its
standby was cancelled as done, with a warning before it; and what became of a statement whose
connection broke is not known. Nothing here ever cancels a statement: a cancel is what ends such a
wait.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import asyncpg

from listener.errors import LedgerError, LedgerUnavailableError
from listener.storage.postgres.location import Location

T = TypeVar("T")

CONNECT_SECONDS: Final = 1.0
VERSION_MIN: Final = 150_000
TOLD_CHARS_MAX: Final = 200
# A server that answers no read for so long is left, and the hosts are tried again.
SILENT_SECONDS: Final = 5.0
# A server that has vanished without a word is given up after so long.
UNHEARD_MS: Final = 5_000
# `on` and what waits for more. With less, what was acknowledged can be lost.
SYNCED: Final = frozenset({"on", "remote_apply"})
ENCODING: Final = "UTF8"

# What PostgreSQL, the network, and asyncpg itself raise.
FAULTS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    EOFError,
    TimeoutError,
)

# An idle transaction would hold the ledger's lock; nobody waits for that lock for ever.
_SETTINGS: Final = {
    "default_transaction_isolation": "read committed",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "2s",
    # Whatever the role has: a statement that writes is never broken off by time.
    "statement_timeout": "0",
    # Plans are made for the values at hand only where they differ; ours are seeks whatever these.
    "plan_cache_mode": "auto",
    "jit": "off",
}
_LOOK: Final = (
    "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS is_read_only,"
    " set_config('synchronous_commit', current_setting('synchronous_commit'), false) AS commits,"
    " current_setting('fsync') AS fsync, current_setting('server_encoding') AS encoding"
)


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
        self.add_log_listener(self._hear)
        _watch_line(transport.get_extra_info("socket"))

    def _hear(self, _connection: object, message: Any) -> None:  # noqa: ANN401 - asyncpg's own
        # A notice is no warning; what is worse arrives as an error.
        if getattr(message, "severity_en", None) == "WARNING":
            self.warning = str(message)


class NotPrimaryError(Exception):
    """A server is there, and cannot be written to."""


async def connect(location: Location, *, name: str, timeout_ms: int | None = None) -> Connection:
    """Connect to the first host that can be written to; each has a second to answer.

    asyncpg's own list of hosts has one time for all of them, so that one that swallows packets
    leaves none for the next. With ``timeout_ms`` the server breaks off a statement that takes
    longer: never on a connection that writes.

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
    options = dict(location.options)
    settings = dict(_SETTINGS)
    if timeout_ms is not None:
        settings["statement_timeout"] = f"{timeout_ms}ms"
    if "search_path" in options:
        settings["search_path"] = options.pop("search_path")
    connection: Connection = await asyncpg.connect(
        host=host,
        port=port,
        user=location.user,
        password=location.password,
        database=location.database,
        ssl=_tls(options),
        passfile=options.get("passfile"),
        server_settings=settings | {"application_name": name},
        connection_class=Connection,
    )
    try:
        row = await connection.fetchrow(_LOOK)
        check_server(connection, row)
    except BaseException:
        connection.terminate()
        raise
    return connection


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


def _tls(options: dict[str, str]) -> Any:  # noqa: ANN401 - asyncpg lists the modes as literals
    """Return how to encrypt, as libpq's options say it; a password never needs it less."""
    mode = options.get("sslmode")
    root, cert = options.get("sslrootcert"), options.get("sslcert")
    if root is None and cert is None:
        return mode
    try:
        context = ssl.create_default_context(cafile=root)
        context.check_hostname = mode in (None, "verify-full")
        if cert is not None:
            context.load_cert_chain(cert, options.get("sslkey"))
    except (OSError, ssl.SSLError) as error:
        raise LedgerError("the certificate files of the setting database cannot be read") from error
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


def told_by(error: BaseException) -> str:
    """Return what PostgreSQL or the system said, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).partition("\n")[0] or type(error).__name__
    return text[:TOLD_CHARS_MAX].encode("unicode_escape").decode()


class Channel:
    """One connection that is made again whenever it was lost; one piece of work at a time."""

    def __init__(
        self,
        location: Location,
        *,
        name: str,
        on_connect: Callable[[Connection], Awaitable[None]] | None = None,
        timeout_ms: int | None = None,
    ) -> None:
        self._location = location
        self._timeout_ms = timeout_ms
        self._name = name
        self._on_connect = on_connect
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._working: set[asyncio.Task[Any]] = set()
        self._busy_since: float | None = None
        self._is_closed = False

    @property
    def busy_seconds(self) -> float:
        """How long the work on the connection has been under way; 0 while there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run work on the connection, alone.

        A caller that is cancelled does not stop the work: asyncpg would send a cancel.

        Raises:
            LedgerUnavailableError: It failed, or may have: what became of it is not known. The
                connection is dropped.
        """
        task = asyncio.create_task(self._run(work))
        self._working.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._working.discard(task)
        if not task.cancelled():
            # Looked at here for a caller that has gone away.
            task.exception()

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._lock:
            connection = await self.attach()
            self._busy_since = time.monotonic()
            try:
                result = await work(connection)
                # The event loop hears the warning before the result: it came first.
                if connection.warning is not None:
                    raise LedgerUnavailableError(
                        f"the ledger may not have kept it: {connection.warning[:TOLD_CHARS_MAX]}"
                    )
            except FAULTS as error:
                self.drop()
                raise LedgerUnavailableError(
                    f"the ledger cannot be used now: {told_by(error)}"
                ) from error
            except BaseException:
                self.drop()
                raise
            finally:
                self._busy_since = None
            return result

    async def attach(self) -> Connection:
        """Return the connection, made anew where there is none; the caller has it alone.

        Raises:
            LedgerUnavailableError: There is no server that can be used now.
        """
        if self._is_closed:
            raise LedgerUnavailableError("the ledger is closed")
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self.drop()
        try:
            connection = await connect(self._location, name=self._name, timeout_ms=self._timeout_ms)
        except LedgerError as error:
            # At start this is for the operator to put right; later, for as long as it lasts.
            raise LedgerUnavailableError(str(error)) from error
        # A server may go silent at any moment. Its connection is then ended, not its statement.
        silence = asyncio.get_running_loop().call_later(SILENT_SECONDS, connection.terminate)
        try:
            if self._on_connect is not None:
                await self._on_connect(connection)
        except FAULTS as error:
            connection.terminate()
            raise LedgerUnavailableError(
                f"the ledger cannot be used now: {told_by(error)}"
            ) from error
        except BaseException:
            connection.terminate()
            raise
        finally:
            silence.cancel()
        self._connection = connection
        return connection

    def drop(self) -> None:
        """End the connection at once, without a cancel; the next work makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Let what is under way end, then disconnect; what takes long is cut off."""
        self._is_closed = True
        if self._working:
            await asyncio.wait(self._working, timeout=CONNECT_SECONDS * 2)
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.close()
        except FAULTS:
            connection.terminate()
        for task in list(self._working):
            with suppress(*FAULTS, LedgerUnavailableError):
                await task
