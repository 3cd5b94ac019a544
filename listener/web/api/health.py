"""Answer operators and load balancers: alive, ready, metrics."""

import asyncio
from collections.abc import Sequence
from typing import Final

import orjson
from aiohttp import hdrs, web

from listener.keys import Key
from listener.ledger.nodes import NodeState
from listener.ledger.promise import Ledger
from listener.web.context import CLOCK, LEDGER, LIFECYCLE, METRICS, SESSIONS
from listener.web.metrics import Metrics, choose_format
from listener.web.problem import draining
from listener.web.shapes.models import reply

# A cancellation that no till acknowledged for this long is shown and counted.
UNACKED_SECONDS: Final = 60.0
UNACKED_MAX: Final = 1_000


async def healthz(_request: web.Request) -> web.Response:
    """Answer that the process is alive."""
    return reply(orjson.dumps({"status": "alive"}))


class Readiness:
    """Whether notifications can be taken now: the ledger commits, and no restart is near.

    Anybody may ask, so all questions at the same time share one commit.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._check: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Return once the ledger has committed.

        Raises:
            LedgerUnavailableError: It cannot commit.
        """
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._ledger.check_writable())
        # A caller that goes away must not cancel the answer for the others.
        await asyncio.shield(self._check)


READINESS = web.AppKey("readiness", Readiness)


async def readyz(request: web.Request) -> web.Response:
    """Answer whether the listener is ready."""
    if request.app[SESSIONS].is_draining:
        raise draining()
    await request.app[READINESS].check()
    return reply(orjson.dumps({"status": "ready"}))


async def metrics(request: web.Request, _key: Key) -> web.Response:
    """Write the metrics for Prometheus, and for the dashboard's plot."""
    app = request.app
    ledger, found = app[LEDGER], app[METRICS]
    found.sessions.set(app[SESSIONS].count)
    found.pockyt_down.set(app[LIFECYCLE].is_pockyt_down)
    found.waiting.set(ledger.waiting)
    nodes = await ledger.nodes()
    here = next((node for node in nodes if node.is_here), None)
    if here is not None:
        found.lag.set(here.lag)
        found.clock_seconds.set(here.clock_ms / 1_000)
    with_ledger = _tells_of_ledger(nodes)
    if with_ledger:
        found.nodes.set(len(nodes) or 1)
        await _read_ledger(found, ledger, now_ms=app[CLOCK].now_ms())
    content_type = choose_format(request.headers.get(hdrs.ACCEPT, ""))
    text = found.text(
        node=here.id if here else None, with_ledger=with_ledger, content_type=content_type
    )
    return web.Response(body=text, headers={hdrs.CONTENT_TYPE: content_type})


def _tells_of_ledger(nodes: Sequence[NodeState]) -> bool:
    """Return whether this listener reports on the whole ledger, which all nodes see alike.

    Only the address of the oldest node does, so that a sum over all listeners counts nothing twice.
    Workers share an address, and each of them answers the same.
    """
    return not nodes or any(node.is_here and node.url == nodes[0].url for node in nodes)


async def _read_ledger(found: Metrics, ledger: Ledger, *, now_ms: int) -> None:
    """Read what is true of the whole ledger, whichever node is asked."""
    found.seq.set(await ledger.seq())
    found.doubt(await ledger.read_doubts(now_ms=now_ms))
    before_ms = now_ms - int(UNACKED_SECONDS * 1_000)
    unacked = await ledger.read_unacked(before_ms=before_ms, limit=UNACKED_MAX)
    found.unacked.set(len(unacked))
