"""Read the origin of a web page as RFC 6454 means it, so that two spellings of one are equal."""

import re
from collections.abc import Mapping
from typing import Final

PORT_MAX: Final = 65_535
# What a page without an origin of its own sends: a sandboxed frame, a file.
NULL_ORIGIN: Final = "null"

_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
# Some native libraries send the URL of the websocket itself.
_WEB_SCHEMES: Final[Mapping[str, str]] = {"ws": "http", "wss": "https"}
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[0-9a-z._-]*)"
    r"(?::(?P<port>[0-9]{0,5}))?/?",
    re.ASCII,
)
_SCHEME_END: Final = "://"
_URL: Final = re.compile(r"(?P<origin>[^:/?#]+://[^/?#]*)[/?#][^\s,]*")


def read_origin(text: str) -> str | None:
    """Return an origin in its one spelling; None if the text is no origin.

    The scheme may be any, as of the web views of apps (``capacitor://localhost``, ``file://``).
    Letters are lower case, a scheme's own port is left out, and ``wss`` is ``https``.

    Source: RFC 6454, sections 4 to 6.
    """
    lowered = text.lower()
    if lowered == NULL_ORIGIN:
        return NULL_ORIGIN
    found = _ORIGIN.fullmatch(lowered)
    if found is None:
        return None
    scheme = _WEB_SCHEMES.get(found["scheme"], found["scheme"])
    port = int(found["port"]) if found["port"] else None
    is_web = scheme in _PORTS
    if (is_web and not found["host"]) or port == 0 or (port or 0) > PORT_MAX:
        return None
    shown = "" if port is None or port == _PORTS.get(scheme) else f":{port}"
    return f"{scheme}://{found['host']}{shown}"


def meant_origins(text: str) -> list[str]:
    """Return the origins that the header ``Origin`` of a program may mean, as none or one of them.

    Native libraries send the whole URL of the websocket, or host and port without a scheme. No
    browser sends either, so a page is judged by its exact origin.

    Source: tidwall/SwiftWebSocket#94, websockets/ws#494.
    """
    url = _URL.fullmatch(text)
    if url is not None:
        text = url["origin"]
    elif _SCHEME_END not in text and text.lower() != NULL_ORIGIN:
        spelt = [read_origin(f"{scheme}{_SCHEME_END}{text}") for scheme in _PORTS]
        return [origin for origin in spelt if origin is not None]
    origin = read_origin(text)
    return [] if origin is None else [origin]
