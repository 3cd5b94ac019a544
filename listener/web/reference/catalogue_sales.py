"""The routes by which a till sells and cancels, and an operator settles."""

from typing import Final

import orjson

from listener.keys import Role
from listener.ledger.sale import SALE_ANSWER_MS
from listener.web.api import sales
from listener.web.api.idempotency import HEADER, REPLAYED
from listener.web.api.sales import OPEN_SALES_MAX
from listener.web.reference import examples
from listener.web.reference.operations import (
    BAD_QUERY,
    EVERY_ROLE,
    AnswerSpec,
    BodySpec,
    Operation,
    Tag,
)
from listener.web.reference.schemas import JsonObject
from listener.web.shapes.bodies import CancelBody, DecideBody, PayBody, SaleBody, StartedSale
from listener.web.shapes.models import Transaction
from listener.web.shapes.parameters import SalesQuery, TransactionQuery
from listener.web.shapes.sale import OpenSales, Sale

_IDEMPOTENT: Final = {
    HEADER: "1 to 255 visible ASCII characters, which count for this API key alone. The same"
    " request under the same one is done once; a repeat, even after a restart, gets the first"
    " answer, a 202 as well.",
}
_REPLAYED: Final = {REPLAYED: "`true` if this answers a repeat."}
_CANNOT_BE_READ: Final = (
    "The body is not a JSON object, a parameter is unknown, or the Idempotency-Key is unusable."
)
_MEMBER: Final = "A member is unknown, missing or wrong (`errors` says which)"
_REUSED: Final = "the Idempotency-Key was used for another request"
_NOT_THERE: Final = "No such transaction in the key's scope."
_SHARED: Final = "Several merchants share the number (add `merchantNo`)"
_UNDER_WAY: Final = "the request with this Idempotency-Key is still under way (`Retry-After`)"
_TOO_LARGE: Final = "The body is too large."
_TOO_MANY: Final = "The key asks for too much at once (`Retry-After`)."
_POCKYT: Final = "Pockyt failed, or cannot be reached; it is safe to repeat the request."
_SETTLED: Final = (
    "Settled: cancelled, refunded, or failed where the payment had failed before. `cancel.state` is"
    " `confirmed` where nobody has paid."
)
_ONE: Final = "/v1/transactions/{transactionNo}"


def _curl(path: str, body: JsonObject, *more: str) -> str:
    """Write a POST as a command line."""
    headers = "".join(f' -H "{header}"' for header in ("Authorization: Bearer $KEY", *more))
    return (
        f"curl{headers} \\\n"
        f"  -H \"Content-Type: application/json\" -d '{orjson.dumps(body).decode()}' \\\n"
        f'  "$LISTENER{path}"'
    )


_SALE: Final[JsonObject] = {
    "reference": "test20200101307",
    "amount": "13.00",
    "currency": "USD",
    "settleCurrency": "USD",
    "storeNo": "303660",
    "terminal": "T-42",
}
_PAYMENT: Final[JsonObject] = {"paymentBarcode": "284957205723"}
_REFUND: Final[JsonObject] = {"refundIfPaid": False}
_DECISION: Final[JsonObject] = {
    "status": "cancelled",
    "name": "Kim Lee",
    "reason": "The customer's bank statement shows no payment.",
}
_PATH: Final = f"/v1/transactions/{examples.TRANSACTION_NO}"

SALES: Final = (
    Operation(
        id="startSale",
        handler=sales.start,
        method="POST",
        path="/v1/transactions",
        tag=Tag.SALES,
        summary="Start a sale",
        says="It is recorded before Pockyt is called; Pockyt's transaction number is added"
        " after. With `vendor` the answer has a code for the customer; without it the till scans"
        " the customer's code and sends that to `pay`.",
        roles=(Role.POS,),
        headers=_IDEMPOTENT,
        body=BodySpec(model=SaleBody, example=_SALE),
        answers={
            201: AnswerSpec(
                says="Started.",
                model=StartedSale,
                headers=_REPLAYED,
                example=examples.STARTED_SALE,
            )
        },
        problems={
            400: _CANNOT_BE_READ,
            403: "The key is another store's or another terminal's.",
            409: f"The store used the reference before, or cancelled the sale; or {_UNDER_WAY}.",
            413: _TOO_LARGE,
            422: f"{_MEMBER}; Pockyt refused the sale; {_REUSED}; or no public URL is set.",
            429: _TOO_MANY,
            502: f"{_POCKYT} A sale whose outcome is unknown is looked for by its reference. Or"
            " Pockyt gave it the number of another sale (`number-taken`), and nothing was started;"
            " the same request may be sent again.",
        },
        curl=_curl("/v1/transactions", _SALE, "Idempotency-Key: 4d7c9b2e"),
    ),
    Operation(
        id="pay",
        handler=sales.pay,
        method="POST",
        path=f"{_ONE}/pay",
        tag=Tag.SALES,
        summary="Charge a customer's code",
        says="The till has scanned the code; the listener sends it to Pockyt. While an earlier code"
        " of the sale may still be paid, another is not sent: the answer is 202.",
        roles=(Role.POS,),
        query=TransactionQuery,
        headers=_IDEMPOTENT,
        body=BodySpec(model=PayBody, example=_PAYMENT),
        answers={
            200: AnswerSpec(says="Where it stands.", model=Transaction, headers=_REPLAYED),
            202: AnswerSpec(
                says="Not final yet: the customer confirms, or Pockyt is being asked.",
                model=Transaction,
                headers=_REPLAYED,
            ),
        },
        problems={
            400: _CANNOT_BE_READ,
            404: _NOT_THERE,
            409: f"It is not open any more, or being cancelled; {_SHARED}; or {_UNDER_WAY}.",
            413: _TOO_LARGE,
            422: f"{_MEMBER}; Pockyt refused the code; or {_REUSED}.",
            429: _TOO_MANY,
            502: _POCKYT,
        },
        curl=_curl(f"{_PATH}/pay", _PAYMENT),
    ),
    Operation(
        id="cancel",
        handler=sales.cancel,
        method="POST",
        path=f"{_ONE}/cancel",
        tag=Tag.SALES,
        summary="Cancel a sale",
        says="The wish is recorded first. Then Pockyt is asked whether the sale is paid, because"
        " Pockyt's own /cancel would refund it. A paid sale is cancelled only if it may be"
        " refunded. The tills are told each step.",
        roles=(Role.POS,),
        query=TransactionQuery,
        headers=_IDEMPOTENT,
        body=BodySpec(model=CancelBody, is_required=False, example=_REFUND),
        answers={
            200: AnswerSpec(
                says=_SETTLED,
                model=Transaction,
                headers=_REPLAYED,
                example=examples.TRANSACTION,
            ),
            202: AnswerSpec(
                says="Still open: Pockyt is asked until it answers, and the tills are told.",
                model=Transaction,
                headers=_REPLAYED,
            ),
        },
        problems={
            400: _CANNOT_BE_READ,
            403: "`refundIfPaid` needs a key made with `--may-refund`.",
            404: _NOT_THERE,
            409: f"It is paid (`already-paid`), so it was not cancelled; {_SHARED}; or"
            f" {_UNDER_WAY}.",
            413: _TOO_LARGE,
            422: f"{_MEMBER}; or {_REUSED}.",
            429: _TOO_MANY,
            502: _POCKYT,
        },
        curl=_curl(f"{_PATH}/cancel", _REFUND),
    ),
    Operation(
        id="listOpenSales",
        handler=sales.list_open,
        method="GET",
        path="/v1/sales",
        tag=Tag.SALES,
        summary="List sales that have no number yet, or find one by its reference",
        says="Sales that were recorded, and to whose start Pockyt gave no answer for"
        f" {SALE_ANSWER_MS // 1000} seconds; one that is being cancelled is among them at once."
        " They are no transactions yet, and the customer may still pay. Pockyt is asked about each"
        f" by its reference, for 48 hours. The newest {OPEN_SALES_MAX}. With `reference` it is"
        " instead the sales of that reference, whatever has become of them: open, started, refused"
        " by Pockyt (`failed`), or ended, such as one that was cancelled because Pockyt knew none;"
        " `cancel` says how, and when.",
        roles=EVERY_ROLE,
        query=SalesQuery,
        answers={200: AnswerSpec(says="The sales.", model=OpenSales)},
        problems={400: BAD_QUERY},
        curl='curl -H "Authorization: Bearer $KEY" "$LISTENER/v1/sales"',
    ),
    Operation(
        id="cancelSale",
        handler=sales.cancel_sale,
        method="POST",
        path="/v1/sales/{reference}/cancel",
        tag=Tag.SALES,
        summary="Cancel a sale by its reference",
        says="For a sale whose transaction number is unknown, because starting it timed out. The"
        " wish is stored with the sale; Pockyt is asked, and the sale cancelled, by the reference."
        " Once Pockyt has given the number, the transaction takes the wish over, and its tills are"
        " told each step. If Pockyt finally has no such sale, it ends cancelled.",
        roles=(Role.POS,),
        headers=_IDEMPOTENT,
        body=BodySpec(model=CancelBody, is_required=False, example=_REFUND),
        answers={
            200: AnswerSpec(
                says=_SETTLED,
                model=Sale,
                headers=_REPLAYED,
                example=examples.TRANSACTION,
            ),
            202: AnswerSpec(
                says="Still open: Pockyt is asked until it answers. The till's stream tells the"
                " result, and so does `GET /v1/sales?reference=`, or this request without its"
                " Idempotency-Key.",
                model=Sale,
                headers=_REPLAYED,
            ),
        },
        problems={
            400: _CANNOT_BE_READ,
            403: "`refundIfPaid` needs a key made with `--may-refund`.",
            404: "No sale of this reference was recorded in the key's scope.",
            409: "It is paid (`already-paid`), so it was not cancelled; several stores have a sale"
            f" of this reference; or {_UNDER_WAY}.",
            413: _TOO_LARGE,
            422: f"{_MEMBER}; or {_REUSED}.",
            429: _TOO_MANY,
            502: _POCKYT,
        },
        curl=_curl("/v1/sales/test20200101307/cancel", _REFUND),
    ),
    Operation(
        id="ask",
        handler=sales.ask,
        method="POST",
        path=f"{_ONE}/ask",
        tag=Tag.SALES,
        summary="Ask Pockyt now",
        says="The answer of tran-query is recorded, and settles the status.",
        roles=(Role.ADMIN,),
        query=TransactionQuery,
        headers=_IDEMPOTENT,
        answers={
            200: AnswerSpec(says="Where it stands now.", model=Transaction, headers=_REPLAYED)
        },
        problems={
            400: _CANNOT_BE_READ,
            404: _NOT_THERE,
            409: f"{_SHARED}; or {_UNDER_WAY}.",
            413: _TOO_LARGE,
            422: f"{_MEMBER}; or {_REUSED}.",
            429: _TOO_MANY,
            502: _POCKYT,
        },
        curl=f'curl -X POST -H "Authorization: Bearer $KEY" "$LISTENER{_PATH}/ask"',
    ),
    Operation(
        id="decide",
        handler=sales.decide,
        method="POST",
        path=f"{_ONE}/decide",
        tag=Tag.SALES,
        summary="Decide what Pockyt cannot settle",
        says="Records an entry of the kind `decision`, with the name, the reason and the id of the"
        " key. It overrules everything before it; what comes later is joined with it."
        " With `stateVersion`, the second of two operators who decide at the same time is told, and"
        " a notification that comes in that moment is joined with the decision, too.",
        roles=(Role.ADMIN,),
        query=TransactionQuery,
        headers=_IDEMPOTENT,
        body=BodySpec(model=DecideBody, example=_DECISION),
        answers={
            200: AnswerSpec(says="Where it stands now.", model=Transaction, headers=_REPLAYED)
        },
        problems={
            400: _CANNOT_BE_READ,
            404: _NOT_THERE,
            409: f"It has another `stateVersion` by now (`changed-meanwhile`); {_SHARED}; or"
            f" {_UNDER_WAY}.",
            413: _TOO_LARGE,
            422: f"{_MEMBER}; or {_REUSED}.",
            429: _TOO_MANY,
        },
        curl=_curl(f"{_PATH}/decide", _DECISION),
    ),
)
