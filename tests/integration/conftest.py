"""Fixtures of several integration tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.support import backends
from tests.support.backends import Backend
from tests.support.databases import database
from tests.support.scripted import Scripted, scripted_listener
from tests.support.service import Serving, serving
from tests.support.shop import Shop, open_shop


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted_listener() as scripted:
        yield scripted


@pytest.fixture
def blocked(server: Scripted) -> Scripted:
    """A listener behind something that lets no WebSocket through."""
    server.answers["upgrade"] = [web.Response(status=404)]
    return server


@pytest.fixture(params=backends.NAMES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Run a test on each back-end: what is promised here, every one of them keeps."""
    with backends.backend(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A service and the sandbox, with a till between them."""
    async with open_shop(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture
def url() -> Iterator[str]:
    """An empty database of PostgreSQL."""
    with database() as url:
        yield url


@pytest.fixture
async def one(url: str) -> AsyncIterator[Serving]:
    """A service on that database."""
    async with serving(Path(), database=url) as served:
        yield served


@pytest.fixture
async def other(url: str, one: Serving) -> AsyncIterator[Serving]:
    """Another service on the database of ``one``."""
    async with serving(Path(), database=url) as served:
        assert served.url != one.url
        yield served
