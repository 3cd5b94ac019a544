"""Sell, cancel and decide: the routes behind the buttons of a till and of an operator."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web

from listener.errors import ListenerError, ReferenceTakenError
from listener.keys import Key, Role
from listener.ledger.model import PAYABLE, CancelState, Status
from listener.ledger.promise import RecordedSale
from listener.lifecycle import (
    BeingCancelledError,
    NotifyUrlMissingError,
    NotOpenError,
    Order,
    OutcomeUnknownError,
    SaleCancelledError,
    TooManyWishesError,
)
from listener.pockyt.answer import PockytRefusedError, PockytUnavailableError
from listener.settings import Settings
from listener.web.api.idempotency import Idempotency
from listener.web.api.lookup import find_sale, find_transaction, has_sale
from listener.web.context import LEDGER, LIFECYCLE, SETTINGS
from listener.web.guard import guarded
from listener.web.problem import RETRY_SECONDS, STATUSES, ProblemError, of_error
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
from listener.web.shapes.parameters import NoQuery, read_query
from listener.web.shapes.sale import CancelledSale

_ENDED_WELL: Final = frozenset({CancelState.CONFIRMED, CancelState.REFUNDED})

# The one table of which failure of a till's wish is which HTTP status and code; the listener's
# own errors are in ``web.problem``.
_STATUSES: Final[Mapping[type[ListenerError], tuple[int, str]]] = MappingProxyType(
    {
        BeingCancelledError: (409, "being-cancelled"),
        NotOpenError: (409, "not-open"),
        NotifyUrlMissingError: (422, "no-public-url"),
        OutcomeUnknownError: (502, "outcome-unknown"),
        PockytRefusedError: (422, "pockyt-refused"),
        PockytUnavailableError: (502, "pockyt-unavailable"),
        SaleCancelledError: (409, "sale-cancelled"),
        TooManyWishesError: (429, "too-many-wishes"),
    }
)


def routes() -> list[web.RouteDef]:
    """List the routes that sell, cancel and decide."""
    sales = _Sales()
    one = "/v1/transactions/{transactionNo}"
    return [
        web.post("/v1/transactions", guarded(sales.start, Role.POS)),
        web.post(f"{one}/pay", guarded(sales.pay, Role.POS)),
        web.post(f"{one}/cancel", guarded(sales.cancel, Role.POS)),
        web.post("/v1/sales/{reference}/cancel", guarded(sales.cancel_sale, Role.POS)),
        web.post(f"{one}/ask", guarded(sales.ask, Role.ADMIN)),
        web.post(f"{one}/decide", guarded(sales.decide, Role.ADMIN)),
    ]


class _Sales:
    """The handlers; they share what is under way."""

    def __init__(self) -> None:
        self._idempotency = Idempotency()

    async def start(self, request: web.Request, key: Key) -> web.Response:
        """Start a sale: 201, with the code for the customer where there is one."""
        read_query(request, NoQuery)
        body = await read_body(request, SaleBody)
        order = _order(body, key, request.app[SETTINGS])

        async def work(may_be_repeat: bool) -> web.Response:
            started = await request.app[LIFECYCLE].start_sale(order, is_repeat=may_be_repeat)
            answer = StartedSale.started(
                started.transaction, qrcode_url=started.qrcode_url, deep_link=started.deep_link
            )
            return _answer(answer, status=201)

        return await self._once(request, key, work)

    async def pay(self, request: web.Request, key: Key) -> web.Response:
        """Try a customer's code: 200 with where the sale stands; 202 while nobody knows."""
        body = await read_body(request, PayBody)
        transaction = await find_transaction(request, key)

        async def work(_may_be_repeat: bool) -> web.Response:
            after = await request.app[LIFECYCLE].pay(
                transaction, payment_barcode=body.payment_barcode, vendor=body.vendor
            )
            status = 202 if after.status in PAYABLE else 200
            return _answer(models.Transaction.of(after), status=status)

        return await self._once(request, key, work)

    async def cancel(self, request: web.Request, key: Key) -> web.Response:
        """Cancel: 200 when it is settled, 202 while it is chased, 409 when it is paid."""
        body = await _read_cancel(request, key)
        try:
            transaction = await find_transaction(request, key)
        except ProblemError as error:
            # A till that never heard the number has nothing but its own reference to name it by.
            reference = request.match_info["transactionNo"]
            if error.status != 404 or not await has_sale(request, key, reference):
                raise
            return await self._cancel_sale(request, key, body, reference)

        async def work(_may_be_repeat: bool) -> web.Response:
            after = await request.app[LIFECYCLE].cancel(
                transaction,
                terminal=key.terminal,
                refund_if_paid=body.refund_if_paid,
                key_id=key.id,
            )
            return _cancelled(models.Transaction.of(after))

        return await self._once(request, key, work)

    async def cancel_sale(self, request: web.Request, key: Key) -> web.Response:
        """Cancel by the shop's own reference, where Pockyt's number is not known: as cancel."""
        read_query(request, NoQuery)
        body = await _read_cancel(request, key)
        return await self._cancel_sale(request, key, body, request.match_info["reference"])

    async def _cancel_sale(
        self, request: web.Request, key: Key, body: CancelBody, reference: str
    ) -> web.Response:
        sale = await find_sale(request, key, reference)

        async def work(_may_be_repeat: bool) -> web.Response:
            after = await request.app[LIFECYCLE].cancel_sale(
                sale,
                terminal=key.terminal,
                refund_if_paid=body.refund_if_paid,
                key_id=key.id,
            )
            if isinstance(after, RecordedSale):
                return _cancelled(CancelledSale.of_sale(after))
            return _cancelled(CancelledSale.of(after))

        return await self._once(request, key, work)

    async def ask(self, request: web.Request, key: Key) -> web.Response:
        """Ask Pockyt now: 200 with where the transaction stands after its answer."""
        await read_body(request, Body)
        transaction = await find_transaction(request, key)

        async def work(_may_be_repeat: bool) -> web.Response:
            after = await request.app[LIFECYCLE].ask(transaction)
            return _answer(models.Transaction.of(after), status=200)

        return await self._once(request, key, work)

    async def decide(self, request: web.Request, key: Key) -> web.Response:
        """Record what an operator has settled: 200 with where the transaction stands after it."""
        body = await read_body(request, DecideBody)
        transaction = await find_transaction(request, key)

        async def work(_may_be_repeat: bool) -> web.Response:
            after = await request.app[LIFECYCLE].decide(
                transaction, status=body.status, name=body.name, reason=body.reason
            )
            return _answer(models.Transaction.of(after), status=200)

        return await self._once(request, key, work)

    async def _once(
        self, request: web.Request, key: Key, work: Callable[[bool], Awaitable[web.Response]]
    ) -> web.Response:
        try:
            with request.app[LIFECYCLE].shares.of(key.id):
                return await self._idempotency.once(
                    request, key, ledger=request.app[LEDGER], work=work, to_problem=_problem_of
                )
        except ListenerError as error:
            raise _problem_of(error) from error


async def _read_cancel(request: web.Request, key: Key) -> CancelBody:
    """Read a cashier's cancel.

    Raises:
        ProblemError: The key may not give money back (403), or as ``read_body`` has it.
    """
    body = await read_body(request, CancelBody)
    if body.refund_if_paid and not key.may_refund:
        raise ProblemError(403, "may-not-refund", "refundIfPaid needs a key made with --may-refund")
    return body


def _cancelled(after: models.Transaction) -> web.Response:
    """Answer how a cancel stands: 200 settled, 202 still open.

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
    return _answer(after, status=200 if state in _ENDED_WELL else 202)


def _order(body: SaleBody, key: Key, settings: Settings) -> Order:
    """Read the order of a till within its key's scope.

    Raises:
        ProblemError: It is of another store or terminal (403), or of none that is known (422).
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
        raise ProblemError(422, "unknown-store", "storeNo is none of the merchant's stores")
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


def _problem_of(error: ListenerError) -> ProblemError:
    """Return the problem that tells a till why its wish could not be done."""
    members: dict[str, object]
    if isinstance(error, ReferenceTakenError):
        members = {"transactionNo": error.transaction_no}
        return ProblemError(*STATUSES[ReferenceTakenError], str(error), members=members)
    if type(error) not in _STATUSES:
        return of_error(error)
    status, code = _STATUSES[type(error)]
    members = {}
    if isinstance(error, PockytRefusedError):
        members = {"retCode": error.ret_code, "retMsg": error.ret_msg}
        # Pockyt's own failure is not the till's mistake.
        status = 502 if error.outcome_unknown else status
    elif isinstance(error, NotOpenError):
        members = {"transactionStatus": error.transaction.status}
        if error.transaction.status is Status.PAID:
            code = "already-paid"
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 429 else {}
    return ProblemError(status, code, str(error), members=members, headers=headers)


def _answer(body: models.Model, *, status: int) -> web.Response:
    return web.Response(status=status, body=body.encode(), content_type=models.JSON)
