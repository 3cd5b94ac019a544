"""Every guide, followed literally: each block in order, with the real programs."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from listener.sandbox.servers import SAMPLE_TOKEN
from tests.guides import GUIDES, Block, Reader, check_json, matches, read_guide, reader
from tests.shop import free_port

FIRST = GUIDES / "register-the-notify-url.md"
OTHERS = sorted(GUIDES.glob("*.md"), key=lambda path: path.name != FIRST.name)


def _filled_in() -> Mapping[str, str]:
    """What a reader has that is not ours: his token, his addresses."""
    port, sandbox_port = str(free_port()), str(free_port())
    return {
        "<API token>": SAMPLE_TOKEN,
        "https://pos.example.com": f"http://127.0.0.1:{port}",
        "8080": port,
        "8090": sandbox_port,
    }


@pytest.fixture
def a_reader(tmp_path: Path) -> Iterator[Reader]:
    with reader(tmp_path, filled_in=_filled_in()) as found:
        yield found


def _is_set_up(block: Block) -> bool:
    """Tell whether a block is what the other guides take for granted: a listener that runs."""
    return block.file is not None or block.mark == "goes on"


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_what_a_guide_says_is_what_happens(path: Path, a_reader: Reader) -> None:
    if path != FIRST:
        a_reader.follow(FIRST, only=_is_set_up)
    a_reader.follow(path)
