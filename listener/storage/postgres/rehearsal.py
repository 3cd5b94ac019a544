"""Find out whether entries can be appended, by appending some and taking them back.

An open connection and a successful heartbeat do not show it: a tablespace may be full, a right
missing, a table locked by an operator.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from listener.ledger.model import Fact, Kind, Status
from listener.storage.postgres.connection import Connection

# Together they need new pages at the end of the tables, so that a full disk shows.
FACTS: Final = 32
FACT_BYTES: Final = 1_500

_MERCHANT_NO: Final = "rehearsal"


async def rehearse(
    db: Connection, append: Callable[[Connection, Sequence[Fact]], Awaitable[object]]
) -> None:
    """Append some notifications as a batch would, and take them back; raise what that raises."""
    transaction = db.transaction()
    await transaction.start()
    try:
        await append(db, [_fact() for _ in range(FACTS)])
    finally:
        await transaction.rollback()


def _fact() -> Fact:
    """Make a notification that no database can compress."""
    return Fact(
        kind=Kind.NOTIFICATION,
        merchant_no=_MERCHANT_NO,
        transaction_no=secrets.token_hex(8),
        provider_status="success",
        says=Status.PAID,
        amount="1.00",
        currency="USD",
        fingerprint=secrets.token_hex(16),
        fields=f'{{"rehearsal":"{secrets.token_urlsafe(FACT_BYTES)}"}}',
    )
