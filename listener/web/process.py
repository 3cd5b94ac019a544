"""Run the service as a process: start it, and stop it when it is told to."""

import asyncio
import gc
import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Final

from listener import log
from listener.errors import StoppedEarlyError
from listener.settings import Settings
from listener.stopping import told_to_stop
from listener.web.app import Service, running
from listener.web.connections import raise_descriptor_limit
from listener.web.context import LEDGER, SESSIONS

# Python's own values are 700, 10, 10.
COLLECT_THRESHOLDS: Final = (5_000, 10, 50)

_LOG: Final = logging.getLogger(__name__)


async def serve(settings: Settings, *, shares_port: bool = False) -> None:
    """Run the service until it is told to stop.

    With ``shares_port``, other workers of the same service listen on the port too.

    Raises:
        LedgerError: The ledger cannot be opened.
        StoppedEarlyError: It was told to stop before it served.
        OSError: The port is taken.
    """
    raise_descriptor_limit()
    async with AsyncExitStack() as stack:
        stop = stack.enter_context(told_to_stop())
        starting = stack.enter_async_context(running(settings, shares_port=shares_port))
        service = await _unless(stop, starting)
        _calm_collector()
        log.event(_LOG, "serving", url=service.url, epoch=service.app[LEDGER].epoch)
        await stop.wait()
        log.event(_LOG, "stopping", sessions=service.app[SESSIONS].count)
    log.event(_LOG, "stopped")


async def _unless(stop: asyncio.Event, starting: Coroutine[None, None, Service]) -> Service:
    """Wait for a start, which may take as long as the ledger's server needs, until told to stop.

    Raises:
        StoppedEarlyError: It was told to stop first.
    """
    start, told = asyncio.ensure_future(starting), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({start, told}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            raise StoppedEarlyError
        return await start
    finally:
        for task in (start, told):
            task.cancel()
        await asyncio.gather(start, told, return_exceptions=True)


def _calm_collector() -> None:
    """Run the garbage collector less often: a notification leaves almost no cycles.

    Objects made at start are never freed, and no longer scanned. See docs/adr/0006.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_THRESHOLDS)
