"""The nouns: what is read from text, and how it is written."""

import pytest

from listener.ledger.model import (
    Ask,
    Fact,
    Kind,
    Status,
    Why,
    fields_text,
    rfc3339,
    stream_of,
)
from listener.ledger.summary import Summary
from listener.ledger.transaction import advance
from tests.support.told import entries, notification


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
    assert advance(None, Summary.of(told), told[-1]).transaction.stream == "200043/-"


def test_a_field_is_read_as_it_arrived() -> None:
    fact = Fact(kind=Kind.NOTIFICATION, merchant_no="1", fields='{"note":"ü","empty":""}')
    assert fact.field("note") == "ü"
    assert fact.field("empty") == ""
    assert fact.field("missing") is None


def test_none_is_left_out_of_the_fields() -> None:
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
