"""Databases of PostgreSQL for tests: each test gets its own, which is dropped afterwards."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import asyncpg

from listener.storage.postgres.ledger import PostgresLedger
from tests.support import needs
from tests.support.stored import Clock

T = TypeVar("T")


def run(url: str, work: "Callable[[asyncpg.Connection], Awaitable[T]]") -> T:
    """Run a query as another program would, from a test without an event loop."""

    async def connected() -> T:
        connection = await asyncpg.connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, connected()).result()


@contextmanager
def database() -> Iterator[str]:
    """Make an empty database, and drop it with all who are still connected to it."""
    server = needs.postgres()
    name = f"listener_{secrets.token_hex(6)}"
    run(server, lambda db: db.execute(f"CREATE DATABASE {name}"))
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        run(server, lambda db: db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


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
