"""Fixtures of several integration tests."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.support.scripted import Scripted, scripted_listener


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted_listener() as scripted:
        yield scripted


@pytest.fixture
def blocked(server: Scripted) -> Scripted:
    """A listener behind something that lets no WebSocket through."""
    server.answers["upgrade"] = [web.Response(status=404)]
    return server
