"""PostgreSQL clusters for one test: a primary, and a standby that can be promoted."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import needs
from tests.support.ports import free_port

SECONDS = 60
# Small, since several run at the same time.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "wal_keep_size": "64MB",
    "client_connection_check_interval": "1s",
}


@dataclass(frozen=True, slots=True)
class Server:
    """One server, which can be started, killed and promoted."""

    programs: Path
    data: Path
    port: int
    # In place of, and beside, those of every server.
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.host}/postgres"

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's programs, which refuse to run as root."""
        command: Sequence[str | Path] = [self.programs / program, *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        settings = SETTINGS | self.settings
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        log = self.data.with_suffix(".log")
        self.run(
            "pg_ctl",
            *("-D", self.data, "-l", log, "-w", "-t", "40"),
            *("-o", f"-p {self.port} -k {self.data.parent} {options}", "start"),
        )

    def kill(self) -> None:
        """Stop it as a crash does: what is not on its disk is lost."""
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def stop(self) -> None:
        """Stop it as an operator does."""
        self.run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")

    def has_died(self) -> bool:
        """Return whether it has stopped by itself."""
        try:
            self.run("pg_ctl", "-D", self.data, "status")
        except AssertionError:
            return True
        return False

    def promote(self) -> None:
        self.run("pg_ctl", "-D", self.data, "-w", "promote")

    @property
    def is_running(self) -> bool:
        return (self.data / "postmaster.pid").exists()

    def take(self, name: str, content: bytes) -> None:
        """Put a file into its folder, which nobody else may read."""
        path = self.data / name
        path.write_bytes(content)
        path.chmod(0o600)
        _give_to_postgres(path)


def initdb() -> Path:
    """Return where PostgreSQL's newest initdb is, and its other programs beside it."""
    found = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    return found or needs.missing("postgresql")


@contextmanager
def folder_of_servers(*, disk: Path | None = None) -> Iterator[Path]:
    """Make a folder that PostgreSQL's own user may write to; its servers are killed at the end."""
    initdb()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=disk))
    _give_to_postgres(folder)
    try:
        yield folder
    finally:
        for running in folder.glob("*/postmaster.pid"):
            with suppress(AssertionError):
                # A server that was killed has left it behind.
                Server(initdb().parent, running.parent, 0).kill()
        shutil.rmtree(folder)


@contextmanager
def cluster(*, disk: Path | None = None, **settings: str) -> Iterator[Server]:
    """Make a server that is yet to be started; stop and remove it at the end."""
    with folder_of_servers(disk=disk) as folder:
        server = Server(initdb().parent, folder / "data", free_port(), settings)
        initial = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "-N")
        server.run("initdb", "-D", server.data, *initial)
        yield server


@contextmanager
def pair() -> Iterator[tuple[Server, Server]]:
    """Start a primary and a standby that follows it; remove both at the end."""
    with cluster() as primary:
        primary.start()
        yield primary, standby_of(primary)


def standby_of(primary: Server, *, name: str = "standby") -> Server:
    """Start a standby that follows a primary; it is removed with it."""
    standby = Server(primary.programs, primary.data.with_name(name), free_port())
    primary.run(
        "pg_basebackup",
        *("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"),
        *("-D", standby.data, "-R", "-X", "stream", "-c", "fast", "--no-sync"),
    )
    standby.start()
    return standby


def _give_to_postgres(path: Path) -> None:
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(path, owner.pw_uid, owner.pw_gid)
