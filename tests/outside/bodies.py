"""Read the body of a notification, and send one on a bare socket."""

import asyncio
import json
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

from listener.pockyt.signature import FIELD
from listener.sandbox.message import SignedMessage

# What arrived or was brought, without its signature.
Fields = frozenset[tuple[str, str]]


def read_fields(message: SignedMessage) -> Fields:
    """Return what a notification says, as the ledger stores it."""
    if message.content_type == "application/json":
        said = json.loads(message.body, parse_float=str)
    else:
        said = dict(parse_qsl(message.body.decode(), keep_blank_values=True))
    return frozenset((name, text) for name, text in said.items() if name != FIELD)


async def send_and_hang_up(url: str, message: SignedMessage) -> None:
    """Send a whole notification on a bare socket, and leave without reading."""
    parts = urlsplit(url)
    with suppress(OSError):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: {message.content_type}\r\n"
            f"Content-Length: {len(message.body)}\r\n\r\n"
        )
        writer.write(head.encode() + message.body)
        await writer.drain()
        writer.close()
