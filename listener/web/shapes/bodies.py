"""The bodies that tills and operators send: to sell, to cancel and to decide.

OpenAPI is generated from these models. They are strict: a misspelt member is refused, not ignored,
and an amount is text.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final, Literal, TypeVar

import orjson
from aiohttp import web
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from listener.ledger.model import Status, Transaction
from listener.pos.lenient import WHOLE, LenientModel, without_mark
from listener.setting_types import NUMBER_PATTERN
from listener.validation import explain
from listener.web.problem import ProblemError
from listener.web.shapes import models
from listener.web.shapes.raw import read_raw

ERRORS_MAX: Final = 10

# PHP writes an empty array for an object without members.
_NOTHING: Final = (b"", b"null", b"[]")

_EXPLAINED: Final = {
    "extra_forbidden": "is not known here",
    "missing": "is missing",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "literal_error": "is not one of the allowed words",
    "model_type": "must be a JSON object",
}
# What a text has to look like, by its member; a pattern would tell nobody.
SHAPES: Final[Mapping[str, str]] = {
    "reference": "must be 1 to 64 visible ASCII characters, without blanks and &",
    "amount": 'must be a number as text, such as "13.00": up to 12 digits, then up to two decimals',
    "currency": "must be three capital letters, such as USD",
    "settleCurrency": "must be three capital letters, such as USD",
    "storeNo": "must be 1 to 64 of the characters 0-9 A-Z a-z _ - (but not - alone)",
    "terminal": "must be 1 to 64 printable characters, without /",
    "vendor": "must be 1 to 32 of the characters a-z 0-9 _, such as alipay; leave it out for none",
    "paymentBarcode": "must be the scanned code: 1 to 256 visible ASCII characters, without blanks"
    " and &; blanks and line breaks around it may stay",
    "stream": "must be <merchantNo>/<storeNo>",
    "epoch": "must be the epoch that came with the events",
    "name": "must have 1 to 100 characters, and not only blanks",
    "reason": "must have 1 to 1,000 characters, and not only blanks",
}
_MISSHAPEN: Final = frozenset({"string_pattern_mismatch", "string_too_long", "string_too_short"})


def _positive(text: str) -> str:
    if not Decimal(text):
        raise PydanticCustomError("amount", "must be above zero")
    return text


Amount = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,2})?$"),
    AfterValidator(_positive),
    Field(
        description="Decimal text above zero: up to 12 digits, then at most two decimals.",
        examples=["13.00"],
    ),
]
Currency = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z]{3}$"),
    Field(description="ISO 4217.", examples=["USD"]),
]
# Without `&`: a notification with one in a value is never believed on its signature.
Reference = Annotated[
    str,
    StringConstraints(pattern=r"^[!-%'-~]{1,64}$"),
    Field(
        description="The shop's own number of the sale, never used before: 1 to 64 visible ASCII"
        " characters, without blanks and `&`.",
        examples=["test20200101307"],
    ),
]
StoreNo = Annotated[
    str,
    StringConstraints(pattern=NUMBER_PATTERN),
    Field(description="Pockyt's store.", examples=["303660"]),
]
Terminal = Annotated[
    str,
    # Without a slash, as in a key's name, which may only have printable characters anyway.
    StringConstraints(pattern=r"^[^/\x00-\x1f\x7f-\x9f]{1,64}$"),
    Field(
        description="The till: 1 to 64 printable characters, without `/`.",
        examples=["T-42"],
    ),
]
# Some serializers write an empty text for what is not set.
Vendor = Annotated[
    Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")] | None,
    BeforeValidator(lambda vendor: None if vendor == "" else vendor),
]
# A scanner ends what it read with a line break, some keyboards' layouts begin with a blank.
Barcode = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[!-%'-~]{1,256}$"),
    Field(
        description="The customer's code, as it was scanned: 1 to 256 visible ASCII characters,"
        " without blanks and `&`. Blanks and line breaks around it are ignored.",
        examples=["284957205723"],
    ),
]


class Body(LenientModel):
    """The base of all bodies: camelCase, strict, and no unknown members."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=False,
        strict=True,
    )


class SaleBody(Body):
    """A sale that a till starts."""

    reference: Reference
    amount: Amount
    currency: Currency
    settle_currency: Currency
    store_no: StoreNo
    terminal: Terminal | None = Field(
        default=None,
        description="The till. A key that names a till stands for it; with any other key it is"
        " required.",
    )
    vendor: Vendor = Field(
        default=None,
        description="The wallet whose code the customer scans: alipay, wechatpay, cashapppay."
        " Without it the till scans the customer's code.",
        examples=["alipay"],
    )


class PayBody(Body):
    """A customer's code that the till has scanned."""

    payment_barcode: Barcode
    vendor: Vendor = Field(
        default=None,
        description="The wallet, if Pockyt needs to know it: alipay, wechat, unionpay.",
    )


class CancelBody(Body):
    """A cashier's cancel. The body may be left out."""

    refund_if_paid: bool = Field(
        default=False,
        description="Give the money back if it is paid by now; the key must be allowed to refund.",
    )


class DecideBody(Body):
    """What an operator has found out, where Pockyt cannot settle it."""

    status: Literal[Status.PAID, Status.FAILED, Status.CANCELLED, Status.REFUNDED] = Field(
        description="How the transaction ended."
    )
    name: Annotated[str, StringConstraints(pattern=r"\S", max_length=100)] = Field(
        description="Who decides.", examples=["Kim Lee"]
    )
    reason: Annotated[str, StringConstraints(pattern=r"\S", max_length=1_000)] = Field(
        description="Why.",
        examples=["The customer's bank statement shows no payment."],
    )
    state_version: Annotated[int, Field(ge=0), WHOLE] | None = Field(
        default=None,
        description="The `stateVersion` that was decided on: if the transaction has another by now,"
        " nothing is recorded. Without it, the decision counts in any case.",
        examples=[3],
    )


class StartedSale(models.Transaction):
    """A sale that was started, and the code for the customer, where there is one."""

    qrcode_url: str | None = Field(description="The picture of the code that the customer scans.")
    deep_link: str | None = Field(description="Opens the wallet on the customer's own phone.")

    @classmethod
    def started(
        cls, transaction: Transaction, *, qrcode_url: str | None, deep_link: str | None
    ) -> "StartedSale":
        """Build the answer to a sale that was started."""
        members = models.Transaction.of(transaction).model_dump()
        return cls.model_validate({**members, "qrcode_url": qrcode_url, "deep_link": deep_link})


_B = TypeVar("_B", bound=BaseModel)


async def read_body(request: web.Request, model: type[_B]) -> _B:
    """Read the JSON body of a request; none, ``null`` and ``[]`` are an empty object.

    Raises:
        ProblemError: As for ``read_raw``; not JSON, or a member comes twice (400), or one is
            wrong (422).
    """
    text = _text(await read_raw(request))
    try:
        body = model.model_validate_json(text)
        members = _members(text)
    except ValidationError as error:
        raise _fault(error) from None
    # Readers differ in which of the two they take: it may be another than the sender means.
    if len(dict(members)) < len(members):
        raise ProblemError(400, "bad-body", "the body names a member twice")
    return body


def plain_body(body: bytes) -> bytes:
    """Write a body that was read in the one way that stands for all in which it may be written."""
    members = {name: value for name, value in _members(_text(body)) if value is not None}
    return orjson.dumps(members, option=orjson.OPT_SORT_KEYS)


def _text(body: bytes) -> str | bytes:
    text = without_mark(body).strip()
    return text if text not in _NOTHING else b"{}"


def _members(text: str | bytes) -> list[tuple[str, object]]:
    """Return the members of an object that a model has read, its numbers as text."""
    members: list[tuple[str, object]] = json.loads(
        text, object_pairs_hook=list, parse_float=str, parse_int=str
    )
    return members


def _fault(error: ValidationError) -> ProblemError:
    """Build the refusal of a body that a model could not read."""
    faults = error.errors(include_url=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        # The parser's own words: what it expected, and where; it quotes nothing.
        why = faults[0]["ctx"]["error"]
        return ProblemError(400, "bad-body", f"the body must be a JSON object in UTF-8: {why}")
    errors = [
        {
            "member": ".".join(str(part) for part in fault["loc"])[:80],
            "detail": _explain(fault),
        }
        for fault in faults[:ERRORS_MAX]
    ]
    detail = "; ".join(f"{one['member']} {one['detail']}".strip() for one in errors)
    return ProblemError(422, "bad-member", detail, members={"errors": errors})


def _explain(fault: ErrorDetails) -> str:
    """Describe what a member must be, never what it was."""
    shape = SHAPES.get(str(fault["loc"][-1])) if fault["loc"] else None
    if shape is not None and fault["type"] in _MISSHAPEN:
        return shape
    return explain(fault, _EXPLAINED)
