"""One Chromium and one listener for all tests of a module: both take a while to start."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.stage import Stage, running_stage
from tests.browser.visit import chromium


# Of a module: while Playwright runs, it holds the thread's event loop, and others need theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def stage(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    del browser  # Where it is missing, there is nothing to start.
    with running_stage(tmp_path_factory.mktemp("stage")) as running:
        yield running
