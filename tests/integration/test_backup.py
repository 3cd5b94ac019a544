"""A copy is whole, of one moment, and a ledger of its own."""

import asyncio
import errno
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from listener.errors import LedgerError
from listener.ledger.scope import Scope
from listener.storage.sqlite.backup import backup
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from listener.storage.sqlite.verify import verify
from tests.support.stored import STREAM, bare, numbered, url_of
from tests.support.tills import place

ALL: Final = Scope()


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copies"
    folder.mkdir()
    return folder / "copy.db"


def listed(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def test_a_copy_taken_while_serving_is_of_one_moment(path: Path, copy: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(2_000)))
        copying = asyncio.create_task(asyncio.to_thread(backup, url_of(path), copy))
        more = 2_000
        while not copying.done():
            await ledger.record(numbered(more))
            more += 1
        await copying
        assert 2_000 <= verify(url_of(copy)).entries <= more
        # The service was not hindered, nor its log touched.
        assert (await ledger.record(numbered("after"))).seq == more + 1
    assert verify(url_of(path)).entries == more + 1


async def test_a_commit_during_a_copy_is_not_in_it(path: Path, copy: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(4_000)))
    with closing(connect(path, create=False)) as db:
        steps: list[int] = []

        def change(_done: int, _total: int) -> None:
            steps.append(db.execute("UPDATE ledger SET keys_version = keys_version + 1").rowcount)
            # A copy that begins anew with each change would never end.
            assert len(steps) < 100

        backup(url_of(path), copy, progress=change)
        assert len(steps) > 1
    with closing(bare(copy)) as db:
        assert db.execute("SELECT keys_version FROM ledger").fetchone() == (0,)


async def test_a_copy_is_one_private_file(path: Path, copy: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        backup(url_of(path), copy)
    assert listed(copy.parent) == ["copy.db"]
    assert copy.stat().st_mode & 0o077 == 0
    assert verify(url_of(copy)).entries == 1


async def test_copying_moves_nothing_into_the_ledgers_file(path: Path, copy: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(100)))
        before = path.read_bytes()
        backup(url_of(path), copy)
        assert path.read_bytes() == before


async def test_the_first_service_on_a_copy_makes_a_new_epoch_and_keeps_it(
    path: Path, copy: Path
) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        await ledger.ack(terminal="T", stream=STREAM, offset=1)
        epoch = ledger.epoch
    backup(url_of(path), copy)
    async with await SqliteLedger.open(copy) as restored:
        renewed = restored.epoch
        assert renewed != epoch
        assert (await restored.record(numbered(1))).is_new is False
        assert (await restored.record(numbered(2))).seq == 2
        assert await place(restored, terminal="T", stream=STREAM) == 1
        first, second = await restored.read_events(STREAM, after=0, limit=9)
        assert f'"id":"{epoch}-1"'.encode() in first.body
        assert f'"id":"{renewed}-2"'.encode() in second.body
    async with await SqliteLedger.open(copy) as restored:
        assert restored.epoch == renewed
    async with await SqliteLedger.open(path) as ledger:
        assert ledger.epoch == epoch


async def test_a_copy_of_a_copy_is_a_copy(path: Path, copy: Path, tmp_path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    second = tmp_path / "second.db"
    backup(url_of(path), copy)
    backup(url_of(copy), second)
    epochs = set()
    for one in (path, copy, second):
        async with await SqliteLedger.open(one) as ledger:
            epochs.add(ledger.epoch)
    assert len(epochs) == 3


async def test_a_ledger_whose_service_was_killed_is_copied_with_its_log(
    path: Path, copy: Path, tmp_path: Path
) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await ledger.record(numbered(1))
        # What a kill leaves behind: the file, and the log that was not moved into it.
        left = tmp_path / "left.db"
        for suffix in ("", "-wal"):
            source = path.with_name(f"{path.name}{suffix}")
            left.with_name(f"{left.name}{suffix}").write_bytes(source.read_bytes())
    backup(url_of(left), copy)
    assert verify(url_of(copy)).entries == 1


async def test_nothing_is_overwritten(path: Path, copy: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    copy.write_text("mine")
    with pytest.raises(LedgerError, match="exists"):
        backup(url_of(path), copy)
    assert copy.read_text() == "mine"


@pytest.mark.parametrize("there", [True, False])
async def test_a_link_in_the_place_of_the_copy_is_not_followed(
    path: Path, copy: Path, there: bool
) -> None:
    await (await SqliteLedger.open(path)).close()
    elsewhere = copy.parent / "elsewhere.db"
    if there:
        elsewhere.write_text("mine")
    copy.symlink_to(elsewhere)
    with pytest.raises(LedgerError, match="exists"):
        backup(url_of(path), copy)
    assert elsewhere.exists() is there
    assert not there or elsewhere.read_text() == "mine"


async def test_no_file_that_waits_beside_the_copy_is_written_to(path: Path, copy: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    names = [f"{copy.name}{end}" for end in (".partial", ".tmp", "-wal", "-shm", "-journal")]
    for name in names:
        (copy.parent / name).write_text("mine")
        (copy.parent / name).chmod(0o666)
    backup(url_of(path), copy)
    assert all((copy.parent / name).read_text() == "mine" for name in names)
    assert listed(copy.parent) == sorted(["copy.db", *names])
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.stat().st_nlink == 1


async def test_while_it_is_made_a_copy_is_open_to_nobody(path: Path, copy: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(2_000)))
    seen: set[int] = set()

    def look(_done: int, _total: int) -> None:
        assert not copy.exists()
        (folder,) = copy.parent.iterdir()
        seen.add(folder.stat().st_mode & 0o777)
        seen.update(file.stat().st_mode & 0o077 for file in folder.iterdir())

    backup(url_of(path), copy, progress=look)
    assert seen == {0o700, 0}


async def test_a_file_that_appears_under_the_copys_name_meanwhile_stays(
    path: Path, copy: Path
) -> None:
    await (await SqliteLedger.open(path)).close()

    def meanwhile(_done: int, _total: int) -> None:
        copy.write_text("mine")

    with pytest.raises(LedgerError, match="exists"):
        backup(url_of(path), copy, progress=meanwhile)
    assert copy.read_text() == "mine"
    assert listed(copy.parent) == ["copy.db"]


@pytest.mark.parametrize("comes", [False, True])
async def test_a_file_system_without_hard_links_takes_a_copy_too(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    await (await SqliteLedger.open(path)).close()

    def refuse(_self: Path, _target: Path) -> None:
        if comes:
            copy.write_text("mine")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    if comes:
        with pytest.raises(LedgerError, match="exists"):
            backup(url_of(path), copy)
        assert copy.read_text() == "mine"
    else:
        backup(url_of(path), copy)
        assert verify(url_of(copy)).entries == 0


async def test_a_copy_that_cannot_be_completed_leaves_nothing(path: Path, copy: Path) -> None:
    await (await SqliteLedger.open(path)).close()

    def give_up(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(url_of(path), copy, progress=give_up)
    assert listed(copy.parent) == []


async def test_a_missing_folder_is_reported(path: Path, tmp_path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    with pytest.raises(LedgerError, match="cannot be written"):
        backup(url_of(path), tmp_path / "none" / "copy.db")


def test_there_must_be_a_ledger(path: Path, copy: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        backup(url_of(path), copy)
    assert listed(copy.parent) == []


async def test_progress_rises_to_the_size_of_the_copy(path: Path, copy: Path) -> None:
    async with await SqliteLedger.open(path) as ledger:
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(4_000)))
    steps: list[tuple[int, int]] = []
    backup(url_of(path), copy, progress=lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps)
    assert len(steps) > 1
    assert steps[-1] == (copy.stat().st_size, copy.stat().st_size)


async def test_the_copy_keeps_what_makes_it_a_ledger(path: Path, copy: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    backup(url_of(path), copy)
    with closing(bare(path)) as one, closing(bare(copy)) as other:
        for name in ("application_id", "user_version"):
            found = one.execute(f"PRAGMA {name}").fetchone()
            assert found == other.execute(f"PRAGMA {name}").fetchone()
            assert found != (0,)
