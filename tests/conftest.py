"""What every test needs; fixtures for one kind of test live beside it."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    """Take back what a command set up in this process: its stream ends with its test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
