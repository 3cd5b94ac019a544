"""Ledgers on PostgreSQL to measure: databases of their own on the server of TEST_POSTGRES."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from bench import native, servers, work
from bench.fill import fill

T = TypeVar("T")

SERVER: Final = os.environ.get("TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


def run(url: str, work_: Callable[[Any], Awaitable[T]]) -> T:
    """Do something in a database."""
    import asyncpg

    async def connected() -> T:
        db = await asyncpg.connect(url)
        try:
            return await work_(db)
        finally:
            await db.close()

    return asyncio.run(connected())


def url_of(name: str) -> str:
    return urlsplit(SERVER)._replace(path=f"/{name}").geturl()


@contextmanager
def database(*, template: str | None = None) -> Iterator[str]:
    """Make a database, empty or a copy; drop it at the end."""
    name = f"bench_{secrets.token_hex(4)}"
    # As files: by default a copy goes through the WAL, which a large one would fill.
    copied = f" TEMPLATE {template} STRATEGY FILE_COPY" if template else ""
    run(SERVER, lambda db: db.execute(f"CREATE DATABASE {name}{copied}"))
    try:
        yield url_of(name)
    finally:
        run(SERVER, lambda db: db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@contextmanager
def nodes(
    url: str, *, count: int = 1, workers: int = 1, cores: str, keys: int = 1
) -> Iterator[list[servers.Running]]:
    """Start listeners on one database, all with the same keys; end them after."""
    more = [] if workers == 1 else ["--workers", str(workers)]
    server = replace(
        servers.LISTENER,
        name="postgres",
        command=lambda place: [*servers.LISTENER.command(place), *more],
        environment={"LISTENER_DATABASE": url},
    )
    with ExitStack() as life:
        started: list[servers.Running] = []
        made: list[str] = []
        for _ in range(count):
            running = life.enter_context(servers.run(server, cores=cores, keys=0))
            made = made or [_make_key(running.place.config, url) for _ in range(keys)]
            started.append(replace(running, keys=made))
        _await_nodes(url, count * workers)
        yield started


def _await_nodes(url: str, count: int) -> None:
    """Wait until every process serves: a port that workers share answers with the first."""

    ends_at = time.monotonic() + servers.START_SECONDS_MAX
    while run(url, lambda db: db.fetchval("SELECT count(*) FROM nodes")) < count:
        if time.monotonic() > ends_at:
            raise native.BenchError(f"{count} listeners did not start")
        time.sleep(servers.POLL_SECONDS)


def _make_key(config: Path, url: str) -> str:
    command = [sys.executable, "-m", "listener", "keys", "create", "--config", str(config)]
    scope = ["--role", "pos", "--merchant", work.MERCHANT_NO, "--store", work.STORE_NO, "--json"]
    environment = {**os.environ, "LISTENER_DATABASE": url}
    done = subprocess.run(
        [*command, *scope],
        cwd=servers.ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise native.BenchError(f"listener keys create: {done.stderr.strip()}")
    key: str = json.loads(done.stdout)["key"]
    return key


def filled(name: str, *, file: Path, count: int) -> None:
    """Fill a ledger in a file and make a database of it, unless there is one of so many entries."""
    exists = run(
        SERVER, lambda db: db.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name)
    )
    if (
        exists
        and run(url_of(name), lambda db: db.fetchval("SELECT max(seq) FROM entries")) == count
    ):
        return
    fill(file, count=count)
    run(SERVER, lambda db: db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    run(SERVER, lambda db: db.execute(f"CREATE DATABASE {name}"))
    command = [sys.executable, "-m", "listener", "import", "--from", f"sqlite:///{file}"]
    done = subprocess.run(
        [*command, "--to", url_of(name)],
        cwd=servers.ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise native.BenchError(f"listener import: {done.stderr.strip()}")
    run(url_of(name), lambda db: db.execute("VACUUM ANALYZE"))
