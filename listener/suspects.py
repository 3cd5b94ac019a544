"""Why a signed notification is not believed alone: what both Pockyt's wire and the ledger name."""

from typing import Final

# The signed text can be cut into other fields.
AMBIGUOUS: Final = "ambiguous"
# It is about money going back, so it is not a payment.
REFUND_NOTICE: Final = "refund_notice"
