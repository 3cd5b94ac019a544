"""What every test needs, or tests of several kinds; fixtures for one kind live beside it."""

import logging
import signal
from collections.abc import Iterator

import pytest

from tests.support import needs


def pytest_configure() -> None:
    """Let the commands that tests start be interrupted, whatever started the tests.

    A shell that starts a program in the background has it, and all that it starts, ignore SIGINT.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    """Undo the logging that a command set up here: its stream ends with its test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def node() -> str:
    """Find Node, for the JavaScript client."""
    return needs.program("node", package="nodejs")
