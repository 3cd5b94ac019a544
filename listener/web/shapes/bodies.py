"""The bodies that tills and operators send: to sell, to cancel and to decide.

OpenAPI is generated from these models. They are strict: a misspelt member is refused, not ignored,
and an amount is text.
"""

from decimal import Decimal
from typing import Annotated, Final, Literal, TypeVar

from aiohttp import web
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from listener.ledger.model import Status, Transaction
from listener.pos.lenient import LenientModel, without_mark
from listener.settings import NUMBER_PATTERN
from listener.validation import explain
from listener.web.problem import ProblemError
from listener.web.shapes import models
from listener.web.shapes.raw import read_raw

ERRORS_MAX: Final = 10

_NOTHING: Final = (b"", b"null")

_EXPLAINED: Final = {
    "extra_forbidden": "is not known here",
    "missing": "is missing",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "literal_error": "is not one of the allowed words",
    "model_type": "must be a JSON object",
}


def _positive(text: str) -> str:
    if not Decimal(text):
        raise PydanticCustomError("amount", "must be above zero")
    return text


Amount = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,2})?$"),
    AfterValidator(_positive),
    Field(description="Decimal text with at most two decimals.", examples=["13.00"]),
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
        " characters except `&`.",
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
Vendor = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
Barcode = Annotated[
    str,
    StringConstraints(pattern=r"^[!-%'-~]{1,256}$"),
    Field(description="The customer's code, as it was scanned.", examples=["284957205723"]),
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
        default=None, description="The till; not needed with a key of a till."
    )
    vendor: Vendor | None = Field(
        default=None,
        description="The wallet whose code the customer scans: alipay, wechatpay, cashapppay."
        " Without it the till scans the customer's code.",
        examples=["alipay"],
    )


class PayBody(Body):
    """A customer's code that the till has scanned."""

    payment_barcode: Barcode
    vendor: Vendor | None = Field(
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
    """Read the JSON body of a request; an empty one, and ``null``, is an empty object.

    Raises:
        ProblemError: An error of ``read_raw``; not JSON (400), or a wrong member (422).
    """
    text = without_mark(await read_raw(request)).strip()
    try:
        return model.model_validate_json(text if text not in _NOTHING else b"{}")
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        raise ProblemError(400, "bad-body", "the body must be a JSON object")
    errors = [
        {
            "member": ".".join(str(part) for part in fault["loc"])[:80],
            "detail": explain(fault, _EXPLAINED),
        }
        for fault in faults[:ERRORS_MAX]
    ]
    detail = "; ".join(f"{one['member']} {one['detail']}".strip() for one in errors)
    raise ProblemError(422, "bad-member", detail, members={"errors": errors})
