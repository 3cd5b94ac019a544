"""A transaction step by step: what tills are told, how a cancel stands, when Pockyt is asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Self

import orjson
import pytest
from msgspec.structs import replace

from listener.ledger.history import History
from listener.ledger.model import (
    Alarm,
    Ask,
    Cancel,
    CancelState,
    Entry,
    Evidence,
    Fact,
    Kind,
    Status,
    Transaction,
    Why,
    fields_text,
)
from listener.ledger.schedule import (
    ASK_JITTER,
    ASK_SECONDS,
    ASK_SECONDS_MAX,
    RAISE_SECONDS,
    SALE_MINUTES,
    Confirm,
    next_due_ms,
)
from listener.ledger.transaction import Step, advance, event_text
from listener.pos.events import Event
from tests.support.told import (
    CURRENCY,
    MERCHANT,
    NUMBER,
    REFERENCE,
    START_MS,
    STORE,
    alarm,
    answer,
    bound,
    cancel_request,
    decision,
    notification,
    query,
    sale,
)

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
# The contract's ladder, in seconds since the doubt began.
LADDER: Final = (3, 5, 10, 20, 30, 60)


@dataclass(slots=True)
class Story:
    """A transaction that is told one fact after the other, a second apart unless it waits."""

    confirm: Confirm = "suspicious"
    now_ms: int = START_MS
    steps: list[Step] = field(default_factory=list)
    _told: History = field(default_factory=History)
    _sales: dict[int, Entry] = field(default_factory=dict)
    _seq: int = 0

    def tell(self, *facts: Fact) -> Self:
        for fact in facts:
            self._seq += 1
            self.now_ms += SECOND
            entry = Entry(seq=self._seq, recorded_at_ms=self.now_ms, fact=fact)
            if fact.kind is Kind.SALE:
                self._sales[entry.seq] = entry
                continue
            summary = self._told.add(entry, sales=self._sales)
            before = self.steps[-1].transaction if self.steps else None
            sale = self._sales.get(summary.judge or 0)
            step = advance(before, summary, entry, sale=sale, confirm=self.confirm)
            self.steps.append(step)
        return self

    def wait(self, ms: int) -> Self:
        self.now_ms += ms
        return self

    @property
    def seq(self) -> int:
        return self._seq

    @property
    def last(self) -> Step:
        return self.steps[-1]

    @property
    def entry(self) -> Entry:
        return self._told.entries[-1]

    @property
    def transaction(self) -> Transaction:
        return self.last.transaction

    @property
    def cancel(self) -> Cancel:
        assert self.transaction.cancel is not None
        return self.transaction.cancel

    @property
    def ask(self) -> Ask:
        assert self.transaction.ask is not None
        return self.transaction.ask

    @property
    def types(self) -> list[str | None]:
        return [step.event_type for step in self.steps]


def story(*facts: Fact, confirm: Confirm = "suspicious") -> Story:
    return Story(confirm=confirm).tell(*facts)


# Events.


@pytest.mark.parametrize(
    ("word", "event_type"),
    [
        ("init", "transaction.created"),
        ("pending", "transaction.pending"),
        ("success", "transaction.paid"),
        ("failed", "transaction.failed"),
        ("closed", "transaction.cancelled"),
        ("refunded", "transaction.refunded"),
        ("voided", "transaction.unknown"),
    ],
)
def test_each_status_has_its_event(word: str, event_type: str) -> None:
    told = story(notification(word))
    assert told.types == [event_type]
    assert told.transaction.state_version == 1


def test_paid_and_cancelled_makes_a_conflict_event() -> None:
    assert story(notification("closed"), notification("success")).types == [
        "transaction.cancelled",
        "transaction.conflict",
    ]


def test_a_held_notification_makes_a_held_event() -> None:
    told = story(notification("success", suspect="ambiguous"))
    assert told.types == ["transaction.held"]
    assert told.transaction.held
    assert told.transaction.status is Status.UNKNOWN
    assert told.last.reason == "ambiguous"


def test_a_payment_of_another_amount_is_shown_as_held_and_changes_no_status() -> None:
    told = story(sale(), bound(1), notification("success", amount="1300.00"))
    assert told.types == ["transaction.created", "transaction.held"]
    assert (told.transaction.status, told.transaction.amount) == (Status.CREATED, "13.00")
    assert told.last.reason == "amount_differs"
    told.tell(notification("success", amount="1300.00", mark="again"))
    assert told.types[-1] is None


def test_a_status_event_is_made_where_the_status_changes_while_it_becomes_held() -> None:
    told = story(sale(), notification("success", amount="12.00"), bound(1))
    assert told.types == ["transaction.paid", "transaction.created"]
    assert told.transaction.held


def test_a_held_transaction_makes_an_event_once_it_is_settled() -> None:
    told = story(notification("success"), notification("closed", suspect="ambiguous"))
    told.tell(query("success", as_of=2))
    assert told.types == ["transaction.paid", "transaction.held", "transaction.paid"]
    assert not told.transaction.held


def test_a_cancel_and_a_raised_silence_have_their_events() -> None:
    told = story(notification("pending"), cancel_request(), alarm())
    assert told.types[1:] == ["transaction.cancelling", "transaction.unresolved"]
    assert [step.reason for step in told.steps[1:]] == ["cancel_requested", "no_answer"]


def test_another_alarm_makes_no_event() -> None:
    told = story(notification("pending"), alarm(Alarm.UNKNOWN_STORE))
    assert told.types == ["transaction.pending", None]


def test_the_state_version_grows_by_one_with_each_event_and_with_nothing_else() -> None:
    told = story(
        notification("init"),
        notification("pending"),
        notification("pending", mark="again"),
        cancel_request(),
        query("pending", as_of=4),
        alarm(),
        alarm(Alarm.UNKNOWN_STORE),
        answer("closed", as_of=5),
        notification("closed"),
        query("closed", as_of=9),
    )
    assert told.types == [
        "transaction.created",
        "transaction.pending",
        None,
        "transaction.cancelling",
        None,
        "transaction.unresolved",
        None,
        "transaction.cancelled",
        None,
        "transaction.cancelled",
    ]
    versions = [step.transaction.state_version for step in told.steps]
    assert versions == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]


@pytest.mark.parametrize("word", ["init", "success", "closed", "refunded", "voided"])
def test_a_word_that_changes_nothing_makes_no_event(word: str) -> None:
    told = story(notification(word))
    first = told.transaction
    told.tell(notification(word, mark="again"), answer(word))
    assert told.types[1] is None
    assert told.steps[1].transaction == replace(
        first, updated_at_ms=told.steps[1].transaction.updated_at_ms
    )


def test_a_late_message_never_sets_a_payment_back() -> None:
    told = story(notification("success"), notification("pending"), notification("init"))
    assert told.types == ["transaction.paid", None, None]


def test_another_word_for_the_same_is_shown() -> None:
    told = story(notification("closed"), notification("reversed"))
    assert told.types == ["transaction.cancelled", "transaction.cancelled"]
    assert told.transaction.provider_status == "reversed"


def test_the_till_of_a_sale_that_is_bound_late_is_told() -> None:
    told = story(sale(), replace(notification("success"), store_no="300014"))
    assert told.transaction.stream == f"{MERCHANT}/300014"
    told.tell(bound(1))
    assert told.types == ["transaction.paid", "transaction.paid"]
    # A recorded sale's store beats the one in the URL.
    assert told.transaction.stream == f"{MERCHANT}/{STORE}"
    assert told.transaction.terminal == "T-42"


def test_a_store_that_is_known_only_later_is_told_even_if_nothing_else_changes() -> None:
    told = story(notification("success", store_no=None), notification("success", mark="again"))
    assert told.types == ["transaction.paid", "transaction.paid"]
    assert told.transaction.stream == f"{MERCHANT}/{STORE}"


def test_a_transaction_is_described_by_the_sale_then_the_believed_then_the_held() -> None:
    held = replace(notification("success", amount="1.00", suspect="ambiguous"), reference="forged")
    told = story(held)
    assert (told.transaction.amount, told.transaction.reference) == ("1.00", "forged")
    told.tell(notification("pending", amount="12.00"))
    assert (told.transaction.amount, told.transaction.reference) == ("12.00", REFERENCE)
    told.tell(sale(amount="13.00"), bound(3))
    assert told.transaction.amount == "13.00"
    assert told.transaction.settle_currency == "USD"
    assert told.transaction.sale_seq == 3


def test_a_transaction_keeps_its_beginning() -> None:
    told = story(notification("init"), notification("success"))
    transaction = told.transaction
    assert transaction.first_seq == 1
    assert transaction.created_at_ms == START_MS + SECOND
    assert transaction.updated_at_ms == START_MS + 2 * SECOND
    assert (transaction.merchant_no, transaction.transaction_no) == (MERCHANT, NUMBER)


@pytest.mark.parametrize(
    ("fact", "reason"),
    [(notification("success"), "notification"), (query("success", as_of=1), "query")],
)
def test_the_reason_of_a_status_is_who_said_it(fact: Fact, reason: str) -> None:
    assert story(notification("pending"), fact).last.reason == reason


def test_while_somebody_waits_for_a_cancel_it_is_the_reason() -> None:
    told = story(notification("pending"), cancel_request(), answer("closed", as_of=2))
    assert told.last.reason == "cancel_requested"
    told.tell(notification("refunded"))
    assert told.last.reason == "notification"
    decided = story(notification("pending"), cancel_request(), decision(Status.CANCELLED))
    assert decided.last.reason == "decision"


# The event's bytes.


def test_an_event_is_the_protocols_and_holds_exactly_its_fields() -> None:
    told = story(sale(), bound(1), cancel_request(), notification("closed"))
    body = b"4".join(event_text(told.last, told.entry, epoch="9f3c"))
    assert orjson.loads(body) == {
        "specversion": "1.0",
        "id": "9f3c-4",
        "source": "/listener",
        "type": "transaction.cancelled",
        "subject": NUMBER,
        "time": "2026-10-14T17:46:44.000Z",
        "datacontenttype": "application/json",
        "data": {
            "transactionNo": NUMBER,
            "reference": REFERENCE,
            "merchantNo": MERCHANT,
            "storeNo": STORE,
            "terminal": "T-42",
            "status": "cancelled",
            "providerStatus": "closed",
            "stateVersion": 3,
            "amount": "13.00",
            "currency": CURRENCY,
            "reason": "cancel_requested",
            "evidence": "signature",
        },
    }
    event = Event.model_validate(orjson.loads(body))
    assert event.data.state_version == 3
    assert event.time.timestamp() * 1_000 == told.entry.recorded_at_ms


def test_every_field_of_the_protocols_event_is_written() -> None:
    told = story(notification("voided", amount=None, currency=None, store_no=None))
    written = orjson.loads(b"1".join(event_text(told.last, told.entry, epoch="e")))
    event = Event.model_validate(written)
    assert written.keys() == event.model_dump(by_alias=True).keys()
    assert written["data"].keys() == event.data.model_dump(by_alias=True).keys()
    assert (event.data.amount, event.data.store_no, event.data.evidence) == (None, None, "none")


# The cancel.


@pytest.mark.parametrize(
    ("facts", "state", "evidence"),
    [
        ((), CancelState.REQUESTED, None),
        ((query("pending", as_of=2),), CancelState.REQUESTED, None),
        ((alarm(),), CancelState.UNRESOLVED, None),
        ((notification("closed"),), CancelState.CONFIRMED, Evidence.SIGNATURE),
        ((answer("closed", as_of=2),), CancelState.CONFIRMED, Evidence.ANSWER),
        ((query("closed", as_of=2),), CancelState.CONFIRMED, Evidence.QUERY),
        ((query("failed", as_of=2),), CancelState.CONFIRMED, Evidence.QUERY),
        ((notification("failed"),), CancelState.REQUESTED, None),
        ((query("success", as_of=2),), CancelState.REFUSED, Evidence.QUERY),
        ((answer("success"),), CancelState.REFUSED, Evidence.ANSWER),
        # A signature alone never refuses it: Pockyt is asked.
        ((notification("success"),), CancelState.REQUESTED, None),
        ((notification("refunded"),), CancelState.REFUNDED, Evidence.SIGNATURE),
        (
            (notification("success"), answer("closed", as_of=3)),
            CancelState.REFUNDED,
            Evidence.ANSWER,
        ),
        ((notification("success"), notification("closed")), CancelState.REQUESTED, None),
        ((alarm(), answer("closed", as_of=2)), CancelState.CONFIRMED, Evidence.ANSWER),
        ((decision(Status.CANCELLED),), CancelState.CONFIRMED, Evidence.NONE),
        ((decision(Status.PAID),), CancelState.REFUSED, Evidence.NONE),
    ],
)
def test_the_state_of_a_cancel(
    facts: tuple[Fact, ...], state: CancelState, evidence: Evidence | None
) -> None:
    told = story(notification("pending"), cancel_request(), *facts)
    is_open = state in (CancelState.REQUESTED, CancelState.UNRESOLVED)
    assert told.cancel == Cancel(
        state=state,
        requested_at_ms=START_MS + 2 * SECOND,
        resolved_at_ms=None if is_open else told.now_ms,
        evidence=evidence,
    )
    # While it is open Pockyt is asked, whatever else is in doubt.
    assert (told.transaction.ask is not None and told.ask.why is Why.CANCEL) == is_open


def test_without_a_request_there_is_no_cancel() -> None:
    assert story(notification("closed")).transaction.cancel is None


def test_a_cancel_that_may_refund_is_refused_only_by_an_operator() -> None:
    told = story(notification("pending"), cancel_request(refund_if_paid=True))
    told.tell(query("success", as_of=2))
    assert told.cancel.state is CancelState.REQUESTED
    assert story(
        notification("pending"), cancel_request(refund_if_paid=True), decision(Status.PAID)
    ).cancel.state is (CancelState.REFUSED)
    refunded = told.tell(answer("closed", as_of=3))
    assert refunded.cancel.state is CancelState.REFUNDED
    assert refunded.types[-1] == "transaction.refunded"


def test_what_pockyt_says_after_a_decision_does_not_revive_a_refund() -> None:
    told = story(notification("success"), cancel_request(refund_if_paid=True), alarm())
    told.tell(decision(Status.PAID))
    refused = told.cancel
    assert told.tell(query("success", as_of=told.seq)).cancel == refused
    assert told.transaction.evidence is Evidence.QUERY
    # A wish from after the decision is a new one.
    told.tell(cancel_request(refund_if_paid=True), query("success", as_of=told.seq + 1))
    assert told.cancel.state is CancelState.REQUESTED


def test_a_query_from_before_the_cancel_does_not_refuse_it() -> None:
    told = story(query("success", as_of=0), cancel_request())
    assert told.cancel.state is CancelState.REQUESTED


def test_a_notification_after_the_refusal_does_not_open_it_again() -> None:
    told = story(notification("pending"), cancel_request(), answer("success"))
    refused = told.cancel
    told.tell(notification("success"))
    assert told.cancel == refused
    assert refused.state is CancelState.REFUSED


def test_a_refusal_is_told_though_the_status_was_paid_before() -> None:
    told = story(notification("success"), cancel_request(), query("success", as_of=2))
    assert told.types == ["transaction.paid", "transaction.cancelling", "transaction.paid"]
    assert told.last.reason == "cancel_requested"


def test_a_raised_silence_that_ends_is_told_though_the_status_is_the_same() -> None:
    told = story(notification("success"), notification("disputed"), alarm())
    told.tell(query("success", as_of=3))
    assert told.types == ["transaction.paid", None, "transaction.unresolved", "transaction.paid"]
    assert told.transaction.ask is None


def test_the_end_of_a_cancel_is_stored() -> None:
    told = story(notification("pending"), cancel_request(), answer("closed", as_of=2))
    ended = told.cancel
    told.tell(notification("closed"), query("closed", as_of=4))
    assert told.cancel == ended
    assert ended.evidence is Evidence.ANSWER


def test_a_payment_after_a_confirmed_cancel_opens_it_again() -> None:
    told = story(notification("pending"), cancel_request(), answer("closed", as_of=2))
    told.tell(notification("success"))
    assert told.types[-1] == "transaction.conflict"
    assert told.cancel == Cancel(state=CancelState.REQUESTED, requested_at_ms=START_MS + 2 * SECOND)
    told.tell(query("closed", as_of=4))
    assert told.cancel.state is CancelState.REFUNDED


def test_a_second_cancel_is_another_cancel() -> None:
    told = story(notification("success"), cancel_request(), query("success", as_of=2))
    told.tell(cancel_request(refund_if_paid=True))
    assert told.types[-1] == "transaction.cancelling"
    assert told.cancel == Cancel(state=CancelState.REQUESTED, requested_at_ms=told.now_ms)
    told.tell(alarm())
    assert told.cancel.state is CancelState.UNRESOLVED


@pytest.mark.parametrize("known", [answer("closed"), query("closed", as_of=0)])
def test_a_cancel_of_what_pockyt_answered_is_cancelled_is_confirmed_at_once(known: Fact) -> None:
    told = story(known, cancel_request())
    assert told.cancel.state is CancelState.CONFIRMED
    # Nothing is told after it, so that a till would show for ever that it is being cancelled.
    assert told.types[-1] == "transaction.cancelled"
    assert told.cancel.resolved_at_ms == told.now_ms
    told.tell(cancel_request())
    assert told.cancel.requested_at_ms == told.cancel.resolved_at_ms == told.now_ms


@pytest.mark.parametrize(
    ("word", "state"),
    [("closed", CancelState.CONFIRMED), ("refunded", CancelState.REFUNDED)],
)
def test_a_cancel_of_what_is_cancelled_by_a_signature_alone_is_asked_about(
    word: str, state: CancelState
) -> None:
    told = story(notification(word), cancel_request())
    assert (told.cancel.state, told.ask.why) == (CancelState.REQUESTED, Why.CANCEL)
    told.tell(query(word, as_of=2))
    assert (told.cancel.state, told.cancel.evidence) == (state, Evidence.QUERY)


# What Pockyt confirms.


@pytest.mark.parametrize("word", ["success", "closed", "failed", "refunded"])
@pytest.mark.parametrize("spelt", [str.lower, str.upper])
def test_a_till_is_told_that_pockyt_confirmed_a_status(
    word: str, spelt: Callable[[str], str]
) -> None:
    told = story(notification(word), query(spelt(word), as_of=1), confirm="always")
    assert told.types[1] == told.types[0]
    assert told.transaction.evidence is Evidence.QUERY
    # Once: what Pockyt says again is no news.
    told.tell(query(word, as_of=2))
    assert told.types[2] is None


def test_another_spelling_of_a_word_alone_makes_no_event() -> None:
    assert story(notification("success"), notification(" SUCCESS")).types == [
        "transaction.paid",
        None,
    ]


def test_silence_that_was_raised_before_the_cancel_is_not_the_cancels() -> None:
    told = story(notification("voided"), alarm(), cancel_request())
    assert told.cancel.state is CancelState.REQUESTED


# Whether Pockyt is asked.


ODD: Final = notification("success", suspect="ambiguous")


@pytest.mark.parametrize(
    ("facts", "off", "suspicious", "always"),
    [
        ([notification("pending")], None, None, None),
        ([notification("success")], None, None, Why.CONFIRM),
        ([notification("closed")], None, None, Why.CONFIRM),
        ([answer("closed", as_of=0)], None, None, Why.CONFIRM),
        ([query("closed", as_of=0)], None, None, None),
        ([notification("closed"), query("closed", as_of=1)], None, None, None),
        ([decision(Status.PAID)], None, None, None),
        ([notification("voided")], None, Why.UNKNOWN, Why.UNKNOWN),
        ([notification("pending"), notification("voided")], None, Why.UNKNOWN, Why.UNKNOWN),
        ([ODD], None, Why.HELD, Why.HELD),
        ([notification("closed"), ODD], None, Why.HELD, Why.HELD),
        ([notification("closed"), notification("success")], None, Why.CONFLICT, Why.CONFLICT),
        ([notification("closed"), cancel_request()], *[Why.CANCEL] * 3),
        ([notification("refunded"), cancel_request()], *[Why.CANCEL] * 3),
        ([cancel_request(), query("refunded", as_of=1)], None, None, None),
        ([cancel_request(), query("closed", as_of=1)], *[Why.CANCELLED] * 3),
        ([cancel_request(), decision(Status.CANCELLED)], None, None, None),
        ([notification("success"), cancel_request()], Why.CANCEL, Why.CANCEL, Why.CANCEL),
        ([sale(), bound(1)], Why.SALE, Why.SALE, Why.SALE),
        ([sale(), bound(1, "pending")], Why.SALE, Why.SALE, Why.SALE),
        ([sale(), bound(1, "voided")], Why.SALE, Why.UNKNOWN, Why.UNKNOWN),
        ([sale(), bound(1, "failed")], None, None, Why.CONFIRM),
        ([sale(), bound(1), notification("success")], None, None, Why.CONFIRM),
    ],
)
def test_the_reason_for_asking_pockyt(
    facts: list[Fact], off: Why | None, suspicious: Why | None, always: Why | None
) -> None:
    cases: list[tuple[Confirm, Why | None]] = [
        ("off", off),
        ("suspicious", suspicious),
        ("always", always),
    ]
    for confirm, why in cases:
        ask = story(*facts, confirm=confirm).transaction.ask
        assert (ask.why if ask else None) is why, confirm


def test_the_first_question_is_due_after_three_seconds_and_silence_is_raised_after_sixty() -> None:
    told = story(notification("pending"), cancel_request())
    now_ms = told.now_ms
    assert told.ask == Ask(
        why=Why.CANCEL,
        since_ms=now_ms,
        due_at_ms=now_ms + 3 * SECOND,
        raise_at_ms=now_ms + RAISE_SECONDS * SECOND,
    )
    assert 50 < RAISE_SECONDS < 60


def test_a_status_to_be_confirmed_raises_no_alarm() -> None:
    told = story(notification("success"), confirm="always")
    assert told.ask.raise_at_ms is None
    assert not told.ask.is_raised
    told.tell(query("voided", as_of=1))
    assert told.types == ["transaction.paid", None]


def test_a_raised_silence_is_raised_once() -> None:
    told = story(notification("voided"))
    assert not told.ask.is_raised
    raised = told.tell(alarm())
    assert raised.ask.raise_at_ms is None
    assert raised.ask.is_raised
    later = told.tell(query("voided", as_of=2), notification("voided", mark="again"))
    assert later.ask.is_raised
    assert later.types[2:] == [None, None]


def test_only_a_query_is_an_attempt() -> None:
    told = story(notification("voided"))
    due_ms = told.ask.due_at_ms
    told.tell(notification("voided", mark="again"), alarm(), alarm(Alarm.UNKNOWN_STORE))
    assert (told.ask.attempt, told.ask.due_at_ms) == (0, due_ms)
    told.tell(query("voided", as_of=4))
    assert told.ask.attempt == 1
    assert told.ask.due_at_ms is not None
    assert told.ask.due_at_ms > told.now_ms


def test_another_doubt_and_another_cancel_begin_the_ladder_anew() -> None:
    told = story(notification("voided"), query("voided", as_of=1))
    told.wait(HOUR).tell(notification("success"), notification("closed"))
    assert told.ask.why is Why.CONFLICT
    assert (told.ask.attempt, told.ask.since_ms) == (0, told.now_ms)
    told.tell(cancel_request()).wait(HOUR).tell(query("pending", as_of=5))
    assert (told.ask.why, told.ask.attempt) == (Why.CANCEL, 1)
    told.tell(cancel_request())
    assert (told.ask.attempt, told.ask.since_ms) == (0, told.now_ms)


def test_a_doubt_is_asked_about_for_48_hours_along_the_ladder() -> None:
    told = story(notification("pending"), cancel_request())
    since_ms, asked_at = told.now_ms, []
    while (due_ms := told.ask.due_at_ms) is not None:
        asked_at.append((due_ms - since_ms) / SECOND)
        told.wait(due_ms - told.now_ms - SECOND).tell(query("pending", as_of=told.seq))
        assert len(asked_at) < 100
    for moment, about in zip(asked_at, LADDER, strict=False):
        assert moment == pytest.approx(about, rel=ASK_JITTER)
    # Then minutes, then hourly; and no gap is longer than the jitter allows.
    gaps = [later - earlier for earlier, later in pairwise(asked_at)]
    assert max(gaps) <= 3_600 * (1 + ASK_JITTER)
    assert [
        gap for at, gap in zip(asked_at, gaps, strict=False) if at > 7_200 and gap < 3_200
    ] == []
    assert asked_at[-1] >= ASK_SECONDS_MAX
    assert asked_at[-2] < ASK_SECONDS_MAX == 48 * 3_600
    assert told.cancel.state is CancelState.REQUESTED


def test_a_new_doubt_is_asked_about_even_after_the_48_hours() -> None:
    told = story(ODD).wait(49 * HOUR)
    for _ in ASK_SECONDS:
        told = told.tell(query("voided", as_of=1))
    assert told.ask.due_at_ms is None
    later = told.tell(query("voided", as_of=2), alarm(Alarm.UNKNOWN_STORE))
    assert later.ask.due_at_ms is None
    news = told.tell(notification("closed", suspect="ambiguous"))
    assert news.ask.due_at_ms == news.now_ms + 3 * SECOND
    assert news.ask.attempt == 0


# A cancel that ended is looked at again: money that was under way may have landed.


def test_a_confirmed_cancel_is_asked_about_again_and_then_no_more() -> None:
    told = story(notification("pending"), cancel_request(), answer("closed", as_of=2))
    since_ms, asked_at = told.now_ms, []
    assert (told.ask.why, told.ask.raise_at_ms) == (Why.CANCELLED, None)
    while (due_ms := told.ask.due_at_ms) is not None:
        asked_at.append((due_ms - since_ms) // SECOND)
        told.wait(due_ms - told.now_ms - SECOND).tell(query("closed", as_of=told.seq))
    assert asked_at == [3, 60, 600, 7_200]
    # Nothing was raised, and tills were told once that Pockyt confirms what it had answered.
    assert told.types[3:] == ["transaction.cancelled", None, None, None]


def test_a_cancel_confirmed_by_a_query_is_asked_about_a_minute_later() -> None:
    told = story(notification("pending"), cancel_request(), query("closed", as_of=2))
    assert told.ask.due_at_ms == told.now_ms + MINUTE


def test_a_query_that_tells_nothing_about_a_confirmed_cancel_is_asked_again_soon() -> None:
    told = story(notification("pending"), cancel_request(), answer("closed", as_of=2))
    told.wait(2 * SECOND).tell(query(None, as_of=3))
    assert told.ask.due_at_ms is not None
    assert told.ask.due_at_ms - told.now_ms <= 3 * SECOND


def test_a_new_doubt_that_a_query_brings_is_not_asked_about_at_once_again() -> None:
    told = story(notification("refunded"), query("success", as_of=1))
    assert told.ask.why is Why.CONFLICT
    assert told.ask.due_at_ms is not None
    assert 2 * SECOND < told.ask.due_at_ms - told.now_ms < 4 * SECOND


# A sale that is open past its time-out.


@pytest.mark.parametrize(
    ("timeout", "minutes"),
    [(None, SALE_MINUTES), ("30", 30), ("soon", SALE_MINUTES), ("", SALE_MINUTES)],
)
def test_an_open_sale_is_asked_about_at_its_time_out(timeout: str | None, minutes: int) -> None:
    told = story(sale(timeout=timeout), bound(1))
    since_ms = START_MS + SECOND + minutes * MINUTE
    assert told.ask == Ask(
        why=Why.SALE,
        since_ms=since_ms,
        due_at_ms=since_ms,
        raise_at_ms=since_ms + RAISE_SECONDS * SECOND,
    )


def test_a_young_sale_that_was_asked_about_is_asked_again_only_at_its_time_out() -> None:
    told = story(sale(), bound(1), query("pending", as_of=2))
    assert told.ask.due_at_ms is not None
    assert told.ask.since_ms <= told.ask.due_at_ms <= told.ask.since_ms + 4 * SECOND


def test_a_sale_past_its_time_out_is_asked_about_along_the_ladder() -> None:
    told = story(sale(timeout="1"), bound(1)).wait(MINUTE).tell(query("pending", as_of=2))
    # Two seconds past the time-out: the next moment is three.
    assert told.ask.due_at_ms is not None
    assert SECOND * 0.9 <= told.ask.due_at_ms - told.now_ms <= SECOND * 1.1


def paid_by_code(*, error: str | None = None) -> Fact:
    tried = fields_text({"call": "prepay", "error": error})
    return replace(answer("pending"), fields=tried)


def test_a_customers_code_that_was_tried_is_asked_about_at_once() -> None:
    told = story(sale(), bound(1), paid_by_code())
    assert told.ask == Ask(
        why=Why.SALE,
        since_ms=told.now_ms,
        due_at_ms=told.now_ms + 3 * SECOND,
        raise_at_ms=told.now_ms + RAISE_SECONDS * SECOND,
    )


def test_a_customers_code_that_pockyt_refused_leaves_the_sale_its_time() -> None:
    told = story(sale(), bound(1), paid_by_code(error="refused"))
    assert told.ask.due_at_ms == START_MS + SECOND + SALE_MINUTES * MINUTE


# The ladder itself.


@pytest.mark.parametrize(
    ("waited", "about"),
    [
        (0, 3),
        (2.2, 3),
        (2.7, 5),
        (3, 5),
        (5, 10),
        (10, 20),
        (20, 30),
        (30, 60),
        (60, 120),
        (120, 300),
        (300, 600),
        (600, 1_200),
        (1_200, 1_800),
        (1_800, 5_400),
        (90_000, 93_600),
    ],
)
def test_the_next_moment_of_the_ladder(waited: float, about: int) -> None:
    now_ms = START_MS + int(waited * SECOND)
    waits = [next_due_ms(START_MS, now_ms, str(number)) for number in range(1, 400)]
    gap = (about - waited) * SECOND
    assert None not in waits
    found = [(due or 0) - now_ms for due in waits]
    assert gap * (1 - ASK_JITTER) - 1 <= min(found)
    assert max(found) <= gap * (1 + ASK_JITTER)
    # The jitter uses all of its room, so that what began together does not ask together.
    assert max(found) - min(found) > gap * ASK_JITTER


def test_after_48_hours_nobody_asks_any_more() -> None:
    end_ms = START_MS + 48 * HOUR
    assert next_due_ms(START_MS, end_ms - 1, "1") is not None
    assert next_due_ms(START_MS, end_ms, "1") is None


def test_a_clock_that_steps_back_does_not_stop_the_ladder() -> None:
    due_ms = next_due_ms(START_MS, START_MS - HOUR, "1")
    assert due_ms is not None
    assert due_ms - (START_MS - HOUR) <= 4 * SECOND
