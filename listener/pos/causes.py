"""Find out why a client is not live: what failed, or who answered in the listener's place."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import aiohttp
import orjson
from yarl import URL

from listener.pos.codes import PROBLEM_TYPES

# Text that strangers write into headers is shown to people up to this length.
SHOWN_CHARS_MAX: Final = 80

_PROBLEM: Final = "application/problem+json"


class Cause(StrEnum):
    """Why a client is not live, as a word for programs."""

    STARTING = "starting"
    """It has only just begun, or begun anew: its position was lost."""
    UNREACHABLE = "unreachable"
    """No such name, nobody listening, no route, or hung up before an answer."""
    TLS = "tls"
    """The certificate is not trusted, or what answers speaks no TLS."""
    SILENT = "silent"
    """Reached, but it says nothing: a slow line, or a connection that died unnoticed."""
    REFUSED = "refused"
    """An HTTP answer that is not the listener's: from a proxy, a firewall, a sign-on page."""
    NOT_WEBSOCKET = "not_websocket"
    """Something answers that is not the listener, or lets no WebSocket through."""
    CLOSED = "closed"
    """The listener, or what is between, closed the connection; the text says with what code."""
    STOPPED = "stopped"
    """The listener said not to come back unchanged, or the program closed the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Why a client is not live: a word for programs, and a sentence for people."""

    cause: Cause
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRefusal:
    """A problem that the listener itself answered; without ``retry`` do not come back unchanged.

    ``streams`` are those of the key, where the request had to name one.
    """

    code: str
    detail: str
    retry: bool
    streams: tuple[str, ...] = ()


def is_problem(headers: Mapping[str, str]) -> bool:
    """Return whether an answer says that its body is a problem."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() == _PROBLEM


def read_problem(headers: Mapping[str, str], body: bytes) -> HttpRefusal | None:
    """Read a problem of the listener's; None for anybody else's answer."""
    if not is_problem(headers):
        return None
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(members, dict):
        return None
    kind, code = members.get("type"), members.get("code")
    if not (isinstance(kind, str) and kind.startswith(PROBLEM_TYPES)):
        return None
    return HttpRefusal(
        code=code if isinstance(code, str) else kind.removeprefix(PROBLEM_TYPES),
        detail=_shown(members.get("detail"), limit=300),
        retry=members.get("retry") is not False,
        streams=_texts(members.get("streams")),
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def of_error(error: BaseException, *, host: str) -> Outage:
    """Return why there was no answer at all."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            # OpenSSL's own words come last in the whole text, and would be cut.
            fault = error.certificate_error
            fault = getattr(fault, "verify_message", None) or fault
            why = f"the certificate of {host} is not trusted: {_shown(fault)}"
            return Outage(cause=Cause.TLS, why=why)
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Outage(cause=Cause.TLS, why=f"no TLS with {host}: {_shown(_reason(error))}")
        case aiohttp.ClientConnectorDNSError():
            return Outage(cause=Cause.UNREACHABLE, why=f"the name {host} is not found")
        case TimeoutError():
            return Outage(cause=Cause.SILENT, why=f"{host} does not answer")
        case aiohttp.ServerDisconnectedError() | ConnectionResetError() | BrokenPipeError():
            return Outage(cause=Cause.UNREACHABLE, why=f"{host} hung up before it answered")
        case aiohttp.ClientConnectorError() | OSError():
            why = f"{host} cannot be reached: {_shown(_reason(error))}"
            return Outage(cause=Cause.UNREACHABLE, why=why)
    why = f"what answers at {host} is not the listener ({type(error).__name__})"
    return Outage(cause=Cause.NOT_WEBSOCKET, why=why)


def of_answer(
    status: int, headers: Mapping[str, str], *, host: str, problem: HttpRefusal | None = None
) -> Outage:
    """Return who answered what over HTTP, where events were expected."""
    if status == 426:
        why = f"the upgrade to WebSocket did not get through to {host}: a proxy takes it out"
        return Outage(cause=Cause.NOT_WEBSOCKET, why=why)
    if problem is not None:
        why = f"the listener answers {status}: {problem.detail or problem.code}"
        return Outage(cause=Cause.REFUSED, why=why)
    if 300 <= status < 400:
        why = f"{host} answers {status}, which leads to {_led_to(headers)}: not the listener"
        return Outage(cause=Cause.REFUSED, why=why)
    who = _who(headers)
    if status < 300:
        why = f"{host} answers {status} with something else than the listener's answer{who}"
        return Outage(cause=Cause.NOT_WEBSOCKET, why=why)
    return Outage(cause=Cause.REFUSED, why=f"{host} answers {status}, not by the listener{who}")


def _who(headers: Mapping[str, str]) -> str:
    """Return what an answer reveals about who sent it, in brackets."""
    told = (headers.get("Content-Type", "").partition(";")[0], headers.get("Server", ""))
    shown = ", ".join(_shown(part) for part in told if part)
    return f" ({shown})" if shown else ""


def _led_to(headers: Mapping[str, str]) -> str:
    try:
        host = URL(headers.get("Location", "")).host
    except ValueError:
        host = None
    return _shown(host or "another page")


def _reason(error: BaseException) -> object:
    cause = getattr(error, "os_error", error)
    return getattr(cause, "reason", None) or getattr(cause, "strerror", None) or cause


def _shown(value: object, *, limit: int = SHOWN_CHARS_MAX) -> str:
    """Shorten a stranger's text to one line that a log or a screen may show."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return "".join(char if char.isprintable() else " " for char in text[:limit]).strip()
