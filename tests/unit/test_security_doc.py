"""SECURITY.md names tests that exist, and tells of everybody whom a founder would fear."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = [
    [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
    for line in (ROOT / "SECURITY.md").read_text().splitlines()
    if line.startswith("| ")
]
(HEAD, *ROWS) = TABLE
NAMED: Final = sorted(set(re.findall(r"`(test_\w+)`", "".join(row[4] for row in ROWS))))


def test_every_row_says_who_is_stopped_by_what_and_what_is_left() -> None:
    assert HEAD == ["who", "holds", "tries", "stopped by", "tests", "what is left"]
    for row in ROWS:
        assert len(row) == len(HEAD), row
        assert row[2], row
        assert row[3], row
        assert row[5], row


@pytest.mark.parametrize(
    "who",
    [
        "stranger",
        "captured a message",
        "holds a token",
        "another store or merchant",
        "till of our own",
        "key that leaked",
        "poses as Pockyt",
        "web page",
        "backup, an export, the log, a terminal",
        "wire",
        "neighbour",
    ],
)
def test_everybody_has_a_row(who: str) -> None:
    assert [row for row in ROWS if who in row[0]]


def test_every_test_that_is_named_exists() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(NAMED) > 40
    assert not [name for name in NAMED if name not in defined]


def test_it_says_how_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert "## Report a problem" in text
    assert "in private" in text
