"""What every test needs, or tests of several kinds; fixtures for one kind live beside it."""

import logging
import os
import shutil
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    """Take back what a command set up in this process: its stream ends with its test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def node() -> str:
    """Find Node; without it a developer goes on, but CI does not."""
    found = shutil.which("node")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI tests the JavaScript client too: install Node 20 or later")
        pytest.skip("Node is not installed")
    return found
