"""Read the query of a URL into a model, from which OpenAPI takes its parameters too."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeVar

from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from listener.errors import UnreadableError
from listener.ledger.model import CancelState, Status
from listener.pos.events import After, Stream
from listener.pos.lenient import NUMBER_MAX, whole_of
from listener.pos.wire import parse_after
from listener.validation import explain
from listener.web.problem import ProblemError

PAGE_MAX: Final = 500
TRANSACTIONS_PAGE: Final = 50
ENTRIES_PAGE: Final = 100
EVENTS_PAGE: Final = 100
TERMINALS_PAGE: Final = 500
WAIT_SECONDS_MAX: Final = 30
EVENTS_WAIT_SECONDS_MAX: Final = 60
TEXT_CHARS_MAX: Final = 256
NUMBER_CHARS_MAX: Final = 64
CURSOR_CHARS_MAX: Final = 64
PLACE_CHARS_MAX: Final = 1_024
SEQ_MAX: Final = NUMBER_MAX

# A time of RFC 3339, or a day.
INSTANT_PATTERN: Final = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)
_INSTANT: Final = re.compile(INSTANT_PATTERN, re.ASCII)
_DAY_CHARS: Final = len("2026-11-23")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def _wrong(text: str) -> PydanticCustomError:
    # Braces are pydantic's placeholders; every text here is our own and contains none.
    return PydanticCustomError("parameter", text)


def _whole(text: object) -> object:
    """Read a whole number as JSON has it, ``7``, or as some languages write it: ``7.0``."""
    number = whole_of(text) if isinstance(text, str) else text
    if number is None:
        raise _wrong("must be a whole number in digits")
    return number


def _flag(text: object) -> object:
    """Read true or false, in any case: Python writes ``True``."""
    flags = {"true": True, "false": False}
    flag = flags.get(text.lower()) if isinstance(text, str) else text
    if flag is None:
        raise _wrong("must be true or false")
    return flag


def _time_ms(text: object) -> int:
    """Read an RFC 3339 time as Unix ms; fractions of a millisecond are cut off.

    A day is its beginning in UTC, as for ``listener export``.
    """
    advice = (
        "must be a time such as 2026-11-23T10:11:12Z (a + in a URL is written %2B),"
        " or a day such as 2026-11-23"
    )
    if not isinstance(text, str) or not _INSTANT.fullmatch(text):
        raise _wrong(advice)
    try:
        at = datetime.fromisoformat(text.upper() if len(text) > _DAY_CHARS else f"{text}T00:00Z")
    except ValueError:
        at = None
    if at is None:
        raise _wrong(advice)
    return (at - _EPOCH) // _MILLISECOND


def _stream(name: object, check: ValidatorFunctionWrapHandler) -> object:
    try:
        return check(name)
    except ValidationError:
        pass
    raise _wrong("must be <merchantNo>/<storeNo>, or * with an admin key")


def _after(text: object) -> object:
    try:
        return parse_after(text) if isinstance(text, str) else text
    except UnreadableError:
        pass
    raise _wrong("must be <epoch>:<offset>, acked, latest or earliest")


Instant = Annotated[
    int,
    BeforeValidator(_time_ms),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^({INSTANT_PATTERN})?$",
            "examples": ["2026-11-23T10:11:12Z", "2026-11-23"],
        }
    ),
]
Number = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]+$", max_length=NUMBER_CHARS_MAX)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_CHARS_MAX)]
Flag = Annotated[bool, BeforeValidator(_flag)]
# This check of the digits comes last in the list, and so runs first.
Limit = Annotated[int, Field(ge=1, le=PAGE_MAX), BeforeValidator(_whole)]
Wait = Annotated[int, Field(ge=0, le=WAIT_SECONDS_MAX), BeforeValidator(_whole)]
EventsWait = Annotated[int, Field(ge=0, le=EVENTS_WAIT_SECONDS_MAX), BeforeValidator(_whole)]
AfterSeq = Annotated[int, Field(ge=0, le=SEQ_MAX), BeforeValidator(_whole)]
AfterEvent = Annotated[
    After,
    BeforeValidator(_after),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(acked|latest|earliest|[^:]{1,64}:[0-9]{1,16})$",
            "examples": ["9f3c5d2a7e10b846:1041"],
        }
    ),
]


class Query(BaseModel):
    """The settings that all queries share: camelCase names, and no unknown ones."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, hide_input_in_errors=True
    )


class TransactionsQuery(Query):
    """Which transactions to list."""

    merchant_no: Number | None = Field(default=None, description="Only of this merchant.")
    store_no: Number | None = Field(
        default=None,
        description="Only of this store; `-` for those without a known store. With several"
        " merchants configured, give `merchantNo` too.",
    )
    terminal: Text | None = Field(default=None, description="Only of this till.")
    status: Status | None = Field(default=None, description="Only with this status.")
    cancel_state: CancelState | None = Field(
        default=None,
        description="Only if its newest cancel has come so far. One is open while it is `requested`"
        " or, without an answer after 60 s, `unresolved`.",
    )
    held: Flag | None = Field(
        default=None,
        description="`true`: only if a notification of it is held; `false`: if none is.",
    )
    reference: Text | None = Field(default=None, description="Only with exactly this reference.")
    contains: Text | None = Field(
        default=None, description="Only if the reference or number contains this, in any case."
    )
    since: Instant | None = Field(
        default=None,
        description="Only if created at this time or later; a day is its beginning in UTC.",
    )
    until: Instant | None = Field(
        default=None, description="Only if created before this time, or day."
    )
    limit: Limit = Field(default=TRANSACTIONS_PAGE, description="The most that one page holds.")
    cursor: Annotated[str, StringConstraints(max_length=CURSOR_CHARS_MAX)] | None = Field(
        default=None,
        description="The `nextCursor` of the page before. It is valid only with the same"
        " filters, and new transactions do not move it.",
    )


class SalesQuery(Query):
    """Which sales to list."""

    reference: Text | None = Field(
        default=None,
        description="Only the sales with exactly this reference, whatever has become of them.",
    )


class TransactionQuery(Query):
    """Which merchant's transaction to show."""

    merchant_no: Number | None = Field(
        default=None, description="Needed where two merchants share the number."
    )


class TransactionDetailQuery(TransactionQuery):
    """Which merchant's transaction is wanted, and which of its entries."""

    after: AfterSeq = Field(default=0, description="Entries past this seq.")
    limit: Limit = Field(default=PAGE_MAX, description="At most so many entries.")


class EntriesQuery(Query):
    """Which entries to read."""

    after: AfterSeq = Field(default=0, description="Entries past this seq.")
    limit: Limit = Field(default=ENTRIES_PAGE, description="The most that one page holds.")
    wait: Wait = Field(
        default=0, description="If there is none, wait this many seconds for the first."
    )


class EventsQuery(Query):
    """Which events to read."""

    stream: Annotated[Stream, WrapValidator(_stream)] | None = Field(
        default=None, description="May be left out where the key's scope is one stream."
    )
    after: AfterEvent = Field(
        default="acked",
        description="`<epoch>:<offset>`, or `acked` (this terminal's last acknowledged offset;"
        " `latest` where there is none), `latest`, or `earliest`.",
    )
    wait: EventsWait = Field(
        default=0, description="If there is none, wait this many seconds for the first."
    )
    limit: Limit = Field(default=EVENTS_PAGE, description="The most that one page holds.")


class TerminalsQuery(Query):
    """Which terminals to list."""

    limit: Limit = Field(default=TERMINALS_PAGE, description="The most that one page holds.")
    cursor: Annotated[str, StringConstraints(max_length=PLACE_CHARS_MAX)] | None = Field(
        default=None, description="The `nextCursor` of the page before."
    )


class NoQuery(Query):
    """A route that takes no parameters."""


_Q = TypeVar("_Q", bound=Query)

# To search for what has an empty name, and to find everything, would be to find another's sale.
NAMING: Final = frozenset({"contains", "merchantNo", "reference", "storeNo", "terminal"})
_WORDS: Final[Mapping[str, str]] = {
    "less_than_equal": "must be at most {le}",
    "greater_than_equal": "must be at least {ge}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must be of the characters 0-9 A-Z a-z _ -",
    "enum": "must be one of {expected}",
}


def read_query(request: web.Request, model: type[_Q]) -> _Q:
    """Read the query of a request; a parameter that is empty counts as absent, unless it names.

    Raises:
        ProblemError: A name is unknown or comes twice, or a value is wrong.
    """
    # The mapping has each key once; only its items show what was sent twice.
    names = [name for name, _ in request.query.items()]
    known = [field.alias or name for name, field in model.model_fields.items()]
    unknown = sorted(set(names) - set(known))
    if unknown:
        offer = f"known here are {', '.join(known)}" if known else "there are none here"
        shown = ", ".join(_quoted(name) for name in unknown)
        raise ProblemError(400, "unknown-parameter", f"unknown query parameter {shown}; {offer}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ProblemError(400, "bad-parameter", f"{twice} must be given once")
    try:
        given = {n: text for n, text in request.query.items() if text or n in NAMING}
        return model.model_validate(given)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
    raise ProblemError(400, "bad-parameter", "; ".join(_explain(fault) for fault in faults))


def _explain(fault: ErrorDetails) -> str:
    """Describe what a parameter must be, never what it was."""
    return f"{fault['loc'][0]} {explain(fault, _WORDS)}"


def _quoted(name: str) -> str:
    """Shorten a name for a message, and keep it on one line."""
    return f'"{name[:40].encode("unicode_escape").decode()}"'
