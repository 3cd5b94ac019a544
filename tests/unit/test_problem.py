"""Errors as problem details: which status and code each of the listener's own has."""

import pytest

from listener.errors import (
    LedgerError,
    LedgerUnavailableError,
    ListenerError,
    NumberTakenError,
    OverloadedError,
    ReferenceTakenError,
)
from listener.web.problem import of_error


@pytest.mark.parametrize(
    ("error", "status", "code", "comes_again"),
    [
        (ReferenceTakenError("297"), 409, "reference-taken", False),
        (NumberTakenError("297"), 502, "number-taken", False),
        (OverloadedError("full"), 503, "overloaded", True),
        (LedgerUnavailableError("away"), 503, "ledger-unavailable", True),
        (LedgerError("damaged"), 500, "failed", False),
    ],
)
def test_an_error_of_the_ledger_has_the_status_of_whose_fault_it_is(
    error: ListenerError, status: int, code: str, comes_again: bool
) -> None:
    told = of_error(error)
    assert (told.status, told.code) == (status, code)
    assert ("Retry-After" in told.headers) is comes_again
