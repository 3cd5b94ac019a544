"""PgBouncer before a database, for what a pooler does to those who connect through it."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from tests.support import needs
from tests.support.ports import free_port

DEADLINE_SECONDS: Final = 10.0
CONFIG: Final = """\
[databases]
{name} = host={host} port={port} dbname={name} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


@contextmanager
def pooler(url: str, *, mode: Literal["session", "transaction"]) -> Iterator[str]:
    """Run PgBouncer as it comes, but for the mode; yield the URL of the database behind it."""
    program = needs.program("pgbouncer")
    parts, port = urlsplit(url), free_port()
    name = parts.path[1:]
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        config = Path(folder) / "pgbouncer.ini"
        config.write_text(
            CONFIG.format(
                name=name,
                host=parts.hostname,
                port=parts.port or 5432,
                user=parts.username,
                own_port=port,
                mode=mode,
            )
        )
        # It refuses to be root's.
        command = [program, "-q", str(config)]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                _wait(port)
                yield f"postgresql://{parts.username}@127.0.0.1:{port}/{name}"
            finally:
                process.terminate()


def _wait(port: int) -> None:
    import socket

    ends_at = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        else:
            return
