"""Start a sale at Pockyt, once, whatever becomes of the call and however often it is wished."""

from collections.abc import Callable
from dataclasses import dataclass

from listener.errors import ReferenceTakenError
from listener.ledger.model import Transaction
from listener.ledger.promise import Ledger, RecordedSale
from listener.lifecycle import facts
from listener.lifecycle.caller import Caller
from listener.lifecycle.errors import OutcomeUnknownError
from listener.lifecycle.facts import Order
from listener.lifecycle.steps import Steps
from listener.pockyt.answer import Answer, PockytError


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A sale that was started, and the code that the customer scans, where there is one."""

    transaction: Transaction
    qrcode_url: str | None = None
    deep_link: str | None = None


class Starter:
    """Starts sales; ``nudge`` has the chaser look at the schedule soon."""

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
        async with self._steps.turns.of(order.merchant_no, "", order.reference):
            sale = await self._ledger.read_sale(
                merchant_no=order.merchant_no, reference=order.reference
            )
            if sale is not None:
                return await self._take_up(order, sale, is_repeat=is_repeat)
            recorded = await self._ledger.record(facts.sale_fact(order))
            self._nudge()
            return await self._open(order, recorded.seq)

    async def _open(self, order: Order, sale_seq: int) -> Started:
        """Start a recorded sale at Pockyt; an unknown outcome is looked for by its reference."""
        call, outcome = await self._caller.open(order, sale_seq=sale_seq)
        if isinstance(outcome, Answer) and outcome.transaction_no:
            recorded = await self._ledger.record(
                facts.opened_fact(order, outcome, call=call, sale_seq=sale_seq)
            )
            if recorded.transaction is not None:
                return Started(
                    transaction=recorded.transaction,
                    qrcode_url=outcome.qrcode_url,
                    deep_link=outcome.deep_link,
                )
        elif isinstance(outcome, PockytError) and facts.never_happened(outcome):
            await self._ledger.record(
                facts.opened_fact(order, outcome, call=call, sale_seq=sale_seq)
            )
            raise outcome
        return await self._find(order, sale_seq)

    async def _find(self, order: Order, sale_seq: int) -> Started:
        sale = RecordedSale(
            seq=sale_seq, fact=facts.sale_fact(order), recorded_at_ms=0, transaction_no=None
        )
        transaction, _ = await self._steps.look_for(sale)
        self._nudge()
        if transaction is None:
            raise OutcomeUnknownError
        return Started(transaction=transaction)

    async def _take_up(self, order: Order, sale: RecordedSale, *, is_repeat: bool) -> Started:
        """Go on with a sale that was recorded before."""
        if facts.order_of(sale.fact) != order:
            raise ReferenceTakenError(sale.transaction_no)
        if sale.transaction_no is not None:
            if not is_repeat:
                raise ReferenceTakenError(sale.transaction_no)
            return await self._read_started(order, sale.transaction_no)
        transaction, outcome = await self._steps.look_for(sale)
        self._nudge()
        if transaction is not None:
            return Started(transaction=transaction)
        if not facts.is_unheard_of(outcome):
            raise OutcomeUnknownError
        return await self._open(order, sale.seq)

    async def _read_started(self, order: Order, transaction_no: str) -> Started:
        (transaction,) = await self._ledger.read_transaction(
            transaction_no, merchant_no=order.merchant_no
        )
        lines = await self._ledger.read_transaction_entries(transaction)
        said = [line.entry.fact for line in lines if line.entry.fact.sale_seq is not None]
        return Started(
            transaction=transaction,
            qrcode_url=next((u for f in said if (u := f.field("qrcodeUrl"))), None),
            deep_link=next((u for f in said if (u := f.field("deepLink"))), None),
        )
