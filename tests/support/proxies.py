"""The proxy that operators are shown: HAProxy, with docs/deploy/haproxy.cfg as it is."""

import asyncio
import csv
import grp
import os
import pwd
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support import needs
from tests.support.certificates import certificate
from tests.support.commands import environment
from tests.support.ports import free_port

CONFIG = Path(__file__).parents[2] / "docs" / "deploy" / "haproxy.cfg"
DEADLINE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """HAProxy while it runs; ``certificate`` is what it shows, and what its clients trust."""

    url: str
    certificate: Path
    state_url: str

    async def wait_for(self, name: str, state: str) -> None:
        """Wait until it takes a listener for up or down."""
        async with asyncio.timeout(DEADLINE_SECONDS), aiohttp.ClientSession() as client:
            while True:
                async with client.get(f"{self.state_url}/;csv") as answer:
                    rows = csv.DictReader((await answer.text()).removeprefix("# ").splitlines())
                found = {row["svname"]: row["status"] for row in rows if row["pxname"] == "streams"}
                if found[name].partition(" ")[0] == state:
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def haproxy(folder: Path, *, listeners: dict[str, int]) -> AsyncIterator[Proxy]:
    """Run HAProxy before listeners, by their names in its configuration and their ports."""
    program = needs.program("haproxy")
    port, state_port = free_port(), free_port()
    shown = certificate(folder, host="localhost")
    variables = {
        "PROXY_BIND": f"127.0.0.1:{port}",
        "PROXY_CERTIFICATE": str(shown),
        "PROXY_STATE": f"127.0.0.1:{state_port}",
        "PROXY_USER": pwd.getpwuid(os.getuid()).pw_name,
        "PROXY_GROUP": grp.getgrgid(os.getgid()).gr_name,
        **{f"LISTENER_{name.upper()}": f"127.0.0.1:{one}" for name, one in listeners.items()},
    }
    process = await asyncio.create_subprocess_exec(
        *(program, "-db", "-f", CONFIG),
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    proxy = Proxy(f"https://localhost:{port}", shown, f"http://127.0.0.1:{state_port}")
    try:
        await _answering(state_port)
        for name in listeners:
            await proxy.wait_for(name, "UP")
        yield proxy
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answering(port: int) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
