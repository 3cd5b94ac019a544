"""Every guide, followed literally: each block in order, with the real programs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from listener.sandbox.servers import SAMPLE_TOKEN
from tests.support import needs
from tests.support.guides import GUIDES, Block, Reader, check_json, matches, read_guide, reader
from tests.support.ports import free_port

PAGES = Path(__file__).parents[2] / "listener" / "web" / "static"
FIRST = GUIDES / "register-the-notify-url.md"
# As one leads to the next.
IN_ORDER = (
    FIRST.stem,
    "connect-a-till",
    "start-and-cancel",
    "query-the-ledger",
    "what-to-do-on-a-conflict",
)
ALL = sorted(GUIDES.glob("*.md"))
OTHERS = [path for path in ALL if path != FIRST]


def _filled_in() -> Mapping[str, str]:
    """Return what a reader puts in for our words: his token, his addresses."""
    port, sandbox_port = str(free_port()), str(free_port())
    return {
        "<API token>": SAMPLE_TOKEN,
        "https://pos.example.com": f"http://127.0.0.1:{port}",
        "8080": port,
        "8090": sandbox_port,
    }


def _need_programs(path: Path) -> None:
    for name, package in (("curl", "curl"), ("node", "nodejs")):
        if any(f"$ {name} " in block.text for block in read_guide(path)):
            needs.program(name, package=package)


@pytest.fixture
def a_reader(tmp_path: Path) -> Iterator[Reader]:
    with reader(tmp_path, filled_in=_filled_in()) as found:
        yield found


def _is_set_up(block: Block) -> bool:
    """Return whether a block is what the other guides take for granted: a listener that runs."""
    return block.file is not None or block.mark == "goes on"


# The first one is followed on its own where all are, before the others.
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_every_guide_does_as_it_says(path: Path, a_reader: Reader) -> None:
    _need_programs(path)
    a_reader.follow(FIRST, only=_is_set_up)
    a_reader.follow(path)


def test_the_guides_work_one_after_the_other_on_one_ledger(a_reader: Reader) -> None:
    assert {path.stem for path in ALL} == set(IN_ORDER)
    assert IN_ORDER[0] == FIRST.stem
    for name in IN_ORDER:
        _need_programs(GUIDES / f"{name}.md")
        a_reader.follow(GUIDES / f"{name}.md")


def test_every_block_of_a_guide_is_run_or_says_why_not() -> None:
    for path in ALL:
        blocks = [block for block in read_guide(path) if block.mark != "Ctrl-C"]
        assert any(block.language == "console" for block in blocks), path
        for block in blocks:
            is_known = block.language in ("console", "json", "text") or block.file is not None
            assert is_known or not block.is_run, block.where


def test_the_cards_that_a_manager_looks_for_are_those_of_the_dashboard() -> None:
    shown = (PAGES / "attention.js").read_text() + (PAGES / "statuses.js").read_text()
    named = re.findall(
        r"\*\*([A-Z][^*]+?)\*\*", (GUIDES / "what-to-do-on-a-conflict.md").read_text()
    )
    cards = [name for name in named if name not in ("Ask Pockyt now", "Decide …")]
    assert len(cards) == 6
    assert all(f"title: '{card}'" in shown or f"word: '{card}'" in shown for card in cards)


@pytest.mark.parametrize(
    ("told", "shown", "fits"),
    [
        ("one\ttwo\n", "one   two", True),
        ("one\n", "two", False),
        ("one\ntwo\n", "one", False),
        ("zero\none\ntwo\n", "…\none\n…", True),
        ("at 2026-01-02T03:04:05.678Z", "at 2025-11-23T10:11:12.345Z", True),
        ("at some time", "at 2025-11-23T10:11:12.345Z", False),
        ("key 3f2a, shown", "key …, shown", True),
        ("key 3f2a, hidden", "key …, shown", False),
        ("whatever it says", "", True),
    ],
)
def test_shown_output_is_compared_with_the_real_output(told: str, shown: str, fits: bool) -> None:
    assert matches(told, shown) is fits


@pytest.mark.parametrize(
    ("told", "shown", "fits"),
    [
        ('{"a": 1, "b": 2}', '{"a": 1, "…": "…"}', True),
        ('{"a": 1, "b": 2}', '{"a": 1}', False),
        ('{"a": 1}', '{"a": 1, "b": "…"}', False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": [1, 2]}', '{"a": [1, "…"]}', True),
        ('{"a": [1, 2]}', '{"a": [1]}', False),
        ('{"a": [1]}', '{"a": [1, 2]}', False),
        ('{"a": "lk_12"}', '{"a": "lk_…"}', True),
        ('{"a": null}', '{"a": "…"}', True),
        ('{"a": null}', '{"a": "x…"}', False),
    ],
)
def test_an_answer_is_compared(told: str, shown: str, fits: bool) -> None:
    if fits:
        check_json(told, shown, where="here")
        return
    with pytest.raises(AssertionError, match="here"):
        check_json(told, shown, where="here")
