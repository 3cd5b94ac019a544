"""The status tables of the contract, a row a test, and what they leave to be worked out."""

from collections.abc import Callable
from decimal import Decimal
from itertools import permutations, product
from typing import Final

import orjson
import pytest
from msgspec.structs import replace

from listener.ledger.belief import Belief
from listener.ledger.model import Evidence, Fact, Kind, Status
from listener.ledger.status import join, read_success, read_word, refunded_by, why_held
from listener.suspects import REFUND_NOTICE
from tests.support.told import (
    REFERENCE,
    alarm,
    answer,
    apart,
    believe,
    bound,
    cancel_request,
    decision,
    entries,
    notification,
    query,
    sale,
)

Ask = Callable[..., Fact]

WORD_OF: Final = {
    Status.CREATED: "init",
    Status.PENDING: "pending",
    Status.PAID: "success",
    Status.FAILED: "failed",
    Status.CANCELLED: "closed",
    Status.REFUNDED: "refunded",
}


def believed(*facts: Fact) -> Belief:
    told, started = apart(entries(facts))
    return believe(told, sale=started)


# The words.


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("init", Status.CREATED),
        ("dealing", Status.PENDING),
        ("pending", Status.PENDING),
        ("success", Status.PAID),
        ("failed", Status.FAILED),
        ("fail", Status.FAILED),
        ("closed", Status.CANCELLED),
        ("reversed", Status.CANCELLED),
        ("cancelled", Status.CANCELLED),
        ("canceled", Status.CANCELLED),
        ("refunded", Status.REFUNDED),
    ],
)
@pytest.mark.parametrize("spelt", ["{}", " {} ", "\t{}\n"])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_a_word_is_read_trimmed_and_in_any_case(
    word: str, status: Status, spelt: str, case: Callable[[str], str]
) -> None:
    assert read_word(spelt.format(case(word))) is status


@pytest.mark.parametrize("word", [None, "", " ", "voided", "suc cess", "successful", "paid"])
def test_no_other_word_is_read(word: str | None) -> None:
    assert read_word(word) is None


def test_an_unknown_word_is_kept_word_for_word() -> None:
    belief = believed(notification(" Voided"))
    assert (belief.status, belief.word) == (Status.UNKNOWN, " Voided")
    assert belief.unread


def test_the_newest_of_several_unknown_words_is_shown() -> None:
    assert believed(notification("voided"), notification("onhold")).word == "onhold"


def test_an_unknown_word_beside_a_known_one_is_still_asked_about() -> None:
    belief = believed(notification("success"), notification("disputed"))
    assert (belief.status, belief.word, belief.unread) == (Status.PAID, "success", True)
    assert not believed(notification("success")).unread


def test_a_query_settles_an_unknown_word_too() -> None:
    told = notification("success"), notification("disputed")
    assert not believed(*told, query("success", as_of=2)).unread
    assert believed(*told, query("success", as_of=1)).unread


# The first table: notifications and answers that count.


def test_nothing_that_counts_is_unknown() -> None:
    assert believed().status is Status.UNKNOWN
    assert believed(notification("voided"), notification(None)).status is Status.UNKNOWN
    assert believed(alarm(), cancel_request()).status is Status.UNKNOWN


OPEN: Final = ["init", "pending", "failed", "closed"]


@pytest.mark.parametrize(("low", "high"), [(a, b) for i, b in enumerate(OPEN) for a in OPEN[:i]])
def test_created_pending_failed_and_cancelled_give_the_highest(low: str, high: str) -> None:
    for told in permutations([low, high]):
        assert believed(*map(notification, told)).status is read_word(high)


@pytest.mark.parametrize("word", ["init", "pending", "failed", None, "voided"])
def test_paid_beats_what_is_open_failed_or_unread(word: str | None) -> None:
    for told in permutations(["success", word]):
        assert believed(*map(notification, told)).status is Status.PAID


@pytest.mark.parametrize("also", [(), ("init",), ("failed", "pending")])
def test_paid_and_cancelled_is_a_conflict(also: tuple[str, ...]) -> None:
    for told in permutations(["success", "closed", *also]):
        belief = believed(*map(notification, told))
        assert belief.status is Status.CONFLICT
        # The payment speaks, whichever came first.
        assert belief.word == "success"


@pytest.mark.parametrize("word", [*OPEN, "success", "voided"])
def test_refunded_beats_anything(word: str) -> None:
    for told in permutations(["refunded", word, "success"]):
        assert believed(*map(notification, told)).status is Status.REFUNDED


def test_a_join_of_statuses_is_that_of_their_words() -> None:
    assert join([]) is Status.UNKNOWN
    assert join([Status.CONFLICT, Status.PAID]) is Status.CONFLICT
    assert join([Status.CONFLICT, Status.REFUNDED]) is Status.REFUNDED
    for one, other in product(WORD_OF, repeat=2):
        assert (
            join([one, other])
            is believed(notification(WORD_OF[one]), notification(WORD_OF[other])).status
        )


@pytest.mark.parametrize(("status", "word"), WORD_OF.items())
def test_an_answer_counts_as_a_notification_does(status: Status, word: str) -> None:
    belief = believed(answer(word))
    assert (belief.status, belief.evidence) == (status, Evidence.ANSWER)


def test_the_better_evidence_gives_the_status_and_of_equals_the_newest() -> None:
    for told in permutations([answer("closed"), notification("closed"), notification("cancelled")]):
        belief = believed(*told)
        assert (belief.evidence, belief.word) == (Evidence.ANSWER, "closed")
    belief = believed(notification("closed"), notification("cancelled"))
    assert (belief.evidence, belief.word) == (Evidence.SIGNATURE, "cancelled")
    assert believed(notification("voided")).evidence is Evidence.NONE


def test_an_answer_about_another_sale_counts_for_nothing() -> None:
    told = sale(), bound(1), answer("success", amount="14.00")
    assert believed(*told).status is Status.CREATED


# The second table: the query, or the answer to /cancel.


@pytest.mark.parametrize("ask", [query, answer])
@pytest.mark.parametrize("before", [["success"], ["success", "closed"], ["refunded"]])
def test_closed_while_believed_paid_is_refunded(ask: Ask, before: list[str]) -> None:
    told = [notification(word) for word in before]
    assert believed(*told, ask("closed", as_of=len(told))).status is Status.REFUNDED


@pytest.mark.parametrize("ask", [query, answer])
@pytest.mark.parametrize("before", [[], ["init"], ["pending", "failed"], ["closed"], ["voided"]])
def test_closed_otherwise_is_cancelled(ask: Ask, before: list[str]) -> None:
    told = [notification(word) for word in before]
    assert believed(*told, ask("closed", as_of=len(told))).status is Status.CANCELLED


@pytest.mark.parametrize("ask", [query, answer])
def test_closed_is_cancelled_where_the_payment_was_not_known_when_it_was_asked(
    ask: Ask,
) -> None:
    told = notification("pending"), notification("success"), ask("closed", as_of=1)
    assert believed(*told).status is Status.CONFLICT
    # Asking again settles it: what was paid and is closed now was given back.
    assert believed(*told, query("closed", as_of=3)).status is Status.REFUNDED


def test_a_held_payment_is_not_believed_paid() -> None:
    told = notification("success", suspect="ambiguous"), query("closed", as_of=1)
    assert believed(*told).status is Status.CANCELLED


@pytest.mark.parametrize(
    ("refunded", "status"),
    [
        ({}, Status.PAID),
        ({"refundAmount": "13.00"}, Status.REFUNDED),
        ({"refundAmount": "20"}, Status.REFUNDED),
        ({"refundAmount": "12.99"}, Status.PAID),
        ({"refundAmount": "half"}, None),
    ],
)
def test_a_success_with_refunds_that_cover_all_is_refunded_and_with_a_part_paid(
    refunded: dict[str, str], status: Status | None
) -> None:
    assert read_success(refunded, amount="13.00", currency="USD") is status


@pytest.mark.parametrize("amount", [None, "", "much", "0", "-1", "NaN"])
def test_refunds_of_an_unreadable_amount_cover_nothing(amount: str | None) -> None:
    assert read_success({"refundAmount": "5"}, amount=amount, currency="USD") is Status.PAID


def test_a_query_that_lists_refunds_of_a_part_is_paid_even_after_a_counted_refund() -> None:
    listed = '[{"refundAmount":"3.00"}]'
    told = notification("refunded"), query("success", as_of=1, refunds=listed)
    assert believed(*told).status is Status.PAID


def test_a_query_whose_refunds_cover_all_is_refunded() -> None:
    listed = '[{"refundAmount":"13.00"}]'
    told = query("success", as_of=0, refunds=listed, says=Status.REFUNDED)
    assert believed(told).status is Status.REFUNDED


@pytest.mark.parametrize("refunds", [None, "", "[]"])
def test_a_success_after_a_counted_refund_is_a_conflict(refunds: str | None) -> None:
    told = notification("refunded"), query("success", as_of=1, refunds=refunds)
    belief = believed(*told)
    assert (belief.status, belief.evidence) == (Status.CONFLICT, Evidence.QUERY)
    # The same again is no news: it stays until Pockyt or an operator says otherwise.
    assert believed(*told, query("success", as_of=2)).status is Status.CONFLICT
    assert believed(*told, query("refunded", as_of=2)).status is Status.REFUNDED


def test_a_refund_that_was_only_held_does_not_contradict_a_success() -> None:
    told = notification("refunded", suspect="ambiguous"), query("success", as_of=1)
    assert believed(*told).status is Status.PAID


def test_a_refund_counted_by_a_query_contradicts_a_later_success() -> None:
    told = notification("success"), query("closed", as_of=1), query("success", as_of=2)
    assert believed(*told).status is Status.CONFLICT


def test_a_refund_that_came_after_the_question_joins_its_answer() -> None:
    told = notification("success"), notification("refunded"), query("success", as_of=1)
    assert believed(*told).status is Status.REFUNDED


@pytest.mark.parametrize(("word", "status"), [("success", Status.PAID), ("failed", Status.FAILED)])
@pytest.mark.parametrize("before", [[], ["closed"], ["pending"], ["success"]])
def test_success_is_paid_and_failed_is_failed(word: str, status: Status, before: list[str]) -> None:
    told = [notification(one) for one in before]
    belief = believed(*told, query(word, as_of=len(told)))
    assert (belief.status, belief.evidence, belief.word) == (status, Evidence.QUERY, word)


@pytest.mark.parametrize(
    "nothing",
    [
        query("init", as_of=2),
        query("pending", as_of=2),
        query("voided", as_of=2),
        query(None, as_of=2),
        query("closed", as_of=2, amount="12.99"),
        query("closed", as_of=2, amount="unreadable"),
        query("closed", as_of=2, currency="EUR"),
        query("closed", as_of=2, reference="another"),
        query("closed", as_of=None),
        answer("closed", as_of=2, amount="12.99"),
        answer("pending", as_of=2),
    ],
)
def test_facts_that_are_not_final_or_of_another_sale_count_for_nothing(nothing: Fact) -> None:
    told = sale(), bound(1)
    belief = believed(*told, nothing)
    assert (belief.status, belief.horizon) == (Status.CREATED, 0)
    assert belief == believed(*told)


def test_a_query_that_leaves_out_what_it_is_about_still_counts() -> None:
    bare = query("closed", as_of=2, amount=None, currency=None, reference=None)
    assert believed(sale(), bound(1), bare).status is Status.CANCELLED
    assert believed(sale(), bound(1), query("closed", as_of=2, amount="13")).status is (
        Status.CANCELLED
    )


def test_without_a_sale_there_is_nothing_to_differ_from() -> None:
    assert believed(query("closed", as_of=0, amount="1", currency="EUR")).status is Status.CANCELLED


# The horizon.


def test_the_newest_query_overrules_what_came_by_its_as_of_and_joins_what_came_later() -> None:
    told = notification("closed"), notification("success"), query("success", as_of=2)
    assert believed(*told).status is Status.PAID
    assert believed(*told).horizon == 2
    assert believed(*told, notification("closed", mark="again")).status is Status.CONFLICT
    assert believed(*told, notification("refunded")).status is Status.REFUNDED


def test_a_notification_between_question_and_answer_joins_the_answer() -> None:
    told = notification("pending"), notification("success"), query("failed", as_of=1)
    assert believed(*told).status is Status.PAID
    assert believed(*told[:2], query("failed", as_of=2)).status is Status.FAILED


def test_answers_by_its_as_of_are_overruled_too() -> None:
    told = answer("success"), answer("closed", as_of=0), query("failed", as_of=2)
    assert believed(*told).status is Status.FAILED
    assert believed(*told, answer("success")).status is Status.PAID


def test_the_newest_query_is_the_one_that_was_asked_last() -> None:
    told = notification("pending"), notification("pending", mark="2")
    asked_first, asked_last = query("failed", as_of=1), query("success", as_of=2)
    assert believed(*told, asked_first, asked_last).status is Status.PAID
    assert believed(*told, asked_last, asked_first).status is Status.PAID
    # Of two asked at once the one answered last is believed.
    again = query("failed", as_of=2)
    assert believed(*told, asked_last, again).status is Status.FAILED


def test_a_query_that_is_not_conclusive_does_not_move_the_horizon() -> None:
    told = notification("success"), query("success", as_of=1), query("pending", as_of=2)
    belief = believed(*told)
    assert (belief.status, belief.horizon) == (Status.PAID, 1)


# What is held.


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (notification("success", suspect="ambiguous"), "ambiguous"),
        (notification("success", amount=None, suspect="amount_unreadable"), "amount_unreadable"),
        (notification("success", amount="13.01"), "amount_differs"),
        (notification("success", amount=None), "amount_differs"),
        (notification("success", currency="EUR"), "currency_differs"),
        (notification("success", currency=None), "currency_differs"),
    ],
)
def test_an_unbelievable_notification_is_held_and_counts_for_nothing(told: Fact, why: str) -> None:
    belief = believed(sale(), bound(1), told)
    assert (belief.status, belief.held) == (Status.CREATED, why)
    # The sale may be recorded after its notification.
    assert believed(told, sale(), bound(2)).held == why
    # A query settles it, and only one that was asked after it came.
    settled = believed(sale(), bound(1), told, query("success", as_of=3))
    assert (settled.status, settled.held) == (Status.PAID, None)
    assert believed(sale(), bound(1), told, query("success", as_of=2)).held == why


@pytest.mark.parametrize("amount", ["13", "13.0", "13.00", "013.00"])
def test_an_amount_is_compared_as_a_number(amount: str) -> None:
    assert believed(sale(), bound(1), notification("success", amount=amount)).held is None


def test_a_transaction_of_held_entries_alone_is_unknown() -> None:
    belief = believed(
        notification("success", suspect="ambiguous"), notification("closed", suspect="ambiguous")
    )
    assert (belief.status, belief.held, belief.source) == (Status.UNKNOWN, "ambiguous", None)
    assert belief.word == "closed"


def test_a_transaction_first_heard_of_by_notification_is_believed() -> None:
    belief = believed(notification("success", amount="999.99", currency="EUR"))
    assert (belief.status, belief.held) == (Status.PAID, None)
    assert belief.evidence is Evidence.SIGNATURE


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.NOTIFICATION])
def test_only_a_notification_is_ever_held(kind: Kind) -> None:
    (entry,) = entries([Fact(kind=kind, merchant_no="1", suspect="ambiguous", amount="1")])
    (sold,) = entries([sale()])
    assert why_held(entry, sold) is None


# An operator's decision.


@pytest.mark.parametrize("status", [Status.PAID, Status.CANCELLED, Status.REFUNDED, Status.FAILED])
def test_a_decision_settles_all_before_it(status: Status) -> None:
    told = notification("success"), notification("closed"), decision(status)
    belief = believed(*told)
    assert (belief.status, belief.evidence, belief.horizon) == (status, Evidence.NONE, 3)
    assert belief.word is None


def test_a_decision_settles_what_is_held() -> None:
    told = notification("success", suspect="ambiguous"), decision(Status.CANCELLED)
    belief = believed(*told)
    assert (belief.status, belief.held) == (Status.CANCELLED, None)


def test_a_fact_after_a_decision_joins_it() -> None:
    told = decision(Status.CANCELLED), notification("success")
    assert believed(*told).status is Status.CONFLICT


def test_what_an_operator_had_not_seen_when_he_decided_joins_his_decision() -> None:
    told = notification("closed"), notification("success"), decision(Status.CANCELLED, as_of=1)
    belief = believed(*told)
    assert (belief.status, belief.horizon) == (Status.CONFLICT, 1)
    told = notification("closed"), notification("success"), decision(Status.CANCELLED, as_of=2)
    assert believed(*told).status is Status.CANCELLED


def test_a_decision_counts_though_pockyt_was_asked_since_the_operator_looked() -> None:
    told = notification("success"), query("success", as_of=1), decision(Status.CANCELLED, as_of=0)
    assert believed(*told).status is Status.CANCELLED


def test_a_query_asked_after_a_decision_overrules_it_and_one_asked_before_does_not() -> None:
    told = notification("pending"), decision(Status.CANCELLED)
    assert believed(*told, query("failed", as_of=2)).status is Status.FAILED
    assert believed(*told, query("failed", as_of=1)).status is Status.CANCELLED


def test_a_query_that_was_under_way_when_an_operator_looked_does_not_overrule_him() -> None:
    told = notification("pending"), decision(Status.CANCELLED, as_of=1)
    assert believed(*told, query("success", as_of=1)).status is Status.CANCELLED
    assert believed(*told, query("success", as_of=2)).status is Status.PAID


def test_a_refund_that_an_operator_had_not_seen_when_he_decided_stays_counted() -> None:
    told = notification("success"), notification("refunded"), decision(Status.PAID, as_of=1)
    assert believed(*told).status is Status.REFUNDED
    assert believed(*told, query("success", as_of=3)).status is Status.CONFLICT


def test_a_decision_that_it_is_paid_ends_the_conflict_with_a_counted_refund() -> None:
    told = notification("refunded"), query("success", as_of=1), decision(Status.PAID)
    assert believed(*told).status is Status.PAID
    assert believed(*told, query("success", as_of=3)).status is Status.PAID


def test_a_success_after_a_decided_refund_is_a_conflict() -> None:
    assert believed(decision(Status.REFUNDED), query("success", as_of=1)).status is Status.CONFLICT


# Two notifications that contradict each other, where no sale was recorded.


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (notification("success", amount="1300.00"), "amount_differs"),
        (notification("success", currency="JPY"), "currency_differs"),
        (notification("success", reference="Y-9"), "reference_differs"),
        (notification("success", amount="14", currency=None, reference=None), "amount_differs"),
        (notification("success", amount="14", suspect="ambiguous"), None),
    ],
)
@pytest.mark.parametrize("word", ["pending", "success", "closed"])
def test_two_notifications_that_contradict_each_other_are_both_held(
    other: Fact, why: str | None, word: str
) -> None:
    for told in permutations([notification(word, mark="first"), other]):
        belief = believed(*told)
        assert (belief.status, belief.source) == (Status.UNKNOWN, None)
        assert belief.held == why or (why is None and belief.held)
        # Pockyt settles it.
        assert believed(*told, query("success", as_of=2)).status is Status.PAID
        assert believed(*told, query("success", as_of=2)).held is None


@pytest.mark.parametrize(
    "alike",
    [
        notification("success", amount="13", mark="b"),
        notification("success", currency=" usd", mark="b"),
        notification("success", reference=REFERENCE.upper(), mark="b"),
        notification("success", currency=None, mark="b"),
        notification("success", reference=None, mark="b"),
    ],
)
def test_values_left_out_or_written_otherwise_contradict_nothing(alike: Fact) -> None:
    for told in permutations([notification("pending"), alike]):
        assert (believed(*told).status, believed(*told).held) == (Status.PAID, None)


def test_a_notification_that_names_nothing_contradicted_counts() -> None:
    told = (
        notification("pending", currency="USD"),
        notification("failed", currency="EUR"),
        notification("success", currency=None),
    )
    for order in permutations(told):
        assert believed(*order).status is Status.PAID
        assert believed(*order).held == "currency_differs"


def test_beside_a_recorded_sale_notifications_are_compared_with_it_alone() -> None:
    wrong = notification("closed", amount="14.00")
    belief = believed(sale(), bound(1), notification("success"), wrong)
    assert (belief.status, belief.held) == (Status.PAID, "amount_differs")


@pytest.mark.parametrize("amount", ["13.00", "3.00"])
def test_a_refund_notice_counts_for_nothing_and_contradicts_nothing(amount: str) -> None:
    notice = notification("success", amount=amount, reference="rf", suspect=REFUND_NOTICE)
    assert believed(notice).status is Status.UNKNOWN
    for told in permutations([notice, notification("success")]):
        belief = believed(*told)
        assert (belief.status, belief.held) == (Status.PAID, REFUND_NOTICE)
    for told in permutations([notice, notification("closed")]):
        assert believed(*told).status is Status.CANCELLED


def test_a_contradicted_payment_was_believed_until_it_was_contradicted() -> None:
    told = notification("success"), notification("success", amount="14.00")
    # When Pockyt was asked somebody had paid, so what is closed was given back.
    assert believed(*told, query("closed", as_of=1)).status is Status.REFUNDED
    assert believed(*told, query("closed", as_of=2)).status is Status.CANCELLED


def test_a_contradicted_refund_does_not_count() -> None:
    told = notification("refunded"), notification("pending", amount="14.00")
    assert believed(*told, query("success", as_of=2)).status is Status.PAID
    assert believed(*told, query("success", as_of=1)).status is Status.CONFLICT


# Answers about the sale, or another.


@pytest.mark.parametrize(
    "written",
    [
        query("closed", as_of=2, amount="13"),
        query("closed", as_of=2, currency=" usd "),
        query("closed", as_of=2, reference=f" {REFERENCE.upper()}"),
        replace(query("closed", as_of=2, amount="15.50"), fields='{"tip":"2.50"}'),
        replace(query("closed", as_of=2, amount="15.50"), fields='{"tip":" 2.5"}'),
    ],
)
def test_an_answer_may_write_otherwise_what_the_sale_is_and_add_a_tip(written: Fact) -> None:
    assert believed(sale(), bound(1), written).status is Status.CANCELLED


@pytest.mark.parametrize("tip", ["2.49", "-2.50", "", "much", "2,50"])
def test_a_tip_that_does_not_explain_the_difference_is_one(tip: str) -> None:
    said = replace(
        query("closed", as_of=2, amount="15.50"), fields=orjson.dumps({"tip": tip}).decode()
    )
    assert believed(sale(), bound(1), said).status is Status.CREATED


def test_a_sale_of_the_difference_between_a_tip_and_less_is_another() -> None:
    said = replace(query("closed", as_of=2, amount="10.50"), fields='{"tip":"2.50"}')
    assert believed(sale(), bound(1), said).status is Status.CREATED


@pytest.mark.parametrize(
    "listed",
    [{"refundInfo": '[{"refundAmount":"3"}]'}, {"refundAmount": "3"}, {"refundInfo": "[{cut"}],
)
def test_refunds_that_pockyt_names_do_not_contradict_its_success(listed: dict[str, str]) -> None:
    fields = orjson.dumps(listed).decode()
    told = notification("refunded"), replace(query("success", as_of=1), fields=fields)
    assert believed(*told).status is Status.PAID


@pytest.mark.parametrize(
    "listed", [{"refundInfo": '[{"status":"failed"}]'}, {"refundAmount": "0.00"}]
)
def test_refunds_that_came_to_nothing_do(listed: dict[str, str]) -> None:
    fields = orjson.dumps(listed).decode()
    told = notification("refunded"), replace(query("success", as_of=1), fields=fields)
    assert believed(*told).status is Status.CONFLICT


@pytest.mark.parametrize(
    ("fact", "back"),
    [
        (query("success", as_of=1, refunds='[{"refundAmount":"5.00"}]'), "5.00"),
        (query("success", as_of=1, refunds='[{"refundAmount":"5"},{"refundAmount":"1.5"}]'), "6.5"),
        (query("success", as_of=1, refunds="[]"), None),
        (query("success", as_of=1, refunds="5 dollars"), None),
        (query("success", as_of=1), None),
        (replace(query("closed", as_of=1), fields='{"voidAmount":"13.00"}'), "13.00"),
        (replace(answer("closed"), fields='{"refundAmount":"13.00"}'), "13.00"),
        # A notification about a refund has its own amount, and counts for nothing.
        (replace(notification("success"), fields='{"refundAmount":"13.00"}'), None),
    ],
)
def test_what_went_back_is_what_pockyt_answers(fact: Fact, back: str | None) -> None:
    assert refunded_by(fact) == (Decimal(back) if back else None)
