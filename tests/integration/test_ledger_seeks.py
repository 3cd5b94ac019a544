"""What is read on SQLite is found by a seek in an index, and never by a walk."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from listener.ledger.model import NO_STORE, CancelState, Status
from listener.ledger.scope import Cursor, Scope, Search
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support import told
from tests.support.stored import STREAM, Clock, bound, numbered, sold

ALL: Final = Scope()
EVERYTHING: Final = Search(scope=ALL)
# What is looked for all over a ledger, and is in very little of it.
FEW: Final = (
    Search(scope=ALL, cancel_state=CancelState.UNRESOLVED),
    Search(scope=ALL, cancel_state=CancelState.REFUSED, status=Status.PAID),
    Search(scope=ALL, cancel_state=CancelState.CONFIRMED, status=Status.CANCELLED, held=False),
    Search(scope=ALL, held=True),
    Search(scope=ALL, held=True, status=Status.UNKNOWN),
    Search(scope=ALL, held=True, cancel_state=CancelState.REQUESTED),
)
DAYS: Final[tuple[dict[str, int], ...]] = ({}, {"since_ms": 1, "until_ms": told.START_MS})


@pytest.fixture(name="ledger")
async def _ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    async with await SqliteLedger.open(tmp_path / "ledger.db", clock=Clock()) as ledger:
        yield ledger


class Listening:
    """Collects the statements that the readers run, with the values in place."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger
        self.heard: list[str] = []

    async def __aenter__(self) -> "Listening":
        await self._tell(self.heard.append)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tell(None)

    async def _tell(self, hear: object) -> None:
        ledger = self._ledger
        readers = (*ledger._readers.all, *ledger._searchers.all)
        for connection in (*readers, ledger._write_connection):
            await connection.run(lambda db: db.set_trace_callback(hear))  # type: ignore[arg-type]


async def test_every_question_is_a_seek_in_an_index(ledger: SqliteLedger) -> None:
    sale = await ledger.record(sold("r1"))
    await ledger.record(bound("r1", 4, sale_seq=sale.seq))
    (transaction,) = await ledger.read_transaction("4", merchant_no=None)
    store = Scope(merchant_no=told.MERCHANT, store_no=told.STORE)
    places = (ALL, Scope(merchant_no=told.MERCHANT), store, replace(store, terminal="T-42"))
    cursor = Cursor(created_at_ms=told.START_MS, first_seq=2)
    async with Listening(ledger) as listening:
        await ledger.record(numbered(1))
        await ledger.record(numbered(1))
        await ledger.record(sold("r2"))
        await ledger.record(bound("r1", 4, sale_seq=sale.seq))
        await ledger.ack(terminal="T", stream=STREAM, offset=1)
        await ledger.remember(key_id="k", idempotency_key="i", request="r")
        await ledger.head()
        await ledger.stream_heads([STREAM, "*"])
        await ledger.read_events(STREAM, after=1, limit=9)
        await ledger.read_events("*", after=1, limit=9)
        await ledger.read_entries(after=1, limit=9, scope=ALL)
        await ledger.read_transaction("4", merchant_no=None)
        await ledger.read_transaction_entries(transaction)
        for wanted in (
            EVERYTHING,
            Search(scope=store),
            Search(scope=replace(store, store_no=NO_STORE)),
            Search(scope=ALL, status=Status.CANCELLED),
            Search(scope=ALL, reference="r1"),
            Search(scope=replace(ALL, terminal="T-42")),
            Search(scope=replace(store, terminal="T-42")),
            Search(scope=replace(store, terminal="T-42"), status=Status.PAID),
            Search(scope=replace(store, store_no=NO_STORE, terminal="T-42")),
            Search(scope=Scope(merchant_no=told.MERCHANT)),
            Search(scope=Scope(merchant_no=told.MERCHANT), status=Status.PAID),
            Search(scope=store, status=Status.CONFLICT),
            Search(scope=store, status=Status.PAID),
            Search(scope=store, reference="r1", status=Status.CONFLICT),
            Search(scope=replace(store, terminal="T-42"), reference="r1"),
            Search(scope=ALL, since_ms=1, until_ms=told.START_MS),
            *(
                replace(one, scope=where, **days)
                for one in FEW
                for where in places
                for days in DAYS
            ),
        ):
            await ledger.read_transactions(wanted, before=cursor, limit=9)
        await ledger.read_due(now_ms=told.START_MS, limit=9)
        await ledger.read_due_sales(now_ms=told.START_MS, limit=9)
        await ledger.read_open_sales(scope=store, now_ms=told.START_MS, limit=9)
        await ledger.read_doubts(now_ms=told.START_MS)
        await ledger.read_sales(merchant_no=told.MERCHANT, reference="r1", store_no=None)
        await ledger.next_due_ms()
        await ledger.start(terminal="T", offsets={STREAM: 1})
        await ledger.acked(terminal="T", stream=STREAM)
        await ledger.acks(after=("S", STREAM), scope=store)
        await ledger.read_unacked(before_ms=told.START_MS, limit=9)
        await ledger.find_key("k")
    questions = [text for text in listening.heard if text.startswith(("SELECT", "DELETE"))]
    assert len(questions) > 30

    def plans(db: sqlite3.Connection) -> dict[str, list[str]]:
        return {
            text: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {text}")] for text in questions
        }

    told_plans = await ledger._read(plans)
    few = [text for text in questions if "cancel_state =" in text or "held = 1" in text]
    assert len(few) == len(FEW) * len(places) * len(DAYS)
    for text in few:
        assert any(index in told_plans[text][0] for index in ("by_cancel", "_held")), text
    for text, plan in told_plans.items():
        walks = [step for step in plan if step.startswith("SCAN") and not _is_short(step, text)]
        assert not walks, (text, plan)
        assert not [step for step in plan if "TEMP B-TREE" in step and _is_page(text)], (text, plan)


def _is_short(step: str, text: str) -> bool:
    """Return whether a walk is over one row, the requested keys, or a few streams or stores."""
    short = ("ledger", "k", "CONSTANT ROW", "2 CONSTANT ROWS", "(subquery")
    is_index_in_order = "USING INDEX transactions_by_time" in step
    # What Pockyt is asked about: nearly nothing.
    is_due = "INDEX sales_due" in step
    is_of_few = step == "SCAN s" and "sales s" not in text
    return is_index_in_order or is_due or is_of_few or step.removeprefix("SCAN ").startswith(short)


def _is_page(text: str) -> bool:
    """Return whether a statement reads a page of something long, which must come sorted.

    Of a transaction's entries only the seqs are sorted, for which its index has no order.
    """
    return "LIMIT" in text and "ask_due_at <=" not in text and "e.seq IN (SELECT" not in text
