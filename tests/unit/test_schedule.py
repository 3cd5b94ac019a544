"""When Pockyt is asked about a cancel, after it, and about a customer's code."""

import pytest
from msgspec.structs import replace

from listener.ledger.history import History
from listener.ledger.model import (
    CancelState,
    Entry,
    Fact,
    Kind,
    Status,
    Transaction,
    Why,
    fields_text,
)
from listener.ledger.schedule import ASK_CANCELLED_SECONDS, ASK_CHARGING_SECONDS, RAISE_SECONDS
from listener.ledger.transaction import Step, advance
from tests.support.told import (
    alarm,
    answer,
    bound,
    cancel_request,
    decision,
    notification,
    query,
    sale,
)

SECOND = 1_000


def story(*told: tuple[float, Fact]) -> list[Step]:
    """Build facts, each at its second; the first is a sale, bound at once."""
    sold = Entry(seq=1, recorded_at_ms=0, fact=sale())
    history = History()
    steps: list[Step] = []
    for seq, (at, fact) in enumerate([(0.0, bound(1)), *told], start=2):
        entry = Entry(seq=seq, recorded_at_ms=int(at * SECOND), fact=fact)
        summary = history.add(entry, sales={sold.seq: sold})
        before = steps[-1].transaction if steps else None
        steps.append(advance(before, summary, entry, sale=sold))
    return steps


def last(*told: tuple[float, Fact]) -> Transaction:
    return story(*told)[-1].transaction


def prepay(error: str | None = None, word: str = "pending") -> Fact:
    said = answer(None if error else word)
    return replace(said, fields=fields_text({"call": "prepay", "error": error}))


def ask_of(transaction: Transaction) -> tuple[Why, float, float | None, float | None]:
    """Return why, since when, the next question and the alarm, in seconds."""
    ask = transaction.ask
    assert ask is not None
    due, raised = ask.due_at_ms, ask.raise_at_ms
    return (
        ask.why,
        ask.since_ms / SECOND,
        None if due is None else due / SECOND,
        None if raised is None else raised / SECOND,
    )


def test_a_wish_that_comes_from_the_sale_has_its_number_asked_about_soon() -> None:
    kept = {"requestedAt": "1000", "raiseAt": "58000"}
    after = last((42, replace(cancel_request(), sale_seq=1, fields=fields_text(kept))))
    assert ask_of(after) == (Why.CANCEL, 1, 45, 58)
    # Where it had ended at the sale, or an earlier version has recorded it, a new minute begins.
    for times in ({"requestedAt": "1000"}, {}):
        wish = replace(cancel_request(), sale_seq=1, fields=fields_text(times))
        assert ask_of(last((42, wish)))[2:] == (45, 42 + RAISE_SECONDS)


def test_a_cancel_that_was_confirmed_is_asked_about_again_and_no_alarm_is_due() -> None:
    after = last((10, cancel_request()), (11, answer("closed", as_of=3)))
    assert ask_of(after) == (Why.CANCELLED, 11, 14, None)


def test_after_a_question_the_next_is_after_a_minute_ten_and_two_hours_and_then_none() -> None:
    told: list[tuple[float, Fact]] = [(10, cancel_request()), (11, answer("closed", as_of=3))]
    due: list[float | None] = []
    at: float = 12
    for _ in range(len(ASK_CANCELLED_SECONDS) + 1):
        told.append((at, query("closed", as_of=3)))
        _, _, next_at, _ = ask_of(last(*told))
        due.append(next_at)
        at = next_at or 0
    assert due == [71, 611, 7_211, None]


def test_a_question_after_a_cancel_that_is_not_answered_is_repeated_on_the_ladder() -> None:
    told = [(10.0, cancel_request()), (11.0, answer("closed", as_of=3))]
    _, since, due, _ = ask_of(last(*told, (71.0, query(None, as_of=4))))
    assert since == 11
    # At 120 s, give or take a tenth; not at 600 s only.
    assert due is not None
    assert 115 <= due - since <= 126


@pytest.mark.parametrize(
    "told",
    [
        [(12.0, decision(Status.CANCELLED))],
        [(11.0, query("success", as_of=3, says=Status.REFUNDED, refunds="[1]"))],
        [(11.0, query("failed", as_of=3))],
    ],
)
def test_a_final_status_is_not_asked_about(told: list[tuple[float, Fact]]) -> None:
    assert last((10.0, cancel_request()), *told).ask is None


def test_a_cancel_that_was_refused_is_asked_about_again_and_no_alarm_is_due() -> None:
    told = [(10.0, cancel_request()), (11.0, query("success", as_of=3))]
    assert ask_of(last(*told)) == (Why.CANCELLED, 11, 71, None)
    # /cancel was carried out late, and refunded the payment.
    after = last(*told, (71.0, query("closed", as_of=5)))
    assert (after.status, after.ask) == (Status.REFUNDED, None)
    assert after.cancel is not None
    assert after.cancel.state is CancelState.REFUNDED


def test_a_refund_that_follows_from_an_answer_alone_is_asked_about() -> None:
    after = last(
        (10.0, cancel_request(refund_if_paid=True)),
        (11.0, query("success", as_of=3)),
        (12.0, answer("closed", as_of=4)),
    )
    assert after.status is Status.REFUNDED
    assert ask_of(after)[0] is Why.CANCELLED


def test_a_payment_after_a_confirmed_cancel_is_a_conflict_and_asked_about_soon() -> None:
    after = last(
        (10.0, cancel_request()),
        (11.0, answer("closed", as_of=3)),
        (500.0, notification("success")),
    )
    assert after.status is Status.CONFLICT
    # The cancel is open again since it was asked for: its alarm is overdue.
    why, since, _, raise_at = ask_of(after)
    assert (why, since, raise_at) == (Why.CANCEL, 10, 10 + RAISE_SECONDS)


def test_a_cancel_that_is_open_again_is_not_raised_twice() -> None:
    told = [
        (10.0, cancel_request()),
        (70.0, alarm()),
        (80.0, answer("closed", as_of=4)),
        (90.0, notification("success")),
    ]
    after = last(*told)
    assert after.cancel is not None
    assert after.cancel.state is CancelState.UNRESOLVED
    assert ask_of(after)[3] is None


def test_pressing_cancel_again_does_not_put_the_alarm_off() -> None:
    after = last((10.0, cancel_request()), (40.0, cancel_request()))
    assert ask_of(after) == (Why.CANCEL, 40, 43, 10 + RAISE_SECONDS)


def test_pressing_cancel_again_after_an_alarm_has_an_alarm_of_its_own() -> None:
    after = last((10.0, cancel_request()), (70.0, alarm()), (80.0, cancel_request()))
    assert ask_of(after)[3] == 80 + RAISE_SECONDS


def test_silence_that_was_broken_while_it_was_raised_makes_no_event() -> None:
    steps = story((10.0, cancel_request()), (70.0, query("closed", as_of=3)), (70.0, alarm()))
    assert steps[-1].event_type is None
    steps = story((10.0, cancel_request()), (70.0, alarm()), (70.0, alarm()))
    assert [step.event_type for step in steps[-2:]] == ["transaction.unresolved", None]


@pytest.mark.parametrize("tried", [prepay(), prepay("timeout"), prepay("failed")])
def test_a_code_that_was_tried_is_asked_about_at_once_and_raised_after_a_minute(
    tried: Fact,
) -> None:
    assert tried.kind is Kind.ANSWER
    assert ask_of(last((20.0, tried))) == (Why.SALE, 20, 23, 20 + RAISE_SECONDS)


def test_a_code_that_was_refused_leaves_the_sale_to_its_time_out() -> None:
    assert ask_of(last((20.0, prepay("refused"))))[:3] == (Why.SALE, 7_200, 7_200)


def charging() -> Fact:
    return replace(answer(None), fields=fields_text({"call": "prepay", "next": "prepay"}))


def refused(**ours: str) -> Fact:
    fields = {"call": "prepay", "error": "refused", **ours}
    return replace(answer(None), fields=fields_text(fields))


def test_a_code_that_is_about_to_be_charged_is_asked_about_once_the_call_has_ended() -> None:
    after = ask_of(last((20.0, charging())))
    assert after == (Why.SALE, 20, 20 + ASK_CHARGING_SECONDS, 20 + RAISE_SECONDS)


def test_a_code_that_was_refused_ends_the_questions_that_began_before_the_call() -> None:
    after = last((20.0, charging()), (21.0, refused(chargeSeq="3")))
    assert ask_of(after) == (Why.SALE, 7_200, 7_200, 7_200 + RAISE_SECONDS)


def test_a_code_that_was_refused_beside_one_in_doubt_ends_no_questions() -> None:
    after = last((20.0, charging()), (21.0, refused(chargeSeq="3", doubt="true")))
    assert ask_of(after)[:2] == (Why.SALE, 20)


def test_a_refused_code_of_an_earlier_version_leaves_the_schedule_as_it_was() -> None:
    after = last((20.0, prepay("timeout")), (30.0, refused()))
    assert ask_of(after)[:2] == (Why.SALE, 20)
