"""How much of a payment went back, in every shape in which Pockyt may say it."""

import json
from decimal import Decimal

import pytest

from listener.ledger.refunds import read_refunds

PARTS = [{"refundAmount": "3.00"}, {"refundAmount": 10}]


@pytest.mark.parametrize(
    ("listed", "back"),
    [
        (json.dumps(PARTS), "13"),
        (json.dumps(PARTS[0]), "3"),
        (
            '[{"amount":"2.50","status":"SUCCESS "},{"amount":0.1,"refundStatus":"refunded"}]',
            "2.6",
        ),
        ('[{"refundAmount":"1,300.00"}]', "1300"),
        ('[{"refundAmount":6E+2},{"refundAmount":"0.0000"}]', "600"),
        ('[{"refundAmount":599.99999999999999}]', "600"),
        ('[{"refundAmount":"3","status":"failed"},{"status":"closed"}]', "0"),
        ('[{"refundAmount":"3","transactionStatus":"Failed"}]', "0"),
        ('[{"refundAmount":"3","transactionStatus":"success"}]', "3"),
        (
            '[{"refundTransactionNo":"1","refundAmount":"3"},{"refundTransactionNo":1,"refundAmount":3}]',
            "3",
        ),
        (
            '[{"refundTransactionId":"1","refundAmount":"3"},{"refundTransactionId":"2","refundAmount":"3"}]',
            "6",
        ),
        (
            '[{"refundReference":"R","refundAmount":"3"},{"refundReference":"R","refundAmount":"3"}]',
            "6",
        ),
        (
            '[{"refundTransactionId":"1","status":"failed"},{"refundTransactionId":"1","amount":3}]',
            "3",
        ),
        ('[{"refundAmount":"3","currency":" usd"}]', "3"),
        ('[{"refundAmount":"3","currency":"USD","settleCurrency":"GBP"}]', "3"),
        ("[]", "0"),
        (" ", "0"),
        ("null", "0"),
        ("{}", "0"),
    ],
)
def test_a_list_is_added_up_as_a_list_one_object_or_their_text(listed: str, back: str) -> None:
    assert read_refunds({"refundInfo": listed}, currency="USD") == Decimal(back)


@pytest.mark.parametrize(
    "listed",
    [
        "soon",
        "3.00",
        '"[]"',
        "[1]",
        "[null]",
        '[{"refundAmount":"half"}]',
        '[{"refundAmount":"-3"}]',
        '[{"refundAmount":"3.001"}]',
        '[{"refundAmount":"3.00"},{"note":"no amount"}]',
        '[{"refundAmount":"3.00"}',
        '[{"refundAmount":"3.00","status":"pending"}]',
        '[{"refundAmount":"3.00","status":"weird"}]',
        '[{"refundAmount":"3.00","transactionStatus":"pending"}]',
        '[{"refundRmbAmount":"3.00"}]',
        '[{"refundTransactionNo":"1","refundAmount":"3"},{"refundTransactionNo":"1","refundAmount":"4"}]',
        '[{"refundAmount":"94.00","currency":"CNY"}]',
        "[" * 100_000,
    ],
)
def test_a_list_that_cannot_be_read_or_is_not_final_says_nothing(listed: str) -> None:
    assert read_refunds({"refundInfo": listed, "refundAmount": "3.00"}, currency="USD") is None


@pytest.mark.parametrize(
    "part", [{"refundRmbAmount": "10.00"}, {"refundRmbAmount": "10.00", "refundAmount": "1.41"}]
)
@pytest.mark.parametrize("currency", ["CNY", " cny"])
def test_a_sale_in_yuan_is_refunded_in_yuan(part: dict[str, str], currency: str) -> None:
    assert read_refunds({"refundInfo": json.dumps([part])}, currency=currency) == 10
    assert read_refunds(part, currency=currency) == 10


def test_a_sale_in_yuan_is_refunded_in_yuan_whatever_else_its_refund_names() -> None:
    part = {"refundRmbAmount": "10.00", "refundAmount": "1.41", "currency": "USD"}
    assert read_refunds({"refundInfo": json.dumps([part])}, currency="CNY") == 10
    del part["refundRmbAmount"]
    assert read_refunds({"refundInfo": json.dumps([part])}, currency="CNY") is None


def test_a_sale_in_yuan_whose_refunds_name_no_yuan_counts_what_they_name() -> None:
    assert read_refunds({"refundInfo": '[{"refundAmount":"10"}]'}, currency="CNY") == 10


@pytest.mark.parametrize(
    ("totals", "back"),
    [
        ({}, 0),
        ({"refundAmount": "10.00", "voidAmount": "0.00"}, 10),
        ({"refundAmount": "0.00", "voidAmount": "10.00"}, 10),
        ({"refundAmount": "4", "voidAmount": "6", "refundInfo": "[]"}, 10),
        ({"refundAmount": "", "voidAmount": " 10.0 "}, 10),
        ({"refundAmount": "some"}, None),
        ({"refundAmount": "10.00", "voidAmount": "-"}, None),
    ],
)
def test_totals_count_where_there_is_no_list(totals: dict[str, str], back: int | None) -> None:
    assert read_refunds(totals, currency="USD") == back


def test_a_list_beats_the_totals_beside_it() -> None:
    fields = {"refundInfo": '[{"refundAmount":"3"}]', "refundAmount": "13.00"}
    assert read_refunds(fields, currency=None) == 3
