"""Answer queries of the ledger: transactions, entries, the head."""

import asyncio
import struct
from typing import Final

from aiohttp import web

from listener.keys import Key
from listener.ledger.model import EVERY_STREAM
from listener.ledger.promise import Ledger
from listener.ledger.results import ReadEntry
from listener.ledger.scope import Cursor, Scope, Search
from listener.settings import Settings
from listener.web.api.lookup import find_transaction
from listener.web.context import HUB, LEDGER, SETTINGS, SHARES
from listener.web.guard import check_again
from listener.web.problem import ProblemError
from listener.web.sender import has_gone
from listener.web.shapes.cursors import open_cursor, seal_cursor
from listener.web.shapes.models import (
    JSON,
    NDJSON,
    EntriesPage,
    Entry,
    LedgerHead,
    Transaction,
    TransactionDetail,
    TransactionsPage,
    reply,
)
from listener.web.shapes.parameters import (
    EntriesQuery,
    NoQuery,
    TransactionDetailQuery,
    TransactionsQuery,
    read_query,
)
from listener.web.shares import ENTRY_WAITS_MAX

EPOCH_HEADER: Final = "Ledger-Epoch"
HEAD_HEADER: Final = "Ledger-Head"

# An entry that makes no event rings no bell, so a waiting request looks this often.
_LOOK_SECONDS: Final = 1.0
_PLACE: Final = struct.Struct(">QQ")


async def list_transactions(request: web.Request, key: Key) -> web.Response:
    """Answer with a page of transactions, newest first."""
    query = read_query(request, TransactionsQuery)
    ledger = request.app[LEDGER]
    scope = _narrow(key.scope, _scope_of(query, key, request.app[SETTINGS]))
    before = _place_of(query.cursor, query, ledger) if query.cursor else None
    if scope is None:
        return reply(TransactionsPage(data=[], next_cursor=None))
    search = Search(
        scope=scope,
        status=query.status,
        cancel_state=query.cancel_state,
        held=query.held,
        reference=query.reference,
        contains=query.contains,
        since_ms=query.since,
        until_ms=query.until,
    )
    # One more than asked for shows whether there is a next page.
    async with request.app[SHARES].searching(key.id):
        found = await ledger.read_transactions(search, before=before, limit=query.limit + 1)
    page = found[: query.limit]
    cursor = None
    if len(found) > query.limit:
        place = _PLACE.pack(page[-1].created_at_ms, page[-1].first_seq)
        cursor = seal_cursor(place, query, ledger=ledger)
    data = [Transaction.of(transaction) for transaction in page]
    return reply(TransactionsPage(data=data, next_cursor=cursor))


async def show_transaction(request: web.Request, key: Key) -> web.Response:
    """Answer with one transaction and a page of its entries."""
    query = read_query(request, TransactionDetailQuery)
    transaction = await find_transaction(request, key, query)
    # One more than is wanted shows whether there are more.
    lines = await request.app[LEDGER].read_transaction_entries(
        transaction, after=query.after, limit=query.limit + 1
    )
    page, has_more = lines[: query.limit], len(lines) > query.limit
    return reply(TransactionDetail.with_entries(transaction, page, has_more=has_more))


async def list_entries(request: web.Request, key: Key) -> web.Response:
    """Answer with entries in seq order, in one document or one a line; wait if asked to."""
    query = read_query(request, EntriesQuery)
    ledger = request.app[LEDGER]
    if query.wait:
        with request.app[SHARES].waiting(key.id, limit=ENTRY_WAITS_MAX):
            head, lines = await _read_entries(request, query, key)
    else:
        head, lines = await _read_entries(request, query, key)
    entries = [Entry.of(line) for line in lines]
    if not _wants_lines(request):
        return reply(EntriesPage(epoch=ledger.epoch, head=head, data=entries))
    body = b"".join(entry.encode() + b"\n" for entry in entries)
    headers = {EPOCH_HEADER: ledger.epoch, HEAD_HEADER: str(head)}
    return web.Response(body=body, content_type=NDJSON, headers=headers)


async def show_head(request: web.Request, key: Key) -> web.Response:
    """Answer with the end of the ledger, and counts of what the key may see."""
    read_query(request, NoQuery)
    ledger = request.app[LEDGER]
    async with request.app[SHARES].searching(key.id):
        counts = await ledger.read_counts(key.scope)
    return reply(LedgerHead.of(await ledger.head(), counts))


async def _read_entries(
    request: web.Request, query: EntriesQuery, key: Key
) -> tuple[int, list[ReadEntry]]:
    """Read a page of entries and the ledger's newest seq; if there are none, wait for one."""
    ledger, hub = request.app[LEDGER], request.app[HUB]
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + query.wait
    after = query.after
    while True:
        left = min(ends_at - loop.time(), _LOOK_SECONDS)
        # Set before reading, so that a commit during the read is not missed.
        bell = asyncio.ensure_future(hub.wait(EVERY_STREAM, wait_seconds=left))
        try:
            head = await ledger.seq()
            async with request.app[SHARES].searching(key.id):
                lines = await ledger.read_entries(after=after, limit=query.limit, scope=key.scope)
            if lines or left <= 0 or hub.is_closed:
                # Entries may have come since the head was read.
                return max(head, lines[-1].entry.seq if lines else 0), lines
            # Everything up to there was read.
            after = max(after, head)
            await bell
            if has_gone(request):
                return head, []
            # A revocation takes effect within a second, however long this waits.
            await check_again(request)
        finally:
            bell.cancel()
            # Otherwise asyncio would log the error of a waiter that nobody awaited.
            await asyncio.gather(bell, return_exceptions=True)


def _wants_lines(request: web.Request) -> bool:
    """Return whether the client prefers one entry a line, at least as much as a document."""
    wanted: dict[str, float] = {}
    for part in request.headers.get("Accept", "").split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            wanted[name] = float(weight)
        except ValueError:
            continue
    return wanted.get(NDJSON, 0.0) > 0 and wanted[NDJSON] >= wanted.get(JSON, 0.0)


def _scope_of(query: TransactionsQuery, key: Key, settings: Settings) -> Scope:
    """Return the scope that a query asks for.

    Raises:
        ProblemError: It names a store, but not which merchant's.
    """
    merchant_no = query.merchant_no or key.merchant_no
    if query.store_no and not merchant_no:
        merchants = settings.merchants
        having = [number for number, one in merchants.items() if query.store_no in one.stores]
        having = having or list(merchants)
        if len(having) > 1:
            advice = f"storeNo needs merchantNo beside it here: {' or '.join(sorted(having))}"
            raise ProblemError(400, "bad-parameter", advice)
        merchant_no = having[0]
    return Scope(merchant_no=merchant_no, store_no=query.store_no, terminal=query.terminal)


def _narrow(allowed: Scope, wanted: Scope) -> Scope | None:
    """Return what is both allowed and wanted; None if that is nothing."""
    for one, other in (
        (allowed.merchant_no, wanted.merchant_no),
        (allowed.store_no, wanted.store_no),
    ):
        if one and other and one != other:
            return None
    return Scope(
        merchant_no=allowed.merchant_no or wanted.merchant_no,
        store_no=allowed.store_no or wanted.store_no,
        terminal=wanted.terminal,
    )


def _place_of(cursor: str, query: TransactionsQuery, ledger: Ledger) -> Cursor:
    created_at_ms, first_seq = _PLACE.unpack(open_cursor(cursor, query, ledger=ledger))
    return Cursor(created_at_ms=created_at_ms, first_seq=first_seq)
