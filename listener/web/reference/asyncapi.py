"""Describe ``pos.v1`` as AsyncAPI 3.0, generated from the models of its frames."""

from collections.abc import Mapping
from functools import cache
from typing import Final

import orjson
from aiohttp import web
from pydantic import BaseModel

from listener import __version__
from listener.pos import frames
from listener.pos.codes import KEY_HEADER
from listener.pos.frames import PROTOCOL
from listener.web.reference.examples import EPOCH, EVENT, STREAM
from listener.web.reference.protocol import read_protocol
from listener.web.reference.schemas import JsonObject, ref, schemas
from listener.web.shapes.models import reply

CLIENT_FRAMES: Final[tuple[type[BaseModel], ...]] = (frames.Connect, frames.Ack, frames.Pong)
SERVER_FRAMES: Final[tuple[type[BaseModel], ...]] = (
    frames.Hello,
    frames.Ready,
    frames.EventFrame,
    frames.Ping,
    frames.Resync,
    frames.ErrorFrame,
    frames.Reconnect,
)
EXAMPLES: Final[Mapping[type[BaseModel], JsonObject]] = {
    frames.Hello: {
        "type": "hello",
        "protocol": PROTOCOL,
        "session": "5b1c0e9a77d2",
        "pingSeconds": 20.0,
        "deadSeconds": 35.0,
        "reconnectJitterMs": 5000,
    },
    frames.Connect: {
        "type": "connect",
        "id": 1,
        "streams": [{"stream": STREAM, "after": {"epoch": EPOCH, "offset": 1041}}],
    },
    frames.Ready: {
        "type": "ready",
        "id": 1,
        "streams": [
            {
                "stream": STREAM,
                "epoch": EPOCH,
                "head": 1044,
                "after": 1041,
                "recovered": True,
            }
        ],
    },
    frames.EventFrame: {"type": "event", "stream": STREAM, "offset": 1042, "event": EVENT},
    frames.Ack: {"type": "ack", "stream": STREAM, "offset": 1042},
    frames.Ping: {"type": "ping", "t": 1792000000000, "heads": {STREAM: 1044}},
    frames.Pong: {"type": "pong", "t": 1792000000000},
    frames.Resync: {
        "type": "resync",
        "stream": STREAM,
        "reason": "epoch_changed",
        "epoch": EPOCH,
        "head": 12,
        "snapshot": "/v1/transactions?merchantNo=200043&storeNo=303660",
    },
    frames.ErrorFrame: {
        "type": "error",
        "id": 7,
        "code": "ack-ahead",
        "message": "that offset is beyond the head",
        "retryable": False,
    },
    frames.Reconnect: {"type": "reconnect", "afterMs": 3120},
}
# The server's answers to a client's frame.
_ANSWERED_BY: Final[Mapping[type[BaseModel], tuple[type[BaseModel], ...]]] = {
    frames.Connect: (frames.Ready, frames.Resync, frames.ErrorFrame),
    frames.Ack: (frames.ErrorFrame,),
    frames.Ping: (frames.Pong,),
}
_CHANNEL: Final = "#/channels/stream"


async def show(_request: web.Request) -> web.Response:
    """Answer with the description."""
    return reply(_written())


@cache
def _written() -> bytes:
    return orjson.dumps(document(), option=orjson.OPT_INDENT_2)


def document() -> JsonObject:
    """Build the description from the listener's side: it receives what a till sends."""
    every = (*CLIENT_FRAMES, *SERVER_FRAMES)
    protocol = read_protocol()
    return {
        "asyncapi": "3.0.0",
        "id": "urn:pockyt-listener:pos.v1",
        "info": {
            "title": "How a POS follows statuses",
            "version": PROTOCOL.removeprefix("pos.v") + ".0.0",
            "description": "A till follows the statuses of its store over a websocket, each once"
            " and in order, and resumes where it stopped after any gap. The operations are the"
            f" listener's: it `receive`s what a till sends. Listener"
            f" {__version__}.\n\n{protocol.markdown()}",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "listener": _server("ws", "127.0.0.1:8080", "The default address."),
            "public": _server("wss", "pos.example.com", "Behind a proxy that ends TLS."),
        },
        "channels": {"stream": _channel(every)},
        "operations": {
            **{_name(frame): _operation(frame, "receive") for frame in CLIENT_FRAMES},
            **{_name(frame): _operation(frame, "send") for frame in SERVER_FRAMES},
        },
        "components": {
            "messages": {frame.__name__: _message(frame) for frame in every},
            "schemas": schemas(read=CLIENT_FRAMES, written=SERVER_FRAMES),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `listener keys create --role pos`, in a header of"
                    " the upgrade, or as `key` in `connect`.",
                }
            },
        },
        "x-close-codes": [
            {
                "code": int(row.code),
                "meaning": row.meaning,
                "client": row.duty,
                "person": row.to_do,
                "sentBy": row.sent_by,
            }
            for row in protocol.codes
        ],
        "x-close-code-ranges": {row.code: row.duty for row in protocol.ranges},
        "x-client-duties": {duty.value: says for duty, says in protocol.duties.items()},
        "x-error-codes": dict(protocol.errors),
    }


def _server(protocol: str, host: str, says: str) -> JsonObject:
    return {
        "host": "{host}",
        "protocol": protocol,
        "description": says,
        "variables": {"host": {"default": host, "description": "Host and port of the listener."}},
        "security": [{"$ref": "#/components/securitySchemes/key"}],
    }


def _channel(every: tuple[type[BaseModel], ...]) -> JsonObject:
    return {
        "address": "/v1/pos/stream",
        "title": "The stream of a till",
        "description": "One websocket, subprotocol `pos.v1`; every frame is one JSON text.",
        "messages": {
            _name(frame): {"$ref": f"#/components/messages/{frame.__name__}"} for frame in every
        },
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "properties": {
                        "Authorization": {"type": "string", "description": "`Bearer <key>`."},
                        KEY_HEADER: {"type": "string", "description": "The key; it wins."},
                        "Sec-WebSocket-Protocol": {"type": "string", "const": PROTOCOL},
                    },
                },
                "bindingVersion": "0.1.0",
            }
        },
    }


def _message(frame: type[BaseModel]) -> JsonObject:
    return {
        "name": _name(frame),
        "title": frame.__name__,
        "summary": (frame.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "payload": ref(frame),
        "examples": [{"name": _name(frame), "payload": EXAMPLES[frame]}],
    }


def _operation(frame: type[BaseModel], action: str) -> JsonObject:
    told: JsonObject = {
        "action": action,
        "channel": {"$ref": _CHANNEL},
        "summary": (frame.__doc__ or "").partition("\n")[0],
        "messages": [_listed(frame)],
    }
    if frame in _ANSWERED_BY:
        answers = [_listed(answer) for answer in _ANSWERED_BY[frame]]
        told["reply"] = {"channel": {"$ref": _CHANNEL}, "messages": answers}
    return told


def _listed(frame: type[BaseModel]) -> JsonObject:
    return {"$ref": f"{_CHANNEL}/messages/{_name(frame)}"}


def _name(frame: type[BaseModel]) -> str:
    """Return the word in the frame's ``type``."""
    return str(frame.model_fields["type"].default)
