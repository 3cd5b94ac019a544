"""Connect the parts of the service, start it, and stop it without losing anything."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import aiohttp
from aiohttp import web

from listener.hub.hub import Hub
from listener.ingest import Ingest
from listener.lifecycle import Clock, Lifecycle, Limits
from listener.pockyt.client import PockytClient
from listener.pockyt.notification import BODY_BYTES_MAX
from listener.settings import Settings
from listener.storage import open_ledger
from listener.web.address import listen, node_url, url_of
from listener.web.api.health import READINESS, Readiness
from listener.web.api.idempotency import IDEMPOTENCY, Idempotency
from listener.web.connections import Connections
from listener.web.context import (
    CLOCK,
    HUB,
    INGEST,
    KEYS,
    LEDGER,
    LIFECYCLE,
    METRICS,
    REFUSALS,
    SESSIONS,
    SETTINGS,
    SHARES,
)
from listener.web.expect import expect
from listener.web.fast_path import FastConnection, FastPath
from listener.web.guard import answering, no_route
from listener.web.http_connection import HttpConnection
from listener.web.lobby import Lobby, Make, Size
from listener.web.metrics import Metrics
from listener.web.notify import RECEIVER, Receiver, loose_route
from listener.web.origins import add_cors
from listener.web.pages import FILES, Files
from listener.web.reference.catalogue import OPERATIONS
from listener.web.reference.operations import DESCRIBED
from listener.web.refusals import Refusals
from listener.web.shares import Shares
from listener.web.till.sessions import Sessions, SessionTiming
from listener.web.unread import unquoted

# How long a request may still take once the listener stops.
STOP_SECONDS: Final = 5.0
_PART: Final = re.compile(r"\{(\w+)\}")
# aiohttp's own limit is 100, and the first callers would take all of them.
POCKYT_CONNECTIONS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running listener; ``app`` holds its parts under the keys of ``web/context.py``."""

    url: str
    app: web.Application


def routes() -> list[web.RouteDef]:
    """List every route, in the order in which a newcomer would look for them."""
    return [operation.route() for operation in OPERATIONS]


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    timing: SessionTiming | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
    shares_port: bool = False,
) -> AsyncIterator[Service]:
    """Run the service for as long as the context lasts; every task ends with it.

    ``timing`` is for the POS connections, ``limits`` is for the calls to Pockyt.

    Raises:
        LedgerError: The ledger cannot be opened.
        OSError: The port is taken.
    """
    async with AsyncExitStack() as stack:
        clock, metrics = clock or Clock(), Metrics()
        # The port is bound first: a second listener fails here, before it touches the ledger.
        listening = stack.enter_context(listen(settings.host, settings.port, shared=shares_port))
        ledger = await open_ledger(
            settings.database,
            confirm=settings.confirm,
            clock=clock.now_ms,
            on_commit=metrics.observe_commit,
            on_time=clock.follow,
            node_url=node_url(listening),
        )
        stack.push_async_callback(ledger.close)
        # Before anything is recorded or due.
        await clock.resume(ledger)
        hub = Hub(ledger)
        hub.on_publish = metrics.published
        hub.on_read = metrics.event_reads.inc
        await hub.start()
        stack.push_async_callback(hub.close)
        session = await stack.enter_async_context(_pockyt_session())
        proxy = settings.pockyt.proxy
        pockyt = PockytClient(
            settings.pockyt.url,
            session=session,
            timeout_seconds=settings.pockyt.timeout_seconds,
            proxy=proxy.get_secret_value() if proxy else None,
        )

        lifecycle = Lifecycle(
            ledger=ledger,
            pockyt=pockyt,
            merchants=settings.merchants,
            public_url=settings.public_url,
            limits=limits,
            clock=clock,
            call_seconds=settings.pockyt.timeout_seconds,
        )
        lifecycle.on_call(metrics.called)

        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app[CLOCK] = clock
        app[SETTINGS] = settings
        app[SHARES] = Shares()
        app[LEDGER] = ledger
        app[KEYS] = ledger
        app[HUB] = hub
        app[INGEST] = ingest = Ingest(ledger=ledger, merchants=settings.merchants)
        app[LIFECYCLE] = lifecycle
        app[METRICS] = metrics
        app[REFUSALS] = refusals = Refusals(ingest=ingest, metrics=metrics)
        app[RECEIVER] = Receiver(ingest=ingest, metrics=metrics, refusals=refusals)
        app[READINESS] = Readiness(ledger)
        app[IDEMPOTENCY] = Idempotency()
        app[DESCRIBED] = OPERATIONS
        app[FILES] = Files()
        app[SESSIONS] = Sessions(
            keys=ledger,
            presence=ledger,
            timing=timing,
            on_close=metrics.closed,
            on_revoked=hub.wake,
            now_ms=clock.now_ms,
        )
        ledger.on_epoch(partial(_begin_epoch, app))
        await stack.enter_async_context(_answering(app, listening))
        yield Service(url=url_of(listening), app=app)


def _pattern(path: str) -> str:
    """Return aiohttp's pattern of a documented path.

    By default, aiohttp finds no route for a part with a brace, which a number or a reference may
    have. A reference may also have slashes (INV/2026/7), and some proxies turn each %2F into a
    slash.
    """
    path = path.replace("{reference}", "{reference:.+}")
    return _PART.sub(r"{\1:[^/]+}", path)


@asynccontextmanager
async def _answering(app: web.Application, listening: socket.socket) -> AsyncIterator[None]:
    """Answer on a socket while the tasks beside it run; at the end, tills are sent away."""
    unknown = web.route("*", "/{unknown:.*}", answering(no_route))
    app.add_routes(
        web.RouteDef(
            one.method, _pattern(one.path), one.handler, {**one.kwargs, "expect_handler": expect}
        )
        for one in (*routes(), *app[FILES].routes(), loose_route(), unknown)
    )
    app.on_response_prepare.append(add_cors)
    loop = asyncio.get_running_loop()
    connections = Connections(metrics=app[METRICS])
    path = FastPath(
        ingest=app[INGEST], ledger=app[LEDGER], metrics=app[METRICS], refusals=app[REFUSALS]
    )
    async with AsyncExitStack() as stack:
        for work in (app[SESSIONS].run(), app[LIFECYCLE].run(), connections.run()):
            await stack.enter_async_context(_beside(work))
        stack.enter_context(unquoted(connections.unread))
        runner = web.AppRunner(app, shutdown_timeout=STOP_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        routed = cast(web.Server, runner.server)
        handlers = web.Server(
            app[RECEIVER].before(routed.request_handler),  # type: ignore[arg-type]  # as aiohttp does
            request_factory=routed.request_factory,
        )
        server = web.ServerRunner(handlers, shutdown_timeout=STOP_SECONDS)
        await server.setup()
        stack.push_async_callback(server.cleanup)
        make: Make = partial(HttpConnection, handlers, connections, loop=loop)
        size: Size = _head_alone
        if app[SETTINGS].fast_path:
            make = partial(FastConnection, handlers, connections, path, loop=loop)
            size = path.size
        lobby = Lobby(listening, connections, make=make, size=size)
        stack.push_async_callback(lobby.close)
        # Before the clean-up: from then on aiohttp no longer notices who leaves or connects.
        stack.push_async_callback(_drain, app)
        yield


def _head_alone(_data: bytes, head_bytes: int) -> int:
    """Return the size of a request's head: aiohttp waits for its body."""
    return head_bytes


def _begin_epoch(app: web.Application) -> None:
    """Make every till begin again: the ledger lost entries that they have seen."""
    app[HUB].reset()
    app[SESSIONS].resync()


def _pockyt_session() -> aiohttp.ClientSession:
    """Open the connections to Pockyt: enough that no key's share waits for another's."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=POCKYT_CONNECTIONS_MAX))


async def _drain(app: web.Application) -> None:
    """Send the tills away, to come back to the next listener and resume."""
    app[SESSIONS].is_draining = True
    # Long-polls are answered now; the next listener will send what they were waiting for.
    await app[HUB].close()
    await app[SESSIONS].drain()


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run some work beside the context; at the end it is cancelled and awaited."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
