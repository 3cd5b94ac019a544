"""Errors as problem details: which status and code each of the listener's own has."""

import json

import pytest

from listener.errors import (
    LedgerError,
    LedgerUnavailableError,
    ListenerError,
    OverloadedError,
    ReferenceUsedError,
)
from listener.web.problem import ProblemError, of_error, problem


@pytest.mark.parametrize(
    ("error", "status", "code", "comes_again"),
    [
        (ReferenceUsedError("used"), 409, "reference-taken", False),
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


@pytest.mark.parametrize("status", [404, 408, 410, 425, 426, 429, 500, 502, 503])
def test_what_may_do_later_says_so(status: int) -> None:
    told = json.loads(problem(ProblemError(status, "some-code", "why")).text or "")
    assert told["type"] == "urn:pockyt-listener:problem:some-code"
    assert told["retry"] is True


@pytest.mark.parametrize("status", [400, 401, 403, 405, 409, 413, 415, 422])
def test_what_a_person_has_to_change_says_so(status: int) -> None:
    told = json.loads(problem(ProblemError(status, "some-code", "why")).text or "")
    assert told["retry"] is False
