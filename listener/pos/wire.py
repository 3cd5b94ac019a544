"""Read and write the frames of ``pos.v1`` as they go over the wire: JSON, in websocket frames."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeVar

import orjson
from pydantic import BaseModel, SecretStr, ValidationError

from listener.errors import UnreadableError
from listener.pos.events import After, Position
from listener.pos.frames import (
    FRAME_ID_CHARS_MAX,
    Ack,
    ClientFrame,
    Connect,
    ErrorFrame,
    EventFrame,
    Hello,
    Ping,
    Pong,
    Ready,
    Reconnect,
    Resync,
    ServerFrame,
)
from listener.pos.lenient import whole_of, without_mark
from listener.validation import explain

_TEXT: Final = 0x81
_CLOSE: Final = 0x88
_LENGTH_7_BITS_MAX: Final = 125
_LENGTH_16_BITS_MAX: Final = 0xFFFF
_REASON_BYTES_MAX: Final = 123

# A member of a frame, or a place in a list.
_MEMBER: Final = re.compile(r"[0-9]+|[a-z][A-Za-z]*")
_WORDS: Final = MappingProxyType(
    {
        "missing": "is missing",
        "model_type": "must be a JSON object",
        "int_type": "must be a whole number",
        "string_type": "must be text",
        "bool_type": "must be true or false",
        "list_type": "must be a list",
    }
)
# What a member has to look like; a pattern, or the name of a class, would tell nobody.
_SHAPES: Final = MappingProxyType(
    {
        "id": f"must be a whole number of 64 bits, or at most {FRAME_ID_CHARS_MAX} characters",
        "stream": "must be <merchantNo>/<storeNo>, or * with an admin key",
        "after": "must be {epoch, offset}, acked, latest or earliest",
    }
)

_F = TypeVar("_F", bound=BaseModel)

_CLIENT_FRAMES: Final[Mapping[str, type[ClientFrame]]] = MappingProxyType(
    {"connect": Connect, "ack": Ack, "pong": Pong}
)
_SERVER_FRAMES: Final[Mapping[str, type[ServerFrame]]] = MappingProxyType(
    {
        "hello": Hello,
        "ready": Ready,
        "resync": Resync,
        "event": EventFrame,
        "ping": Ping,
        "error": ErrorFrame,
        "reconnect": Reconnect,
    }
)


def parse_client_frame(text: str | bytes) -> ClientFrame | None:
    """Read a frame that a client sent; None for an unknown type.

    Raises:
        UnreadableError: Not an object, no type, or a field is wrong.
    """
    return _parse(text, _CLIENT_FRAMES)


def parse_server_frame(text: str | bytes) -> ServerFrame | None:
    """Read a frame that the listener sent; None for an unknown type.

    Raises:
        UnreadableError: Not an object, no type, or a field is wrong.
    """
    return _parse(text, _SERVER_FRAMES)


def encode(frame: BaseModel) -> bytes:
    """Write a frame, page or body as JSON for the wire; None is left out.

    A connect frame's key is written as stars; see encode_connect.
    """
    return frame.model_dump_json(by_alias=True, exclude_none=True).encode()


def encode_connect(connect: Connect, *, key: SecretStr) -> bytes:
    """Write a connect frame with its key, which overrides the key in a header.

    A proxy may have replaced or removed the header.
    """
    members = connect.model_dump(mode="json", by_alias=True, exclude_none=True)
    return orjson.dumps(members | {"key": key.get_secret_value()})


def parse_after(text: str) -> After:
    """Read the query parameter ``after``: ``<epoch>:<offset>``, or a word as in `connect`.

    Raises:
        UnreadableError: It is neither.
    """
    match text:
        case "acked" | "latest" | "earliest":
            return text
    epoch, _, number = text.rpartition(":")
    offset = whole_of(number)
    if offset is None:
        raise UnreadableError("after is neither <epoch>:<offset> nor acked, latest or earliest")
    try:
        return Position(epoch=epoch, offset=offset)
    except ValidationError as error:
        raise UnreadableError(f"after: {_first(error)}") from error


def after_text(after: After) -> str:
    """Write a start as the query parameter ``after``."""
    return f"{after.epoch}:{after.offset}" if isinstance(after, Position) else after


def event_frame(stream: str, offset: int, event: bytes) -> bytes:
    """Build an event frame around the stored JSON of its event, without parsing that.

    Nothing in it depends on the connection, so one frame serves every subscriber.
    """
    return b'{"type":"event","stream":%b,"offset":%d,"event":%b}' % (
        orjson.dumps(stream),
        offset,
        event,
    )


def ws_text(payload: bytes) -> bytes:
    """Build a whole websocket text frame as a server sends it: final, unmasked.

    Source: RFC 6455, section 5.2.
    """
    length = len(payload)
    if length <= _LENGTH_7_BITS_MAX:
        return bytes((_TEXT, length)) + payload
    if length <= _LENGTH_16_BITS_MAX:
        return bytes((_TEXT, 126)) + length.to_bytes(2, "big") + payload
    return bytes((_TEXT, 127)) + length.to_bytes(8, "big") + payload


def ws_close(code: int, reason: str) -> bytes:
    """Build a websocket close frame as a server sends it; a longer reason is cut.

    Source: RFC 6455, section 5.5.
    """
    cut = reason.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
    payload = code.to_bytes(2, "big") + cut.encode()
    return bytes((_CLOSE, len(payload))) + payload


def _parse(text: str | bytes, models: Mapping[str, type[_F]]) -> _F | None:
    try:
        value = orjson.loads(without_mark(text))
    except orjson.JSONDecodeError as error:
        # Not chained: the error holds the document, which may hold a key.
        raise UnreadableError(f"a frame is not JSON: {error.msg}") from None
    if not isinstance(value, dict):
        raise UnreadableError("a frame is not an object")
    kind = value.get("type")
    if not isinstance(kind, str):
        raise UnreadableError("a frame has no type")
    model = models.get(kind)
    if model is None:
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UnreadableError(f"frame {kind}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """Describe the first fault that pydantic found: where and what, never the input."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    # Without the names of the kinds that a value may be of.
    where = [part for part in map(str, fault["loc"]) if _MEMBER.fullmatch(part)]
    shape = _SHAPES.get(where[-1]) if where and fault["type"] != "missing" else None
    return f"{'.'.join(where)}: {shape or explain(fault, _WORDS)}"
