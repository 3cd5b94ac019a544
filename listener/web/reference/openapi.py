"""Describe the HTTP API as OpenAPI 3.1, generated from the catalogue and its models."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

import orjson
from aiohttp import web
from pydantic import BaseModel

from listener import __version__
from listener.pos.codes import KEY_HEADER
from listener.web.reference.operations import DESCRIBED, AnswerSpec, BodySpec, Operation, Tag
from listener.web.reference.schemas import JsonObject, query_parameters, ref, schemas
from listener.web.shapes.models import NDJSON, Entry, reply
from listener.web.shapes.parameters import NAMING

TAGS: Final[Mapping[Tag, str]] = {
    Tag.SALES: "Start and cancel a sale from a till, which needs no token of the merchant.",
    Tag.FOLLOW: "What a till is told: each status once, in order, resumed after any gap.",
    Tag.LEDGER: "Who said what, when, and what it adds up to.",
    Tag.NOTIFY: "The notify URL. Nothing is acknowledged before it is on disk.",
    Tag.OPERATE: "For whoever keeps the service running.",
    Tag.DESCRIBE: "The pages, and this description.",
}
_INTRODUCTION: Final = (
    "Receives Pockyt's signed notifications, records them in an append-only ledger, and tells the"
    " tills.\n\nA key (`listener keys create`) is sent as `Authorization:"
    " Bearer <key>`, or as `X-Listener-Key: <key>` where something in between needs or sets"
    " `Authorization`: that one wins. Amounts are decimal strings, transaction numbers are strings,"
    " times are RFC 3339 in UTC. Errors are problem details (RFC 9457), with a `code` for programs."
    " Answers may get new members; existing ones stay. Pages of the origins that the setting"
    " `origins` names may call what is under `/v1`."
)
_PATH_SCHEMAS: Final[Mapping[str, JsonObject]] = {
    "transactionNo": {
        "type": "string",
        "minLength": 1,
        "description": "Pockyt's number of the transaction.",
        "examples": ["297553638301777927"],
    },
    "reference": {
        "type": "string",
        "minLength": 1,
        "description": "The shop's own number of the sale.",
        "examples": ["test20200101307"],
    },
    "merchantNo": {
        "type": "string",
        "minLength": 1,
        "description": "A configured merchant.",
        "examples": ["200043"],
    },
    "storeNo": {
        "type": "string",
        "minLength": 1,
        "description": "The store it is for.",
        "examples": ["303660"],
    },
}


async def show(request: web.Request) -> web.Response:
    """Answer with the description."""
    return reply(_written(request.app[DESCRIBED]))


@cache
def _written(operations: tuple[Operation, ...]) -> bytes:
    return orjson.dumps(document(operations), option=orjson.OPT_INDENT_2)


def document(operations: Sequence[Operation]) -> JsonObject:
    """Build the description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pockyt listener",
            "version": __version__,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This listener."}],
        "tags": [{"name": tag, "description": says} for tag, says in TAGS.items()],
        "paths": _paths(operations),
        "components": {
            "schemas": schemas(
                read=_models(o.body for o in operations),
                written=[
                    *_models(answer for o in operations for answer in o.all_answers().values()),
                    Entry,
                ],
            ),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `listener keys create`; it has a role and a scope.",
                },
                "keyHeader": {
                    "type": "apiKey",
                    "in": "header",
                    "name": KEY_HEADER,
                    "description": "The same key in a header that no proxy sets. It wins.",
                },
            },
        },
    }


def _models(parts: Iterable[AnswerSpec | BodySpec | None]) -> list[type[BaseModel]]:
    found = {part.model: None for part in parts if part is not None and part.model is not None}
    return list(found)


def _paths(operations: Iterable[Operation]) -> JsonObject:
    paths: dict[str, JsonObject] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return dict(paths)


def _operation(operation: Operation) -> JsonObject:
    roles = f"\n\nRole: {', '.join(operation.roles)}." if operation.roles else ""
    told: JsonObject = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.says + roles,
        "parameters": _parameters(operation),
        "responses": {
            str(status): _answer(answer) for status, answer in operation.all_answers().items()
        },
        "security": [{"key": []}, {"keyHeader": []}] if operation.roles else [],
        "x-codeSamples": [{"lang": "Shell", "source": operation.curl}],
    }
    if operation.body is not None:
        told["requestBody"] = _body(operation.body)
    return told


def _parameters(operation: Operation) -> list[JsonObject]:
    parameters: list[JsonObject] = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[name]}
        for name in operation.path_names
    ]
    if operation.query is not None:
        parameters += [
            {**one, "allowEmptyValue": True} if one["name"] not in NAMING else one
            for one in query_parameters(operation.query)
        ]
    parameters += [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": says,
            "schema": {"type": "string"},
        }
        for name, says in operation.headers.items()
        # OpenAPI does not describe these as parameters: they follow from the media types and the
        # key.
        if name not in ("Accept", "Authorization", "Content-Type")
    ]
    return parameters


def _body(body: BodySpec) -> JsonObject:
    return {"required": body.is_required, "content": _content(body)}


def _answer(answer: AnswerSpec) -> JsonObject:
    told: JsonObject = {"description": answer.says}
    if answer.headers:
        told["headers"] = {
            name: {"description": says, "schema": {"type": "string"}}
            for name, says in answer.headers.items()
        }
    if not answer.is_empty:
        told["content"] = _content(answer)
    return told


def _content(part: AnswerSpec | BodySpec) -> JsonObject:
    content: JsonObject = {}
    for media_type in part.media_types:
        if media_type == NDJSON:
            # A schema cannot describe one JSON text a line; each line is an entry.
            content[media_type] = {
                "schema": {"type": "string", "description": f"Lines of {ref(Entry)['$ref']}."}
            }
            continue
        schema = ref(part.model) if part.model is not None else part.schema
        content[media_type] = {"schema": schema}
        if part.example is not None:
            content[media_type] = {"schema": schema, "example": part.example}
    return content
