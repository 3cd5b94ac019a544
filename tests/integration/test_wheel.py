"""The wheel works where no checkout is."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 120
SHIPPED = (
    "listener/py.typed",
    "listener/storage/sqlite/schema.sql",
    "listener/storage/postgres/schema.sql",
    "listener/storage/postgres/append_v1.sql",
    "listener/web/static/pos-client.js",
    "listener/web/reference/protocol.md",
)


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        check=False,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(name="wheel", scope="module")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into, cwd=ROOT)
    (wheel,) = into.glob("pockyt_listener-*.whl")
    return wheel


@pytest.mark.parametrize("name", SHIPPED)
def test_the_wheel_carries_what_is_not_python(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo(name).file_size == _source(name).stat().st_size


def _source(name: str) -> Path:
    elsewhere = {
        "listener/storage/sqlite/schema.sql": "schema.sql",
        "listener/storage/postgres/schema.sql": "schema-postgres.sql",
        "listener/web/static/pos-client.js": "clients/js/pos-client.js",
        "listener/web/reference/protocol.md": "docs/protocol.md",
    }
    return ROOT / elsewhere.get(name, name)


def test_an_installed_wheel_finds_its_schema(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-index", "--no-compile", "--target", target, wheel),
        cwd=tmp_path,
    )
    # -I keeps the checkout off the path; the dependencies come from this environment, and the
    # installation is put before an editable one.
    program = f"""
import sys
sys.path.insert(0, {str(target)!r})
import listener
assert listener.__file__.startswith({str(target)!r}), listener.__file__
from listener.storage.sqlite.schema import schema_text
assert "CREATE TABLE" in schema_text()
print("found")
"""
    assert run(sys.executable, "-I", "-c", program, cwd=tmp_path) == "found\n"
