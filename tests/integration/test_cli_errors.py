"""The command line as a whole: help that is quick and teaches, errors of one line."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from listener.cli import program
from tests.support.commands import (
    DEADLINE_SECONDS,
    PROGRAM,
    environment,
    here,
    run,
    started,
    without,
    write_settings,
)

# Nothing answers there, and nobody waits for it.
NO_POCKYT = '[pockyt]\nurl = "http://127.0.0.1:9"'

READ_SETTINGS = (
    *(["serve"], ["keys", "list"], ["check"], ["verify"], ["rebuild"], ["export"]),
    ["backup", "x"],
)


def commands(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        inside = commands(command, *path, name) if isinstance(command, click.Group) else []
        found += inside or [(*path, name)]
    return found


@pytest.mark.parametrize("path", commands(program), ids=" ".join)
def test_every_command_teaches_by_example(
    capsys: pytest.CaptureFixture[str], path: tuple[str, ...]
) -> None:
    done = here(capsys, *path, "--help")
    assert done.status == 0
    assert f"listener {' '.join(path)}" in done.out.partition("Example")[2]
    assert max(len(line) for line in done.out.splitlines()) <= 100


def test_the_help_lists_every_command_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    done = here(capsys, "-h")
    assert not [line for line in done.out.splitlines()[1:] if line.endswith("...")]
    for name in program.commands:
        assert f"\n  {name} " in done.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom listener.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'aiohttp', 'aiosqlite', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=30
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").out.startswith("listener, version 0.")


def test_no_command_is_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    done = here(capsys)
    assert done.status == 2
    assert "Commands:" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["srve"], "No such command 'srve'"),
        (["--what"], "No such option '--what'"),
        (["keys", "make"], "No such command 'make'"),
        (["tail"], "Missing option '--url'"),
        (["backup"], "Missing argument 'DEST'"),
        (["export", "--format", "xml"], "'xml' is not one of 'ndjson', 'csv'"),
    ],
)
def test_a_wrong_command_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    done = here(capsys, *arguments)
    assert done.status == 2
    assert complaint in done.complaint
    assert "--help)" in done.complaint


@pytest.mark.parametrize("command", READ_SETTINGS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot be read (No such file or directory)"),
        ('prot = 8080\n[merchants.1]\ntokens = ["t"]', 'unknown setting "prot"'),
        ("port = 8080", "no merchant is configured"),
        ("port = ", "is not TOML"),
        (f"port = {'9' * 5_000}", "thousands of digits"),
        (
            'port = 0\ndatabase = "postgresql://me:secret@[::1/n"\n[merchants.1]\ntokens = ["t"]',
            "a [ without its ]",
        ),
        (
            'port = 0\ndatabase = "postgresql://me:secret@db/"\n[merchants.1]\ntokens = ["t"]',
            "in /NAME",
        ),
        (
            'port = 0\ndatabase = "sqlite:///:memory:"\n[merchants.1]\ntokens = ["t"]',
            "the ledger is a file on disk",
        ),
    ],
    ids=[
        *("missing", "misspelt", "no-merchant", "no-toml", "many-digits"),
        *("bracket", "postgresql", "in-memory"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: list[str],
    text: str | None,
    complaint: str,
) -> None:
    config = tmp_path / "listener.toml"
    if text is not None:
        config.write_text(text)
    done = here(capsys, command[0], *command[1:], "--config", config)
    assert done.status == 1
    assert complaint in done.complaint
    assert "secret" not in done.err
    assert done.out == ""


def test_settings_may_come_from_the_environment_alone(tmp_path: Path) -> None:
    env = {
        "LISTENER_DATABASE": f"sqlite:///{tmp_path}/ledger.db",
        "LISTENER_MERCHANTS": json.dumps({"7": {"tokens": ["t"]}}),
    }
    made = json.loads(run("keys", "create", "--role", "admin", "--json", env=env).out)
    found = json.loads(run("keys", "list", "--json", env=env).out)
    assert [key["id"] for key in found] == [made["id"]]


@pytest.mark.parametrize(
    "command",
    [
        *(["export"], ["export", "--format", "csv"], ["keys", "list"], ["keys", "list", "--json"]),
        *(["check"], ["check", "--json"], ["verify"], ["verify", "--json"]),
    ],
    ids=" ".join,
)
def test_a_command_whose_stdout_is_closed_is_one_line(tmp_path: Path, command: list[str]) -> None:
    config = write_settings(tmp_path, more=NO_POCKYT)
    assert run("keys", "create", "--config", config, "--role", "admin").status == 0
    done = without("stdout", *command, "--config", config)
    # An export of nothing in NDJSON has nothing to write.
    if command == ["export"]:
        assert (done.status, done.err) == (0, "0 entries\n")
        return
    assert done.status == 1
    assert done.complaint.startswith("stdout is closed")


@pytest.mark.parametrize("command", ["export", "verify", "check"])
def test_a_command_whose_stderr_is_closed_does_its_work(tmp_path: Path, command: str) -> None:
    config = write_settings(tmp_path, more=NO_POCKYT)
    assert run("keys", "create", "--config", config, "--role", "admin").status == 0
    done = without("stderr", command, "--config", config)
    assert (done.status, done.err) == (0, "")


def test_a_service_needs_no_standard_streams(tmp_path: Path) -> None:
    config = write_settings(tmp_path)
    shell = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *PROGRAM, "serve", "--config", str(config)]
    with started(program=shell, reads=False) as program:
        program.until(program.err, "serving")
        assert isinstance(program.process, subprocess.Popen)
        # Nothing of the ledger has the number of a standard stream.
        folder = Path(f"/proc/{program.process.pid}/fd")
        assert {str((folder / name).readlink()) for name in "01"} == {"/dev/null"}
        assert program.stop() == 0
    assert run("verify", "--config", config).status == 0


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "--config", write_settings(tmp_path), env={"LISTENER_PORT": port})
    assert done.status == 1
    assert "Address already in use" in done.complaint
    assert done.complaint.endswith(": choose another host or port")
    assert port in done.complaint


def test_a_ledger_that_another_listener_serves_is_one_line(tmp_path: Path) -> None:
    config = write_settings(tmp_path)
    with started("serve", "--config", config) as serving:
        serving.until(serving.err, " serving ")
        done = run("serve", "--config", config)
        assert done.status == 1
        assert "another listener is serving" in done.complaint
        assert serving.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_serve_prints_its_address_once_and_stops_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    config = write_settings(tmp_path)
    with started("serve", "--config", config) as serving:
        line = serving.until(serving.err, " serving ")
        assert " url=http://127.0.0.1:" in line
        assert serving.stop(number) == 0
        serving.until(serving.err, " stopped")
        assert serving.left(serving.out) == []


def test_an_interrupted_command_leaves_with_130() -> None:
    url = "ws://127.0.0.1:1"
    with started("tail", "--url", url, "--key", "k") as tailing:
        tailing.until(tailing.err, "connecting")
        assert tailing.stop(signal.SIGINT) == 130
        assert tailing.process.wait(DEADLINE_SECONDS) == 130
        assert not [line for line in tailing.left(tailing.err) if "Traceback" in line]


def test_the_variable_that_names_the_file_may_be_in_quotes(tmp_path: Path) -> None:
    path = write_settings(tmp_path, more=NO_POCKYT)
    for text in (f'"{path}"', f" '{path}' ", str(path)):
        done = run("keys", "list", env={"LISTENER_CONFIG": text})
        assert done.complaint.startswith(f"there is no ledger at {tmp_path}")
    done = run("keys", "list", "--config", path, env={"LISTENER_CONFIG": "nothing"})
    assert done.complaint.startswith(f"there is no ledger at {tmp_path}")
    # An empty one names no file.
    assert "merchant" in run("keys", "list", env={"LISTENER_CONFIG": '""'}).complaint


@pytest.mark.parametrize("command", ["serve", "keys", "check", "verify"])
def test_a_name_that_the_systems_encoding_cannot_write_is_one_line(
    tmp_path: Path, command: str
) -> None:
    path = write_settings(tmp_path, more=NO_POCKYT)
    path.write_text(path.read_text().replace("ledger.db", "l\u00e4dger.db"), encoding="utf-8")
    arguments = [command, *(["list"] if command == "keys" else []), "--config", str(path)]
    done = subprocess.run(
        [*PROGRAM, *arguments],
        env={**environment(), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "set LC_ALL=C.UTF-8" in done.stderr + done.stdout
    if command != "check":
        assert len(done.stderr.splitlines()) == 1
