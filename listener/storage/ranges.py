"""Read many entries range by range, so that searches take turns; the same for every back-end."""

from collections.abc import Awaitable, Callable
from typing import Final

from listener.ledger.results import Head, ReadEntry, Totals

# How many entries are searched in one go.
RANGE_ENTRIES: Final = 20_000


async def entries(
    read: Callable[[int, int, int], Awaitable[list[ReadEntry]]], *, after: int, end: int, limit: int
) -> list[ReadEntry]:
    """Read up to ``limit`` entries after a seq, up to the seq ``end``.

    ``read`` is given a seq to read after, one to read up to, and a limit.
    """
    found: list[ReadEntry] = []
    while after < end and len(found) < limit:
        upto = min(after + RANGE_ENTRIES, end)
        found += await read(after, upto, limit - len(found))
        after = upto
    return found


async def counts(
    count: Callable[[int, int], Awaitable[tuple[int, int]]], *, end: int
) -> tuple[int, int]:
    """Return how many entries there are up to the seq ``end``, and how many repeats.

    ``count`` is given a seq to count after, and one to count up to.
    """
    found = repeats = 0
    for after in range(0, end, RANGE_ENTRIES):
        counted = await count(after, min(after + RANGE_ENTRIES, end))
        found, repeats = found + counted[0], repeats + counted[1]
    return found, repeats


def all_of(head: Head) -> Totals:
    """Return how much the whole ledger holds, from its head."""
    return Totals(
        entries=head.seq, transactions=head.transactions, events=head.events, repeats=head.repeats
    )
