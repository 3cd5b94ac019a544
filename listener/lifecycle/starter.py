"""Start a sale at Pockyt once, whatever happens to the call and however often it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass

from listener.errors import OutcomeUnknownError, ReferenceTakenError, SaleCancelledError
from listener.ledger.model import Fact, Kind, Transaction
from listener.ledger.promise import Ledger
from listener.ledger.results import RecordedSale
from listener.lifecycle import facts, orders
from listener.lifecycle.caller import Caller
from listener.lifecycle.orders import Order
from listener.lifecycle.steps import Steps, sale_key
from listener.pockyt.answer import PockytError


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A sale that was started, and the code for the customer to scan, if there is one."""

    transaction: Transaction
    qrcode_url: str | None = None
    deep_link: str | None = None


class Starter:
    """Starts sales. ``nudge`` makes the chaser look at the schedule soon."""

    def __init__(
        self, *, ledger: Ledger, caller: Caller, steps: Steps, nudge: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._steps = steps
        self._nudge = nudge

    async def start(self, order: Order, *, is_repeat: bool) -> Started:
        """See :meth:`Lifecycle.start_sale`."""
        if order.vendor is not None:
            self._caller.notify_url(order)
        async with self._steps.turns.of(*sale_key(order)):
            sale = await self._steps.find_sale(order)
            try:
                if sale is not None and not sale.state.is_refused:
                    return await self._take_up(order, sale, is_repeat=is_repeat)
                await self._ledger.record(orders.sale_fact(order))
                self._nudge()
                return await self._open(order, is_first=True)
            finally:
                self._nudge()

    async def _open(self, order: Order, *, is_first: bool) -> Started:
        """Start a recorded sale at Pockyt; if the outcome is unknown, look for it by its reference.

        A refusal of the first try ends it, and nothing is looked up: a sale that Pockyt knows
        under a refused reference is another's. A refusal after a try with an unknown outcome may
        only mean that Pockyt did receive the first one.
        """
        sale = await self._steps.find_sale(order)
        if sale is None or sale.state.is_being_cancelled:
            raise SaleCancelledError
        call, outcome = await self._caller.open(order, sale_seq=sale.seq)
        fact = facts.opened_fact(order, outcome, call=call, sale_seq=sale.seq)
        if fact.transaction_no:
            recorded = await self._steps.bind(fact)
            return _started(recorded.transaction, [fact])
        unknown: Exception = OutcomeUnknownError()
        if isinstance(outcome, PockytError) and facts.never_happened(outcome):
            if is_first:
                await self._ledger.record(fact)
                raise outcome
            unknown = outcome
        transaction, _ = await self._steps.look_for(sale)
        return _started(transaction, [], otherwise=unknown)

    async def _take_up(self, order: Order, sale: RecordedSale, *, is_repeat: bool) -> Started:
        """Go on with a sale that was recorded before."""
        if orders.order_of(sale.fact) != order:
            raise ReferenceTakenError(sale.transaction_no)
        if sale.transaction_no is not None:
            if not is_repeat:
                raise ReferenceTakenError(sale.transaction_no)
            return await self._read_started(order, sale.transaction_no)
        if sale.state.cancel is not None:
            raise SaleCancelledError
        transaction, outcome = await self._steps.look_for(sale)
        if transaction is None and facts.is_unheard_of(outcome):
            return await self._open(order, is_first=False)
        return _started(transaction, [])

    async def _read_started(self, order: Order, transaction_no: str) -> Started:
        (transaction,) = await self._ledger.read_transaction(
            transaction_no, merchant_no=order.merchant_no
        )
        lines = await self._ledger.read_transaction_entries(transaction, notifications=False)
        said = [line.entry.fact for line in lines if line.entry.fact.kind is Kind.ANSWER]
        return _started(transaction, said)


def _started(
    transaction: Transaction | None, said: list[Fact], *, otherwise: Exception | None = None
) -> Started:
    """Return a sale that was started, with the code from Pockyt's answer.

    Raises:
        Exception: ``otherwise``, or OutcomeUnknownError, where there is no transaction.
    """
    if transaction is None:
        raise otherwise or OutcomeUnknownError
    return Started(
        transaction=transaction,
        qrcode_url=next((u for f in said if (u := f.field("qrcodeUrl"))), None),
        deep_link=next((u for f in said if (u := f.field("deepLink"))), None),
    )
