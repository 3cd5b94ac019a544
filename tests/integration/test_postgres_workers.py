"""Several workers on one port: one service, watched and drained together."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from listener.commands import workers
from listener.commands.keys import make_key
from listener.keys import Role
from listener.settings import load
from tests.support.commands import here, started
from tests.support.databases import run
from tests.support.ports import free_port

SETTINGS = """
port = {port}
database = "{url}"
[merchants.200043]
tokens = ["5cbfb079f15b150122261c8537086d77a"]
stores = ["303660"]
"""
DEADLINE_SECONDS = 30.0


def nodes(url: str) -> int:
    count: int = run(url, lambda db: db.fetchval("SELECT count(*) FROM nodes"))
    return count


def wait_for_nodes(url: str, count: int) -> None:
    ends_at = time.monotonic() + DEADLINE_SECONDS
    while nodes(url) != count:
        assert time.monotonic() < ends_at
        time.sleep(0.2)


def test_workers_share_a_port_and_one_that_dies_is_started_again(tmp_path: Path, url: str) -> None:
    port = free_port()
    config = tmp_path / "listener.toml"
    config.write_text(SETTINGS.format(port=port, url=url))
    with started("serve", "--config", config, "--workers", "2") as service:
        first = service.until(service.err, "worker_started")
        for _ in range(2):
            service.until(service.err, " serving ")
        wait_for_nodes(url, 2)
        for _ in range(8):
            with urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
                assert json.load(answer) == {"status": "ready"}
        os.kill(int(first.rpartition("pid=")[2]), signal.SIGKILL)
        service.until(service.err, "worker_ended")
        service.until(service.err, " serving ")
        assert service.stop() == 0
    # Both that lived have signed off; the one that was killed is forgotten by its lease.
    assert nodes(url) == 1


def test_workers_that_cannot_start_end_the_service(tmp_path: Path) -> None:
    config = tmp_path / "listener.toml"
    nobody = "postgresql://me@127.0.0.1:1/none"
    config.write_text(SETTINGS.format(port=free_port(), url=nobody))
    with started("serve", "--config", config, "--workers", "2") as service:
        assert service.process.wait(DEADLINE_SECONDS) == 1
        said = service.left(service.err)
    assert sum("worker_started" in line for line in said) <= 4
    assert any("127.0.0.1:1" in line for line in said)


def test_workers_are_this_program_whatever_lies_in_the_folder_that_they_are_started_from(
    tmp_path: Path,
) -> None:
    config = tmp_path / "listener.toml"
    nobody = "postgresql://me@127.0.0.1:1/none"
    config.write_text(SETTINGS.format(port=free_port(), url=nobody))
    (tmp_path / "listener.py").write_text("raise SystemExit('another program')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "listener", "serve", "--config", config, "--workers", "2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(workers.__file__).parents[2])},
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 1
    assert "another program" not in done.stderr
    assert "127.0.0.1:1" in done.stderr


# Lives until it is stopped, but for the third of its kind.
TWO_OF_THREE = """
import os, signal, sys
for place in range(2):
    try:
        os.close(os.open(sys.argv[1] + str(place), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        continue
    signal.pause()
sys.exit(1)
"""


def test_a_worker_that_cannot_start_does_not_end_those_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RESTART_SECONDS", 0.2)
    config = tmp_path / "listener.toml"
    config.write_text(SETTINGS.format(port=free_port(), url="postgresql://me@127.0.0.1:1/none"))
    service = workers.Workers(load(config, {}), (), count=3)
    service._command = [sys.executable, "-c", TWO_OF_THREE, str(tmp_path / "place")]
    monkeypatch.setattr(workers, "stop_signals", tuple)
    seen: list[int] = []

    def look() -> None:
        seen.append(len(service._running))
        service._stopping = True

    # By then more than three have refused.
    timer = threading.Timer(2.5, look)
    timer.start()
    service.run()
    assert seen[0] >= 2


def test_the_workers_of_a_port_keep_their_counters_apart_and_each_tells_of_the_ledger(
    tmp_path: Path, url: str
) -> None:
    config = tmp_path / "listener.toml"
    config.write_text(SETTINGS.format(port=free_port(), url=url))
    key = make_key(load(config, {}), role=Role.ADMIN)[1]
    with started("serve", "--config", config, "--workers", "2") as service:
        lines = [service.until(service.err, " serving ") for _ in range(2)]
        wait_for_nodes(url, 2)
        address = re.search(r"url=(\S+)", lines[0])
        assert address
        request = Request(f"{address[1]}/metrics", headers={"Authorization": f"Bearer {key}"})
        told: set[str] = set()
        ends_at = time.monotonic() + DEADLINE_SECONDS
        # Each time the kernel chooses who answers.
        while len(told) < 2:
            assert time.monotonic() < ends_at
            with urlopen(request) as answer:
                text = answer.read().decode()
            told |= set(re.findall(r'^listener_events_total{node="(\w+)"}', text, re.MULTILINE))
            assert re.search(r"^listener_nodes 2\.0$", text, re.MULTILINE)
        assert service.stop() == 0


def test_a_file_has_one_worker(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "listener.toml"
    config.write_text(SETTINGS.format(port=0, url=f"sqlite:///{tmp_path}/ledger.db"))
    done = here(capsys, "serve", "--config", config, "--workers", "2")
    assert "needs a ledger on PostgreSQL" in done.complaint
