"""A transaction is replayed as earlier versions have told it."""

import pytest
from msgspec.structs import replace

from listener.ledger.batch import new_event
from listener.ledger.history import History
from listener.ledger.model import Entry
from listener.ledger.replay import Replay, StoredEvent
from listener.ledger.transaction import Step, advance
from tests.support.told import START_MS, cancel_request, query

EPOCH = "9f3c"


def _stored(step: Step, entry: Entry) -> StoredEvent:
    made = new_event(step, entry, epoch=EPOCH)
    assert made is not None
    return StoredEvent(
        stream=made.stream,
        is_cancellation=made.is_cancellation,
        body=made.body(entry.seq).decode(),
    )


@pytest.mark.parametrize(
    ("told", "is_sound"),
    [
        ("transaction.cancelled", True),
        ("transaction.cancelling", True),
        ("transaction.refunded", False),
    ],
)
def test_a_wish_that_had_ended_may_have_been_told_as_an_open_one(told: str, is_sound: bool) -> None:
    facts = [query("closed", as_of=0), cancel_request()]
    entries = [
        Entry(seq=seq, recorded_at_ms=START_MS, fact=fact) for seq, fact in enumerate(facts, 1)
    ]
    history, steps = History(), list[Step]()
    for entry in entries:
        before = steps[-1].transaction if steps else None
        steps.append(advance(before, history.add(entry, sales={}), entry))
    steps[-1] = replace(steps[-1], event_type=told)
    found = Replay().check(
        entries,
        stored=steps[-1].transaction,
        events={
            entry.seq: _stored(step, entry) for step, entry in zip(steps, entries, strict=True)
        },
        sales={},
    )
    assert (found is None) is is_sound
