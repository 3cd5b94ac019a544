"""Summing up entry by entry is summing up them all, whatever they are, and costs the same each."""

import time
from collections.abc import Sequence
from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from listener.ledger import summary as module
from listener.ledger.history import History, judge_after, judge_of
from listener.ledger.model import Entry, Fact, Kind, Status
from listener.ledger.summary import PAST_MAX, Summary
from listener.suspects import REFUND_NOTICE
from tests.support.told import (
    alarm,
    answer,
    bound,
    cancel_request,
    decision,
    entries,
    notification,
    query,
    sale,
)

WORDS: Final = ("init", "pending", "success", "failed", "closed", "refunded", "disputed")
NOTIFICATIONS: Final = st.builds(
    notification,
    st.sampled_from(WORDS),
    amount=st.sampled_from(["13.00", "13", "12.00", None]),
    currency=st.sampled_from(["USD", "usd", "EUR", None]),
    reference=st.sampled_from(["test20200101307", "another", None]),
    suspect=st.sampled_from([None, None, "ambiguous", REFUND_NOTICE]),
    mark=st.uuids().map(str),
)
AS_OF: Final = st.integers(0, 12)
OTHERS: Final = st.one_of(
    st.builds(query, st.sampled_from(WORDS), as_of=AS_OF),
    st.builds(query, st.sampled_from(WORDS), as_of=AS_OF, amount=st.just("12.00")),
    st.builds(query, st.just("success"), as_of=AS_OF, refunds=st.just('[{"refundAmount":"3"}]')),
    st.builds(answer, st.sampled_from(WORDS), as_of=st.none() | AS_OF),
    st.builds(
        decision,
        st.sampled_from([Status.PAID, Status.CANCELLED, Status.REFUNDED]),
        as_of=st.none() | AS_OF,
    ),
    st.builds(cancel_request, refund_if_paid=st.booleans()),
    st.builds(alarm),
)
STORIES: Final = st.lists(NOTIFICATIONS | OTHERS, min_size=1, max_size=12)


def judged(fact: Fact) -> Fact:
    """Return a notification as one that the sale with its reference judges."""
    return replace(fact, sale_seq=1) if fact.kind is Kind.NOTIFICATION and fact.reference else fact


def told_with_a_sale(story: Sequence[Fact], *, at: int, is_judged: bool) -> list[Entry]:
    """Record a sale first, and bind it somewhere in the story, or never."""
    facts = [judged(fact) for fact in story] if is_judged else [*story]
    return entries([sale(), *facts[:at], *([bound(1)] if at < len(facts) else []), *facts[at:]])


@given(STORIES, st.integers(0, 12), st.booleans())
def test_each_entry_added_is_all_of_them_summed_up(
    story: list[Fact], at: int, is_judged: bool
) -> None:
    sold, *told = told_with_a_sale(story, at=at, is_judged=is_judged)
    sales = {sold.seq: sold}
    history = History()
    for count, entry in enumerate(told, start=1):
        added = history.add(entry, sales=sales)
        judge, is_bound = judge_of(told[:count])
        whole = Summary.of(told[:count], sale=sales.get(judge or 0), is_bound=is_bound)
        assert added == whole
        assert added.believe() == whole.believe()


@given(STORIES, st.integers(0, 12), st.booleans())
def test_a_stored_summary_goes_on_without_the_entries_before(
    story: list[Fact], at: int, is_judged: bool
) -> None:
    sold, *told = told_with_a_sale(story, at=at, is_judged=is_judged)
    sales = {sold.seq: sold}
    history = History()
    for count, entry in enumerate(told, start=1):
        kept = History(summary=history.summary and Summary.read(history.summary.text()))
        if history.summary and judge_after(history.summary, entry) != (
            history.summary.judge,
            history.summary.is_bound,
        ):
            # The one case in which a back-end reads them all.
            kept.entries = told[: count - 1]
        assert kept.add(entry, sales=sales) == history.add(entry, sales=sales)


@given(STORIES)
def test_the_meaning_of_a_query_does_not_depend_on_later_facts(
    story: list[Fact],
) -> None:
    told = entries(story)
    for at, entry in enumerate(told):
        if entry.fact.kind is not Kind.QUERY or (entry.fact.as_of or 0) >= entry.seq:
            continue
        early = Summary.of(told[: entry.fact.as_of])
        early_past = early.past[-1][1:] if early.past else (Status.UNKNOWN, False)
        assert Summary.of(told[:at])._past_at(entry.fact.as_of or 0) == early_past


def test_after_a_hundred_thousand_entries_one_more_costs_what_the_first_did() -> None:
    def fact(number: int) -> Fact:
        if number % 10 == 0:
            return query(("success", "closed")[number // 10 % 2], as_of=number - 1)
        return notification(WORDS[number % 7], mark=str(number))

    history = History()
    spent: list[float] = []
    for number in range(1, 100_001):
        entry = Entry(seq=number, recorded_at_ms=number, fact=fact(number))
        started = time.process_time()
        summary = history.add(entry, sales={})
        if number % 10_000 == 0 or number == 1_000:
            assert len(summary.text()) < 8_000
        spent.append(time.process_time() - started)
    assert summary.count == 100_000
    assert len(summary.past) == PAST_MAX
    # The sums of many, so that neither a pause nor a cache decides.
    assert sum(spent[-20_000:]) < 3 * sum(spent[:20_000]) + 0.1


def test_a_query_from_before_all_that_is_kept_is_taken_as_asked_at_the_oldest() -> None:
    told = entries(
        fact
        for number in range(0, 2 * module.PAST_MAX, 2)
        for fact in (notification("success", mark=str(number)), query("failed", as_of=number + 1))
    )
    summary = Summary.of(told)
    assert summary._past_at(0) == summary.past[0][1:]
    assert Summary.of(told[:3])._past_at(0) == (Status.UNKNOWN, False)
