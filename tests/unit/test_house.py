"""The files beside the code agree with it, and with each other."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import listener
from tests.support import needs

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
REGISTRIES: Final = re.compile(r"pypi|pythonhosted|npmjs|deb\.debian")


def test_the_changelog_begins_with_this_version_and_its_day() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert re.fullmatch(rf"{re.escape(listener.__version__)} - \d{{4}}-\d\d-\d\d", released[0])


def test_the_first_look_installs_what_runs_and_no_tools(tmp_path: Path) -> None:
    make = needs.program("make")
    command = [make, "--no-print-directory", "--dry-run", "run", f"VENV={tmp_path}/venv"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert "--requirement requirements.lock" in told
    assert "requirements-dev.lock" not in told
    assert told.rstrip().endswith("/venv/bin/listener demo"), told


def test_every_dependency_is_in_every_lock() -> None:
    wanted = {re.split(r"[>=<\[]", one)[0] for one in PROJECT["project"]["dependencies"]}
    for lock in ("requirements.lock", "requirements-dev.lock", "bench/requirements.lock"):
        pinned = set(
            re.findall(r"^([\w.-]+)(?:\[\w+\])?==", (ROOT / lock).read_text(), re.MULTILINE)
        )
        assert wanted <= pinned, lock


def test_the_workflow_and_the_hook_call_what_everybody_calls() -> None:
    workflow = (ROOT / ".github" / "workflows" / "check.yml").read_text()
    assert "bash .ci/run" in workflow
    hook = (ROOT / ".pre-commit-config.yaml").read_text()
    assert "entry: make lint" in hook
    assert re.findall(r"repo: (\S+)", hook) == ["local"]
    assert not REGISTRIES.search(workflow + hook)


def test_the_pythons_of_the_classifiers_are_those_that_the_pages_name() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert (
        f"Python {', '.join(named[:-1])} and {named[-1]}" in (ROOT / "tests/README.md").read_text()
    )
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


def test_contributing_shows_five_pairs_of_plain_english() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("| before | after |") : text.index("## The rules that")]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", table, re.MULTILINE)[1:]
    assert len(rows) == 5
    sources = [*(ROOT / "listener").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    written = " ".join(" ".join(path.read_text().split()) for path in sources)
    for before, after in rows:
        assert before.strip("`") not in written.replace(after.strip("`"), "")
        assert after.strip("`.") in written, after


def test_a_room_that_has_a_map_names_every_module_in_it() -> None:
    for room in ("ledger", "lifecycle", "storage/postgres", "storage/sqlite", "web/till"):
        folder = ROOT / "listener" / room
        modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        listed = "\n".join(
            re.findall(r"^- .*(?:\n  .*)*", (folder / "__init__.py").read_text(), re.M)
        )
        assert set(re.findall(r"``(\w+)``", listed)) == modules, room
