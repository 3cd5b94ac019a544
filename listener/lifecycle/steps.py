"""The steps on a transaction: ask about it, cancel it, look for it. Each records an entry.

The caller must hold the transaction's turn.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from listener import log
from listener.errors import NumberTakenError
from listener.ledger.model import MONEY, PAYABLE, Entry, Fact, Transaction
from listener.ledger.promise import Ledger
from listener.ledger.results import Recorded, RecordedSale
from listener.ledger.scope import Scope, Search
from listener.lifecycle import facts, orders, wishes
from listener.lifecycle.caller import Caller
from listener.lifecycle.facts import Outcome
from listener.lifecycle.orders import Order
from listener.lifecycle.turns import Turns
from listener.pockyt.answer import PockytUnavailableError

# Recorded where a payment arrived just before /cancel would have been sent.
NOT_SENT: Final = PockytUnavailableError("a payment was faster", reason="overtaken", sent=False)

# How many of the transactions with a reference are looked at: nearly always there is one.
HEARD_MAX: Final = 16

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The result of a question: the transaction as it stands now, and what Pockyt said."""

    transaction: Transaction
    outcome: Outcome


class Steps:
    """The steps that tills, operators and the chaser share."""

    def __init__(self, *, ledger: Ledger, caller: Caller) -> None:
        self._ledger = ledger
        self._caller = caller
        self.turns = Turns(ledger)

    async def read(self, transaction: Transaction) -> Transaction:
        """Read a transaction as it stands now."""
        (found,) = await self._ledger.read_transaction(
            transaction.transaction_no, merchant_no=transaction.merchant_no
        )
        return found

    async def ask(self, transaction: Transaction) -> Asked:
        """Ask Pockyt about a transaction, and record the answer."""
        fact, outcome = await self._query(transaction)
        return await self._recorded(transaction, fact, outcome)

    async def settle(self, transaction: Transaction) -> Asked:
        """Ask about a transaction, and go on with the cancel that somebody waits for.

        /cancel refunds what is paid. So it is sent only if Pockyt has just said that this very
        sale is open, or that it is paid and the cashier wants the money to go back. An older
        answer does not count. It is sent once for each wish, unless Pockyt refused it. Afterwards
        Pockyt is asked at once how it ended: a payment may have been faster.
        """
        fact, outcome = await self._query(transaction)
        sends = await self._may_cancel(await self.read(transaction), fact)
        # Recorded before /cancel is sent, so that a kill in between cannot send it twice.
        told = facts.sending_cancel(fact) if sends else fact
        asked = await self._recorded(transaction, told, outcome)
        if not sends:
            return await self._inherit(asked)
        as_of = await self._ledger.seq()
        # Read after the head, so that no payment up to there is missed.
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

    async def _inherit(self, asked: Asked) -> Asked:
        """Go on with the wish of the sale that judges a transaction, now that it is believed."""
        transaction = asked.transaction
        if transaction.cancel is not None or not wishes.is_heard(transaction):
            return asked
        sales = await self._ledger.read_sales(
            merchant_no=transaction.merchant_no,
            reference=transaction.reference or "",
            store_no=transaction.store_no,
        )
        sale = next((one for one in sales if one.seq == transaction.judge_seq), None)
        if sale is None or sale.wish is None or sale.transaction_no is not None:
            return asked
        if await self._is_shared(orders.order_of(sale.fact), has_number=True):
            return asked
        after = await self.take_over(sale, transaction.transaction_no)
        return await self.settle(after) if after.is_being_cancelled else asked

    async def is_new_wish(self, transaction: Transaction, *, refund_if_paid: bool) -> bool:
        """Return whether a cashier's cancel asks for more than was recorded before."""
        if transaction.cancel is None:
            return True
        entries = await self._entries(transaction)
        return not wishes.changes_nothing(transaction, entries, refund_if_paid=refund_if_paid)

    async def find_sale(self, order: Order) -> RecordedSale | None:
        """Return the sale that a store recorded under a reference.

        One that Pockyt refused is returned only if no other has the reference.
        """
        sales = await self._ledger.read_sales(
            merchant_no=order.merchant_no, reference=order.reference, store_no=order.store_no
        )
        return sales[0] if sales else None

    async def bind(self, fact: Fact) -> Recorded:
        """Record what Pockyt said of a sale, and bind the number it gave to the sale.

        Raises:
            NumberTakenError: The number is another sale's, or another store's. The answer is
                recorded without it, and so is an alarm.
        """
        try:
            return await self._ledger.record(fact)
        except NumberTakenError as error:
            await self._ledger.record(facts.without_number(fact))
            await self._ledger.record(orders.number_taken_fact(fact, holder=error.holder))
            log.event(
                _LOG,
                "number_taken",
                level=logging.ERROR,
                merchantNo=fact.merchant_no,
                transactionNo=fact.transaction_no,
                sale=fact.sale_seq,
                reference=fact.reference,
                holderReference=error.holder,
            )
            raise

    async def look_for(self, sale: RecordedSale) -> tuple[Transaction | None, Outcome]:
        """Look for a sale by its reference; if it is found, bind its number to it.

        Raises:
            NumberTakenError: See :meth:`bind`.
        """
        fact, outcome = await self._query_sale(sale)
        return (await self.bind(fact)).transaction, outcome

    async def settle_sale(self, sale: RecordedSale) -> None:
        """Look for a sale, and go on with a wish to cancel it that came before its number.

        Raises:
            NumberTakenError: See :meth:`bind`.
        """
        if sale.transaction_no is None:
            await self._cancel_sale(sale)
        current = await self.find_sale(orders.order_of(sale.fact))
        if current is None or current.wish is None:
            return
        number = current.transaction_no or await self.number_heard(current)
        if number is None:
            return
        async with self.turns.of(sale.fact.merchant_no, number):
            after = await self.take_over(current, number)
            if after.is_being_cancelled:
                await self.settle(after)

    async def number_heard(self, sale: RecordedSale) -> str | None:
        """Return the number that a notification has brought for a sale, or None.

        A payment's number comes first, then one that can still be paid. If another store's sale has
        the reference too, nobody can say whose number it is.
        """
        order = orders.order_of(sale.fact)
        named = await self._named(order)
        heard = [one for one in named if wishes.is_heard(one, sale_seq=sale.seq)]
        if not heard or await self._is_shared(order, has_number=True):
            return None
        return _foremost(heard).transaction_no

    async def transaction_of(self, sale: RecordedSale) -> Transaction | None:
        """Return the transaction that answers for a sale: that of its number, if it has one.

        If the sale ended without a number, that is its store's transaction under its reference:
        Pockyt may have started it against its word. None if there is none.
        """
        order = orders.order_of(sale.fact)
        if sale.transaction_no is not None:
            (found,) = await self._ledger.read_transaction(
                sale.transaction_no, merchant_no=order.merchant_no
            )
            return found
        named = await self._named(order) if sale.state.has_ended else []
        if not named or await self._is_shared(order, has_number=True):
            return None
        return _foremost(named)

    async def take_over(self, sale: RecordedSale, number: str) -> Transaction:
        """Record at a transaction the wish that its sale has held since before its number.

        That binds the number to the sale. The caller must hold the transaction's turn.

        Raises:
            NumberTakenError: The number has become another sale's meanwhile; nothing is recorded.
        """
        (transaction,) = await self._ledger.read_transaction(
            number, merchant_no=sale.fact.merchant_no
        )
        current = await self.find_sale(orders.order_of(sale.fact))
        if current is None or current.seq != sale.seq:
            return transaction
        sale = current
        is_bound = sale.transaction_no is not None
        is_done = is_bound and (sale.transaction_no != number or sale.state.due_ms is None)
        if sale.wish is None or is_done:
            return transaction
        entries = await self._entries(transaction)
        is_spent = sale.state.is_cancel_sent or wishes.is_spent(entries)
        fact = orders.taken_over_fact(transaction, sale.wish, sale.state, is_spent=is_spent)
        recorded = await self._ledger.record(fact)
        return recorded.transaction or transaction

    async def _cancel_sale(self, sale: RecordedSale) -> None:
        """Ask about a sale by its reference, and cancel it by its reference if no number comes."""
        query, _ = await self._query_sale(sale)
        sends = not query.transaction_no and wishes.allows_cancel_of_sale(sale, query.says)
        await self.bind(facts.sending_cancel(query) if sends else query)
        if not sends:
            return
        order = orders.order_of(sale.fact)
        as_of = await self._ledger.seq()
        # Its number may have come meanwhile, by a notification or bound to it: then it is cancelled
        # by that, if it is not paid.
        current = await self.find_sale(order)
        is_nameless = current is not None and current.seq == sale.seq and not current.transaction_no
        sends = is_nameless and await self.number_heard(sale) is None
        outcome = await self._caller.cancel_sale(order) if sends else NOT_SENT
        await self.bind(facts.sale_answer_fact(order, outcome, sale_seq=sale.seq, as_of=as_of))

    async def _query_sale(self, sale: RecordedSale) -> tuple[Fact, Outcome]:
        as_of = await self._ledger.seq()
        order = orders.order_of(sale.fact)
        outcome = await self._caller.look_for(order)
        fact = facts.found_fact(order, outcome, sale_seq=sale.seq, as_of=as_of)
        has_number = bool(fact.transaction_no)
        if (has_number or fact.says) and await self._is_shared(order, has_number=has_number):
            return facts.without_number(fact), outcome
        return fact, outcome

    async def _named(self, order: Order) -> list[Transaction]:
        """Return the transactions that a store has under a reference."""
        scope = Scope(merchant_no=order.merchant_no, store_no=order.store_no)
        return await self._ledger.read_transactions(
            Search(scope=scope, reference=order.reference), before=None, limit=HEARD_MAX
        )

    async def _is_shared(self, order: Order, *, has_number: bool) -> bool:
        """Return whether Pockyt may have found another store's sale of the same reference.

        If it gave a number, that can only be a sale whose number is not known. Then only the answer
        to the starting call can say whose sale it is.
        """
        sales = await self._ledger.read_sales(
            merchant_no=order.merchant_no, reference=order.reference, store_no=None
        )
        others = [
            one
            for one in sales
            if one.state.store_no != order.store_no and not one.state.is_refused
        ]
        if has_number:
            return any(one.transaction_no is None for one in others)
        return bool(others)

    async def _query(self, transaction: Transaction) -> tuple[Fact, Outcome]:
        as_of = await self._ledger.seq()
        outcome = await self._caller.query(transaction)
        return facts.query_fact(transaction, outcome, as_of=as_of), outcome

    async def _recorded(self, transaction: Transaction, fact: Fact, outcome: Outcome) -> Asked:
        recorded = await self._ledger.record(fact)
        return Asked(transaction=recorded.transaction or transaction, outcome=outcome)

    async def _may_cancel(self, transaction: Transaction, query: Fact) -> bool:
        """Return whether /cancel may be sent after the query that was just answered."""
        if not await self._is_allowed(transaction, query):
            return False
        return not wishes.is_spent(await self._entries(transaction))

    async def _is_allowed(self, transaction: Transaction, query: Fact) -> bool:
        """Return whether somebody waits for a cancel, and the present state allows it."""
        if not transaction.is_being_cancelled or not facts.is_about(transaction, query):
            return False
        refunds = wishes.may_refund(await self._entries(transaction))
        return wishes.allows_cancel(query.says, status=transaction.status, refunds=refunds)

    async def _entries(self, transaction: Transaction) -> list[Entry]:
        """Return what was done and asked about a transaction; the notifications may be many."""
        lines = await self._ledger.read_transaction_entries(transaction, notifications=False)
        return [line.entry for line in lines]


def _foremost(named: Sequence[Transaction]) -> Transaction:
    """Return the one that matters: with a payment, else one that can still be paid."""
    return max(named, key=lambda one: (one.status in MONEY, one.status in PAYABLE))


def sale_key(order: Order) -> tuple[str, ...]:
    """Return the key of the turn for a sale that has no number yet."""
    return (order.merchant_no, "", order.store_no, order.reference)
