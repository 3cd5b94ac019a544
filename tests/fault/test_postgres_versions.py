"""A rolling restart: nodes of two versions serve one ledger at once, under load."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from listener.errors import LedgerError
from listener.storage import verify
from listener.storage.postgres.ledger import PostgresLedger
from tests.fault.lives import Nursery
from tests.fault.nodes import Site, site_of
from tests.support.databases import database, run
from tests.support.stored import Clock, numbered

SENDERS = 8
SENT_EACH = 100
FUNCTIONS = "SELECT count(*) FROM pg_proc WHERE proname IN ('append_v1', 'append_v2')"


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    with database() as url:
        yield url


async def more(site: Site) -> None:
    """Wait until so many more were acknowledged."""
    wanted = len(site.sent.acknowledged) + SENT_EACH
    async with asyncio.timeout(60):
        while len(site.sent.acknowledged) < wanted:
            await asyncio.sleep(0.02)


async def test_a_later_version_takes_over_node_by_node_under_load_and_can_be_taken_back(
    nursery: Nursery, url: str, tmp_path: Path
) -> None:
    async with site_of(nursery, tmp_path, url, nodes=2, seed=1) as site:
        old, new = site.nodes
        senders = [site.sender() for _ in range(SENDERS)]
        working = [asyncio.create_task(sender.work()) for sender in senders]
        await more(site)
        # The second becomes one of the next version, while the first goes on.
        await new.stop()
        new.twists = ["next-version"]
        await new.start(site.client)
        await more(site)
        assert await site.query("SELECT schema_version FROM ledger") == 2
        assert await site.query(FUNCTIONS) == 2
        # The old version may be started beside it: as when the new one is taken back.
        await old.stop()
        await old.start(site.client)
        await more(site)
        for sender in senders:
            sender.is_over = True
        await asyncio.gather(*working)
        for node in site.nodes:
            await node.stop()
        assert await site.query("SELECT schema_version FROM ledger") == 2
        found = await asyncio.to_thread(verify, url)
        assert found.entries == len(site.sent.acknowledged)


def test_a_version_whose_function_a_later_one_has_dropped_says_so(url: str) -> None:
    async def serve() -> None:
        async with await PostgresLedger.open(url, clock=Clock()) as ledger:
            await ledger.record(numbered(1))

    async def drop(db: "asyncpg.Connection") -> None:
        await db.execute("UPDATE ledger SET schema_version = 3")
        for row in await db.fetch(
            "SELECT oid::regprocedure FROM pg_proc WHERE proname = 'append_v1'"
        ):
            await db.execute(f"DROP FUNCTION {row[0]}")

    asyncio.run(serve())
    run(url, drop)
    with pytest.raises(LedgerError, match=r"later version .* dropped append_v1"):
        asyncio.run(serve())
