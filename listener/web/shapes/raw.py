"""Read the body of a request as it came, within the limits that hold for every body."""

import asyncio
from typing import Final

from aiohttp import web

from listener.pockyt.notification import BODY_BYTES_MAX
from listener.web.problem import ProblemError

BODY_SECONDS: Final = 10.0


async def read_raw(request: web.Request) -> bytes:
    """Read the body of a request.

    Raises:
        ProblemError: It is cut off or not encoded as it says (400), late (408), too large (413).
    """
    try:
        # A time-out costs more than the reading; a body that is here already needs none.
        if request.content.is_eof():
            return await request.read()
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large() from None
    except (ConnectionError, web.RequestPayloadError):
        raise ProblemError(400, "cut-off", "the body was cut off") from None
    except TimeoutError:
        raise ProblemError(408, "too-slow", "the body did not arrive in time") from None


def too_large() -> ProblemError:
    """Return what a body is refused with that is known to be too large."""
    return ProblemError(413, "too-large", f"a body has at most {BODY_BYTES_MAX} bytes")
