"""One process that forks services, for all tests of a function's loop."""

from collections.abc import AsyncIterator

import pytest

from tests.fault.lives import Nursery, nursery


@pytest.fixture(name="nursery")
async def _nursery() -> AsyncIterator[Nursery]:
    async with nursery() as made:
        yield made
