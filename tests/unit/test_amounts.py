"""The one rule for amounts, and how they, currencies and references compare."""

import pytest

from listener.amounts import (
    plain_amount,
    plain_number,
    read_amount,
    read_money,
    same_amount,
    same_text,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [("13", "13.00"), ("13.0", "13"), ("0.10", "0.1"), ("013", "13"), ("5", "5")],
)
def test_amounts_are_compared_as_numbers(one: str, other: str) -> None:
    assert same_amount(one, other)
    assert same_amount(other, one)


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", " ", "abc", "13,00", "13.00 USD", "--1", "-13", "+13", "NaN", "sNaN"),
        *("Infinity", "1E+1", "1e3", "1E+999999", "1_3.00", "١٣", "\uff11\uff13.00", "13.", ".5"),
        *("13.000", "1,300.00", "\n13.00", "13.00\n", "13.00\x1c", "0", "0.00", "000"),
    ],
)
def test_a_text_that_is_not_an_amount_equals_nothing_and_raises_nothing(text: str | None) -> None:
    assert read_amount(text) is None
    assert not same_amount(text, text)
    assert not same_amount(text, "13.00")
    assert not same_amount("13.00", text)


@pytest.mark.parametrize("other", ["13.01", "12.99", "130", "1.3"])
def test_other_amounts_are_not_the_same(other: str) -> None:
    assert not same_amount("13.00", other)


def test_an_amount_has_at_most_twelve_digits_before_the_point() -> None:
    assert read_amount("9" * 12 + ".99") is not None
    assert read_amount("9" * 13) is None


def test_money_may_be_nothing_and_an_amount_may_not() -> None:
    assert read_money("0.00") == 0
    assert read_amount("0.00") is None
    assert read_money("-1") is None
    # What a double cannot hold is not nothing.
    assert read_money(plain_number("0E+2")) == 0
    assert read_money(plain_number("1e-999")) is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1,300.00", "1300.00"),
        ("1,234,567.8", "1234567.8"),
        # As taka and rupees are written.
        ("1,00,000.00", "100000.00"),
        ("12,34,567.89", "1234567.89"),
        ("1,00,00", None),
        ("1,0,000", None),
        (" 13.00\n", "13.00"),
        ("13", "13"),
        ("1,30", None),
        ("13,00", None),
        (",300", None),
        ("1300,000", None),
        ("1,300.000", "1300.00"),
        ("13.000", "13.00"),
        ("6E+2", "600.00"),
        ("1e1", "10.00"),
        ("1.2E7", "12000000.00"),
        ("1300e-2", "13.00"),
        ("29.949999999999999", "29.95"),
        ("277.199999999999989", "277.20"),
        ("0.46000000000000002", "0.46"),
        ("67.2000000000000028421709430404007434844970703125", "67.20"),
        ("29.9499999", None),
        ("13.001", None),
        ("1e12", None),
        ("1e999", None),
        ("1e-999", None),
        ("1e9999", None),
        ("0E+2", None),
        ("0.000", None),
        ("9" * 65 + ".00", None),
        ("1.", None),
        (".5e1", None),
        ("-1e1", None),
        ("1_0e1", None),
        ("-1,300.00", None),
        ("0", None),
        (None, None),
        ("", None),
    ],
)
def test_an_answers_amount_is_written_plainly(text: str | None, plain: str | None) -> None:
    assert plain_amount(text) == plain


def test_currencies_and_references_compare_trimmed_and_in_any_case() -> None:
    assert same_text(" usd\n", "USD")
    assert not same_text("USD", "EUR")
    assert not same_text(None, "USD")
    assert same_text(None, None)
