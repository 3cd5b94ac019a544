"""The writer of a node: what waits shares a commit, and a large batch waits for no other."""

import asyncio
from unittest.mock import AsyncMock

import asyncpg
import pytest

from listener.errors import LedgerUnavailableError
from listener.storage import verify
from listener.storage.postgres import bell, channel, keys, selects, statements
from listener.storage.postgres.connection import connect
from listener.storage.postgres.location import read_location
from listener.storage.postgres.schema import LOCK
from listener.storage.postgres.writer import BESIDE_MIN
from tests.support.databases import database, node
from tests.support.followers import until
from tests.support.stored import numbered


async def test_a_large_batch_is_worked_out_while_another_is_appended() -> None:
    with database() as url:
        async with node(url) as ledger:
            await ledger.record(numbered("before"))
            holder = await asyncpg.connect(url)
            async with holder.transaction():
                await holder.execute(LOCK)
                first = asyncio.create_task(ledger.record(numbered(0)))
                await until(lambda: len(ledger._writer._under_way) == 1)
                # The first of these is a repeat of what is under way.
                numbers = range(BESIDE_MIN - 1)
                rest = [asyncio.create_task(ledger.record(numbered(n))) for n in numbers]
                await until(lambda: ledger.waiting == BESIDE_MIN - 1)
                await asyncio.sleep(0.05)
                assert ledger.waiting == BESIDE_MIN - 1
                rest.append(asyncio.create_task(ledger.record(numbered("last"))))
                await until(lambda: len(ledger._writer._under_way) == 2)
                assert ledger.waiting == 0
            await holder.close()
            recorded = await asyncio.gather(first, *rest)
            assert sorted(one.seq for one in recorded if one.is_new) == [*range(2, BESIDE_MIN + 2)]
            assert recorded[0].seq == recorded[1].seq
        await asyncio.to_thread(verify, url)


async def test_a_node_whose_writer_gets_no_connection_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with database() as url:
        async with node(url) as ledger:
            # From the start on, not from the first notification on.
            assert any(one.is_connected for one in ledger._writers)
            await ledger.check_writable()
            for one in ledger._writers:
                one.drop()
            # As where the password has changed: connections that are open live on.
            refusal = LedgerUnavailableError("no server can be used now: too many connections")
            with monkeypatch.context() as patch:
                patch.setattr(channel, "connect", AsyncMock(side_effect=refusal))
                with pytest.raises(LedgerUnavailableError, match="too many connections"):
                    await ledger.check_writable()
            await ledger.check_writable()
            assert (await ledger.record(numbered(1))).seq == 1


async def test_a_plan_that_was_made_of_empty_tables_is_a_seek() -> None:
    asked = {
        statements._STATES: f"({', '.join(['NULL'] * 8)})",
        statements._ENTRIES: f"({', '.join(['NULL'] * 7)})",
        bell._HEADS: "(0, 512)",
        bell._EVENTS: "(0, 512, NULL)",
        keys._FIND: "(ARRAY['k'])",
        selects.STREAM_HEADS: "(ARRAY['s'])",
        selects.ACKED: "(ARRAY['t'], ARRAY['s'])",
    }
    with database() as url:
        async with node(url):
            db = await connect(read_location(url), name="a test")
            for number, (statement, values) in enumerate(asked.items()):
                await db.execute(f"PREPARE asked_{number} AS {statement}")
                rows = await db.fetch(f"EXPLAIN EXECUTE asked_{number} {values}")
                plan = "\n".join(row[0] for row in rows)
                assert "Index" in plan
                assert "Seq Scan" not in plan, plan
                assert "Hash Join" not in plan, plan
            await db.close()
