"""Fixtures of several integration tests."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.support.scripted import Scripted


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    app = web.Application()
    app.router.add_get("/v1/pos/stream", scripted.stream)
    app.router.add_get("/v1/pos/events", scripted.events)
    app.router.add_post("/v1/pos/acks", scripted.ack)
    app.router.add_get("/v1/transactions", scripted.transactions)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield scripted
    await runner.cleanup()
    assert not scripted.failures


@pytest.fixture
def blocked(server: Scripted) -> Scripted:
    """A listener behind something that lets no WebSocket through."""
    server.answers["upgrade"] = [web.Response(status=404)]
    return server
