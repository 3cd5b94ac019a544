"""What a program is told of its link to the listener: whether it is live, or why not."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from listener.errors import ListenerError
from listener.pos.causes import Cause
from listener.pos.codes import CloseCode
from listener.pos.tracking import Ended

State = Literal["connecting", "live", "stopped"]
Transport = Literal["websocket", "long-poll"]

# By the code of a problem, which says more, or by close code.
_TO_DO: Final[Mapping[int | str, str]] = MappingProxyType(
    {
        CloseCode.TOO_BIG: "a frame was too big; name fewer streams",
        CloseCode.BAD_KEY: "the key is not known; set one that `listener keys create` made",
        CloseCode.MALFORMED: "the request was malformed; update this client or the listener",
        CloseCode.NO_KEY: "no key reached the listener; set one that `listener keys create` made",
        CloseCode.STREAM_NOT_ALLOWED: "the key may not follow this stream; name one of its scope",
        CloseCode.REPLACED: "another program uses this terminal's key; stop it, or make a key",
        CloseCode.REVOKED: "the key was revoked; ask for a new one",
        "stream-missing": "without WebSocket a key of several stores has to name `streams`",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowStatus:
    """Whether what is shown is live; where it is not, why.

    ``age_seconds`` is the age of the listener's last word; None before the first. While "live" it
    stays below the time after which a silent listener is given up (35 s). ``cause`` is a word for
    programs, None while live; ``why`` is a sentence for people, '' while live.
    """

    state: State
    transport: Transport | None
    age_seconds: float | None
    cause: Cause | None = None
    why: str = ""


class StoppedError(ListenerError):
    """The listener said not to come back unchanged; ``code`` says why, the text what to do."""

    def __init__(self, *, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def stopped(ended: Ended) -> StoppedError:
    """Build the error that says what a person must do before the client may come back."""
    to_do = _TO_DO.get(ended.problem) or _TO_DO.get(ended.code)
    detail = to_do or ended.outage.why or "ask the listener's operator"
    return StoppedError(code=ended.code, detail=f"the listener refused ({ended.code}): {detail}")
