"""Sell, cancel and decide: the routes behind the buttons of a till and of an operator."""

from typing import Final

from aiohttp import web

from listener.keys import Key
from listener.ledger.model import PAYABLE, CancelState, Transaction
from listener.ledger.results import RecordedSale
from listener.lifecycle import Decision, Order
from listener.settings import Settings
from listener.web.api.idempotency import ReadRequest, idempotent
from listener.web.api.lookup import find_sale, find_sales, find_transaction
from listener.web.context import CLOCK, LEDGER, LIFECYCLE, SETTINGS, SHARES
from listener.web.problem import ProblemError
from listener.web.shapes import models
from listener.web.shapes.bodies import (
    Body,
    CancelBody,
    DecideBody,
    PayBody,
    SaleBody,
    StartedSale,
    read_body,
)
from listener.web.shapes.models import reply
from listener.web.shapes.parameters import NoQuery, SalesQuery, read_query
from listener.web.shapes.sale import OpenSales, Sale

# Of the sales without a number; there are more only where Pockyt has been away for long.
OPEN_SALES_MAX: Final = 500

_ENDED_WELL: Final = frozenset({CancelState.CONFIRMED, CancelState.REFUNDED})


async def _read_sale(request: web.Request, key: Key) -> Order:
    read_query(request, NoQuery)
    body = await read_body(request, SaleBody)
    return _order(body, key, request.app[SETTINGS])


@idempotent(_read_sale)
async def start(call: ReadRequest[Order]) -> web.Response:
    """Start a sale: 201, with the code for the customer if there is one."""
    started = await call.app[LIFECYCLE].start_sale(call.wish, is_repeat=call.is_repeat)
    answer = StartedSale.started(
        started.transaction, qrcode_url=started.qrcode_url, deep_link=started.deep_link
    )
    return reply(answer, status=201)


async def _read_payment(request: web.Request, key: Key) -> tuple[PayBody, Transaction]:
    body = await read_body(request, PayBody)
    return body, await find_transaction(request, key)


@idempotent(_read_payment)
async def pay(call: ReadRequest[tuple[PayBody, Transaction]]) -> web.Response:
    """Charge a customer's code: 200 with the transaction; 202 while the outcome is unknown."""
    body, transaction = call.wish
    after = await call.app[LIFECYCLE].pay(
        transaction,
        payment_barcode=body.payment_barcode,
        vendor=body.vendor,
        is_repeat=call.is_repeat,
    )
    status = 202 if after.status in PAYABLE else 200
    return reply(models.Transaction.of(after), status=status)


async def _read_cancel(
    request: web.Request, key: Key
) -> tuple[CancelBody, Transaction | RecordedSale]:
    body = await _read_cancel_body(request, key)
    try:
        return body, await find_transaction(request, key)
    except ProblemError as error:
        if error.status != 404:
            raise
        # A till that never received the number can name the sale only by its own reference.
        sale = await find_sale(request, key, request.match_info["transactionNo"])
        if sale is None:
            raise
        return body, sale


async def _read_cancel_of_sale(
    request: web.Request, key: Key
) -> tuple[CancelBody, Transaction | RecordedSale]:
    read_query(request, NoQuery)
    body = await _read_cancel_body(request, key)
    sale = await find_sale(request, key, request.match_info["reference"])
    if sale is None:
        raise ProblemError(404, "no-sale", "no sale with this reference was recorded here")
    return body, sale


async def _cancel(call: ReadRequest[tuple[CancelBody, Transaction | RecordedSale]]) -> web.Response:
    """Cancel: 200 once it is settled, 202 while it is chased, 409 if it is paid."""
    body, found = call.wish
    lifecycle, key = call.app[LIFECYCLE], call.key
    if isinstance(found, RecordedSale):
        sale = await lifecycle.cancel_sale(
            found, terminal=key.terminal, refund_if_paid=body.refund_if_paid, key_id=key.id
        )
        if isinstance(sale, RecordedSale):
            return _cancelled(Sale.of_sale(sale))
        return _cancelled(Sale.of(sale))
    transaction = await lifecycle.cancel(
        found, terminal=key.terminal, refund_if_paid=body.refund_if_paid, key_id=key.id
    )
    return _cancelled(models.Transaction.of(transaction))


cancel: Final = idempotent(_read_cancel)(_cancel)
# By the shop's own reference, while Pockyt's number is not known.
cancel_sale: Final = idempotent(_read_cancel_of_sale)(_cancel)


async def list_open(request: web.Request, key: Key) -> web.Response:
    """Answer with the sales without a number that Pockyt is asked about, or with a reference."""
    query = read_query(request, SalesQuery)
    if query.reference is not None:
        async with request.app[SHARES].searching(key.id):
            named = await find_sales(request, key, query.reference)
        return reply(OpenSales(data=[_sale(sale, bound) for sale, bound in named]))
    found = await request.app[LEDGER].read_open_sales(
        scope=key.scope, now_ms=request.app[CLOCK].now_ms(), limit=OPEN_SALES_MAX
    )
    return reply(OpenSales(data=[Sale.of_sale(sale) for sale in found]))


def _sale(sale: RecordedSale, transaction: Transaction | None) -> Sale:
    return Sale.of_sale(sale) if transaction is None else Sale.of(transaction)


async def _read_question(request: web.Request, key: Key) -> Transaction:
    await read_body(request, Body)
    return await find_transaction(request, key)


@idempotent(_read_question)
async def ask(call: ReadRequest[Transaction]) -> web.Response:
    """Ask Pockyt now: 200 with the transaction after its answer."""
    return reply(models.Transaction.of(await call.app[LIFECYCLE].ask(call.wish)))


async def _read_decision(request: web.Request, key: Key) -> tuple[DecideBody, Transaction]:
    body = await read_body(request, DecideBody)
    return body, await find_transaction(request, key)


@idempotent(_read_decision)
async def decide(call: ReadRequest[tuple[DecideBody, Transaction]]) -> web.Response:
    """Record an operator's decision: 200 with the transaction after it; 409 if it changed."""
    body, transaction = call.wish
    decision = Decision(
        status=body.status,
        name=body.name,
        reason=body.reason,
        key_id=call.key.id,
        state_version=body.state_version,
    )
    after = await call.app[LIFECYCLE].decide(transaction, decision)
    return reply(models.Transaction.of(after))


async def _read_cancel_body(request: web.Request, key: Key) -> CancelBody:
    """Read a cashier's cancel.

    Raises:
        ProblemError: The key may not give money back (403), or an error of ``read_body``.
    """
    body = await read_body(request, CancelBody)
    if body.refund_if_paid and not key.may_refund:
        raise ProblemError(403, "may-not-refund", "refundIfPaid needs a key made with --may-refund")
    return body


def _cancelled(after: models.Transaction) -> web.Response:
    """Answer with the state of a cancel: 200 settled, 202 still open.

    Raises:
        ProblemError: It is paid (409).
    """
    state = after.cancel.state if after.cancel else None
    if state is CancelState.REFUSED:
        raise ProblemError(
            409,
            "already-paid",
            "it is paid, so it was not cancelled; refundIfPaid would give the money back",
            members={"transaction": after.model_dump(mode="json", by_alias=True)},
        )
    return reply(after, status=200 if state in _ENDED_WELL else 202)


def _order(body: SaleBody, key: Key, settings: Settings) -> Order:
    """Read the order of a till within its key's scope.

    Raises:
        ProblemError: It is of another store or terminal (403), or of an unknown one (422).
    """
    if key.store_no is not None and body.store_no != key.store_no:
        raise ProblemError(403, "wrong-store", "the key is another store's")
    terminal = body.terminal or key.terminal
    if terminal is None:
        raise ProblemError(422, "bad-member", "terminal is missing, and the key names none")
    if key.terminal is not None and terminal != key.terminal:
        raise ProblemError(403, "wrong-terminal", "the key is another terminal's")
    merchant_no = key.merchant_no or ""
    merchant = settings.merchants.get(merchant_no)
    if merchant is None:
        raise ProblemError(422, "unknown-merchant", "the key's merchant is not configured any more")
    if merchant.stores and body.store_no not in merchant.stores:
        raise ProblemError(422, "unknown-store", "storeNo is not one of the merchant's stores")
    return Order(
        merchant_no=merchant_no,
        store_no=body.store_no,
        terminal=terminal,
        reference=body.reference,
        amount=body.amount,
        currency=body.currency,
        settle_currency=body.settle_currency,
        vendor=body.vendor,
    )
