"""Run Pockyt's stand-in, the wallet server, the listener and a till together on this machine."""

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from listener.commands.terminal import say, say_styled
from listener.origin import PORT_MAX

if TYPE_CHECKING:
    from listener.commands.tutorial import StepLog
    from listener.settings import Settings

PORT: Final = 8080
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A running listener, and keys as text: for the tutorial's till, another till, an admin.

    A till's key serves one program at a time, so the person's till has its own.
    """

    url: str
    tutorial_key: str
    till_key: str
    admin_key: str


@click.command()
@click.option("--once", is_flag=True, help="Exit after the tutorial, with 0 if all went well.")
@click.option(
    "--port",
    type=click.IntRange(0, PORT_MAX),
    help=f"Port of the listener; by default {PORT} if it is free, or any free one.",
)
def demo(once: bool, port: int | None) -> None:
    """Play Pockyt's "Cancel API" tutorial on this machine.

    A stand-in Pockyt and wallet server, the listener with a fresh ledger, and a till talk over
    HTTP and websockets, as they would for a shop. It needs no settings and no network. Without
    --once it goes on serving: open the dashboard, sell and cancel on the till page.

    \b
    Examples:
        listener demo
        listener demo --once
        listener demo --port 9000
    """
    with tempfile.TemporaryDirectory(prefix="listener-demo-") as directory:
        asyncio.run(_demo(port, Path(directory), once=once))


async def _demo(port: int | None, directory: Path, *, once: bool) -> None:
    from listener.commands.tutorial import StepLog, play

    began = time.monotonic()
    seen = StepLog()

    def say_step(step: int, at: float, text: str) -> None:
        say_styled([(f"{step:>3}", "bold"), (f"+{at - began:.3f} s", "dim"), (text, "")])

    say('The "Cancel API" tutorial, over HTTP and websockets on this machine:')
    async with _stage(port, directory, seen=seen, once=once) as stage:
        entries = await play(stage.url, key=stage.tutorial_key, seen=seen, say=say_step)
        say(f"Done in {time.monotonic() - began:.3f} s; the ledger holds {entries} entries of it.")
        if not once:
            await _go_on(stage)


async def _go_on(stage: _Stage) -> None:
    """Go on serving, and show what tills are told, until the person stops it."""
    from listener.commands.tail import say_event
    from listener.pos.client import Follower
    from listener.stopping import told_to_stop

    async def follow() -> None:
        # From the earliest event on, so that the events of the tutorial's till are shown as well.
        async with Follower(
            stage.url, key=stage.admin_key, streams="*", start="earliest", acks=False
        ) as follower:
            async for event in follower:
                say_event(event)

    with told_to_stop() as told:
        _say_where(stage)
        following = asyncio.create_task(follow())
        # If the reader of stdout goes away, this ends as with Ctrl-C.
        following.add_done_callback(lambda _task: told.set())
        try:
            await told.wait()
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError, BrokenPipeError):
                await following


def _say_where(stage: _Stage) -> None:
    for text in (
        "",
        f"Dashboard  {stage.url}/",
        f"   its key {stage.admin_key}",
        f"Till       {stage.url}/till",
        f"   its key {stage.till_key}",
        "",
        "What tills are told appears here. Ctrl-C stops it, and nothing of it is kept.",
    ):
        say(text)


@asynccontextmanager
async def _stage(
    port: int | None, directory: Path, *, seen: "StepLog", once: bool
) -> AsyncIterator[_Stage]:
    """Run everything that the tutorial needs, except the till.

    Raises:
        OSError: The port is taken.
    """
    from listener.sandbox.servers import Sandbox, SandboxSettings
    from listener.web.app import running

    async with AsyncExitStack() as stack:
        # Pockyt must know the listener's address, and the listener Pockyt's. So the port is
        # reserved first, given to Pockyt, and released just before the listener binds it.
        with _hold(port, once=once) as held:
            url = f"http://{LOOPBACK}:{held.getsockname()[1]}"
            notify_url = f"{url}/notify/{{merchantNo}}/{{storeNo}}"
            sandbox = await stack.enter_async_context(
                Sandbox.start(SandboxSettings(notify_url=notify_url), on_step=seen)
            )
        settings = _settings(url, sandbox.url, directory / "ledger.db")
        tutorial_key, till_key, admin_key = _make_keys(settings)
        service = await stack.enter_async_context(running(settings))
        yield _Stage(
            url=service.url, tutorial_key=tutorial_key, till_key=till_key, admin_key=admin_key
        )


def _hold(port: int | None, *, once: bool) -> socket.socket:
    """Bind a port without listening on it."""
    if port is None and not once:
        with suppress(OSError):
            return _bind(PORT)
    return _bind(port or 0)


def _bind(port: int) -> socket.socket:
    held = socket.socket()
    try:
        if os.name == "posix":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((LOOPBACK, port))
    except OSError as error:
        held.close()
        raise OSError(error.errno, f"port {port}: {error.strerror}") from error
    return held


def _settings(url: str, pockyt_url: str, ledger: Path) -> "Settings":
    from urllib.parse import urlsplit

    from listener.sandbox.servers import SAMPLE_MERCHANT_NO, SAMPLE_STORES, SAMPLE_TOKEN
    from listener.settings import Settings

    merchant = {"tokens": [SAMPLE_TOKEN], "stores": SAMPLE_STORES}
    return Settings.model_validate(
        {
            "host": LOOPBACK,
            "port": urlsplit(url).port,
            "database": f"sqlite:///{ledger}",
            "public_url": url,
            "pockyt": {"url": pockyt_url},
            "merchants": {SAMPLE_MERCHANT_NO: merchant},
        }
    )


def _make_keys(settings: "Settings") -> tuple[str, str, str]:
    """Make the keys as ``listener keys create`` does; return their texts."""
    from listener.commands.keys import make_key
    from listener.commands.tutorial import STORE_NO, TILL
    from listener.keys import Role
    from listener.sandbox.servers import SAMPLE_MERCHANT_NO

    def till(name: str) -> str:
        _, text = make_key(
            settings,
            role=Role.POS,
            merchant_no=SAMPLE_MERCHANT_NO,
            store_no=STORE_NO,
            terminal=name,
        )
        return text

    _, admin = make_key(settings, role=Role.ADMIN)
    return till(TILL), till("T-1"), admin
