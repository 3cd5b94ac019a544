"""Reading a notification: its fields exactly as they were sent, then what they say."""

import json
from urllib.parse import quote

import pytest

from listener.errors import UnreadableError
from listener.ledger import model
from listener.pockyt.notification import (
    FIELDS_MAX,
    REFUND_NOTICE,
    fingerprint,
    read_fields,
    read_notification,
)

PAYMENT = {
    "transactionNo": "1",
    "status": "closed",
    "amount": "13.00",
    "currency": "USD",
    "settleCurrency": "GBP",
    "reference": "r",
}


def test_a_plus_and_an_escape_are_decoded_once() -> None:
    assert read_fields(b"a=1+2%2B3%252B&b=%E6%B1%89", is_json=False) == {"a": "1 2+3%2B", "b": "汉"}


def test_a_value_keeps_its_equals_signs_and_its_spaces() -> None:
    assert read_fields(b"a=b=c&d= e ", is_json=False) == {"a": "b=c", "d": " e "}


def test_a_name_without_a_value_is_an_empty_field_and_no_name_is_none() -> None:
    assert read_fields(b"a&&b=&", is_json=False) == {"a": "", "b": ""}


def test_nested_json_is_compact_in_source_order_with_its_numbers_as_sent() -> None:
    body = b'{"n": {"b": [1.50, true, null, "\\u6c49"], "a": 1e2}, "x": -0, "y": false}'
    fields = read_fields(body, is_json=True)
    assert fields == {"n": '{"b":[1.50,true,null,"汉"],"a":1e2}', "x": "-0", "y": "false"}


def test_what_is_null_did_not_arrive() -> None:
    assert read_fields(b'{"a": null, "b": ""}', is_json=True) == {"b": ""}


def test_an_empty_field_that_could_hide_a_neighbour_is_left_out() -> None:
    assert read_fields(b"a%26b=&c%3D1=&d=&e%26=1", is_json=False) == {"d": "", "e&": "1"}


@pytest.mark.parametrize(
    ("body", "is_json"),
    [
        (b"\xff", False),
        (b"a=%ff", False),
        (b"a=1&a=1", False),
        (quote("a").encode() + b"=1&%61=2", False),
        (b"&".join(b"f%d=" % n for n in range(FIELDS_MAX + 1)), False),
        (json.dumps({f"f{n}": "" for n in range(FIELDS_MAX + 1)}).encode(), True),
        (b'{"a":{"b":1,"b":2}}', True),
        (b"[" * 100_000, True),
        (b'{"a":Infinity}', True),
        (b'{"a":"\\udc00"}', True),
        (b"", True),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(body: bytes, is_json: bool) -> None:
    with pytest.raises(UnreadableError) as refused:
        read_fields(body, is_json=is_json)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


def test_as_many_fields_as_are_allowed_are_read() -> None:
    form = b"&".join(b"f%d=" % n for n in range(FIELDS_MAX))
    assert len(read_fields(form, is_json=False)) == FIELDS_MAX


def test_a_payment_says_what_its_fields_say() -> None:
    said = read_notification(PAYMENT)
    assert (said.transaction_no, said.reference, said.word) == ("1", "r", "closed")
    assert (said.amount, said.currency, said.settle_currency) == ("13.00", "USD", "GBP")
    assert said.suspect is None


def test_the_legacy_number_stands_for_the_transaction_number() -> None:
    legacy = {"yuansferId": "7", "amount": "1.00", "status": "success"}
    assert read_notification(legacy).transaction_no == "7"


def test_a_payout_is_no_transaction_and_its_invoice_is_its_reference() -> None:
    said = read_notification({**PAYMENT, "reference": "", "invoiceId": "i9", "amount": "x"})
    assert (said.transaction_no, said.reference, said.suspect) == ("", "i9", None)


@pytest.mark.parametrize("name", ["amount", "status", "reference", "currency", "settleCurrency"])
def test_an_empty_value_says_as_much_as_a_missing_one(name: str) -> None:
    missing = {field: value for field, value in PAYMENT.items() if field != name}
    assert read_notification({**missing, name: ""}) == read_notification(missing)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"note": "a&b=c"}, "ambiguous"),
        ({"a=b": "c"}, "ambiguous"),
        ({"amount": "0.00"}, "amount_unreadable"),
        ({"amount": "1.005"}, "amount_unreadable"),
        ({"reference": "a\0"}, "control_character"),
    ],
)
def test_what_is_not_to_be_believed_alone_says_why(changes: dict[str, str], why: str) -> None:
    assert read_notification({**PAYMENT, **changes}).suspect == why


def test_names_and_values_do_not_run_into_each_other() -> None:
    fields = ({"a": "bc"}, {"ab": "c"}, {"a": "b", "c": ""}, {"a1": "b"}, {"a": "1:b"})
    assert len({fingerprint("1", each) for each in fields}) == len(fields)
    assert fingerprint("1", {"2a": "b"}) != fingerprint("12", {"a": "b"})


@pytest.mark.parametrize(
    "added",
    [
        {"transactionType": "refund"},
        {"transactionType": " Void "},
        {"transactionType": "chargeback"},
        {"refundTransactionNo": "298"},
        {"refundReference": "rf-1"},
        {"refundTransactionId": "298"},
        {"refundAmount": "13.00"},
        {"refundAmount": "0.01"},
        {"refundAmount": "1,300.00"},
        {"refundAmount": "some"},
        {"refundRmbAmount": "90"},
        {"voidAmount": "13"},
        {"voidTransactionNo": "298"},
        {"refundInfo": '[{"refundAmount":"1"}]'},
        {"refundStatus": "success"},
        {"hasRefund": "true"},
        {"RefundAmount": "1"},
        {"originalTransactionNo": "297"},
    ],
)
@pytest.mark.parametrize("word", ["success", "closed", "pending"])
def test_a_notice_of_a_refund_or_a_void_is_no_payment(added: dict[str, str], word: str) -> None:
    said = read_notification({**PAYMENT, "status": word, **added})
    assert said.suspect == REFUND_NOTICE == model.REFUND_NOTICE


@pytest.mark.parametrize(
    "added",
    [
        {"transactionType": "payment"},
        {"transactionType": " PAYMENT"},
        {"transactionType": ""},
        {"refundAmount": "0.00", "voidAmount": "0", "refundInfo": "[]"},
        {"refundAmount": "", "refundTransactionNo": "", "originalTransactionNo": "null"},
        {"hasRefund": "false"},
        {"refundable": "true"},
        {"voidable": "yes", "prerefund": "1"},
    ],
)
def test_a_payment_that_says_that_nothing_was_refunded_is_a_payment(added: dict[str, str]) -> None:
    assert read_notification({**PAYMENT, **added}).suspect is None


@pytest.mark.parametrize("amount", ["1,300.00", "1_3.00", "1e3", "-13", "\uff11\uff13", "13.00\n"])
def test_an_amount_of_a_notification_is_read_by_the_one_rule(amount: str) -> None:
    said = read_notification({**PAYMENT, "amount": amount})
    assert (said.amount, said.suspect) == (None, "amount_unreadable")
