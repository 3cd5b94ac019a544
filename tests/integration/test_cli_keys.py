"""`keys`: made, listed and revoked in the ledger's file, beside the service or without it."""

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from listener.keys import Role, authenticate
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from tests.support.commands import (
    DEADLINE_SECONDS,
    PROGRAM,
    before_a_person,
    here,
    run,
    without,
    write_settings,
)
from tests.support.stored import behind


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_settings(tmp_path)


def create(capsys: pytest.CaptureFixture[str], config: Path, *options: str) -> dict[str, object]:
    done = here(capsys, "keys", "create", "--config", config, "--json", *options)
    assert (done.status, done.err) == (0, "")
    made: dict[str, object] = json.loads(done.out)
    return made


def listed(capsys: pytest.CaptureFixture[str], config: Path) -> list[dict[str, object]]:
    done = here(capsys, "keys", "list", "--config", config, "--json")
    assert (done.status, done.err) == (0, "")
    keys: list[dict[str, object]] = json.loads(done.out)
    return keys


def test_a_key_tells_what_it_is_for(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    made = create(
        capsys,
        config,
        *("--role", "pos", "--merchant", "200043", "--store", "303660"),
        *("--terminal", "T-42", "--may-refund"),
    )
    assert made == {
        "id": made["id"],
        "key": made["key"],
        "role": "pos",
        "merchantNo": "200043",
        "storeNo": "303660",
        "terminal": "T-42",
        "mayRefund": True,
    }
    assert str(made["id"]) in str(made["key"])


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_key_that_could_not_be_shown_is_revoked(
    capsys: pytest.CaptureFixture[str], config: Path, options: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "keys", "create", "--config", config, "--role", "admin", *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )
    assert done.returncode == 1
    assert "shown only now" not in done.stderr
    (key,) = listed(capsys, config)
    assert key["revokedAt"] is not None


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_key_made_while_stdout_is_closed_is_revoked(
    capsys: pytest.CaptureFixture[str], config: Path, options: tuple[str, ...]
) -> None:
    done = without("stdout", "keys", "create", "--config", config, "--role", "admin", *options)
    assert done.status == 1
    assert done.complaint.startswith("stdout is closed")
    (key,) = listed(capsys, config)
    assert key["revokedAt"] is not None


async def test_a_key_made_before_the_first_serve_opens_the_ledger_served_then(
    config: Path, tmp_path: Path
) -> None:
    text = run("keys", "create", "--config", config, "--role", "admin").out.strip()
    async with await SqliteLedger.open(tmp_path / "ledger.db") as ledger:
        found = await authenticate(text, ledger)
    assert found is not None
    assert (found.role, found.merchant_no) == (Role.ADMIN, None)


async def test_keys_change_while_the_ledger_is_served(config: Path, tmp_path: Path) -> None:
    async with await SqliteLedger.open(tmp_path / "ledger.db") as ledger:
        before = await ledger.keys_version()
        made = json.loads(
            run("keys", "create", "--config", config, "--role", "ledger", "--json").out
        )
        assert await authenticate(made["key"], ledger) is not None
        between = await ledger.keys_version()
        assert between > before
        done = run("keys", "revoke", "--config", config, made["id"])
        assert (done.status, done.out) == (0, f"revoked {made['id']}\n")
        assert await authenticate(made["key"], ledger) is None
        assert await ledger.keys_version() > between


def test_a_key_is_shown_once_and_kept_as_a_hash(
    capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    done = here(capsys, "keys", "create", "--config", config, "--role", "admin")
    text = done.out.strip()
    assert text.startswith("lk_")
    secret = text.split("_", 2)[2]
    assert secret not in done.err
    assert secret not in json.dumps(listed(capsys, config))
    for file in tmp_path.glob("ledger.db*"):
        assert secret.encode() not in file.read_bytes()


def test_a_list_holds_every_key_the_revoked_ones_too(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    first = create(capsys, config, "--role", "admin")
    second = create(capsys, config, "--role", "pos", "--merchant", "200043")
    revoked = here(capsys, "keys", "revoke", "--config", config, "--json", str(first["id"]))
    found = {key["id"]: key for key in listed(capsys, config)}
    assert set(found) == {first["id"], second["id"]}
    assert json.loads(revoked.out) == found[first["id"]]
    assert str(found[first["id"]]["revokedAt"]).endswith("Z")
    assert found[second["id"]]["revokedAt"] is None


def test_a_program_reads_tabs(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    made = create(capsys, config, "--role", "pos", "--merchant", "200043")
    done = here(capsys, "keys", "list", "--config", config)
    names, row = (line.split("\t") for line in done.out.splitlines())
    assert dict(zip(names, row, strict=True)) | {"created": ""} == {
        "id": made["id"],
        "role": "pos",
        "merchant": "200043",
        "store": "every",
        "terminal": "-",
        "may refund": "no",
        "created": "",
        "revoked": "-",
    }


def test_a_person_reads_a_table(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    connect(config.with_name("ledger.db"), create=True).close()
    assert "There are no keys yet" in before_a_person("keys", "list", "--config", config)
    scope = ("--merchant", "200043", "--store", "303660", "--terminal", "[red]")
    made = create(capsys, config, "--role", "pos", *scope)
    seen = before_a_person("keys", "list", "--config", config)
    assert "─" in seen
    assert "[red]" in seen
    assert str(made["id"]) in seen


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        (["--role", "pos"], ("200043", None, None)),
        (["--role", "pos", "--terminal", "T-1"], ("200043", None, "T-1")),
        (["--role", "ledger", "--store", "303660"], ("200043", "303660", None)),
        (["--role", "ledger"], (None, None, None)),
        (["--role", "admin"], (None, None, None)),
    ],
)
def test_the_only_merchant_need_not_be_named_where_one_is_needed(
    capsys: pytest.CaptureFixture[str],
    config: Path,
    options: list[str],
    scope: tuple[str | None, ...],
) -> None:
    made = create(capsys, config, *options)
    assert (made["merchantNo"], made["storeNo"], made["terminal"]) == scope


def test_among_several_merchants_none_is_guessed(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.write_text(f'{config.read_text()}\n[merchants.200044]\ntokens = ["other"]\n')
    for options, complaint in (
        (["--role", "pos"], "a pos key needs a merchant"),
        (["--role", "admin", "--store", "303660"], "a store needs its merchant"),
    ):
        done = here(capsys, "keys", "create", "--config", config, *options)
        assert done.status == 2
        assert complaint in done.complaint


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "Missing option '--role'"),
        (["--role", "cashier"], "'cashier' is not one of 'pos', 'ledger', 'admin'"),
        (["--role", "admin", "--may-refund"], "only a pos key can refund"),
        (["--role", "pos", "--merchant", "1"], "1 is not configured; there is 200043"),
        (
            ["--role", "pos", "--merchant", "200043", "--store", "9"],
            "9 is not a store of merchant 200043; there is 303660, 300014",
        ),
        (["--role", "ledger", "--terminal", "T-1"], "a terminal needs the role pos"),
        *(
            (
                ["--role", "pos", "--merchant", "200043", "--store", "303660", "--terminal", name],
                "a terminal is 1 to 64 printable characters without /",
            )
            for name in ("", " ", "a/b", "a\nb", "x" * 65)
        ),
    ],
)
def test_a_key_that_could_do_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], config: Path, options: list[str], complaint: str
) -> None:
    done = here(capsys, "keys", "create", "--config", config, *options)
    assert done.status == 2
    assert complaint in done.complaint
    assert not config.with_name("ledger.db").exists()


def test_a_merchant_without_stores_has_no_key_for_one(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.write_text(config.read_text() + '[merchants.7]\ntokens = ["x"]\n')
    done = here(
        capsys,
        *("keys", "create", "--config", config, "--role", "pos", "--merchant", "7", "--store", "1"),
    )
    assert "it has no stores" in done.complaint


def test_a_key_is_revoked_once(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    made = create(capsys, config, "--role", "admin")
    arguments = ("keys", "revoke", "--config", config, str(made["id"]))
    assert here(capsys, *arguments).status == 0
    again = here(capsys, *arguments)
    assert again.status == 1
    assert f"key {made['id']} was revoked before, at 2" in again.complaint


def test_an_unknown_id_is_not_repeated(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    made = create(capsys, config, "--role", "admin")
    done = here(capsys, "keys", "revoke", "--config", config, str(made["key"]))
    assert done.status == 1
    assert "there is no key with this id" in done.complaint
    assert str(made["key"]) not in done.err


@pytest.mark.parametrize("command", [["list"], ["revoke", "1f0c55aa90b3"]])
def test_only_create_makes_a_ledger(
    capsys: pytest.CaptureFixture[str], config: Path, command: list[str]
) -> None:
    done = here(capsys, "keys", command[0], "--config", config, *command[1:])
    assert done.status == 1
    assert "there is no ledger at" in done.complaint
    assert not config.with_name("ledger.db").exists()


def test_a_ledger_that_somebody_holds_is_one_line(
    capsys: pytest.CaptureFixture[str], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(capsys, config, "--role", "admin")
    monkeypatch.setattr("listener.storage.sqlite.connection.BUSY_SECONDS", 0.05)
    holder = sqlite3.connect(config.with_name("ledger.db"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        done = here(capsys, "keys", "create", "--config", config, "--role", "admin")
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert done.status == 1
    assert "the ledger cannot be used now: database is locked" in done.complaint
    assert len(listed(capsys, config)) == 1


def test_another_programs_file_is_one_line(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    config.with_name("ledger.db").write_text("x" * 4096)
    done = here(capsys, "keys", "create", "--config", config, "--role", "admin")
    assert done.status == 1
    assert "cannot be opened: file is not a database; stop the listener, keep all" in done.complaint


@pytest.mark.parametrize("change", ["role = 'Admin'", "created_at = 99999999999999999"])
def test_a_damaged_key_is_named_on_one_line(
    capsys: pytest.CaptureFixture[str], config: Path, change: str
) -> None:
    made = create(capsys, config, "--role", "admin")
    with behind(config.with_name("ledger.db")) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(f"UPDATE keys SET {change}")
    for command in (["list"], ["list", "--json"]):
        done = here(capsys, "keys", *command, "--config", config)
        assert done.complaint.startswith(f"key {made['id']} cannot be read"), command
        assert "restore a backup" in done.complaint
