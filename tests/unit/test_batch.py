"""What a group of facts becomes, whichever back-end has read for it and will write."""

from collections.abc import Iterable
from typing import Final

import orjson
import pytest
from msgspec.structs import replace

from listener.errors import ListenerError, ReferenceTakenError
from listener.ledger.batch import Changes, NewEvent, decide, number_events
from listener.ledger.model import Entry, Fact, Kind, Status, Transaction
from listener.ledger.results import Recorded
from listener.ledger.sale import SALE_ANSWER_MS, SaleState
from listener.ledger.summary import STORED_FROM
from listener.ledger.wanted import Seen, to_sum_up, wanted
from tests.support.stored import STREAM, bound, numbered, sold, without_number
from tests.support.told import MERCHANT, START_MS, STORE, query

EPOCH: Final = "9f3c"


def seen(
    *,
    seq: int = 0,
    entries: Iterable[Entry] = (),
    transactions: Iterable[Transaction] = (),
    sales: Iterable[Entry] = (),
    references: Iterable[tuple[str, str, str]] = (),
    states: Iterable[SaleState] = (),
) -> Seen:
    return Seen(
        seq=seq,
        entries=[*entries],
        transactions=[*transactions],
        sales={sale.seq: sale for sale in sales},
        sale_states={state.seq: state for state in states},
        references=frozenset(references),
    )


def decided(*facts: Fact, view: Seen | None = None) -> Changes:
    return decide(facts, view or seen(), epoch=EPOCH, now_ms=START_MS, confirm="suspicious")


def after(changes: Changes, before: Seen) -> Seen:
    """Return what a back-end would read of everything once it has written changes."""
    entries = [*before.entries, *changes.entries]
    sales = [entry for entry in entries if entry.fact.kind is Kind.SALE]
    known = {(t.merchant_no, t.transaction_no): t for t in before.transactions}
    return seen(
        seq=before.seq + len(changes.entries),
        entries=entries,
        transactions=(known | changes.transactions).values(),
        sales=sales,
        states=({**before.sale_states} | changes.sales).values(),
        references=[
            (s.fact.merchant_no, s.fact.store_no or "", s.fact.reference or "") for s in sales
        ],
    )


def places(changes: Changes) -> list[tuple[int, bool]]:
    return [(one.seq, one.is_new) for one in changes.recorded if isinstance(one, Recorded)]


# What must be read.


def test_a_notification_needs_the_entries_of_its_transaction() -> None:
    wants = wanted([numbered(1), numbered(1, "closed"), numbered(2)])
    assert wants.transactions == {(MERCHANT, "1"), (MERCHANT, "2")}
    assert not wants.unnumbered | wants.references | wants.sales


def test_a_fact_without_a_number_needs_the_one_of_its_fingerprint() -> None:
    wants = wanted([without_number("consent 1")])
    assert wants.unnumbered == {(MERCHANT, "consent 1")}
    assert not wants.transactions


def test_a_sale_needs_whoever_has_its_reference_and_an_answer_its_sale() -> None:
    wants = wanted([sold("r1"), bound("r1", 7, sale_seq=3)])
    assert wants.references == {(MERCHANT, STORE, "r1")}
    assert wants.sales == {3}
    assert wants.transactions == {(MERCHANT, "7")}


# What the facts become.


def test_new_entries_are_numbered_on_from_what_was_seen() -> None:
    changes = decided(numbered(1), without_number("consent"), numbered(2), view=seen(seq=41))
    assert [entry.seq for entry in changes.entries] == [42, 43, 44]
    assert {entry.recorded_at_ms for entry in changes.entries} == {START_MS}
    assert {entry.hash for entry in changes.entries} == {""}
    assert [event.seq for event in changes.events] == [42, 44]


def test_a_repeat_in_the_same_group_is_counted_for_the_first() -> None:
    changes = decided(numbered(1), numbered(1), numbered(1), view=seen(seq=5))
    assert places(changes) == [(6, True), (6, False), (6, False)]
    assert changes.repeats == {6: 2}
    assert len(changes.entries) == len(changes.events) == 1


def test_a_repeat_of_what_was_seen_is_counted_and_changes_nothing_else() -> None:
    first = decided(numbered(1), without_number("consent"))
    again = decided(numbered(1), without_number("consent"), view=after(first, seen()))
    assert places(again) == [(1, False), (2, False)]
    assert again.repeats == {1: 1, 2: 1}
    assert again == replace(Changes(), recorded=again.recorded, repeats=again.repeats)


def test_another_merchants_message_is_not_a_repeat() -> None:
    changes = decided(numbered(1), numbered(1, merchant_no="200044"))
    assert places(changes) == [(1, True), (2, True)]


def test_facts_of_one_transaction_follow_each_other() -> None:
    changes = decided(numbered(1, "pending"), numbered(2), numbered(1))
    assert [one.status for one in changes.transactions.values()] == [Status.PAID] * 2
    assert changes.transactions[MERCHANT, "1"].state_version == 2
    assert changes.begun == {(MERCHANT, "1"), (MERCHANT, "2")}
    types = [one.event_type for one in changes.recorded if isinstance(one, Recorded)]
    assert types == ["transaction.pending", "transaction.paid", "transaction.paid"]


@pytest.mark.parametrize("cut", range(1, 6))
def test_facts_become_the_same_in_one_group_or_two(cut: int) -> None:
    facts = [
        sold("r1"),
        bound("r1", 7, sale_seq=1),
        numbered(7),
        numbered(7, "closed"),
        numbered(7),
        numbered(8, "disputed"),
    ]
    whole = decided(*facts)
    first = decided(*facts[:cut])
    second = decided(*facts[cut:], view=after(first, seen()))
    assert whole.entries == first.entries + second.entries
    assert whole.events == first.events + second.events
    assert whole.transactions == first.transactions | second.transactions
    assert whole.begun == first.begun | second.begun
    assert whole.recorded == first.recorded + second.recorded


def test_a_sale_is_looked_for_if_no_answer_comes() -> None:
    changes = decided(sold("r1"), view=seen(seq=8))
    (sale,) = changes.sales.values()
    assert (sale.seq, sale.store_no, sale.reference) == (9, "303660", "r1")
    assert sale.due_ms == START_MS + SALE_ANSWER_MS
    assert not changes.transactions


def test_a_reference_is_refused_to_a_second_sale_in_the_same_group_or_a_later_one() -> None:
    changes = decided(
        sold("r1"), sold("r1"), sold("r2"), view=seen(references=[(MERCHANT, "303660", "r2")])
    )
    kinds = [isinstance(one, ReferenceTakenError) for one in changes.recorded]
    assert kinds == [False, True, True]
    assert len(changes.entries) == len(changes.sales) == 1
    assert all(isinstance(one, Recorded | ListenerError) for one in changes.recorded)


def test_an_answer_binds_its_sale_and_a_transaction_is_of_its_sale() -> None:
    changes = decided(sold("r1"), bound("r1", 7, sale_seq=1), numbered(7))
    assert (changes.sales[1].transaction_no, changes.sales[1].due_ms) == ("7", None)
    assert changes.transactions[MERCHANT, "7"].sale_seq == 1
    assert changes.transactions[MERCHANT, "7"].terminal == "T-42"


def test_a_query_that_finds_no_number_is_repeated_later() -> None:
    unknown = replace(query(None, as_of=1), transaction_no="", sale_seq=1)
    changes = decided(sold("r1"), unknown)
    sale = changes.sales[1]
    assert sale.transaction_no is None
    assert sale.due_ms is not None
    assert sale.due_ms > START_MS


# Events, and the numbers that they get last.


def test_the_body_is_cut_where_the_seq_belongs() -> None:
    (event,) = decided(numbered(1), view=seen(seq=6)).events
    body = orjson.loads(event.body(event.seq))
    assert body["id"] == f"{EPOCH}-7"
    assert orjson.loads(event.body(1_007)) == body | {"id": f"{EPOCH}-1007"}


@pytest.mark.parametrize(
    ("word", "is_cancellation"),
    [("closed", True), ("refunded", True), ("success", False), ("failed", False)],
)
def test_a_cancellation_is_marked(word: str, is_cancellation: bool) -> None:
    (event,) = decided(numbered(1, word)).events
    assert event.is_cancellation is is_cancellation


def test_events_are_numbered_in_all_and_in_their_stream() -> None:
    one, other = STREAM, f"{MERCHANT}/-"
    events = [
        NewEvent(stream=stream, seq=seq, is_cancellation=False, before_seq=b"a", after_seq=b"b")
        for stream, seq in ((one, 4), (other, 6), (one, 7))
    ]
    numbered_ones = number_events(events, number=10, heads={one: 3})
    assert [(e.number, e.stream, e.offset, e.seq, e.body) for e in numbered_ones] == [
        (11, one, 4, 4, b"a4b"),
        (12, other, 1, 6, b"a6b"),
        (13, one, 5, 7, b"a7b"),
    ]


# A sale whose number is not known yet.


def judged(*facts: Fact, view: Seen) -> tuple[Changes, Transaction]:
    changes = decided(*facts, view=view)
    (transaction,) = changes.transactions.values()
    return changes, transaction


def test_a_sale_without_a_number_judges_a_notification_with_its_reference() -> None:
    changes, transaction = judged(
        sold("r1"),
        replace(numbered(7, "success"), reference="r1", amount="99.00", store_no=None),
        view=seen(),
    )
    assert (transaction.status, transaction.held) == (Status.UNKNOWN, True)
    # It lends its store and terminal, and the amount that was wanted.
    assert (transaction.stream, transaction.terminal) == (STREAM, "T-42")
    assert (transaction.amount, transaction.sale_seq) == ("13.00", None)
    assert changes.entries[1].fact.sale_seq == 1
    # Nothing is bound by a notification.
    assert changes.sales[1].transaction_no is None


def test_a_notification_that_is_as_the_sale_wanted_is_believed() -> None:
    _, transaction = judged(
        sold("r1"), replace(numbered(7, "success"), reference="r1"), view=seen()
    )
    assert (transaction.status, transaction.held) == (Status.PAID, False)


def test_once_a_sale_has_its_number_it_judges_no_other_transaction() -> None:
    changes = decided(
        sold("r1"),
        bound("r1", 7, sale_seq=1),
        replace(numbered(8, "success"), reference="r1", amount="99.00"),
    )
    assert changes.transactions[MERCHANT, "8"].status is Status.PAID
    assert changes.entries[2].fact.sale_seq is None


def test_a_sale_judges_by_its_reference_whatever_group_it_was_recorded_in() -> None:
    said = replace(numbered(7, "success"), reference="r1", amount="99.00")
    first = decided(sold("r1"))
    view = replace(after(first, seen()), unbound={(MERCHANT, "r1"): 1})
    changes, transaction = judged(said, view=view)
    assert transaction.held
    assert wanted([said]).notified == {(MERCHANT, "r1")}
    # And it is bound to what it judged when its number comes.
    _, found = judged(bound("r1", 7, sale_seq=1), view=after(changes, view))
    assert (found.sale_seq, found.status, found.held) == (1, Status.CREATED, True)


def test_only_what_has_no_summary_or_gets_another_judge_is_read_whole() -> None:
    long = decided(*(replace(numbered(7), fingerprint=str(n)) for n in range(STORED_FROM)))
    short = decided(*(replace(numbered(7), fingerprint=str(n)) for n in range(STORED_FROM - 1)))
    said = replace(numbered(7), fingerprint="new", reference="r1")
    assert to_sum_up([said], short.transactions.values(), {}) == {(MERCHANT, "7")}
    assert to_sum_up([said], long.transactions.values(), {}) == set()
    assert to_sum_up([said], long.transactions.values(), {(MERCHANT, "r1"): 3}) == {(MERCHANT, "7")}
    assert to_sum_up([said, sold("r1")], long.transactions.values(), {}) == {(MERCHANT, "7")}
    binding = bound("r1", 7, sale_seq=3)
    assert to_sum_up([binding], long.transactions.values(), {}) == {(MERCHANT, "7")}
    assert to_sum_up([said], [], {}) == set()


def test_a_long_transaction_goes_on_from_its_summary_and_knows_its_repeats() -> None:
    facts = [replace(numbered(7, "pending"), fingerprint=str(n)) for n in range(STORED_FROM)]
    first = decided(*facts)
    (state,) = first.transactions.values()
    # Of the entries only the one of the same fingerprint is read.
    view = seen(seq=STORED_FROM, entries=[first.entries[3]], transactions=[state])
    paid = replace(numbered(7, "success"), fingerprint="paid")
    assert wanted([facts[3]]).numbered == {(MERCHANT, "7", "3")}
    changes, after_all = judged(facts[3], paid, view=view)
    assert changes.repeats == {4: 1}
    (whole,) = decided(*facts, paid).transactions.values()
    assert after_all == whole
