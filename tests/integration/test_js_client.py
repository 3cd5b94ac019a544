"""The JavaScript POS client, tested by Node's own test runner."""

import re
import subprocess
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "clients" / "js"
RUN_SECONDS = 100


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=CLIENT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )


def test_the_javascript_client_does_all_that_its_tests_say(node: str) -> None:
    done = run(node, "--experimental-websocket", "--test", "--test-reporter=tap")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"^# fail 0$", done.stdout, re.MULTILINE), done.stdout[-2000:]
    # Without WebSocket most of them would be skipped.
    assert re.search(r"^# skipped 0$", done.stdout, re.MULTILINE), done.stdout[-2000:]


def test_the_javascript_client_goes_without_websocket(node: str) -> None:
    done = run(node, "--test", "--test-reporter=tap", "--test-name-pattern=missing|long-poll")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_the_module_imports_nothing_so_that_the_listener_can_serve_it() -> None:
    source = (CLIENT / "pos-client.js").read_text()
    assert not re.search(r"^\s*import\b|\bimport\(|\brequire\(|node:", source, re.MULTILINE)


def test_the_types_name_all_that_the_module_exports() -> None:
    pattern = re.compile(
        r"^export (?:declare )?(?:async )?(?:const|class|function) (\w+)", re.MULTILINE
    )
    exported = set(pattern.findall((CLIENT / "pos-client.js").read_text()))
    declared = set(pattern.findall((CLIENT / "pos-client.d.ts").read_text()))
    assert exported == declared
