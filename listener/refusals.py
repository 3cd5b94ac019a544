"""Pockyt's codes for a call that it did not carry out: both its wire and the ledger know them.

Under any other code but that of success, a call may have had an effect.

Source: Pockyt, the list of ``ret_code``.
"""

from typing import Final

# The code for a sale that Pockyt does not know.
NO_RECORD: Final = "000021"
NOT_CARRIED_OUT: Final = frozenset(
    {"000010", "000020", NO_RECORD, "000022", "000023", "000030", "000040"}
)
