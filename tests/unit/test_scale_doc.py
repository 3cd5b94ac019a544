"""docs/scale.md says what the simulation of cells says, and names tests and files that exist."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "bench").is_dir():
    pytest.skip("a source distribution comes without the bench", allow_module_level=True)
cells = importlib.import_module("bench.cells")
DOC = (ROOT / "docs" / "scale.md").read_text()


def test_the_table_of_cells_is_what_the_simulation_says() -> None:
    rows = [line for line in cells.table() if line.startswith("| by")]
    assert len(rows) == 2
    for row in rows:
        name, *figures = [part.strip() for part in row.strip("| ").split(" | ")]
        (told,) = re.findall(rf"^\| {name}[^|]*\|(.*)\|$", DOC, re.MULTILINE)
        assert [part.strip() for part in told.split("|")] == figures
    share = cells.loads()[0]
    assert f"{100 * share:.1f} % of all" in DOC
    assert f"{1 / share:.1f} cells" in DOC


def test_a_merchant_is_never_cut_in_two() -> None:
    shares = cells.loads()
    for way in (cells.by_hash, cells.by_map):
        assert max(way(shares, 100)) >= shares[0]
        assert round(sum(way(shares, 8)), 9) == 1


def test_every_test_and_page_that_is_named_exists() -> None:
    tests = re.findall(r"`(tests/[\w/.]+)`", DOC)
    assert tests
    pages = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", DOC) if "//" not in link]
    assert all((ROOT / path).exists() for path in tests)
    assert all((ROOT / "docs" / path).exists() for path in pages)
