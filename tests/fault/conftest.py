"""One process that forks services, for all tests of a file: it takes a second to start."""

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from tests.fault.lives import Nursery, nursery


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Run the tests that share it in one loop, which reads what it says."""
    for item in items:
        if "nursery" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest_asyncio.fixture(name="nursery", scope="module", loop_scope="module")
async def _nursery() -> AsyncIterator[Nursery]:
    async with nursery() as made:
        yield made
