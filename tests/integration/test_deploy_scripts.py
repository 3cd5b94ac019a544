"""The scripts of docs/deploy, run as PostgreSQL's image does, on servers without containers."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from listener.storage import check_up, open_ledger
from listener.storage.findings import Finding, Severity
from tests.support.clusters import Server, folder_of_servers, initdb
from tests.support.commands import environment
from tests.support.ports import free_port
from tests.support.stored import numbered

FOLDER = Path(__file__).parents[2] / "docs" / "deploy"
PASSWORDS = {
    "POSTGRES_PASSWORD": "super",
    "REPLICATOR_PASSWORD": "repl1cator",
    "DATABASE_PASSWORD": "l1stener",
}
DEADLINE_SECONDS = 40.0


def script(name: str, *arguments: str, user: str | None, **variables: str) -> list[str | Path]:
    """Return the command that runs a script with these variables."""
    known = {"PATH": f"{initdb().parent}:{os.environ['PATH']}", **PASSWORDS, **variables}
    run = [*("env", *(f"{name}={value}" for name, value in known.items()))]
    # A mounted script is read by whoever the image runs as.
    command = [*run, "bash", "-c", (FOLDER / name).read_text(), name, *arguments]
    return [*(("runuser", "-u", user, "--") if user and os.geteuid() == 0 else ()), *command]


@pytest.fixture(name="servers")
def _servers() -> Iterator[tuple[Server, Server]]:
    with folder_of_servers() as folder:
        yield (
            Server(initdb().parent, folder / "a", free_port()),
            Server(initdb().parent, folder / "b", free_port()),
        )


def made_as_by_the_image(primary: Server) -> None:
    """Make a cluster: its superuser's script runs while only the socket answers."""
    with_password = ("--auth-local", "trust", "--auth-host", "scram-sha-256")
    primary.run(
        "initdb", "-D", primary.data, "-U", "postgres", "-E", "UTF8", "--no-locale", *with_password
    )
    primary.start()
    try:
        done = subprocess.run(
            script(
                "primary.sh",
                user="postgres",
                PGDATA=str(primary.data),
                PGHOST=str(primary.data.parent),
                PGPORT=str(primary.port),
            ),
            capture_output=True,
            check=False,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
    finally:
        primary.stop()


@contextmanager
def following(primary: Server, standby: Server) -> Iterator[None]:
    """Run the standby's script, which becomes the server."""
    command = script(
        "standby.sh",
        *("-p", str(standby.port), "-k", str(standby.data.parent), "-c", "listen_addresses="),
        *("-c", "shared_buffers=16MB"),
        user="postgres",
        PGDATA=str(standby.data),
        PRIMARY_HOST="127.0.0.1",
        PRIMARY_PORT=str(primary.port),
    )
    with subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            if standby.is_running:
                standby.kill()
            # Where it has not come so far, it would go on to ask the primary for a copy.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(DEADLINE_SECONDS)


async def test_the_scripts_make_a_primary_and_a_synchronous_standby_that_check_finds_fine(
    servers: tuple[Server, Server],
) -> None:
    primary, standby = servers
    await asyncio.to_thread(made_as_by_the_image, primary)
    await asyncio.to_thread(primary.start)
    url = f"postgresql://listener:l1stener@{primary.host},127.0.0.1:1/listener"
    with following(primary, standby):
        async with asyncio.timeout(DEADLINE_SECONDS):
            # Until the standby follows, no commit is done.
            async with await open_ledger(url, node_url="http://a:1") as ledger:
                assert (await ledger.record(numbered(1))).seq == 1
                found = await look(url)
                revoke = "REVOKE pg_read_all_stats FROM listener"
                socket = ("-h", primary.data.parent, "-p", str(primary.port))
                await asyncio.to_thread(primary.run, "psql", *socket, "-c", revoke)
                blind = await look(url)
    assert found["synchronous_standbys"].value == 1
    assert found["synchronous_commit"].value == "on"
    assert [one for one in found.values() if one.severity is not Severity.FINE] == []
    # Nothing is called a problem because it cannot be seen.
    assert "synchronous_standbys" not in blind
    assert blind["pg_read_all_stats"].severity is Severity.NOTE


async def look(url: str) -> dict[str, Finding]:
    return {one.name: one for one in await asyncio.to_thread(check_up, url)}
