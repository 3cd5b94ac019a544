"""Whoever sends what, the fast path changes nothing but the time that it takes."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from listener.web import fast_path
from listener.web.acknowledgement import success
from tests.property.paths import compare, main

CONNECTIONS = 500


@pytest.fixture(name="taken")
def _taken() -> Iterator[list[bytes]]:
    """What the fast path acknowledged."""
    taken: list[bytes] = []

    def counted() -> bytes:
        taken.append(success())
        return taken[-1]

    with patch.object(fast_path, "success", counted):
        yield taken


async def test_mutated_requests_are_answered_alike_with_and_without_the_fast_path(
    tmp_path: Path, taken: list[bytes]
) -> None:
    happened = await compare(range(1, CONNECTIONS + 1), directory=tmp_path)
    assert happened["requests"] > CONNECTIONS
    # What is never taken, or always, shows nothing.
    assert happened["acknowledged"] > len(taken) > CONNECTIONS / 10
    assert happened["refused"] > CONNECTIONS / 20
    assert happened["closed"] > CONNECTIONS / 20


async def test_a_fast_path_that_answers_differently_is_found(tmp_path: Path) -> None:
    with (
        patch.object(fast_path, "success", lambda: b"HTTP/1.1 200 OK\r\n\r\nsuccess"),
        pytest.raises(AssertionError, match="seed"),
    ):
        await compare(range(1, 33), directory=tmp_path)


def test_the_command_says_what_happened() -> None:
    result = CliRunner().invoke(main, ["--requests", "20", "--at-once", "32"])
    assert result.exit_code == 0
    assert "alike: " in result.output
