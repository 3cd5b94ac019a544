"""A Patroni cluster of a test's own: etcd, and two members that docs/deploy/patroni.yml makes."""

import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import needs
from tests.support.clusters import Server, folder_of_servers, initdb
from tests.support.ports import free_port

CONFIG = Path(__file__).parents[2] / "docs" / "deploy" / "patroni.yml"
PASSWORD = "passw0rd"


def as_postgres(command: Sequence[str | Path]) -> list[str | Path]:
    """Return a command that PostgreSQL's own user runs where we are root."""
    return [*(("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()), *command]


@dataclass(slots=True)
class Member:
    """A machine of the cluster: Patroni, and the server that it runs."""

    name: str
    folder: Path
    etcd_port: int
    server: Server
    api_port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = needs.program("patroni")
        variables = {
            "PATRONI_NAME": self.name,
            "PATRONI_ETCD3_HOSTS": f"127.0.0.1:{self.etcd_port}",
            "PATRONI_RESTAPI_LISTEN": f"127.0.0.1:{self.api_port}",
            "PATRONI_RESTAPI_CONNECT_ADDRESS": f"127.0.0.1:{self.api_port}",
            "PATRONI_POSTGRESQL_LISTEN": self.server.host,
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": self.server.host,
            "PATRONI_POSTGRESQL_DATA_DIR": str(self.server.data),
            "PATRONI_POSTGRESQL_BIN_DIR": str(self.server.programs),
            "PATRONI_POSTGRESQL_PGPASS": str(self.folder / f"{self.name}.pgpass"),
            "PATRONI_SUPERUSER_PASSWORD": PASSWORD,
            "PATRONI_REPLICATION_PASSWORD": PASSWORD,
            "PATRONI_REWIND_PASSWORD": PASSWORD,
        }
        given = [f"{name}={value}" for name, value in variables.items()]
        config = self.folder / "patroni.yml"
        # The checkout may be where PostgreSQL's own user cannot read.
        shutil.copy(CONFIG, config)
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                as_postgres(["env", *given, program, config]),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill all of it at once, as a machine that loses its power."""
        pid = self.server.data / "postmaster.pid"
        postmaster = int(pid.read_text().split()[0]) if pid.exists() else 0
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if postmaster:
            # Its own processes end when they see that it is gone.
            with suppress(ProcessLookupError):
                os.kill(postmaster, signal.SIGKILL)

    def cluster(self) -> dict[str, str]:
        """Return the role of each member as this one sees it; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}/cluster") as answer:
                members = json.load(answer)["members"]
        except (OSError, urllib.error.URLError, KeyError):
            return {}
        return {one["name"]: one["role"] for one in members if one["state"] in RUNNING}


RUNNING = frozenset({"running", "streaming"})


@contextmanager
def etcd(folder: Path) -> Iterator[int]:
    """Run etcd; yield its port."""
    program = needs.program("etcd", package="etcd-server")
    port, peer_port = free_port(), free_port()
    urls = f"http://127.0.0.1:{port}"
    peers = f"http://127.0.0.1:{peer_port}"
    process = subprocess.Popen(
        [
            *(program, "--name", "one", "--data-dir", folder / "etcd"),
            *("--listen-client-urls", urls, "--advertise-client-urls", urls),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"one={peers}"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def patroni_cluster() -> Iterator[tuple[Member, Member]]:
    """Run etcd and a first member; the second is made, and not yet started."""
    needs.program("patroni")
    with ExitStack() as life:
        folder = life.enter_context(folder_of_servers())
        etcd_folder = life.enter_context(folder_of_servers())
        port = life.enter_context(etcd(etcd_folder))
        members = (
            Member(
                name,
                folder,
                port,
                Server(initdb().parent, folder / name, free_port()),
                free_port(),
            )
            for name in ("a", "b")
        )
        first, second = members
        first.start()
        try:
            yield first, second
        finally:
            for member in (second, first):
                if member.process is not None and member.process.poll() is None:
                    member.kill()
