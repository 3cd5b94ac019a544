"""The pages, and the descriptions of the API."""

from typing import Final

from listener.keys import Role
from listener.web import pages
from listener.web.guard import Handler
from listener.web.reference import asyncapi, openapi, page
from listener.web.reference.operations import AnswerSpec, BodySpec, Operation, Tag
from listener.web.reference.schemas import JsonObject
from listener.web.shapes.models import JSON

HTML: Final = "text/html"
SVG: Final = "image/svg+xml"
TEXT: Final = "text/plain"

_OBJECT: Final[JsonObject] = {"type": "object"}
_STRING: Final[JsonObject] = {"type": "string"}

_CODE: Final = Operation(
    id="drawCode",
    handler=pages.code,
    method="POST",
    path="/till/code",
    tag=Tag.DESCRIBE,
    summary="Draw a code to scan",
    says="For the reference till: the link of a sale as a QR code.",
    roles=(Role.POS,),
    body=BodySpec(media_types=(TEXT,), schema=_STRING, example="https://qr.example/1"),
    answers={200: AnswerSpec(says="The drawing.", media_types=(SVG,), schema=_STRING)},
    problems={
        413: "The body is too large.",
        422: f"The text is empty, or over {pages.CODE_BYTES_MAX} bytes.",
    },
    curl='curl -H "Authorization: Bearer $KEY" -d "https://qr.example/1" "$LISTENER/till/code"',
)


def _page(
    path: str, operation_id: str, summary: str, says: str, *, handler: Handler, media_type: str
) -> Operation:
    schema = _OBJECT if media_type == JSON else _STRING
    return Operation(
        id=operation_id,
        method="GET",
        path=path,
        tag=Tag.DESCRIBE,
        summary=summary,
        says=says,
        handler=handler,
        answers={200: AnswerSpec(says=summary + ".", media_types=(media_type,), schema=schema)},
        uses_ledger=False,
        curl=f'curl "$LISTENER{path}"',
    )


DESCRIBE: Final = (
    _page(
        "/",
        "showDashboard",
        "The dashboard",
        "A page; it asks for a key.",
        handler=pages.dashboard,
        media_type=HTML,
    ),
    _page(
        "/till",
        "showTill",
        "The reference till",
        "A page; it asks for a key.",
        handler=pages.till,
        media_type=HTML,
    ),
    _CODE,
    _page(
        "/docs",
        "showDocs",
        "The API on one page",
        "For people.",
        handler=page.show,
        media_type=HTML,
    ),
    _page(
        "/openapi.json",
        "showOpenApi",
        "This API as OpenAPI 3.1",
        "For programs.",
        handler=openapi.show,
        media_type=JSON,
    ),
    _page(
        "/asyncapi.json",
        "showAsyncApi",
        "`pos.v1` as AsyncAPI 3.0",
        "For programs.",
        handler=asyncapi.show,
        media_type=JSON,
    ),
)
