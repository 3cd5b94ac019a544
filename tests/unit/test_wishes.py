"""When /cancel may be sent for a cashier's wish, and when a wish changes nothing."""

import orjson
import pytest
from msgspec.structs import replace

from listener.ledger.model import Cancel, CancelState, Entry, Fact, Kind, Status, fields_text
from listener.lifecycle import Decision, facts, orders, wishes
from listener.pockyt.answer import (
    Answer,
    PockytError,
    PockytRefusedError,
    PockytUnavailableError,
    read_answer,
)
from tests.unit.test_lifecycle_facts import TRANSACTION

UNSENT = PockytUnavailableError("", reason="connection", sent=False)


def _entries(*said: Fact) -> list[Entry]:
    return [
        Entry(seq=seq, recorded_at_ms=0, fact=fact, hash="") for seq, fact in enumerate(said, 1)
    ]


def _request(*, refund: bool = False) -> Fact:
    return orders.cancel_fact(TRANSACTION, terminal=None, refund_if_paid=refund, key_id=None)


def _query() -> Fact:
    return facts.query_fact(TRANSACTION, Answer(word="init"), as_of=1)


def _answer(outcome: Answer | PockytError) -> Fact:
    return facts.answer_fact(TRANSACTION, outcome, call="cancel", as_of=2)


SENDING = facts.sending_cancel(_query())


def test_a_wish_is_spent_from_the_moment_before_cancel_is_sent() -> None:
    assert not wishes.is_spent(_entries(_request(), _query()))
    assert wishes.is_spent(_entries(_request(), SENDING))
    assert not wishes.is_spent(_entries(_request(), SENDING, _request()))


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        (Answer(word="closed"), True),
        (Answer(word="closed", fields={"error": "refused", "retCode": "000040"}), True),
        (Answer(word="closed", fields={"sent": "false"}), True),
        (PockytUnavailableError("", reason="timeout"), True),
        (PockytRefusedError("000000", "system"), True),
        (PockytRefusedError("000080", "supplier"), True),
        (PockytRefusedError("000777", "nobody knows this code"), True),
        (PockytRefusedError("000040", "status"), False),
        (PockytRefusedError("000021", "no record"), False),
        (UNSENT, False),
    ],
)
def test_a_wish_may_be_tried_again_only_where_cancel_surely_had_no_effect(
    outcome: Answer | PockytError, spent: bool
) -> None:
    assert wishes.is_spent(_entries(_request(), SENDING, _answer(outcome))) is spent


def test_the_answer_to_a_cancel_of_an_older_ledger_spends_the_wish_too() -> None:
    assert wishes.is_spent(_entries(_request(), _query(), _answer(Answer(word="closed"))))


def test_a_query_cannot_say_by_itself_that_cancel_was_sent() -> None:
    query = facts.query_fact(TRANSACTION, Answer(fields={"next": "cancel"}), as_of=1)
    assert not wishes.is_spent(_entries(_request(), query))
    assert query.field("next") is None


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("says", [None, *Status])
def test_cancel_is_allowed_by_what_pockyt_just_said(says: Status | None, status: Status) -> None:
    money = {Status.PAID, Status.CONFLICT, Status.REFUNDED}
    is_open = says in (Status.CREATED, Status.PENDING)
    plain = wishes.allows_cancel(says, status=status, refunds=False)
    assert plain is (is_open and status not in money)
    refunding = wishes.allows_cancel(says, status=status, refunds=True)
    goes_back = says is Status.PAID and status not in (Status.CONFLICT, Status.REFUNDED)
    assert refunding is (is_open or goes_back)


@pytest.mark.parametrize(
    ("state", "was_refund", "refund", "nothing"),
    [
        (CancelState.REQUESTED, False, False, True),
        (CancelState.REQUESTED, True, False, True),
        (CancelState.REQUESTED, False, True, False),
        (CancelState.REQUESTED, True, True, True),
        (CancelState.REFUSED, False, False, True),
        (CancelState.REFUSED, False, True, False),
        (CancelState.CONFIRMED, False, True, True),
        (CancelState.REFUNDED, True, True, True),
        (CancelState.UNRESOLVED, True, True, False),
        (CancelState.UNRESOLVED, False, False, False),
    ],
)
def test_a_wish_that_was_recorded_changes_nothing(
    state: CancelState, was_refund: bool, refund: bool, nothing: bool
) -> None:
    transaction = replace(TRANSACTION, cancel=Cancel(state=state, requested_at_ms=0))
    entries = _entries(_request(refund=was_refund))
    assert wishes.changes_nothing(transaction, entries, refund_if_paid=refund) is nothing
    assert not wishes.changes_nothing(TRANSACTION, entries, refund_if_paid=refund)


def test_a_decision_ends_the_wish_to_give_money_back() -> None:
    decided = orders.decision_fact(
        TRANSACTION, Decision(status=Status.PAID, name="Kim", reason="Cash.", key_id="k")
    )
    refused = replace(TRANSACTION, cancel=Cancel(state=CancelState.REFUSED, requested_at_ms=0))
    entries = _entries(_request(refund=True), decided)
    assert not wishes.may_refund(entries)
    # So a cashier who asks for the money again is heard.
    assert not wishes.changes_nothing(refused, entries, refund_if_paid=True)
    assert wishes.may_refund([*entries, *_entries(_request(refund=True))])


@pytest.mark.parametrize(
    ("said", "about"),
    [
        ({}, True),
        ({"amount": "13"}, True),
        ({"amount": "13.01"}, False),
        ({"currency": "GBP"}, False),
        ({"reference": "R-2"}, False),
        ({"transactionNo": None}, False),
        ({"transactionNo": ""}, False),
        ({"transactionNo": "other"}, False),
        ({"amount": None}, False),
        ({"currency": None, "reference": None}, True),
    ],
)
def test_a_query_licenses_a_cancel_only_of_the_sale_that_it_names(
    said: dict[str, str | None], about: bool
) -> None:
    known = replace(TRANSACTION, amount="13.00", currency="USD", reference="R-1")
    named = {"amount": "13.00", "currency": "USD", "reference": "R-1"}
    result = {"transactionNo": known.transaction_no, **named, "status": "init", **said}
    outcome = read_answer(orjson.dumps({"ret_code": "000100", "result": result}))
    query = facts.query_fact(known, outcome, as_of=1)
    assert facts.is_about(known, query) is about
    assert query.kind is Kind.QUERY
    assert facts.sending_cancel(query).fields == fields_text(
        {**result, "call": "tran-query", "next": "cancel"}
    )
