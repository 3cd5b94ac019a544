"""Databases of PostgreSQL for tests: each test gets an empty one under a name of its own.

To make one and to drop it takes a third of a second, most of it for checkpoints: one that a test
has left is emptied and serves the next. They are dropped as the process of tests ends.
"""

import asyncio
import atexit
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import asyncpg

from listener.storage.postgres.ledger import PostgresLedger
from tests.support import needs
from tests.support.stored import Clock

T = TypeVar("T")
Work = Callable[["asyncpg.Connection"], Awaitable[T]]

# Databases that are empty again, by name.
_spare: list[str] = []
_CUT_OFF: Final = (
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = '{0}'"
)
_LEAVE: Final = f"{_CUT_OFF}; ALTER DATABASE {{0}} RESET ALL"
_EMPTY: Final = """
SET lock_timeout = '10s';
DO $$ DECLARE found name; BEGIN
  FOR found IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', found);
  END LOOP;
END $$;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO public;
"""


def run(url: str, work: "Work[T]") -> T:
    """Run a query as another program would, from a test without an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _connected(url, work)).result()


async def _connected(url: str, work: "Work[T]") -> T:
    connection = await asyncpg.connect(url)
    try:
        return await work(connection)
    finally:
        await connection.close()


@contextmanager
def database() -> Iterator[str]:
    """Lend an empty database; at the end all who are still connected to it are cut off."""
    server = needs.postgres()
    name = f"listener_{secrets.token_hex(6)}"
    run(server, _renamed_or_made(name))
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    try:
        yield url
    finally:
        try:
            run(server, lambda db: db.execute(_LEAVE.format(name)))
            run(url, lambda db: db.execute(_EMPTY))
            _spare.append(name)
        except (asyncpg.PostgresError, OSError):
            # A test that failed may have left it in any state, or in use.
            run(server, _dropped(name))


def _renamed_or_made(name: str) -> Work[None]:
    async def work(db: asyncpg.Connection) -> None:
        if _spare:
            spare = _spare.pop()
            try:
                # Whoever still looks for it by its last name finds nothing.
                await db.execute(_CUT_OFF.format(spare))
                await db.execute(f"ALTER DATABASE {spare} RENAME TO {name}")
                return
            except asyncpg.PostgresError:
                await _dropped(spare)(db)
        await db.execute(f"CREATE DATABASE {name}")

    return work


def _dropped(name: str) -> Work[None]:
    async def work(db: asyncpg.Connection) -> None:
        await db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    return work


@atexit.register
def _drop_spare() -> None:
    for name in _spare:
        # As `run`, but for its thread: none can be started any more.
        asyncio.run(_connected(needs.postgres(), _dropped(name)))


def dump(url: str, file: Path) -> None:
    """Dump a database as an operator does."""
    subprocess.run(
        [needs.program("pg_dump", package="postgresql-client"), "-Fc", "-f", file, "-d", url],
        check=True,
    )


def restore(url: str, file: Path, *options: str) -> None:
    """Restore a dump as an operator does."""
    program = needs.program("pg_restore", package="postgresql-client")
    subprocess.run([program, "-e", *options, "-d", url, file], check=True)


def make_anew(url: str, *, template: str = "template0") -> None:
    """Drop a database, and make one under its name; a template is another database's URL."""
    server, name = needs.postgres(), urlsplit(url).path[1:]
    run(server, _dropped(name))
    source = urlsplit(template).path.removeprefix("/")
    run(server, lambda db: db.execute(f"CREATE DATABASE {name} TEMPLATE {source}"))


# The ledger gets a new epoch, as a node gives it one.
NEW_EPOCH: Final = (
    "INSERT INTO epochs (epoch, began_at, reason, seq) VALUES ('new', 0, 'went_back', 1)",
    "UPDATE ledger SET epoch = 'new'",
)


async def execute(url: str, *statements: str) -> None:
    """Do something in a database as another program would."""
    db = await asyncpg.connect(url)
    try:
        for statement in statements:
            await db.execute(statement)
    finally:
        await db.close()


@asynccontextmanager
async def node(url: str) -> AsyncIterator[PostgresLedger]:
    """Open the ledger of a database as one listener does, with a clock of the test's own."""
    async with await PostgresLedger.open(url, clock=Clock()) as ledger:
        yield ledger
