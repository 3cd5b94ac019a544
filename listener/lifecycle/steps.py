"""Take one step on a transaction: ask about it, cancel it, look for it; each leaves an entry.

Whoever takes one holds the transaction's turn.
"""

from dataclasses import dataclass
from typing import Final

from listener.ledger.model import MONEY, Kind, Status, Transaction
from listener.ledger.promise import Ledger, RecordedSale
from listener.ledger.transaction import refunds_if_paid
from listener.lifecycle import facts
from listener.lifecycle.caller import Caller
from listener.lifecycle.facts import Outcome
from listener.lifecycle.turns import Turns

_OPEN: Final = frozenset({Status.CREATED, Status.PENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of a question: where the transaction stands now, and what Pockyt said."""

    transaction: Transaction
    outcome: Outcome
    says: Status | None


class Steps:
    """The steps, for tills, operators and the chaser alike."""

    def __init__(self, *, ledger: Ledger, caller: Caller) -> None:
        self._ledger = ledger
        self._caller = caller
        self.turns = Turns(ledger)

    async def read(self, transaction: Transaction) -> Transaction:
        """Return where a transaction stands now."""
        (found,) = await self._ledger.read_transaction(
            transaction.transaction_no, merchant_no=transaction.merchant_no
        )
        return found

    async def ask(self, transaction: Transaction) -> Asked:
        """Ask Pockyt how a transaction stands, and record what it says."""
        as_of = await self._ledger.seq()
        outcome = await self._caller.query(transaction)
        fact = facts.query_fact(transaction, outcome, as_of=as_of)
        recorded = await self._ledger.record(fact)
        after = recorded.transaction or transaction
        return Asked(transaction=after, outcome=outcome, says=fact.says)

    async def settle(self, transaction: Transaction) -> Asked:
        """Ask about a transaction, and go on with the cancel that somebody waits for.

        /cancel refunds what is paid. So it is sent only when Pockyt has just said that the sale
        is open, or that it is paid and the cashier wants the money to go back; never on the word
        of anything older, and never again until Pockyt has been asked again. Whatever comes of
        it, Pockyt is asked at once what it came to: a payment may have been faster.
        """
        asked = await self.ask(transaction)
        if not asked.transaction.is_being_cancelled:
            return asked
        as_of = await self._ledger.seq()
        # Read after the head, so that no payment up to there is overlooked.
        current = await self.read(transaction)
        if not current.is_being_cancelled or not await self._may_cancel(current, asked.says):
            return Asked(transaction=current, outcome=asked.outcome, says=asked.says)
        outcome = await self._caller.cancel(current)
        fact = facts.answer_fact(current, outcome, call="cancel", as_of=as_of)
        recorded = await self._ledger.record(fact)
        return await self.ask(recorded.transaction or current)

    async def look_for(self, sale: RecordedSale) -> tuple[Transaction | None, Outcome]:
        """Look for a sale by its reference; where it is found, its number is bound to it."""
        as_of = await self._ledger.seq()
        order = facts.order_of(sale.fact)
        outcome = await self._caller.look_for(order)
        recorded = await self._ledger.record(
            facts.found_fact(order, outcome, sale_seq=sale.seq, as_of=as_of)
        )
        return recorded.transaction, outcome

    async def _may_cancel(self, transaction: Transaction, says: Status | None) -> bool:
        """Tell whether /cancel may be sent, after Pockyt has just said how a sale stands."""
        if says not in _OPEN and says is not Status.PAID:
            return False
        lines = await self._ledger.read_transaction_entries(transaction)
        requests = [line.entry for line in lines if line.entry.fact.kind is Kind.CANCEL_REQUEST]
        if says in _OPEN:
            # Whoever cancels what somebody has paid gives money back.
            return refunds_if_paid(requests[-1]) or transaction.status not in MONEY
        # In a conflict a refund was counted already; giving money back twice is for nobody to try.
        return refunds_if_paid(requests[-1]) and transaction.status is Status.PAID
