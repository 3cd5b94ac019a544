"""What a till reads of a sale whose transaction number Pockyt has not told."""

from typing import Self

from pydantic import Field

from listener.ledger.model import CancelState, Status, rfc3339
from listener.ledger.results import RecordedSale
from listener.web.shapes import models

_STATUSES = {CancelState.CONFIRMED: Status.CANCELLED, CancelState.REFUNDED: Status.REFUNDED}


class Sale(models.Transaction):
    """A recorded sale, and its transaction, once that is known."""

    transaction_no: models.TransactionNo | None = Field(  # type: ignore[assignment]  # it may lack
        description="Pockyt's number; null until Pockyt has told it."
    )

    @classmethod
    def of_sale(cls, sale: RecordedSale) -> Self:
        """Return a sale that has no number yet.

        Its status is what became of the cancel; failed where Pockyt refused to start it.
        """
        fact, cancel = sale.fact, sale.state.cancel
        status = Status.FAILED if sale.state.is_refused else Status.UNKNOWN
        changed_ms = [sale.recorded_at_ms]
        if cancel is not None:
            changed_ms += [cancel.requested_at_ms, cancel.resolved_at_ms or 0]
        return cls(
            transaction_no=None,
            reference=fact.reference,
            merchant_no=fact.merchant_no,
            store_no=fact.store_no,
            terminal=fact.terminal,
            amount=fact.amount,
            currency=fact.currency,
            settle_currency=fact.settle_currency,
            status=_STATUSES.get(cancel.state, status) if cancel else status,
            provider_status=None,
            state_version=0,
            held=False,
            created_at=rfc3339(sale.recorded_at_ms),
            updated_at=rfc3339(max(changed_ms)),
            cancel=models.Cancel.of(cancel) if cancel else None,
        )


class OpenSales(models.Model):
    """Sales, newest first: those without a number that Pockyt is asked about, or of a reference."""

    data: list[Sale]
