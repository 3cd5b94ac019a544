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
