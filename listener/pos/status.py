"""What a program is told about its connection to the listener: live, or why not."""

from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from listener.errors import ListenerError
from listener.pos.causes import Cause, Outage
from listener.pos.codes import CloseCode
from listener.pos.ended import Ended

State = Literal["connecting", "live", "stopped"]
Transport = Literal["websocket", "long-poll"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowStatus:
    """Whether what is shown is live; if not, why.

    After a position was lost, events may come while it is "connecting": until the snapshot is read,
    what is shown may be incomplete.

    ``age_seconds`` is the age of the listener's last word; None before the first. While "live" it
    stays below the time after which a silent listener is given up (35 s). ``cause`` is a word for
    programs, None while live; ``why`` is a sentence for people, '' while live.
    """

    state: State
    transport: Transport | None
    age_seconds: float | None
    cause: Cause | None = None
    why: str = ""

    def not_live(self, outage: Outage) -> Self:
        """Return it as not live, for this reason."""
        state: State = "stopped" if outage.cause is Cause.STOPPED else "connecting"
        return replace(self, state=state, transport=None, cause=outage.cause, why=outage.why)


STARTING: Final = FollowStatus(
    state="connecting", transport=None, age_seconds=None, cause=Cause.STARTING
)


class StoppedError(ListenerError):
    """The client does not come back unchanged: ``code`` says why, the text what to do.

    The listener said so, or the key is one that no listener can know.
    """

    def __init__(self, *, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def stopped(ended: Ended) -> StoppedError:
    """Build the error that says what a person must do before the client may come back."""
    detail = _row_of(ended.code) or ended.outage.why
    text = detail or "ask the listener's operator"
    return StoppedError(code=ended.code, detail=f"the listener refused ({ended.code}): {text}")


def _row_of(code: int) -> str:
    """Return why the listener refused, and what to do about it; '' for an unknown code."""
    known = next((known for known in CloseCode if known == code), None)
    return f"{known.meaning}; {known.to_do}" if known and known.to_do else ""
