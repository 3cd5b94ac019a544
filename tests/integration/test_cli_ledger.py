"""`verify`, `backup` and `check`: a ledger looked after from the command line."""

import asyncio
import json
import signal
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from listener.commands import check
from listener.ledger.model import Fact, Kind, Status
from listener.ledger.results import Head
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from tests.support.commands import (
    DEADLINE_SECONDS,
    before_a_person,
    here,
    run,
    started,
    write_settings,
)
from tests.support.ports import free_port

# To copy it takes a moment.
LARGE_BYTES: Final = 200 * 1024**2


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_settings(tmp_path, more=f'pockyt.url = "http://127.0.0.1:{free_port()}"')


def sized(ledger: Path, size: int) -> None:
    """Make a ledger of so many bytes."""
    with closing(connect(ledger, create=True)) as db:
        db.execute(
            "INSERT INTO keys (id, hash, role, created_at) VALUES ('k', ?, 'pos', 0)", ("k" * size,)
        )


def ledger_of(config: Path) -> Path:
    return config.with_name("ledger.db")


async def fill(config: Path, count: int = 3) -> Head:
    """Record notifications; return the end of the ledger."""
    async with await SqliteLedger.open(ledger_of(config)) as ledger:
        for number in range(1, count + 1):
            await ledger.record(
                Fact(
                    kind=Kind.NOTIFICATION,
                    merchant_no="200043",
                    store_no="303660",
                    transaction_no=f"{number}",
                    provider_status="closed",
                    says=Status.CANCELLED,
                    fingerprint=f"f{number}",
                )
            )
        return await ledger.head()


def forge(config: Path, statement: str) -> None:
    """Change a ledger past its triggers, as somebody who has the file can."""
    db = sqlite3.connect(ledger_of(config), isolation_level=None)
    db.execute("DROP TRIGGER entries_refuse_update")
    db.execute(statement)
    db.close()


async def test_verify_tells_what_a_sound_ledger_holds(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = await fill(config)
    done = here(capsys, "verify", "--config", config)
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "The ledger is sound: 3 entries, 3 events, 3 transactions.\n"
        f"epoch {head.epoch}  seq 3  hash {head.hash}\n"
    )
    told = json.loads(here(capsys, "verify", "--config", config, "--json").out)
    assert told == {
        "ok": True,
        "epoch": head.epoch,
        "seq": 3,
        "hash": head.hash,
        "entries": 3,
        "events": 3,
        "transactions": 3,
    }


async def test_verify_works_while_the_ledger_is_served(config: Path) -> None:
    await fill(config)
    async with await SqliteLedger.open(ledger_of(config)):
        assert run("verify", "--config", config).status == 0


async def test_verify_tells_the_first_bad_seq(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill(config)
    forge(config, "UPDATE entries SET amount = '1.00' WHERE seq >= 2")
    done = here(capsys, "verify", "--config", config)
    assert (done.status, done.out) == (1, "")
    assert done.complaint == "entry 2 is not what was recorded; the first bad seq is 2"
    done = here(capsys, "verify", "--config", config, "--json")
    told = json.loads(done.out)
    assert (done.status, told["ok"], told["seq"]) == (1, False, 2)
    assert told["error"] == "entry 2 is not what was recorded"


async def test_damage_that_no_entry_shows_has_no_seq(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill(config)
    forge(config, "UPDATE ledger SET repeats = 7")
    done = here(capsys, "verify", "--config", config)
    assert done.complaint == "the number of repeats is not the sum of them"


async def test_a_person_sees_how_far_verify_is(config: Path) -> None:
    await fill(config)
    seen = before_a_person("verify", "--config", config)
    assert "verifying" in seen
    assert "The ledger is sound" in seen


async def test_a_backup_taken_while_serving_is_sound_and_whole(
    config: Path, tmp_path: Path
) -> None:
    await fill(config)
    copy = tmp_path / "copy.db"
    async with await SqliteLedger.open(ledger_of(config)) as ledger:
        done = run("backup", "--config", config, copy)
        epoch = ledger.epoch
    assert done.status == 0
    assert done.out == f"{copy}: {copy.stat().st_size} bytes\n"
    env = {"LISTENER_DATABASE": f"sqlite:///{copy}"}
    told = json.loads(run("verify", "--config", config, "--json", env=env).out)
    assert (told["seq"], told["epoch"]) == (3, epoch)
    async with await SqliteLedger.open(copy) as ledger:
        assert ledger.epoch != epoch


async def test_a_backup_tells_programs_its_size(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill(config)
    copy = tmp_path / "copy.db"
    told = json.loads(here(capsys, "backup", "--config", config, "--json", copy).out)
    assert told == {"path": str(copy), "bytes": copy.stat().st_size}


async def test_a_backup_overwrites_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await fill(config)
    copy = tmp_path / "copy.db"
    copy.write_text("mine")
    done = here(capsys, "backup", "--config", config, copy)
    assert done.status == 1
    assert "exists; name a file that does not" in done.complaint
    assert copy.read_text() == "mine"
    done = here(capsys, "backup", "--config", config, tmp_path / "nowhere" / "copy.db")
    assert done.status == 1
    assert "cannot be written" in done.complaint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_backup_that_is_stopped_leaves_nothing(
    config: Path, tmp_path: Path, number: signal.Signals
) -> None:
    sized(ledger_of(config), LARGE_BYTES)
    folder = tmp_path / "copies"
    folder.mkdir()
    with started("backup", "--config", config, folder / "copy.db") as copying:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not any(file.stat().st_size for file in folder.glob(".*/copy.db")):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert copying.stop(number) == 130
        assert not [*folder.iterdir()]


@pytest.mark.parametrize("command", [["verify"], ["backup", "copy.db"]])
def test_where_no_ledger_is_none_is_made(
    capsys: pytest.CaptureFixture[str], config: Path, command: list[str]
) -> None:
    done = here(capsys, command[0], "--config", config, *command[1:])
    assert done.status == 1
    assert "there is no ledger at" in done.complaint
    assert not ledger_of(config).exists()


def findings(text: str) -> dict[str, dict[str, object]]:
    return {finding["name"]: finding for finding in json.loads(text)["findings"]}


async def test_check_tells_what_an_operator_wants_to_know(config: Path) -> None:
    head = await fill(config)
    done = run("check", "--config", config, "--json")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["ok"] is True
    found = findings(done.out)
    assert found["sqlite"]["value"] == sqlite3.sqlite_version
    assert found["epoch"]["value"] == head.epoch
    assert found["entries"]["value"] == 3
    assert found["served"]["value"] == "no"
    assert found["merchant 200043"]["value"] == "1 token(s), stores 303660, 300014"
    assert found["address"] == {
        "name": "address",
        "value": "127.0.0.1:0",
        "severity": "fine",
        "advice": None,
    }
    assert found["public_url"]["severity"] == "note"
    assert found["pockyt"]["severity"] == "note"
    assert "no answer: Cannot connect to host 127.0.0.1:" in str(found["pockyt"]["advice"])
    assert "ssl" not in str(found["pockyt"]["advice"])
    assert "5cbfb079f15b150122261c8537086d77a" not in done.out


async def test_check_is_a_table_of_names_and_values(config: Path) -> None:
    await fill(config)
    done = run("check", "--config", config)
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert rows[0] == ["", "name", "value", "advice"]
    assert ["", "confirm", "suspicious", ""] in rows
    assert "─" in before_a_person("check", "--config", config)


def test_check_before_the_first_serve_makes_nothing(config: Path) -> None:
    found = findings(run("check", "--config", config, "--json").out)
    assert found["exists"]["value"] == "no"
    assert not ledger_of(config).exists()


async def test_a_ledger_that_cannot_be_read_is_a_problem(config: Path) -> None:
    ledger_of(config).write_text("x" * 8192)
    done = run("check", "--config", config, "--json")
    assert done.status == 1
    assert json.loads(done.out)["ok"] is False
    assert findings(done.out)["readable"]["severity"] == "problem"
    assert done.complaint == "1 problem"


async def test_an_address_that_is_taken_is_a_problem(config: Path) -> None:
    await fill(config)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = {"LISTENER_PORT": str(taken.getsockname()[1])}
        done = run("check", "--config", config, "--json", env=env)
    assert done.complaint == "1 problem"
    assert "Address already in use" in str(findings(done.out)["address"]["advice"])
    done = run("check", "--config", config, env={"LISTENER_HOST": "2001:db8::1"})
    assert done.status == 1


async def test_check_asks_the_service_that_has_the_ledger(config: Path) -> None:
    async with await SqliteLedger.open(ledger_of(config)):
        nobody = str(free_port())
        done = run("check", "--config", config, "--json", env={"LISTENER_PORT": nobody})
        assert done.complaint == "1 problem"
        found = findings(done.out)
        assert found["served"]["value"] == "yes"
        assert "no answer: Cannot connect" in str(found["ready"]["value"])
        # A port that the service chose cannot be asked.
        found = findings(run("check", "--config", config, "--json").out)
        assert found["ready"]["severity"] == "note"


def test_check_finds_a_service_that_is_ready(tmp_path: Path) -> None:
    port = free_port()
    # Whatever answers there is good enough for Pockyt: the listener itself does.
    config = write_settings(
        tmp_path,
        more=f'public_url = "https://pos.example.com"\npockyt.url = "http://127.0.0.1:{port}"',
    )
    for host in ("127.0.0.1", "0.0.0.0"):
        env = {"LISTENER_PORT": str(port), "LISTENER_HOST": host}
        with started("serve", "--config", config, env=env) as serving:
            serving.until(serving.err, " serving ")
            done = run("check", "--config", config, "--json", env=env)
            assert serving.stop() == 0
        assert done.status == 0
        found = findings(done.out)
        assert (found["served"]["value"], found["ready"]["value"]) == ("yes", "yes")
        assert found["public_url"]["value"] == "https://pos.example.com"
        assert found["pockyt"]["severity"] == "fine"


def test_check_asks_a_service_whose_database_it_cannot_read(tmp_path: Path) -> None:
    config = write_settings(tmp_path)
    env = {"LISTENER_PORT": str(free_port())}
    with started("serve", "--config", config, env=env) as serving:
        serving.until(serving.err, " serving ")
        gone = {"LISTENER_DATABASE": f"postgresql://127.0.0.1:{free_port()}/listener"}
        done = run("check", "--config", config, "--json", env=env | gone)
        assert serving.stop() == 0
    found = findings(done.out)
    assert (found["readable"]["severity"], found["ready"]["value"]) == ("problem", "yes")
    # It would be bad advice to choose another port.
    assert "address" not in found


async def test_check_waits_for_nobody_for_long(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(config)
    monkeypatch.setattr(check, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("LISTENER_POCKYT_URL", url)
        done = await asyncio.to_thread(here, capsys, "check", "--config", config, "--json")
    assert "no answer within 0.2 s" in str(findings(done.out)["pockyt"]["advice"])
