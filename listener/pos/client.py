"""Follow the listener from a POS: every event once, in order, acknowledged once handled.

    async for event in follow("https://pos.example.com", key=KEY, position=FilePositions("pos")):
        show(event.data)

It connects, resumes, answers pings, drops events it already had, and falls back to long-poll where
WebSocket is blocked. It reconnects for ever: only the listener itself can stop it, and an answer
that a proxy or a sign-on page gives in its place is reported to ``on_status``. It imports nothing
of the server.
"""

from collections.abc import AsyncGenerator, Callable, Sequence

from pydantic import SecretStr

from listener.pos.api import SNAPSHOT
from listener.pos.causes import Cause
from listener.pos.events import Event, Position, ResyncMembers, Start
from listener.pos.follower import Follower
from listener.pos.positions import FilePositions, MemoryPositions, PositionStore
from listener.pos.schedule import Timing
from listener.pos.status import FollowStatus, StoppedError

__all__ = [
    "SNAPSHOT",
    "Cause",
    "Event",
    "FilePositions",
    "FollowStatus",
    "Follower",
    "MemoryPositions",
    "Position",
    "PositionStore",
    "StoppedError",
    "Timing",
    "follow",
]


async def follow(  # noqa: PLR0913 - options by keyword, each with a default
    url: str,
    *,
    key: str | SecretStr,
    streams: str | Sequence[str] | None = None,
    position: PositionStore | None = None,
    start: Start = "acked",
    timing: Timing | None = None,
    acks: bool = True,
    on_status: Callable[[FollowStatus], None] | None = None,
    on_resync: Callable[[ResyncMembers], None] | None = None,
) -> AsyncGenerator[Event, None]:
    """Follow a listener's streams for ever, as an async generator.

    An event is acknowledged when the loop asks for the next one. After leaving the loop, the
    connection closes a moment later; a program that ends there should use
    ``async with Follower(…)``, which waits for it; and so should one that waits with a timeout,
    since cancelling whoever waits ends a generator. See :class:`Follower` for the options.

    Raises:
        StoppedError: The listener said not to come back unchanged.
    """
    follower = Follower(
        url,
        key=key,
        streams=streams,
        position=position,
        start=start,
        timing=timing,
        acks=acks,
        on_status=on_status,
        on_resync=on_resync,
    )
    async with follower:
        async for event in follower:
            yield event
