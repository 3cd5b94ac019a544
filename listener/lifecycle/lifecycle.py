"""Do what tills and operators want: start, pay, cancel, ask, decide. Record each wish first."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from listener.errors import ChangedMeanwhileError
from listener.ledger.model import Transaction
from listener.ledger.promise import Ledger
from listener.ledger.results import RecordedSale
from listener.lifecycle import orders, wishes
from listener.lifecycle.caller import Caller, OnCall
from listener.lifecycle.cancels import CancelsUnderWay
from listener.lifecycle.chaser import Chaser
from listener.lifecycle.clock import Clock
from listener.lifecycle.gate import Limits, WishShares
from listener.lifecycle.orders import Decision, Order
from listener.lifecycle.payer import Payer
from listener.lifecycle.starter import Started, Starter
from listener.lifecycle.steps import Steps, sale_key
from listener.lifecycle.turns import Turns
from listener.pockyt.answer import PockytError
from listener.pockyt.calls import PockytCalls
from listener.settings import Merchant

CALL_SECONDS: Final = 10.0


class Lifecycle:
    """Takes each sale from the till's wish to Pockyt's last word.

    It holds no state of its own: everything is in the ledger, so that a restart resumes it. Keep
    ``run`` running, or nothing is chased. ``shares`` are the shares of the keys.

    Every method raises LedgerUnavailableError where the ledger cannot be used now.

    Args:
        ledger: Where everything is recorded, before and after each call.
        pockyt: PockytCalls, over HTTP or in-process.
        merchants: By merchantNo; the first token of each signs.
        public_url: Our URL as Pockyt reaches it, without a closing slash; with None, no ipnUrl
            is sent.
        limits: How much Pockyt may be asked.
        clock: The time; a simulation provides its own.
        call_seconds: How long one call to Pockyt may take.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        pockyt: PockytCalls,
        merchants: Mapping[str, Merchant],
        public_url: str | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._limits = limits or Limits()
        self._clock = clock or Clock()
        self._caller = Caller(
            ledger=ledger,
            pockyt=pockyt,
            merchants=merchants,
            public_url=public_url,
            limits=self._limits,
            clock=self._clock,
            call_seconds=call_seconds,
        )
        self._steps = Steps(ledger=ledger, caller=self._caller)
        self.chaser = Chaser(
            ledger=ledger,
            caller=self._caller,
            steps=self._steps,
            limits=self._limits,
            clock=self._clock,
        )
        self._starter = Starter(
            ledger=ledger, caller=self._caller, steps=self._steps, nudge=self.chaser.nudge
        )
        self._payer = Payer(
            ledger=ledger, caller=self._caller, steps=self._steps, nudge=self.chaser.nudge
        )
        self._cancels = CancelsUnderWay(self._clock, wait_seconds=self._limits.wait_seconds)
        self._wishes = Turns(ledger, kind="wish")
        self.shares = WishShares(self._limits, now_ms=self._clock.now_ms)

    @property
    def is_pockyt_down(self) -> bool:
        """Whether Pockyt failed so often that chasing has paused."""
        return self._caller.breaker.is_open

    def on_call(self, hook: OnCall) -> None:
        """Call a hook after each call, with its name, a word for its outcome, and its seconds."""
        self._caller.on_call = hook

    async def run(self) -> None:
        """Chase everything that is in doubt, for ever: ask on schedule, raise what stays silent.

        An error with one transaction is logged and affects no other. Cancelling this loses nothing.
        """
        try:
            await self.chaser.run()
        finally:
            await self.close()

    async def close(self) -> None:
        """End the work behind answered requests; after a restart the schedule resumes it."""
        await self._cancels.close()
        await self.chaser.stop()

    async def start_sale(self, order: Order, *, is_repeat: bool = False) -> Started:
        """Record a sale, then start it at Pockyt, and bind the number it gets to it.

        A sale that was recorded before, and whose outcome is unknown, is resumed if the order is
        the same.

        Args:
            order: What the till wants.
            is_repeat: The same wish came before: a sale that was started is returned.

        Raises:
            ReferenceTakenError: The reference is another sale's.
            NotifyUrlMissingError: A vendor is named, and no public URL is set.
            PockytRefusedError: Pockyt said no: nothing was started.
            PockytUnavailableError: Pockyt cannot be reached: nothing was started.
            OutcomeUnknownError: Pockyt did not answer; the sale is looked for on schedule.
        """
        return await self._starter.start(order, is_repeat=is_repeat)

    async def pay(
        self,
        transaction: Transaction,
        *,
        payment_barcode: str,
        vendor: str | None = None,
        is_repeat: bool = False,
    ) -> Transaction:
        """Record that a code is charged, charge it, and ask at once if the outcome is unknown.

        Where an earlier charge may have happened, Pockyt is asked first, and another one is sent
        only if nobody has paid or is paying.

        Args:
            transaction: What is paid.
            payment_barcode: The customer's code.
            vendor: The wallet, if the till knows it.
            is_repeat: The same wish came before: what has come of it is returned.

        Returns:
            The transaction: paid, failed, or still open and chased.

        Raises:
            NotOpenError: It was paid, closed or failed before.
            BeingCancelledError: Somebody is cancelling it.
            PockytRefusedError: Pockyt said no; the sale is still open.
        """
        return await self._payer.pay(
            transaction, payment_barcode=payment_barcode, vendor=vendor, is_repeat=is_repeat
        )

    async def cancel(
        self,
        transaction: Transaction,
        *,
        terminal: str | None = None,
        refund_if_paid: bool = False,
        key_id: str | None = None,
    ) -> Transaction:
        """Record that a cashier cancels, then settle it, and wait a few seconds for the end.

        Pockyt is asked first, because its /cancel refunds what is paid: a paid sale is refused
        unless ``refund_if_paid``. What has not ended when this returns is chased. A wish that was
        recorded before is not recorded again; the transaction is returned as it stands.

        Returns:
            The transaction, with its ``cancel`` as far as it has come.
        """
        # One at a time, so that pressing a button twice is one wish.
        async with self._wishes.of(transaction.merchant_no, transaction.transaction_no):
            after = await self._steps.read(transaction)
            if await self._steps.is_new_wish(after, refund_if_paid=refund_if_paid):
                fact = orders.cancel_fact(
                    after, terminal=terminal, refund_if_paid=refund_if_paid, key_id=key_id
                )
                after = (await self._ledger.record(fact)).transaction or after
                self.chaser.nudge()
                if after.is_being_cancelled:
                    self._cancels.start(_key(after), self._settle(after))
        if not after.is_being_cancelled or not await self._cancels.wait(_key(after)):
            # It has ended, or the chaser asks about it on schedule.
            return after
        return await self._steps.read(after)

    async def cancel_sale(
        self,
        sale: RecordedSale,
        *,
        terminal: str | None = None,
        refund_if_paid: bool = False,
        key_id: str | None = None,
    ) -> Transaction | RecordedSale:
        """As ``cancel``, for a sale whose transaction number may not be known yet.

        The wish is stored with the sale, and the transaction takes it over once Pockyt has given
        the number. If Pockyt finally has no such sale, the sale ends cancelled; but where the
        ledger has a transaction under its reference nevertheless, that is cancelled.

        Returns:
            The transaction, or the sale if it has none.
        """
        order = orders.order_of(sale.fact)
        key = sale_key(order)
        async with self._wishes.of(*key):
            current = await self._steps.find_sale(order) or sale
            is_new = wishes.is_new_at_sale(current, refund_if_paid=refund_if_paid)
            is_known = current.state.is_refused and await self._steps.transaction_of(current)
            if current.transaction_no is None and is_new and not is_known:
                fact = orders.sale_cancel_fact(
                    sale.fact,
                    sale_seq=current.seq,
                    terminal=terminal,
                    refund_if_paid=refund_if_paid,
                    key_id=key_id,
                )
                await self._ledger.record(fact)
                self.chaser.nudge()
                self._cancels.start(key, self._settle_sale(order))
            elif await self._is_heard(current):
                self._cancels.start(key, self._settle_sale(order))
        await self._cancels.wait(key)
        current = await self._steps.find_sale(order) or current
        transaction = await self._steps.transaction_of(current)
        if transaction is None:
            return current
        is_bound = current.transaction_no is not None
        if is_bound and current.wish is not None and current.state.due_ms is not None:
            # The transaction is about to take the wish over.
            return transaction
        return await self.cancel(
            transaction, terminal=terminal, refund_if_paid=refund_if_paid, key_id=key_id
        )

    async def ask(self, transaction: Transaction) -> Transaction:
        """Ask Pockyt now, and go on with a cancel that somebody waits for, as the chaser would.

        Raises:
            PockytError: There was no answer; that is recorded too.
        """
        async with self._turn(transaction):
            asked = await self._steps.settle(await self._steps.read(transaction))
        self.chaser.nudge()
        if isinstance(asked.outcome, PockytError):
            raise asked.outcome
        return asked.transaction

    async def decide(self, transaction: Transaction, decision: Decision) -> Transaction:
        """Record what an operator has found out, where Pockyt cannot settle it.

        It overrules everything before it; what comes later is joined with it. Where the operator
        says what he has seen, "later" means after that.

        Raises:
            ChangedMeanwhileError: The transaction is no longer what the operator has seen.
        """
        # One at a time, so that the second of two operators gets an error.
        async with self._wishes.of(transaction.merchant_no, transaction.transaction_no):
            as_of = None
            if decision.state_version is not None:
                # Taken before reading, so that what comes during the read is not overruled unseen.
                as_of = await self._ledger.seq()
                current = await self._steps.read(transaction)
                if current.state_version != decision.state_version:
                    raise ChangedMeanwhileError(current.status)
            fact = orders.decision_fact(transaction, decision, as_of=as_of)
            recorded = await self._ledger.record(fact)
        return recorded.transaction or transaction

    def _turn(self, transaction: Transaction) -> AbstractAsyncContextManager[None]:
        return self._steps.turns.of(transaction.merchant_no, transaction.transaction_no)

    async def _is_heard(self, sale: RecordedSale) -> bool:
        """Return whether a transaction is to take a wish over that seemed to have ended."""
        if sale.wish is None or sale.transaction_no is not None:
            return False
        return await self._steps.number_heard(sale) is not None

    async def _settle_sale(self, order: Order) -> None:
        async with self._steps.turns.of(*sale_key(order)):
            sale = await self._steps.find_sale(order)
            # The call that starts it may have brought the number meanwhile.
            if sale and (sale.state.due_ms is not None or await self._is_heard(sale)):
                await self._steps.settle_sale(sale)
        self.chaser.nudge()

    async def _settle(self, transaction: Transaction) -> None:
        async with self._turn(transaction):
            current = await self._steps.read(transaction)
            # The previous holder of the turn may have settled it.
            if current.is_being_cancelled:
                await self._steps.settle(current)


def _key(transaction: Transaction) -> tuple[str, ...]:
    return (transaction.merchant_no, transaction.transaction_no)
