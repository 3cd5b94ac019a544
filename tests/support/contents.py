"""A ledger filled with something of each kind, all that it tells of itself, and damage to it."""

import asyncio

import asyncpg
from msgspec.structs import replace

from listener.ledger.model import EVERY_STREAM, Fact, fields_text
from listener.ledger.scope import Scope
from listener.storage import AnyLedger, open_ledger
from tests.support import told
from tests.support.databases import run
from tests.support.stored import STREAM, Clock, bound, numbered, sold, without_number

ODD = "a\0b \x1a \u2028 支付"


async def fill(url: str) -> str:
    """Record something of each kind; return the ledger's epoch."""
    async with await open_ledger(url, clock=Clock()) as ledger:
        sale = await ledger.record(sold("r1"))
        await ledger.record(bound("r1", 77, sale_seq=sale.seq))
        odd = replace_reference(numbered(77, "closed"), ODD)
        await ledger.record(odd)
        await ledger.record(odd)
        await ledger.record(without_number("a"))
        await asyncio.gather(*(ledger.record(numbered(n)) for n in range(50)))
        await ledger.ack(terminal="T", stream=STREAM, offset=3)
        await ledger.remember(key_id="k", idempotency_key="i", request="r")
        return ledger.epoch


def replace_reference(fact: Fact, text: str) -> Fact:
    return replace(fact, reference=text, fields=fields_text({"reference": text}))


async def content(ledger: AnyLedger) -> list[object]:
    """Return all that a ledger tells of itself."""
    lines = await ledger.read_entries(after=0, limit=500, scope=Scope())
    return [
        await ledger.head(),
        lines,
        await ledger.read_events(EVERY_STREAM, after=0, limit=500),
        await ledger.read_transaction("77", merchant_no=None),
        await ledger.read_sales(merchant_no=told.MERCHANT, reference="r1", store_no=None),
        await ledger.acks(),
        await ledger.next_due_ms(),
    ]


async def content_of(url: str) -> list[object]:
    async with await open_ledger(url, clock=Clock()) as ledger:
        return await content(ledger)


def damage(url: str, *statements: str) -> None:
    """Change the database as somebody who may do anything."""

    async def change(db: "asyncpg.Connection") -> None:
        await db.execute("SET session_replication_role = replica")
        for statement in statements:
            await db.execute(statement)

    run(url, change)
