"""Limit the chunks of a request's body: reading one costs more than reading a thousand bytes."""

from typing import Final

from listener.web.problem import ProblemError

# More than any notification has bytes, so that one may come byte by byte.
CHUNKS_MAX: Final = 1_024

_LINE_END: Final = b"\r\n"
# Behind its size, and behind its bytes.
_LINE_ENDS_OF_ONE: Final = 2


class Chunks:
    """Counts the chunks of the body that is arriving, by their line ends."""

    __slots__ = ("_line_ends",)

    def __init__(self) -> None:
        self._line_ends = 0

    def are_too_many(self, data: bytes, *, goes_on: bool) -> bool:
        """Count a segment before it is parsed; ``goes_on`` is whether it goes on with a body.

        A segment that begins with a head is never too much, since its length is limited.
        """
        line_ends = data.count(_LINE_END)
        if not goes_on:
            self._line_ends = line_ends
            return False
        self._line_ends += line_ends
        return self._line_ends > CHUNKS_MAX * _LINE_ENDS_OF_ONE


def too_many_chunks() -> ProblemError:
    """Build the refusal of a body that comes in too many chunks."""
    return ProblemError(400, "too-many-chunks", f"send a body in at most {CHUNKS_MAX} chunks")


def broken_chunks() -> ProblemError:
    """Build the refusal of a body whose chunks break HTTP, maybe in between: it may be repeated."""
    why = "a chunk of the body has not the length that it says, or no line end"
    return ProblemError(400, "broken-chunks", why, members={"retry": True})
