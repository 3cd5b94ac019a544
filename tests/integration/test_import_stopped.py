"""An import that is stopped in its middle leaves no half of a ledger, and can be repeated."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from listener.storage import verify
from tests.support.commands import DEADLINE_SECONDS, run, started
from tests.support.contents import content_of, fill
from tests.support.stored import url_of

WAITS = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE relation = 'acks'::regclass AND NOT granted)"
# `acks` comes after the entries, so that some are copied by then.
HELD = "LOCK TABLE acks IN ACCESS EXCLUSIVE MODE"
SIGNALS = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name
)


@asynccontextmanager
async def held_up(url: str) -> AsyncIterator["asyncpg.Connection"]:
    """Make an import wait in its middle."""
    db = await asyncpg.connect(url)
    try:
        await db.execute("BEGIN")
        await db.execute(HELD)
        yield db
    finally:
        await db.close()


async def stopped(arguments: Sequence[str], url: str, number: signal.Signals) -> list[str]:
    """Stop an import in its middle; return what it wrote to stderr."""
    async with held_up(url) as db:
        with started(*arguments) as program:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not await db.fetchval(WAITS):
                    await asyncio.sleep(0.01)
            status = await asyncio.to_thread(program.stop, number)
            assert status == (-number if number is signal.SIGKILL else 130)
            return program.left(program.err)


@SIGNALS
def test_an_import_into_postgresql_that_is_stopped_leaves_it_empty(
    url: str, tmp_path: Path, number: signal.Signals
) -> None:
    file = url_of(tmp_path / "a.db")
    epoch = asyncio.run(fill(file))
    before = asyncio.run(content_of(file))
    # The tables are there, so that they can be locked.
    asyncio.run(content_of(url))
    arguments = ("import", "--from", file, "--to", url)
    assert [one for one in asyncio.run(stopped(arguments, url, number)) if one.strip()] == []
    assert asyncio.run(content_of(file)) == before
    assert verify(url).entries == 0
    assert run(*arguments).status == 0
    assert asyncio.run(content_of(url)) == before
    assert verify(url).head.epoch == epoch


@SIGNALS
def test_an_import_into_a_file_that_is_stopped_leaves_no_file(
    url: str, tmp_path: Path, number: signal.Signals
) -> None:
    asyncio.run(fill(url))
    before = asyncio.run(content_of(url))
    folder = tmp_path / "target"
    folder.mkdir()
    arguments = ("import", "--from", url, "--to", url_of(folder / "b.db"))
    assert [one for one in asyncio.run(stopped(arguments, url, number)) if one.strip()] == []
    left = [one.name for one in folder.iterdir()]
    if number is signal.SIGKILL:
        # The folder in which it wrote, under a name that nothing else uses.
        assert [name.rpartition(".")[0] for name in left] == [".b.db"]
    else:
        assert left == []
    assert run(*arguments).status == 0
    assert asyncio.run(content_of(url_of(folder / "b.db"))) == before
