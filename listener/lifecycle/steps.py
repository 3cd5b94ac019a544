"""Take one step on a transaction: ask about it, cancel it, look for it; each leaves an entry.

Whoever takes one holds the transaction's turn.
"""

from dataclasses import dataclass, replace
from typing import Final

from listener.ledger.model import Entry, Fact, Transaction
from listener.ledger.promise import Ledger, RecordedSale
from listener.lifecycle import facts, wishes
from listener.lifecycle.caller import Caller
from listener.lifecycle.facts import Outcome
from listener.lifecycle.turns import Turns
from listener.pockyt.answer import PockytUnavailableError

# What is recorded where a payment came in just before /cancel would have been sent.
NOT_SENT: Final = PockytUnavailableError("a payment was faster", reason="overtaken", sent=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of a question: where the transaction stands now, and what Pockyt said."""

    transaction: Transaction
    outcome: Outcome


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
        fact, outcome = await self._query(transaction)
        return await self._recorded(transaction, fact, outcome)

    async def settle(self, transaction: Transaction) -> Asked:
        """Ask about a transaction, and go on with the cancel that somebody waits for.

        /cancel refunds what is paid. So it is sent only when Pockyt has just said that this very
        sale is open, or that it is paid and the cashier wants the money to go back; never on the
        word of anything older, and once for each wish, unless Pockyt refused it. Whatever comes of
        it, Pockyt is asked at once what it came to: a payment may have been faster.
        """
        fact, outcome = await self._query(transaction)
        sends = await self._may_cancel(await self.read(transaction), fact)
        # Recorded before it is sent, so that a kill in between cannot have it sent twice.
        told = facts.sending_cancel(fact) if sends else fact
        asked = await self._recorded(transaction, told, outcome)
        if not sends:
            return asked
        as_of = await self._ledger.seq()
        # Read after the head, so that no payment up to there is overlooked.
        current = await self.read(transaction)
        if await self._is_allowed(current, fact):
            sent = await self._caller.cancel(current)
        else:
            sent = NOT_SENT
        answer = facts.answer_fact(current, sent, call="cancel", as_of=as_of)
        recorded = await self._ledger.record(answer)
        if sent is NOT_SENT:
            return replace(asked, transaction=recorded.transaction or current)
        return await self.ask(recorded.transaction or current)

    async def is_new_wish(self, transaction: Transaction, *, refund_if_paid: bool) -> bool:
        """Return whether a cashier's cancel asks for more than was recorded before."""
        if transaction.cancel is None:
            return True
        entries = await self._entries(transaction)
        return not wishes.changes_nothing(transaction, entries, refund_if_paid=refund_if_paid)

    async def _query(self, transaction: Transaction) -> tuple[Fact, Outcome]:
        as_of = await self._ledger.seq()
        outcome = await self._caller.query(transaction)
        return facts.query_fact(transaction, outcome, as_of=as_of), outcome

    async def _recorded(self, transaction: Transaction, fact: Fact, outcome: Outcome) -> Asked:
        recorded = await self._ledger.record(fact)
        return Asked(transaction=recorded.transaction or transaction, outcome=outcome)

    async def _may_cancel(self, transaction: Transaction, query: Fact) -> bool:
        """Return whether /cancel may be sent on the word of a query that was just answered."""
        if not await self._is_allowed(transaction, query):
            return False
        return not wishes.is_spent(await self._entries(transaction))

    async def _is_allowed(self, transaction: Transaction, query: Fact) -> bool:
        """Return whether somebody waits for a cancel that the present state allows."""
        if not transaction.is_being_cancelled or not facts.is_about(transaction, query):
            return False
        refunds = wishes.may_refund(await self._entries(transaction))
        return wishes.allows_cancel(query.says, status=transaction.status, refunds=refunds)

    async def _entries(self, transaction: Transaction) -> list[Entry]:
        return [line.entry for line in await self._ledger.read_transaction_entries(transaction)]

    async def look_for(self, sale: RecordedSale) -> tuple[Transaction | None, Outcome]:
        """Look for a sale by its reference; where it is found, its number is bound to it."""
        as_of = await self._ledger.seq()
        order = facts.order_of(sale.fact)
        outcome = await self._caller.look_for(order)
        recorded = await self._ledger.record(
            facts.found_fact(order, outcome, sale_seq=sale.seq, as_of=as_of)
        )
        return recorded.transaction, outcome
