"""The locks pin by version and hash, and name no place to get anything from."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-dev.lock", "bench/requirements.lock"]


def test_the_lock_of_the_javascript_tools_pins_each_by_hash_and_holds_no_address() -> None:
    text = (ROOT / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert "://" not in text
    loose = [name for name, lock in packages.items() if name and "integrity" not in lock]
    assert loose == []


def test_the_javascript_tools_are_pinned_exactly() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    assert [name for name, version in wanted.items() if not re.fullmatch(r"[\d.]+", version)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_python_lock_pins_each_by_hash_and_holds_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert [line for line in pinned if "==" not in line] == []
    assert text.count("--hash=sha256:") >= len(pinned) > 0
