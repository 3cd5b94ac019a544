"""Charge a customer's code once, whatever happens to the call and however often it is asked for."""

from collections.abc import Callable

from listener.errors import BeingCancelledError, NotOpenError
from listener.ledger.model import MONEY, PAYABLE, Transaction
from listener.ledger.promise import Ledger
from listener.lifecycle import charges, facts
from listener.lifecycle.caller import Caller
from listener.lifecycle.charges import Charge
from listener.lifecycle.steps import Steps
from listener.pockyt.answer import Answer


class Payer:
    """Charges codes. ``nudge`` makes the chaser look at the schedule soon."""

    def __init__(
        self, *, ledger: Ledger, caller: Caller, steps: Steps, nudge: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._steps = steps
        self._nudge = nudge

    async def pay(
        self,
        transaction: Transaction,
        *,
        payment_barcode: str,
        vendor: str | None,
        is_repeat: bool,
    ) -> Transaction:
        """See :meth:`Lifecycle.pay`."""
        code = charges.digest_of(payment_barcode, transaction, secret=self._ledger.secret)
        async with self._steps.turns.of(transaction.merchant_no, transaction.transaction_no):
            current = await self._steps.read(transaction)
            lines = await self._ledger.read_transaction_entries(current, notifications=False)
            before = charges.read_charges(line.entry for line in lines)
            again = charges.find_charge(before, code)
            is_same = again is not None and (is_repeat or again.is_in_doubt)
            if current.status not in PAYABLE and is_same:
                # What has come of the charge that is asked for again.
                return current
            _check_open(current)
            # One that Pockyt accepted may be waiting for its customer, who could still pay it.
            if any(charge.may_have_happened for charge in before):
                asked = await self._steps.ask(current)
                self._nudge()
                if not facts.is_unpaid(current, asked.outcome):
                    return asked.transaction
                current = asked.transaction
                _check_open(current)
            # Recorded before prepay is sent, so that a kill in between cannot send it twice.
            fact = charges.charging_fact(current, code=code, again=again)
            seq = (await self._ledger.record(fact)).seq
            return await self._charge(
                current,
                payment_barcode=payment_barcode,
                vendor=vendor,
                charge=again or Charge(seq=seq, code=code),
                in_doubt=any(charge.may_have_happened for charge in before),
            )

    async def _charge(
        self,
        transaction: Transaction,
        *,
        payment_barcode: str,
        vendor: str | None,
        charge: Charge,
        in_doubt: bool,
    ) -> Transaction:
        """Send prepay. ``in_doubt``: Pockyt may have carried out an earlier one."""
        outcome = await self._caller.prepay(
            transaction, payment_barcode=payment_barcode, vendor=vendor, charge=charge.seq
        )
        recorded = await self._ledger.record(
            facts.charged_fact(transaction, outcome, charge=charge.seq, in_doubt=in_doubt)
        )
        self._nudge()
        if isinstance(outcome, Answer):
            return recorded.transaction or transaction
        # An earlier try may have been paid although its answer never arrived.
        asked = await self._steps.ask(transaction)
        # A refusal of a repeat may only mean that Pockyt is carrying out the first.
        is_over = not charge.sent or facts.is_unpaid(transaction, asked.outcome)
        if facts.never_happened(outcome) and is_over and asked.transaction.status not in MONEY:
            raise outcome
        return asked.transaction


def _check_open(transaction: Transaction) -> None:
    """Raise NotOpenError or BeingCancelledError where a transaction must not be paid."""
    if transaction.status not in PAYABLE:
        raise NotOpenError(transaction.status)
    if transaction.is_being_cancelled:
        raise BeingCancelledError
