"""Start sales, cancel them, and chase every doubt until Pockyt has answered.

A public Python API, usable without the web service; all I/O goes through the objects passed in::

    lifecycle = Lifecycle(ledger=ledger, pockyt=pockyt, merchants=settings.merchants)
    chasing = asyncio.create_task(lifecycle.run())
    started = await lifecycle.start_sale(order)
    transaction = await lifecycle.cancel(started.transaction, terminal="T-42")
    print(transaction.status, transaction.cancel)

- ``lifecycle``: what tills and operators call.
- ``orders``, ``facts``: their wishes, and Pockyt's answers, as facts for the ledger.
- ``starter``: starts a sale; ``payer`` charges a code, and ``charges`` reads which were charged.
- ``steps``: asks about a transaction, cancels it, looks for a sale; ``wishes`` decides whether
  /cancel may be sent.
- ``cancels``: those under way, which a till waits for.
- ``chaser``: asks on schedule, and raises silence.
- ``caller``: calls Pockyt; ``gate`` limits how often.
- ``turns``: one task at a time for a transaction; ``clock``: the time.

Source: Pockyt, "Cancel API" and "Tran Query"; the rules are in docs/architecture.md.
"""

from listener.errors import (
    BeingCancelledError,
    NotifyUrlMissingError,
    NotOpenError,
    OutcomeUnknownError,
    SaleCancelledError,
    TooManyWishesError,
)
from listener.lifecycle.caller import CALLS, OUTCOMES
from listener.lifecycle.clock import Clock, Steady
from listener.lifecycle.gate import Limits
from listener.lifecycle.lifecycle import Lifecycle
from listener.lifecycle.orders import Decision, Order
from listener.lifecycle.starter import Started

__all__ = [
    "CALLS",
    "OUTCOMES",
    "BeingCancelledError",
    "Clock",
    "Decision",
    "Lifecycle",
    "Limits",
    "NotOpenError",
    "NotifyUrlMissingError",
    "Order",
    "OutcomeUnknownError",
    "SaleCancelledError",
    "Started",
    "Steady",
    "TooManyWishesError",
]
