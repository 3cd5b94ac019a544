"""The newest events in memory, added a commit at a time."""

import pytest

from listener.hub.tail import StreamTail, Tail
from listener.ledger.model import Event
from tests.support.stored import STREAM


def events(*offsets: int) -> list[Event]:
    return [
        Event(number=offset, stream=STREAM, offset=offset, seq=offset, body=b"{}")
        for offset in offsets
    ]


@pytest.mark.parametrize(
    ("groups", "kept"),
    [
        ([(1, 2), (3, 4)], [1, 2, 3, 4]),
        ([(1, 2), (1, 2)], [1, 2]),
        ([(1, 2), (2, 3)], [1, 2, 3]),
        ([(1, 2), (1, 3)], [1, 2, 3]),
        ([(1, 2), (4, 5)], [4, 5]),
        ([(1, 3), (4,)], [3, 4]),
    ],
    ids=["next", "known", "overlap", "known-and-next", "hole", "hole-inside"],
)
def test_a_tail_holds_the_newest_events_without_a_hole(
    groups: list[tuple[int, ...]], kept: list[int]
) -> None:
    tail, tails = StreamTail(STREAM), Tail(events_max=9, bytes_max=100)
    for group in groups:
        tails.add(tail, events(*group))
    assert [event.offset for event in tail.events] == kept
    assert (tail.after, tail.head) == (kept[0] - 1, kept[-1])


def test_a_tail_that_nobody_follows_is_not_begun_anew_after_a_hole() -> None:
    tail, tails = StreamTail(STREAM), Tail(events_max=9, bytes_max=100)
    assert tails.add(tail, events(1, 2), is_followed=False) == 2
    assert tails.add(tail, events(4, 5), is_followed=False) == 5
    assert [event.offset for event in tail.events] == [1, 2]
    assert tails.add(tail, events(3), is_followed=False) == 3
    assert [event.offset for event in tail.events] == [1, 2, 3]


def test_a_group_pushes_out_the_oldest_events_of_all_streams() -> None:
    one, other = StreamTail(STREAM), StreamTail(f"{STREAM}-2")
    tails = Tail(events_max=4, bytes_max=7)
    tails.add(one, events(1, 2))
    tails.add(other, events(1, 2, 3))
    # Three events of two bytes are below seven bytes, a fourth is not.
    assert (len(one.events), len(other.events)) == (0, 3)
    tails.add(one, events(3))
    assert (len(one.events), len(other.events)) == (1, 2)
