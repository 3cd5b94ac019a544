"""What tests need besides Python: a developer may lack it, CI may not."""

import asyncio
import getpass
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, NoReturn

import pytest

SECONDS: Final = 3.0


def program(name: str, *, package: str | None = None) -> str:
    """Return where a program is; without it a test is skipped, and in CI it fails."""
    # Debian's daemons are where only root looks.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    return found or missing(package or name)


@cache
def postgres() -> str:
    """Return the URL of a PostgreSQL whose role may make databases; see :func:`program`.

    It is the one of the variable TEST_POSTGRES, else one on this machine that trusts us.
    """
    named = os.environ.get("TEST_POSTGRES")
    users = dict.fromkeys((getpass.getuser(), "postgres"))
    urls = [named] if named else [f"postgresql://{user}@127.0.0.1/postgres" for user in users]
    with ThreadPoolExecutor(1) as thread:
        # Its thread has no event loop yet, whatever runs in the test's own.
        for url in urls:
            if thread.submit(asyncio.run, _may_make_databases(url)).result():
                return url
    return missing("postgresql", started=True)


async def _may_make_databases(url: str) -> bool:
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=SECONDS)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    try:
        may: bool = await connection.fetchval(
            "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
        )
    finally:
        await connection.close()
    return may


def missing(package: str, *, started: bool = False) -> NoReturn:
    """Skip a test because a Debian package is missing, or fail if this is CI."""
    state = "not running" if started else "not installed"
    lacking(f"{package} is {state}; on Debian: apt-get install {package}")


def lacking(advice: str) -> NoReturn:
    """Skip a test because this machine lacks something, or fail if this is CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(advice)
    pytest.skip(advice)
