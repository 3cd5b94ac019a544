"""What the nodes that share a ledger tell each other: how they are, and who is connected."""

from msgspec import Struct


class NodeState(Struct, frozen=True, kw_only=True):
    """A listener that serves the ledger beside others, as it last reported itself.

    ``lag`` is how many events it has yet to publish, ``clock_ms`` how far its clock is ahead of
    the database's. ``is_here`` marks the one that is asked.
    """

    id: str
    url: str
    version: str
    started_at_ms: int
    lag: int
    clock_ms: int
    is_here: bool


class Seat(Struct, frozen=True, kw_only=True):
    """A subscriber's connection; if a terminal has two, only the newer one stays.

    ``since`` is when it came, by ``time.monotonic()``: it may be announced later.
    """

    session: str
    subscriber: str
    terminal: str | None
    since: float
