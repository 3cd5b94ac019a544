"""How a connection to the listener ended, and what follows from that."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from listener.pos.causes import Cause, HttpRefusal, Outage
from listener.pos.codes import CloseCode, Duty, duty_of

_UNAVAILABLE: Final = 503
_CODE_OF_STATUS: Final[Mapping[int, CloseCode]] = MappingProxyType(
    {401: CloseCode.BAD_KEY, 403: CloseCode.STREAM_NOT_ALLOWED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a connection, or an attempt at one, ended, and what follows.

    ``jitter_ms`` is from the listener's ``hello``; None if the listener was not reached.
    ``after_ms`` is when it asked to be called again. ``streams`` are those of the key, where the
    listener's own problem over HTTP named them.
    """

    duty: Duty
    outage: Outage
    code: int = CloseCode.CUT
    jitter_ms: int | None = None
    after_ms: int | None = None
    streams: tuple[str, ...] = ()


def ended_by(code: int, *, jitter_ms: int | None, after_ms: int | None, why: str = "") -> Ended:
    """Conclude from a close code what follows."""
    outage = Outage(cause=Cause.CLOSED, why=why or f"the connection was closed: {_meaning(code)}")
    return Ended(
        duty=duty_of(code), code=code, outage=outage, jitter_ms=jitter_ms, after_ms=after_ms
    )


def ended_by_answer(status: int, outage: Outage, *, problem: HttpRefusal | None) -> Ended:
    """Conclude from an HTTP answer what follows: only the listener's own problem may stop us."""
    if problem is None or problem.retry:
        code = CloseCode.OVERLOADED if status == _UNAVAILABLE else CloseCode.SERVER_ERROR
        return Ended(duty=Duty.BACK_OFF, code=code, outage=outage)
    code = _CODE_OF_STATUS.get(status, CloseCode.MALFORMED)
    return Ended(duty=Duty.STOP, code=code, outage=outage, streams=problem.streams)


def _meaning(code: int) -> str:
    known = next((known for known in CloseCode if known == code), None)
    return f"{known.meaning} ({code})" if known else f"code {code}"
