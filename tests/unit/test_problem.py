"""Errors as problem details: which status and code each of the listener's own has."""

import json

import pytest

from listener.errors import (
    BeingCancelledError,
    ChangedMeanwhileError,
    LedgerError,
    LedgerUnavailableError,
    ListenerError,
    NotOpenError,
    NumberTakenError,
    OverloadedError,
    ReferenceTakenError,
    TooManyWishesError,
)
from listener.pockyt.answer import PockytRefusedError, PockytUnavailableError
from listener.web.problem import ProblemError, of_error, problem


@pytest.mark.parametrize(
    ("error", "status", "code", "comes_again"),
    [
        (ReferenceTakenError("297"), 409, "reference-taken", False),
        (NumberTakenError("297"), 502, "number-taken", False),
        (NotOpenError("failed"), 409, "not-open", False),
        (NotOpenError("paid"), 409, "already-paid", False),
        (BeingCancelledError(), 409, "being-cancelled", False),
        (ChangedMeanwhileError("paid"), 409, "changed-meanwhile", False),
        (TooManyWishesError(), 429, "too-many-wishes", True),
        (PockytRefusedError("000023", "bad value"), 422, "pockyt-refused", False),
        (PockytRefusedError("000000", "system"), 502, "pockyt-refused", False),
        (PockytUnavailableError("down", reason="status"), 502, "pockyt-unavailable", False),
        (OverloadedError("full"), 503, "overloaded", True),
        (LedgerUnavailableError("away"), 503, "ledger-unavailable", True),
        (LedgerError("damaged"), 500, "failed", False),
    ],
)
def test_an_error_has_the_status_of_whose_fault_it_is(
    error: ListenerError, status: int, code: str, comes_again: bool
) -> None:
    told = of_error(error)
    assert (told.status, told.code) == (status, code)
    assert ("Retry-After" in told.headers) is comes_again


@pytest.mark.parametrize(
    ("status", "may_pass"),
    [
        *((status, False) for status in (400, 401, 403, 405, 409, 413, 415, 422)),
        *((status, True) for status in (404, 408, 410, 426, 429, 500, 502, 503)),
    ],
)
def test_a_problem_is_named_as_ours_and_says_whether_it_may_pass(
    status: int, may_pass: bool
) -> None:
    body = problem(ProblemError(status, "some-code", "what to do")).body
    assert isinstance(body, bytes)
    told = json.loads(body)
    assert told["type"] == "urn:pockyt-listener:problem:some-code"
    assert told["retry"] is may_pass
