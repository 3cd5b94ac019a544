"""A merchant of many stores: its pages are right, and cost a page, not a page of each store."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from listener.ledger.model import Status, Transaction
from listener.ledger.scope import Cursor, Scope, Search
from listener.storage import open_ledger, rows
from listener.storage.postgres import selects
from listener.storage.sqlite import searching
from listener.storage.sqlite.ledger import SqliteLedger
from listener.storage.sqlite.opening import connect
from tests.support import databases, told
from tests.support.stored import Clock, numbered

STORES = 40
OF_EACH = 25
PAGE = 20


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Give stores that trade side by side, and as many that trade one after the other."""
    clock = Clock()
    path = tmp_path / "ledger.db"
    half = range(STORES // 2)
    beside = [[(store, turn) for store in half] for turn in range(OF_EACH)]
    after = [[(STORES // 2 + store, turn)] for store in half for turn in range(OF_EACH)]
    async with await SqliteLedger.open(path, clock=clock) as ledger:
        for at_once in beside + after:
            clock.at_ms += 1_000
            for store, turn in at_once:
                word = "closed" if turn % 2 else "success"
                store_no = f"s{store:02}" if store else None
                ledger.queue(numbered(f"{store}-{turn}", word, store_no=store_no), lambda _: None)
            await ledger.record(numbered(f"of another {clock.at_ms}", merchant_no="200044"))
    return path


def paged(path: Path, search: Search) -> list[str]:
    """Read all pages, newest first."""
    db = connect(path, create=False)
    before: Cursor | None = None
    numbers: list[str] = []
    try:
        while found := searching.transactions(db, search, before=before, limit=PAGE):
            last = found[-1]
            before = Cursor(created_at_ms=last.created_at_ms, first_seq=last.first_seq)
            numbers += [one.transaction_no for one in found]
    finally:
        db.close()
    return numbers


def of_all(path: Path, *, since_ms: int = 0, until_ms: int = 1 << 60) -> list[str]:
    """Read the same in the plainest way."""
    db = connect(path, create=False)
    try:
        rows = db.execute(
            "SELECT transaction_no FROM transactions WHERE merchant_no = ? AND created_at >= ?"
            " AND created_at < ? ORDER BY created_at DESC, first_seq DESC",
            (told.MERCHANT, since_ms, until_ms),
        ).fetchall()
    finally:
        db.close()
    return [number for (number,) in rows]


OF_MERCHANT = Search(scope=Scope(merchant_no=told.MERCHANT))


async def test_the_pages_of_a_merchant_have_each_transaction_once_newest_first(path: Path) -> None:
    found = paged(path, OF_MERCHANT)
    assert len(found) == STORES * OF_EACH
    assert found == of_all(path)
    since_ms, until_ms = told.START_MS + 5_000, told.START_MS + 50_000
    limited = Search(scope=OF_MERCHANT.scope, since_ms=since_ms, until_ms=until_ms)
    assert paged(path, limited) == of_all(path, since_ms=since_ms, until_ms=until_ms)


async def test_a_page_of_a_merchant_is_not_read_for_each_of_its_stores(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []

    def counted(row: tuple[Any, ...]) -> Transaction:
        read.append(row)
        return rows.transaction_of(row)

    monkeypatch.setattr(searching, "transaction_of", counted)
    for search in (OF_MERCHANT, Search(scope=OF_MERCHANT.scope, status=Status.PAID)):
        read.clear()
        found = paged(path, search)
        # A page for each store would be forty times as many.
        assert len(read) < 5 * len(found)


async def test_on_postgresql_the_unseen_cancellations_are_read_up_to_the_limit() -> None:
    limit = 5
    later = told.START_MS + 1
    with databases.database() as url:
        async with await open_ledger(url, clock=Clock()) as ledger:
            for number in range(STORES):
                ledger.queue(numbered(number, "closed", store_no=f"s{number % 4}"), lambda _: None)
            await ledger.record(numbered("last", "closed"))
            found = await ledger.read_unacked(before_ms=later, limit=limit)
            assert [(one.stream, one.offset) for one in found] == [
                (f"{told.MERCHANT}/{told.STORE}", 1),
                *((f"{told.MERCHANT}/s0", offset) for offset in range(1, limit)),
            ]
            db = await asyncpg.connect(url)
            try:
                read = f"EXPLAIN (ANALYZE, FORMAT JSON) {selects.UNACKED}"
                plan = await db.fetchval(read, later, None, None, limit)
            finally:
                await db.close()
    assert sum(rows_of_entries(json.loads(plan)[0]["Plan"])) == limit


def rows_of_entries(node: dict[str, Any]) -> Iterator[int]:
    """Yield how many rows each part of a plan reads of the entries."""
    if node.get("Relation Name") == "entries":
        yield node["Actual Rows"] * node["Actual Loops"]
    for part in node.get("Plans", ()):
        yield from rows_of_entries(part)
