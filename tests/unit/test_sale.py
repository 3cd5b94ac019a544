"""Where a sale stands before its number is known, and what becomes of a wish to cancel it."""

from typing import Final

import pytest
from msgspec.structs import replace

from listener.ledger.model import (
    Alarm,
    CancelState,
    Entry,
    Evidence,
    Fact,
    Kind,
    Status,
    Transaction,
    fields_text,
)
from listener.ledger.sale import (
    SALE_ANSWER_MS,
    SaleState,
    begin_sale,
    follow_sale,
    is_taken,
)
from tests.support.told import MERCHANT, STORE, sale
from tests.unit.test_lifecycle_facts import TRANSACTION

BEGAN_MS: Final = 1_000_000
SOLD: Final = Entry(seq=1, recorded_at_ms=BEGAN_MS, fact=replace(sale(), reference="r1"), hash="")


def _fact(kind: Kind, **changes: object) -> Fact:
    fields = {name: value for name, value in changes.items() if name in _FIELDS}
    columns = {name: value for name, value in changes.items() if name not in _FIELDS}
    return Fact(
        kind=kind,
        merchant_no=MERCHANT,
        sale_seq=1,
        fields=fields_text(fields),  # type: ignore[arg-type]
        **columns,  # type: ignore[arg-type]
    )


_FIELDS: Final = frozenset({"call", "error", "sent", "retCode", "alarm", "next", "refundIfPaid"})
WISH: Final = _fact(Kind.CANCEL_REQUEST)
UNHEARD: Final = _fact(Kind.QUERY, error="refused", retCode="000021")
SILENT: Final = _fact(Kind.QUERY, error="timeout")
REFUSED: Final = _fact(Kind.ANSWER, call="add", error="refused", retCode="000023")
UNSENT: Final = _fact(Kind.ANSWER, call="add", error="connection", sent="false")
BOUND: Final = _fact(Kind.ANSWER, call="add", transaction_no="7", says=Status.CREATED)
NOTIFIED: Final = _fact(Kind.NOTIFICATION, transaction_no="7", says=Status.PAID)


def _after(*steps: tuple[int, Fact]) -> SaleState:
    """Return where the sale stands after facts, each so many seconds after it began."""
    state = begin_sale(SOLD)
    for seq, (seconds, fact) in enumerate(steps, 2):
        at_ms = BEGAN_MS + seconds * 1_000
        entry = Entry(seq=seq, recorded_at_ms=at_ms, fact=fact, hash="")
        state = follow_sale(state, entry, began_ms=BEGAN_MS)
    return state


def _state(after: SaleState) -> CancelState | None:
    return after.cancel.state if after.cancel else None


def test_a_sale_that_is_not_answered_is_looked_for() -> None:
    assert _after().due_ms == BEGAN_MS + SALE_ANSWER_MS
    asked = _after((30, SILENT))
    assert asked.due_ms is not None
    assert asked.due_ms > BEGAN_MS + 30_000
    assert _after((1, BOUND)).due_ms is None


@pytest.mark.parametrize("answer", [REFUSED, UNSENT])
def test_a_sale_that_was_surely_not_started_leaves_its_reference_free(answer: Fact) -> None:
    after = _after((1, answer))
    assert after.is_refused
    assert after.due_ms is None
    assert _state(_after((1, answer), (2, WISH))) is CancelState.CONFIRMED
    assert _state(_after((1, WISH), (2, answer))) is CancelState.CONFIRMED


def test_a_wish_is_asked_about_soon_and_raised_within_a_minute() -> None:
    after = _after((10, WISH))
    assert _state(after) is CancelState.REQUESTED
    assert after.due_ms is not None
    assert after.raise_ms is not None
    assert after.due_ms <= BEGAN_MS + 13_000
    assert after.raise_ms <= BEGAN_MS + 70_000
    # Who presses again does not put it off.
    assert _after((10, WISH), (20, WISH)).raise_ms == after.raise_ms


def test_a_wish_ends_where_pockyt_knows_of_no_sale_for_good() -> None:
    early, late = (10, UNHEARD), (30, UNHEARD)
    assert _state(_after((9, WISH), early)) is CancelState.REQUESTED
    after = _after((9, WISH), early, late)
    assert _state(after) is CancelState.CONFIRMED
    assert after.raise_ms is None
    assert after.cancel is not None
    assert after.cancel.evidence is Evidence.QUERY
    # It may come to be known after all.
    assert after.due_ms is not None
    assert _state(_after((9, WISH), (40, SILENT))) is CancelState.REQUESTED


def test_a_number_that_comes_has_the_wish_taken_over_by_its_transaction() -> None:
    bound = _after((1, WISH), (2, BOUND))
    assert (bound.transaction_no, bound.due_ms) == ("7", BEGAN_MS + 2_000)
    taken_over = replace(WISH, transaction_no="7")
    after = _after((1, WISH), (2, BOUND), (3, taken_over))
    assert (after.due_ms, after.raise_ms) == (None, None)
    # Also where Pockyt said before that it knew of none.
    assert _after((9, WISH), (40, UNHEARD), (50, BOUND)).due_ms == BEGAN_MS + 50_000


def test_a_notification_with_its_reference_opens_a_cancel_that_had_ended() -> None:
    ended = (9, WISH), (40, UNHEARD)
    after = _after(*ended, (50, NOTIFIED))
    assert after.cancel is not None
    assert (after.cancel.state, after.cancel.resolved_at_ms) == (CancelState.REQUESTED, None)
    assert after.cancel.requested_at_ms == BEGAN_MS + 9_000
    # It is looked at now, raised within a minute, and bound to no number by a signature alone.
    assert after.due_ms == BEGAN_MS + 50_000
    assert after.raise_ms is not None
    assert after.raise_ms <= BEGAN_MS + 110_000
    assert after.transaction_no is None
    # Where Pockyt still knows of none, and nothing takes the wish over, it ends again.
    assert _state(_after(*ended, (50, NOTIFIED), (51, UNHEARD))) is CancelState.CONFIRMED


def test_a_notification_has_a_sale_that_is_being_cancelled_looked_at() -> None:
    alarm = _fact(Kind.ALARM, alarm=Alarm.UNRESOLVED)
    for steps in ([(9, WISH)], [(1, WISH), (58, alarm)]):
        before = _after(*steps)
        after = _after(*steps, (60, NOTIFIED))
        assert after == replace(before, due_ms=BEGAN_MS + 60_000)
    # Without a wish, and once its number is known, it changes nothing.
    assert _after((60, NOTIFIED)) == _after()
    assert _after((60, replace(NOTIFIED, transaction_no=""))).due_ms == BEGAN_MS + 60_000
    refused = (1, REFUSED), (2, WISH)
    assert _after(*refused, (60, NOTIFIED)) == _after(*refused)
    known = (1, WISH), (2, BOUND)
    assert _after(*known, (60, NOTIFIED)) == _after(*known)


def test_a_wish_that_its_transaction_takes_over_brings_the_number() -> None:
    after = _after((9, WISH), (50, NOTIFIED), (51, replace(WISH, transaction_no="7")))
    assert (after.transaction_no, after.due_ms, after.raise_ms) == ("7", None, None)


def test_silence_is_raised_once() -> None:
    alarm = _fact(Kind.ALARM, alarm=Alarm.UNRESOLVED)
    after = _after((1, WISH), (58, alarm))
    assert (_state(after), after.raise_ms) == (CancelState.UNRESOLVED, None)
    assert after.is_being_cancelled
    assert _after((1, alarm)).cancel is None
    # A wish that is repeated then is tried once more.
    assert _state(_after((1, WISH), (58, alarm), (70, WISH))) is CancelState.REQUESTED


def test_a_number_that_is_anothers_ends_the_looking_for() -> None:
    taken = _fact(Kind.ALARM, alarm=Alarm.NUMBER_TAKEN)
    assert _after((1, _fact(Kind.ANSWER, call="add")), (1, taken)).due_ms is None


def test_a_wish_is_chased_though_a_number_was_anothers() -> None:
    taken = _fact(Kind.ALARM, alarm=Alarm.NUMBER_TAKEN)
    asked = (1, WISH), (4, _fact(Kind.QUERY, call="tran-query"))
    after = _after(*asked, (4, taken))
    assert after == _after(*asked)
    assert after.due_ms is not None
    assert after.due_ms > BEGAN_MS + 4_000
    assert after.raise_ms is not None
    # Pockyt knew no such sale after all.
    assert _state(_after(*asked, (4, taken), (40, UNHEARD))) is CancelState.CONFIRMED


@pytest.mark.parametrize(
    ("says", "state"),
    [
        (Status.CANCELLED, CancelState.CONFIRMED),
        (Status.FAILED, CancelState.CONFIRMED),
        (Status.REFUNDED, CancelState.REFUNDED),
        (Status.PAID, CancelState.REQUESTED),
        (Status.PENDING, CancelState.REQUESTED),
    ],
)
def test_an_answer_without_a_number_ends_a_wish_by_what_it_says(
    says: Status, state: CancelState
) -> None:
    assert _state(_after((1, WISH), (2, _fact(Kind.QUERY, says=says)))) is state
    answer = _fact(Kind.ANSWER, call="cancel", says=says)
    assert _state(_after((1, WISH), (2, answer))) is state


def test_cancel_is_sent_once_by_the_reference() -> None:
    sending = _fact(Kind.QUERY, says=Status.PENDING, next="cancel")
    assert _after((1, WISH), (2, sending)).is_cancel_sent
    lost = _fact(Kind.ANSWER, call="cancel", error="timeout")
    assert _after((1, WISH), (2, sending), (3, lost)).is_cancel_sent
    refused = _fact(Kind.ANSWER, call="cancel", error="refused", retCode="000040")
    assert not _after((1, WISH), (2, sending), (3, refused)).is_cancel_sent
    unclear = _fact(Kind.ANSWER, call="cancel", error="refused", retCode="000777")
    assert _after((1, WISH), (2, sending), (3, unclear)).is_cancel_sent
    assert not _after((1, WISH), (2, sending), (3, WISH)).is_cancel_sent


def test_facts_after_the_number_belong_to_the_transaction() -> None:
    bound = _after((1, BOUND))
    assert _after((1, BOUND), (2, SILENT)) == bound


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        (None, False),
        ({}, False),
        ({"store_no": STORE, "reference": " R1 "}, False),
        ({"sale_seq": 1}, False),
        ({"sale_seq": 2}, True),
        ({"store_no": "300014"}, True),
        ({"store_no": STORE, "reference": "r2"}, True),
        ({"store_no": STORE, "reference": "r2", "evidence": Evidence.NONE}, False),
    ],
)
def test_a_number_of_another_sale_or_store_is_taken(
    changes: dict[str, object] | None, taken: bool
) -> None:
    known: Transaction | None = None
    if changes is not None:
        known = replace(TRANSACTION, **changes)
    state = begin_sale(SOLD)
    assert is_taken(state, "297", known) is taken
    bound = replace(state, transaction_no="298")
    assert is_taken(bound, "297", None)
    assert not is_taken(bound, "298", None)
