"""What answers of Pockyt's become in the ledger."""

from dataclasses import replace

import pytest
from msgspec import structs

from listener.ledger.model import INDEXED_CHARS_MAX, Evidence, Kind, Status, Transaction
from listener.lifecycle import facts, orders
from listener.lifecycle.orders import Order
from listener.pockyt.answer import (
    Answer,
    PockytError,
    PockytRefusedError,
    PockytUnavailableError,
)

ORDER = Order(
    merchant_no="200043",
    store_no="303660",
    terminal="T-42",
    reference="R-1",
    amount="13.00",
    currency="USD",
    settle_currency="USD",
    vendor="alipay",
    timeout_minutes=30,
)
TRANSACTION = Transaction(
    merchant_no="200043",
    transaction_no="297",
    first_seq=1,
    status=Status.CREATED,
    provider_status="init",
    evidence=Evidence.ANSWER,
    held=False,
    state_version=1,
    created_at_ms=0,
    updated_at_ms=0,
)


def _said(**fields: str) -> Answer:
    """Return an answer with fields as Pockyt spells them."""
    return Answer(
        word=fields.get("status"),
        amount=fields.get("amount"),
        currency=fields.get("currency"),
        transaction_no=fields.get("transactionNo"),
        fields=fields,
    )


def _answer(**said: object) -> Answer:
    fields = {name: value for name, value in said.items() if isinstance(value, str)}
    said.pop("transactionType", None)
    return Answer(fields=fields, **said)  # type: ignore[arg-type]


def test_a_recorded_sale_reads_back_as_the_order_that_it_was() -> None:
    assert orders.order_of(orders.sale_fact(ORDER)) == ORDER


def test_a_query_says_what_its_word_means() -> None:
    fact = facts.query_fact(TRANSACTION, _answer(word=" Closed ", amount="13.00"), as_of=7)
    assert (fact.kind, fact.says, fact.as_of) == (Kind.QUERY, Status.CANCELLED, 7)
    assert fact.provider_status == " Closed "


@pytest.mark.parametrize("kind", ["payment", " Payment", "", " "])
def test_a_query_about_a_payment_says_so_or_names_no_type(kind: str) -> None:
    answer = Answer(word="closed", fields={"transactionType": kind, "refundInfo": ""})
    assert facts.query_fact(TRANSACTION, answer, as_of=7).says is Status.CANCELLED


@pytest.mark.parametrize(
    "answer",
    [
        _answer(word="success", transaction_no="298"),
        _answer(word="success", amount="a lot"),
        Answer(word="success", fields={"transactionType": "refund"}),
        _answer(word="no such word"),
    ],
)
def test_a_query_about_something_else_says_nothing(answer: Answer) -> None:
    assert facts.query_fact(TRANSACTION, answer, as_of=7).says is None


def test_an_amount_that_cannot_be_read_is_kept_among_the_fields_alone() -> None:
    fact = facts.query_fact(TRANSACTION, _answer(word="success", amount="a lot"), as_of=7)
    assert fact.amount is None
    assert fact.field("amount") == "a lot"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PockytUnavailableError("slow", reason="timeout"), {"error": "timeout"}),
        (PockytRefusedError("000040", "status"), {"error": "refused", "retCode": "000040"}),
        (PockytRefusedError("000000", "system"), {"error": "failed", "retCode": "000000"}),
        (PockytRefusedError("000099", "review"), {"error": "failed", "retCode": "000099"}),
        (PockytError("something else"), {"error": None}),
    ],
)
def test_no_answer_is_an_entry_that_says_nothing(
    error: PockytError, said: dict[str, str | None]
) -> None:
    fact = facts.query_fact(TRANSACTION, error, as_of=7)
    assert fact.says is None
    assert fact.field("call") == "tran-query"
    assert {name: fact.field(name) for name in said} == said


def test_the_answer_with_a_code_to_scan_means_created() -> None:
    answer = _answer(transaction_no="297", qrcode_url="https://x")
    fact = facts.opened_fact(ORDER, answer, call="create-trans-qrcode", sale_seq=3)
    assert (fact.says, fact.transaction_no, fact.sale_seq) == (Status.CREATED, "297", 3)
    assert fact.as_of is None


def test_a_sale_that_is_found_open_is_bound_as_by_the_answer_that_was_lost() -> None:
    found = _answer(transaction_no="297", word="pending", amount="13.0", reference="R-1")
    fact = facts.found_fact(ORDER, found, sale_seq=3, as_of=7)
    assert (fact.kind, fact.says, fact.transaction_no) == (Kind.ANSWER, Status.PENDING, "297")
    assert fact.as_of is None


def test_a_sale_that_is_found_ended_is_settled_as_by_a_question() -> None:
    found = _answer(transaction_no="297", word="success", amount="13.00", currency="USD")
    fact = facts.found_fact(ORDER, found, sale_seq=3, as_of=7)
    assert (fact.kind, fact.says, fact.as_of) == (Kind.QUERY, Status.PAID, 7)


@pytest.mark.parametrize(
    "found",
    [
        _answer(transaction_no="297", word="success", amount="14.00"),
        _answer(transaction_no="297", word="success", amount="13.00", currency="GBP"),
        _answer(transaction_no="297", word="success", amount="13.00", reference="R-2"),
        _answer(transaction_no="297", word="success"),
        _answer(transaction_no="297", word="success", amount="13.00", transactionType="refund"),
        PockytRefusedError("000021", "no such record"),
    ],
)
def test_the_answer_of_another_sale_is_not_bound(found: Answer | PockytError) -> None:
    fact = facts.found_fact(ORDER, found, sale_seq=3, as_of=7)
    assert (fact.kind, fact.transaction_no, fact.says) == (Kind.QUERY, "", None)


@pytest.mark.parametrize("number", [None, "", "2 97", "7" * 65, "\ud800", "29\n7"])
def test_a_sale_that_is_found_without_a_number_says_how_it_stands(number: str | None) -> None:
    found = _answer(word="pending", amount="13.00", transaction_no=number)
    fact = facts.found_fact(ORDER, found, sale_seq=3, as_of=7)
    assert (fact.kind, fact.transaction_no, fact.says) == (Kind.QUERY, "", Status.PENDING)


@pytest.mark.parametrize("number", ["297", " 297", "297.0"])
def test_a_query_is_about_the_number_however_it_is_written(number: str) -> None:
    fields = {"transactionNo": number, "amount": "13.00", "status": "init"}
    query = facts.query_fact(SOLD, replace(_said(**fields), transaction_no="297"), as_of=7)
    assert facts.is_about(SOLD, query)


@pytest.mark.parametrize("number", ["", "2 97", "7" * 65, "\ud800", "29\n7"])
def test_a_number_that_is_none_starts_no_sale(number: str) -> None:
    fact = facts.opened_fact(ORDER, _answer(transaction_no=number), call="add", sale_seq=3)
    assert (fact.transaction_no, fact.says) == ("", None)


@pytest.mark.parametrize(
    ("named", "number"),
    [
        ({}, "297"),
        ({"reference": " r-1", "amount": "13", "currency": "usd"}, "297"),
        ({"reference": "R-2"}, ""),
        ({"amount": "99.00"}, ""),
        ({"currency": "EUR"}, ""),
    ],
)
def test_the_answer_about_another_sale_starts_none(named: dict[str, str], number: str) -> None:
    answer = _answer(transaction_no="297", word="init", **named)
    fact = facts.opened_fact(ORDER, answer, call="add", sale_seq=3)
    assert (fact.transaction_no, fact.says) == (number, Status.CREATED if number else None)


def test_only_a_definite_no_or_an_unsent_call_surely_had_no_effect() -> None:
    assert facts.never_happened(PockytRefusedError("000040", ""))
    assert facts.never_happened(PockytUnavailableError("", reason="connection", sent=False))
    assert not facts.never_happened(PockytRefusedError("000080", ""))
    assert not facts.never_happened(PockytRefusedError("000099", ""))
    assert not facts.never_happened(PockytUnavailableError("", reason="timeout"))
    assert not facts.never_happened(Answer())
    assert facts.is_unheard_of(PockytRefusedError("000021", ""))
    assert not facts.is_unheard_of(PockytRefusedError("000040", ""))


def test_unfit_characters_are_replaced_and_long_texts_are_cut() -> None:
    answer = Answer(word="a\0b\ud800", fields={"note": "x" * 5_000, "half\udc00": "y"})
    fact = facts.query_fact(TRANSACTION, answer, as_of=7)
    assert fact.provider_status == "a\ufffdb\ufffd"
    assert len(fact.field("note") or "") == orders.VALUE_CHARS_MAX
    assert fact.field("half\ufffd") == "y"


def test_an_answer_with_too_many_fields_keeps_the_first() -> None:
    answer = Answer(fields={f"f{n}": "x" for n in range(facts.FIELDS_MAX + 5)})
    fact = facts.query_fact(TRANSACTION, answer, as_of=7)
    assert fact.field(f"f{facts.FIELDS_MAX - 1}") == "x"
    assert fact.field(f"f{facts.FIELDS_MAX}") is None


def test_an_answer_cannot_name_another_call_or_an_error() -> None:
    answer = Answer(word="closed", fields={"call": "prepay"})
    fact = facts.answer_fact(TRANSACTION, answer, call="cancel", as_of=7)
    assert fact.field("call") == "cancel"
    assert fact.says is Status.CANCELLED


SOLD = structs.replace(TRANSACTION, amount="13.00", currency="USD", reference="R-1")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"amount": "13.00"}, Status.PAID),
        ({"refundInfo": '[{"refundAmount":"13.00"}]'}, Status.REFUNDED),
        ({"refundInfo": '[{"refundAmount":"12.99"}]'}, Status.PAID),
        ({"refundInfo": '{"refundAmount":"13.00"}'}, Status.REFUNDED),
        ({"refundInfo": "no list"}, None),
        ({"refundAmount": "13.00"}, Status.REFUNDED),
        ({"amount": "13.00", "voidAmount": "13.00"}, Status.REFUNDED),
        ({"amount": "1,300.00", "refundAmount": "1300"}, Status.REFUNDED),
        ({"amount": "15.00", "tip": "2.00", "refundAmount": "13.00"}, Status.PAID),
        ({"transactionType": " Payment "}, Status.PAID),
        ({"transactionType": "refund"}, None),
        ({"transactionType": "void"}, None),
        ({"amount": "1_3.00"}, None),
        ({"amount": "0.00"}, None),
        ({"transactionNo": ""}, None),
    ],
)
def test_a_success_is_read_with_its_refunds_against_the_sale(
    said: dict[str, str], status: Status | None
) -> None:
    answer = _said(status="success", **said)
    assert facts.query_fact(SOLD, answer, as_of=7).says is status
    # The answer to a call counts refunds, too: Pockyt may repeat an old one.
    assert facts.answer_fact(SOLD, answer, call="prepay").says is status


def test_refunds_of_a_sale_in_yuan_are_in_yuan() -> None:
    sold = structs.replace(SOLD, currency="CNY")
    answer = _said(status="success", refundAmount="1.41", refundRmbAmount="13.00")
    assert facts.query_fact(sold, answer, as_of=7).says is Status.REFUNDED


@pytest.mark.parametrize(
    ("amount", "kept"),
    [
        ("1,300.00", "1300.00"),
        (" 13 ", "13"),
        ("1.3E+1", "13.00"),
        ("13.00\x1c", "13.00"),
        *(
            (odd, None)
            for odd in ("1_3.00", "\uff11\uff13.00", "1e13", "-13.00", "0" * 50_000 + "13")
        ),
    ],
)
def test_an_amount_is_kept_as_plain_decimal_text_or_not_at_all(
    amount: str, kept: str | None
) -> None:
    assert facts.query_fact(SOLD, _said(status="success", amount=amount), as_of=7).amount == kept


@pytest.mark.parametrize("amount", ["1,300.00", "1300", " 1300.00", "1.3E+3", "1302.50"])
def test_a_sale_is_found_however_its_amount_is_written_and_with_a_tip(amount: str) -> None:
    order = replace(ORDER, amount="1300.00")
    found = replace(
        _said(status="success", amount=amount, currency="usd", transactionNo="297"),
        reference=" r-1",
    )
    if amount == "1302.50":
        found = replace(found, fields={**found.fields, "tip": "2.50"})
    assert facts.found_fact(order, found, sale_seq=3, as_of=7).transaction_no == "297"


def test_a_reference_is_cut_where_no_index_could_hold_it() -> None:
    fact = facts.query_fact(SOLD, replace(_said(status="success"), reference="r" * 300), as_of=7)
    assert fact.reference == "r" * INDEXED_CHARS_MAX


@pytest.mark.parametrize(
    "outcome",
    [
        PockytRefusedError("000021", "no such record"),
        PockytUnavailableError("late", reason="timeout", sent=True),
        _said(transactionNo="297", reference="R-1", status="init", amount="13.00"),
        _said(transactionNo="298", reference="R-other", status="success", amount="13.00"),
    ],
)
def test_what_is_said_of_a_sale_by_its_reference_names_the_sale(
    outcome: Answer | PockytError,
) -> None:
    said = [
        facts.opened_fact(ORDER, outcome, call="add", sale_seq=1),
        facts.found_fact(ORDER, outcome, sale_seq=1, as_of=1),
        facts.sale_answer_fact(ORDER, outcome, sale_seq=1, as_of=1),
    ]
    assert {(fact.reference, fact.store_no) for fact in said} == {("R-1", "303660")}
    for fact in said:
        # A number that is not the sale's may be another store's.
        whose = None if fact.transaction_no else "303660"
        without = facts.without_number(fact)
        assert (without.reference, without.store_no) == ("R-1", whose)
        alarm = orders.number_taken_fact(fact, holder="R-2")
        assert (alarm.reference, alarm.store_no) == ("R-1", None)
