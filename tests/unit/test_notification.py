"""What the fields of a notification say."""

import pytest

from listener.pockyt.notification import read_notification

PAYMENT = {
    "transactionNo": "1",
    "status": "closed",
    "amount": "13.00",
    "currency": "USD",
    "settleCurrency": "GBP",
    "reference": "r",
}


def test_a_payment_says_what_its_fields_say() -> None:
    said = read_notification(PAYMENT)
    assert (said.transaction_no, said.reference, said.word) == ("1", "r", "closed")
    assert (said.amount, said.currency, said.settle_currency) == ("13.00", "USD", "GBP")
    assert said.suspect is None


def test_the_legacy_number_stands_for_the_transaction_number() -> None:
    legacy = {"yuansferId": "7", "amount": "1.00", "status": "success"}
    assert read_notification(legacy).transaction_no == "7"


def test_a_payout_is_not_a_transaction_and_its_invoice_is_its_reference() -> None:
    said = read_notification({**PAYMENT, "reference": "", "invoiceId": "i9", "amount": "x"})
    assert (said.transaction_no, said.reference, said.suspect) == ("", "i9", None)


@pytest.mark.parametrize("odd", [" {}", "{} ", "{}\n", "\t{}\r\n", "{}\u3000"])
def test_blanks_around_a_transaction_number_are_none_of_it(odd: str) -> None:
    number = PAYMENT["transactionNo"]
    said = read_notification({**PAYMENT, "transactionNo": odd.format(number)})
    assert (said.transaction_no, said.suspect) == (number, None)


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
        ({"currency": "USD\0"}, "control_character"),
        ({"transactionNo": "", "yuansferId": "7\0"}, "control_character"),
        ({"note": "a\0", "time": "\0"}, None),
    ],
)
def test_an_unbelievable_notification_says_why(changes: dict[str, str], why: str | None) -> None:
    assert read_notification({**PAYMENT, **changes}).suspect == why


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
def test_a_notice_of_a_refund_or_a_void_is_not_a_payment(added: dict[str, str], word: str) -> None:
    said = read_notification({**PAYMENT, "status": word, **added})
    assert said.suspect == "refund_notice"


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
