"""The nouns: what is read from text, and how it is written."""

import pytest

from listener.ledger.model import (
    AMOUNT_DIGITS_MAX,
    Ask,
    Fact,
    Kind,
    Status,
    Why,
    fields_text,
    read_amount,
    rfc3339,
    same_amount,
    stream_of,
)
from listener.ledger.transaction import advance
from tests.support.told import entries, notification


@pytest.mark.parametrize(
    ("one", "other"),
    [("13", "13.00"), ("13.0", "13"), ("0.10", "0.1"), ("013", "13"), ("1E+1", "10"), ("5", "5")],
)
def test_amounts_are_compared_as_numbers(one: str, other: str) -> None:
    assert same_amount(one, other)
    assert same_amount(other, one)


@pytest.mark.parametrize(
    "text",
    [None, "", " ", "abc", "13,00", "13.00 USD", "--1", "NaN", "sNaN", "Infinity", "1E+999999"],
)
def test_what_is_unreadable_equals_nothing_and_raises_nothing(text: str | None) -> None:
    assert read_amount(text) is None
    assert not same_amount(text, text)
    assert not same_amount(text, "13.00")
    assert not same_amount("13.00", text)


@pytest.mark.parametrize("other", ["13.01", "12.99", "-13", "130", "1.3", "0"])
def test_other_amounts_are_not_the_same(other: str) -> None:
    assert not same_amount("13.00", other)


def test_an_amount_has_a_limited_size() -> None:
    assert read_amount("9" * (AMOUNT_DIGITS_MAX + 1)) is not None
    assert read_amount("9" * (AMOUNT_DIGITS_MAX + 2)) is None
    assert read_amount("1E-19") is None


def test_a_time_is_written_as_rfc_3339_in_utc_to_the_millisecond() -> None:
    assert rfc3339(1_792_000_000_000) == "2026-10-14T17:46:40.000Z"
    assert rfc3339(1_792_000_000_007) == "2026-10-14T17:46:40.007Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_every_millisecond_is_written_as_itself() -> None:
    for ms in range(1_000):
        assert rfc3339(1_792_000_000_000 + ms).endswith(f".{ms:03}Z")


def test_a_stream_is_named_by_its_store_or_by_having_none() -> None:
    assert stream_of("200043", "303660") == "200043/303660"
    assert stream_of("200043", None) == stream_of("200043", "") == "200043/-"
    told = entries([notification("success", store_no=None)])
    assert advance(None, told).transaction.stream == "200043/-"


def test_a_field_is_read_as_it_arrived() -> None:
    fact = Fact(kind=Kind.NOTIFICATION, merchant_no="1", fields='{"note":"ü","empty":""}')
    assert fact.field("note") == "ü"
    assert fact.field("empty") == ""
    assert fact.field("missing") is None


def test_what_is_none_is_left_out_of_the_fields() -> None:
    assert fields_text({"alarm": "unresolved", "storeNo": None}) == '{"alarm":"unresolved"}'
    assert fields_text({}) == "{}"


@pytest.mark.parametrize("why", Why)
def test_silence_is_raised_unless_something_is_only_looked_at_again(why: Why) -> None:
    ask = Ask(why=why, since_ms=0, due_at_ms=None, raise_at_ms=None)
    assert ask.is_raised == (why not in (Why.CONFIRM, Why.CANCELLED))
    assert not Ask(why=why, since_ms=0, due_at_ms=None, raise_at_ms=1).is_raised


def test_a_fact_cannot_be_changed() -> None:
    fact = notification("success")
    with pytest.raises(AttributeError, match="immutable"):
        fact.says = Status.CANCELLED  # type: ignore[misc] # the point of the test
