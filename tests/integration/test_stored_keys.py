"""Keys in the ledger's file, written beside the service."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from listener.keys import Key, Role, authenticate, mint
from listener.storage.sqlite import keys
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from tests.support import told


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(name="db")
def _db(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path, create=True)) as db:
        yield db


def made(at_ms: int = told.START_MS) -> tuple[Key, str]:
    return mint(
        role=Role.POS,
        now_ms=at_ms,
        merchant_no=told.MERCHANT,
        store_no=told.STORE,
        terminal="T-42",
        may_refund=True,
    )


def test_a_key_is_read_back_as_it_was_stored(db: sqlite3.Connection) -> None:
    key, _ = made()
    admin, _ = mint(role=Role.ADMIN, now_ms=told.START_MS + 1)
    for one in (admin, key):
        keys.add(db, one)
    assert keys.find(db, key.id) == key
    assert keys.list_all(db) == [key, admin]
    assert keys.find(db, "none") is None


def test_the_secret_is_not_in_the_file(db: sqlite3.Connection, path: Path) -> None:
    key, text = made()
    keys.add(db, key)
    secret = text.rpartition(f"{key.id}_")[2].encode()
    for file in path.parent.iterdir():
        assert secret not in file.read_bytes()


def test_a_key_is_revoked_once(db: sqlite3.Connection) -> None:
    key, _ = made()
    keys.add(db, key)
    assert keys.revoke(db, key.id, now_ms=1)
    assert not keys.revoke(db, key.id, now_ms=2)
    assert not keys.revoke(db, "none", now_ms=2)
    found = keys.find(db, key.id)
    assert found
    assert found.revoked_at_ms == 1


async def test_a_running_service_sees_every_change(path: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        key, text = made()
        versions = [await ledger.keys_version()]
        with closing(connect(path, create=False)) as db:
            assert await authenticate(text, ledger) is None
            keys.add(db, key)
            versions.append(await ledger.keys_version())
            assert await authenticate(text, ledger) == key
            keys.revoke(db, key.id, now_ms=1)
            versions.append(await ledger.keys_version())
            assert await authenticate(text, ledger) is None
        assert versions == sorted(set(versions))


async def test_a_change_waits_for_the_commit_that_is_under_way(path: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        with closing(connect(path, create=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            key, _ = made()

            def add() -> None:
                with closing(connect(path, create=False)) as db:
                    keys.add(db, key)

            adding = asyncio.create_task(asyncio.to_thread(add))
            await asyncio.sleep(0)
            assert not adding.done()
            other.execute("COMMIT")
            await adding
        assert await ledger.find_key(key.id) == key


@pytest.mark.parametrize("change", ["add", "revoke"])
def test_a_change_that_fails_half_way_is_undone(db: sqlite3.Connection, change: str) -> None:
    key, _ = made()
    if change == "revoke":
        keys.add(db, key)
    version = keys.version(db)
    # The second statement of the change fails, as on a disk that is full.
    db.execute(
        "CREATE TRIGGER fail BEFORE UPDATE OF keys_version ON ledger"
        " BEGIN SELECT RAISE (ABORT, 'full'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="full"):
        if change == "add":
            keys.add(db, key)
        else:
            keys.revoke(db, key.id, now_ms=1)
    assert not db.in_transaction
    db.execute("DROP TRIGGER fail")
    assert keys.version(db) == version
    found = keys.find(db, key.id)
    assert found is None if change == "add" else found == key
