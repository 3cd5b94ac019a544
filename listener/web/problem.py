"""Answer errors as RFC 9457 problem details."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import orjson
from aiohttp import web

from listener.errors import (
    BeingCancelledError,
    ChangedMeanwhileError,
    LedgerUnavailableError,
    ListenerError,
    NotifyUrlMissingError,
    NotOpenError,
    NumberTakenError,
    OutcomeUnknownError,
    OverloadedError,
    ReferenceTakenError,
    SaleCancelledError,
    SearchTooLongError,
    SignatureError,
    TooManyWishesError,
    UnreadableError,
)
from listener.ledger.model import Status
from listener.pockyt.answer import PockytRefusedError, PockytUnavailableError
from listener.pos.codes import PROBLEM_TYPES
from listener.web.headers import harden

PROBLEM: Final = "application/problem+json"
RETRY_SECONDS: Final = 1

# The one table from errors to HTTP statuses and codes.
_STATUSES: Final[Mapping[type[ListenerError], tuple[int, str]]] = MappingProxyType(
    {
        UnreadableError: (400, "unreadable"),
        SearchTooLongError: (400, "search-too-long"),
        SignatureError: (401, "bad-signature"),
        BeingCancelledError: (409, "being-cancelled"),
        ChangedMeanwhileError: (409, "changed-meanwhile"),
        NotOpenError: (409, "not-open"),
        ReferenceTakenError: (409, "reference-taken"),
        SaleCancelledError: (409, "sale-cancelled"),
        NotifyUrlMissingError: (422, "no-public-url"),
        PockytRefusedError: (422, "pockyt-refused"),
        TooManyWishesError: (429, "too-many-wishes"),
        NumberTakenError: (502, "number-taken"),
        OutcomeUnknownError: (502, "outcome-unknown"),
        PockytUnavailableError: (502, "pockyt-unavailable"),
        OverloadedError: (503, "overloaded"),
        LedgerUnavailableError: (503, "ledger-unavailable"),
    }
)
_TITLES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "Bad request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not found",
        405: "Method not allowed",
        408: "Request timeout",
        409: "Conflict",
        410: "Gone",
        413: "Content too large",
        415: "Unsupported media type",
        417: "Expectation failed",
        422: "Unprocessable content",
        426: "Upgrade required",
        429: "Too many requests",
        500: "Internal error",
        502: "Bad gateway",
        503: "Service unavailable",
        504: "Gateway timeout",
    }
)

# Refused until a person changes the request, the key or the settings. Other problems may pass by
# themselves; the members of a 410 show how to go on.
_FINAL: Final = frozenset({400, 401, 403, 405, 409, 413, 415, 417, 422})
# Worth repeating in a moment.
_PASSING: Final = frozenset({429, 503})


class ProblemError(Exception):
    """A request cannot be done; ``code`` is a word for programs, ``detail`` says what to do.

    ``members`` are further members of the problem object, ``headers`` are added to the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        members: Mapping[str, object] = MappingProxyType({}),
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.members = members
        self.headers = headers


def problem(error: ProblemError) -> web.Response:
    """Build the answer of a problem."""
    return web.Response(
        status=error.status, body=_body(error), content_type=PROBLEM, headers=error.headers
    )


def raw_problem(error: ProblemError) -> bytes:
    """Build the bytes of an answer after which the connection is closed."""
    body = _body(error)
    answer = problem(error)
    harden(answer)
    ends = (("Content-Length", str(len(body))), ("Connection", "close"))
    lines = [f"{name}: {value}" for name, value in (*answer.headers.items(), *ends)]
    head = [f"HTTP/1.1 {error.status} {_TITLES[error.status]}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def _body(error: ProblemError) -> bytes:
    if not error.members:
        return _plain_body(error.status, error.code, error.detail)
    return _written(error)


@lru_cache(maxsize=256)
def _plain_body(status: int, code: str, detail: str) -> bytes:
    """Write the body of a problem without members; a flood of refusals needs only a few of them."""
    return _written(ProblemError(status, code, detail))


def _written(error: ProblemError) -> bytes:
    body = {
        "type": f"{PROBLEM_TYPES}{error.code}",
        "title": _TITLES.get(error.status, "Error"),
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "retry": error.status not in _FINAL,
        **error.members,
    }
    # Quotes from an upstream: text that JSON cannot hold is replaced, and never causes an error.
    return orjson.dumps(_writable(body))


def _writable(value: object) -> object:
    """Replace what JSON cannot hold in all texts of a value: halves of surrogate pairs."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_writable(name): _writable(item) for name, item in value.items()}
    return [_writable(item) for item in value] if isinstance(value, list) else value


def unauthorized(
    detail: str = "send a known key as Authorization: Bearer, or as X-Listener-Key",
) -> ProblemError:
    """Build the refusal of a missing, unknown or revoked key."""
    headers = {"WWW-Authenticate": 'Bearer realm="listener"'}
    return ProblemError(401, "unauthorized", detail, headers=headers)


def nothing_here() -> ProblemError:
    """Build the refusal of what no route takes."""
    return ProblemError(404, "no-route", "there is nothing here; /docs lists what there is")


def draining() -> ProblemError:
    """Build the answer given while restarting."""
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return ProblemError(503, "draining", "a restart is under way; come back", headers=headers)


def of_error(error: ListenerError) -> ProblemError:
    """Build the problem for one of the listener's own errors, from the table of statuses."""
    found = (_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    status, code = next(found, (500, "failed"))
    members: dict[str, object] = {}
    if isinstance(error, ReferenceTakenError):
        members = {"transactionNo": error.transaction_no}
    elif isinstance(error, PockytRefusedError):
        members = {"retCode": error.ret_code, "retMsg": error.ret_msg}
        # Pockyt's own failure is not the till's mistake.
        status = 502 if error.outcome_unknown else status
    elif isinstance(error, ChangedMeanwhileError):
        members = {"transactionStatus": error.status}
    elif isinstance(error, NotOpenError):
        members = {"transactionStatus": error.status}
        code = "already-paid" if error.status == Status.PAID else code
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in _PASSING else {}
    return ProblemError(status, code, str(error), members=members, headers=headers)
