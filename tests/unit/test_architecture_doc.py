"""Whatever the architecture page names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
RULES = 12
TRAPS = 50


def test_every_rule_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \|.*$", PAGE, re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, RULES + 1))
    assert len(_named(PAGE)) >= RULES
    assert _named(PAGE) - _defined() == set()


def test_every_trap_of_postgresql_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "adr" / "0008-postgresql.md").read_text()
    assert len(_named(page)) >= TRAPS
    assert _named(page) - _defined() == set()


def _named(page: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", page))


def _defined() -> set[str]:
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return set(re.findall(r"def (test_\w+)\(", written))


def test_every_file_that_is_linked_exists() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    missing = [
        (page.name, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert missing == []
