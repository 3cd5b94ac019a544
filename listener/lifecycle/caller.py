"""Call Pockyt for a merchant, with its token, and notice when Pockyt fails."""

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, get_args

from listener import log
from listener.errors import NotifyUrlMissingError
from listener.ledger.model import Transaction
from listener.ledger.promise import Ledger
from listener.lifecycle.clock import Clock
from listener.lifecycle.facts import Outcome, is_refused
from listener.lifecycle.gate import Breaker, Limits
from listener.lifecycle.orders import Order
from listener.lifecycle.turns import keep_turns
from listener.pockyt.answer import (
    Answer,
    PockytError,
    PockytRefusedError,
    PockytUnavailableError,
    Reason,
)
from listener.pockyt.calls import Credentials, PockytCalls
from listener.pockyt.signature import Token
from listener.settings import Merchant

_LOG: Final = logging.getLogger(__name__)

MARGIN_SECONDS: Final = 2.0
# Each call, and each word that `on_call` is given for how one ended.
CALLS: Final = ("add", "create-trans-qrcode", "prepay", "cancel", "tran-query")
# An overtaken call was not sent.
OUTCOMES: Final = (
    *("answered", "refused", "failed"),
    *(reason for reason in get_args(Reason) if reason != "overtaken"),
)

_MOVING_MONEY: Final = frozenset({"add", "create-trans-qrcode", "prepay", "cancel"})

OnCall = Callable[[str, str, float], None]


class Caller:
    """Calls Pockyt. A failed call returns its error; it does not raise."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        pockyt: PockytCalls,
        merchants: Mapping[str, Merchant],
        public_url: str | None,
        limits: Limits,
        clock: Clock,
        call_seconds: float,
    ) -> None:
        self._ledger = ledger
        self._pockyt = pockyt
        self._merchants = merchants
        self._tokens = {
            number: Token(merchant.tokens[0].get_secret_value())
            for number, merchant in merchants.items()
        }
        self._public_url = public_url
        self._clock = clock
        self._call_seconds = call_seconds
        self.breaker = Breaker(limits)
        self.on_call: OnCall = lambda _call, _outcome, _seconds: None

    async def query(self, transaction: Transaction) -> Outcome:
        """Ask for a transaction by its number."""
        number = transaction.transaction_no
        return await self._call(
            "tran-query",
            self._credentials(transaction.merchant_no, transaction.store_no),
            lambda who: self._pockyt.tran_query(who, transaction_no=number),
        )

    async def look_for(self, order: Order) -> Outcome:
        """Ask for a sale by its reference."""
        return await self._call(
            "tran-query",
            self._credentials(order.merchant_no, order.store_no),
            lambda who: self._pockyt.tran_query(who, reference=order.reference),
        )

    async def cancel(self, transaction: Transaction) -> Outcome:
        """Cancel a transaction. If it is paid, this refunds it."""
        number = transaction.transaction_no
        return await self._call(
            "cancel",
            self._credentials(transaction.merchant_no, transaction.store_no),
            lambda who: self._pockyt.cancel(who, transaction_no=number),
        )

    async def cancel_sale(self, order: Order) -> Outcome:
        """Cancel a sale by its reference, while its number is unknown; as :meth:`cancel`."""
        return await self._call(
            "cancel",
            self._credentials(order.merchant_no, order.store_no),
            lambda who: self._pockyt.cancel(who, reference=order.reference),
        )

    async def prepay(
        self, transaction: Transaction, *, payment_barcode: str, vendor: str | None, charge: int
    ) -> Outcome:
        """Charge the customer's code.

        The request id is derived from the entry that recorded the charge first, so that Pockyt
        recognises a repeat.
        """
        return await self._call(
            "prepay",
            self._credentials(transaction.merchant_no, transaction.store_no),
            lambda who: self._pockyt.prepay(
                who,
                payment_barcode=payment_barcode,
                transaction_no=transaction.transaction_no,
                vendor=vendor,
                request_id=self._request_id(charge),
            ),
        )

    async def open(self, order: Order, *, sale_seq: int) -> tuple[str, Outcome]:
        """Start a sale at Pockyt; also returns the name of the call.

        The request id is derived from the sale, so that Pockyt recognises a repeat.
        """
        name = "add" if order.vendor is None else "create-trans-qrcode"
        request_id = self._request_id(sale_seq)
        outcome = await self._call(
            name,
            self._credentials(order.merchant_no, order.store_no),
            lambda who: self._open(who, order, request_id),
        )
        return name, outcome

    def _open(self, who: Credentials, order: Order, request_id: str) -> Awaitable[Answer]:
        if order.vendor is None:
            return self._pockyt.add(
                who,
                amount=order.amount,
                currency=order.currency,
                settle_currency=order.settle_currency,
                reference=order.reference,
                timeout_minutes=order.timeout_minutes,
                ipn_url=self._notify_url(order),
                request_id=request_id,
            )
        return self._pockyt.create_trans_qrcode(
            who,
            amount=order.amount,
            currency=order.currency,
            settle_currency=order.settle_currency,
            reference=order.reference,
            vendor=order.vendor,
            ipn_url=self.notify_url(order),
            timeout_minutes=order.timeout_minutes,
            request_id=request_id,
        )

    def _request_id(self, seq: int) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._ledger.epoch}-{seq}"))

    def notify_url(self, order: Order) -> str:
        """Return the URL at which Pockyt is to notify us of a sale.

        Raises:
            NotifyUrlMissingError: No public URL is set.
        """
        url = self._notify_url(order)
        if url is None:
            raise NotifyUrlMissingError
        return url

    def _notify_url(self, order: Order) -> str | None:
        if self._public_url is None:
            return None
        return f"{self._public_url}/notify/{order.merchant_no}/{order.store_no}"

    def _credentials(self, merchant_no: str, store_no: str | None) -> Credentials | None:
        """Return the credentials of a merchant; None where it is no longer configured."""
        token = self._tokens.get(merchant_no)
        if token is None:
            return None
        stores = self._merchants[merchant_no].stores
        store = store_no or (stores[0] if stores else "")
        return Credentials(merchant_no=merchant_no, store_no=store, token=token)

    async def _call(
        self,
        name: str,
        who: Credentials | None,
        call: Callable[[Credentials], Awaitable[Answer]],
    ) -> Outcome:
        if who is None:
            # Not Pockyt's fault, so it does not count as a failure of Pockyt's.
            return PockytUnavailableError(
                "the merchant is not configured any more", reason="connection", sent=False
            )
        if name in _MOVING_MONEY:
            # However late the answer is, no other task may begin before it has arrived.
            await keep_turns(self._ledger, seconds=self._call_seconds + MARGIN_SECONDS)
        started = time.perf_counter()
        try:
            outcome: Outcome = await call(who)
        except PockytError as error:
            outcome = error
        seconds = time.perf_counter() - started
        if _is_up(outcome):
            self.breaker.succeed()
        else:
            self.breaker.fail(self._clock.now_ms())
        if isinstance(outcome, PockytError):
            log.event(_LOG, "call_failed", level=logging.WARNING, call=name, reason=str(outcome))
        self.on_call(name, _word(outcome), seconds)
        return outcome


def _is_up(outcome: Outcome) -> bool:
    """Return whether Pockyt is up: only silence and its own failures count against it."""
    if isinstance(outcome, PockytRefusedError):
        return not outcome.is_its_fault
    return isinstance(outcome, Answer)


def _word(outcome: Outcome) -> str:
    """Return the outcome as a word for metrics."""
    if isinstance(outcome, Answer):
        return "answered"
    if isinstance(outcome, PockytUnavailableError):
        return outcome.reason
    return "refused" if is_refused(outcome) else "failed"
