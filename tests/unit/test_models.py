"""The models of the JSON API: the contract's members, and how the ledger's nouns are written."""

import re
from datetime import datetime, timedelta

import orjson
import pytest
from pydantic import ValidationError

from listener.ledger import model, results
from listener.ledger.model import CancelState, DeliveryCount, Entry, Evidence, Fact, Kind, Status
from listener.web.shapes import models
from listener.web.shapes.parameters import CURSOR_CHARS_MAX, EntriesQuery, TransactionsQuery

TRANSACTION = model.Transaction(
    merchant_no="200043",
    transaction_no="297553638301777927",
    first_seq=3,
    status=Status.CANCELLED,
    provider_status="closed",
    evidence=Evidence.SIGNATURE,
    held=False,
    state_version=3,
    created_at_ms=1_792_000_000_000,
    updated_at_ms=1_792_000_000_001,
    reference="test20200101307",
    store_no="303660",
    terminal="T-42",
    amount="13.00",
    currency="USD",
    settle_currency="USD",
    cancel=model.Cancel(
        state=CancelState.CONFIRMED,
        requested_at_ms=1_792_000_000_000,
        resolved_at_ms=1_792_000_000_999,
        evidence=Evidence.SIGNATURE,
    ),
)
LINE = results.ReadEntry(
    entry=Entry(
        seq=7,
        recorded_at_ms=1_792_000_000_000,
        fact=Fact(
            kind=Kind.NOTIFICATION,
            merchant_no="200043",
            store_no="303660",
            transaction_no="297553638301777927",
            reference="test20200101307",
            provider_status=" Closed",
            amount="13",
            currency="USD",
            fields='{"status":" Closed","amount":"13"}',
        ),
        hash="ab" * 32,
    ),
    held="amount_differs",
    deliveries=DeliveryCount(count=8, first_at_ms=1_792_000_000_000, last_at_ms=1_792_000_007_000),
)


def written(value: models.Model) -> dict[str, object]:
    found = orjson.loads(value.encode())
    assert isinstance(found, dict)
    return found


def test_a_transaction_has_the_members_of_the_contract_and_no_others() -> None:
    told = written(models.Transaction.of(TRANSACTION))
    assert " ".join(told) == (
        "transactionNo reference merchantNo storeNo terminal amount currency settleCurrency"
        " status providerStatus stateVersion held createdAt updatedAt cancel"
    )
    assert told["cancel"] == {
        "state": "confirmed",
        "requestedAt": "2026-10-14T17:46:40.000Z",
        "resolvedAt": "2026-10-14T17:46:40.999Z",
        "evidence": "signature",
    }
    assert told["updatedAt"] == "2026-10-14T17:46:40.001Z"
    assert told["held"] is False
    assert told["amount"] == "13.00"


def test_unknown_members_of_a_transaction_are_written_as_null() -> None:
    bare = model.Transaction(
        merchant_no="200043",
        transaction_no="1",
        first_seq=1,
        status=Status.UNKNOWN,
        provider_status=None,
        evidence=Evidence.NONE,
        held=True,
        state_version=1,
        created_at_ms=0,
        updated_at_ms=0,
    )
    told = written(models.Transaction.of(bare))
    assert " ".join(name for name, value in told.items() if value is None) == (
        "reference storeNo terminal amount currency settleCurrency providerStatus cancel"
    )
    assert told["held"] is True


def test_an_open_cancel_has_no_end() -> None:
    cancel = model.Cancel(state=CancelState.UNRESOLVED, requested_at_ms=0)
    assert written(models.Cancel.of(cancel)) == {
        "state": "unresolved",
        "requestedAt": "1970-01-01T00:00:00.000Z",
        "resolvedAt": None,
        "evidence": None,
    }


def test_an_entry_has_the_members_of_the_contract_why_it_is_held_and_what_went_back() -> None:
    told = written(models.Entry.of(LINE))
    assert " ".join(told) == (
        "seq kind merchantNo storeNo transactionNo reference providerStatus amount currency"
        " held heldReason asOf recordedAt deliveries fields hash refunded"
    )
    assert (told["held"], told["heldReason"]) == (True, "amount_differs")
    # Pockyt's word and amount are shown as they came.
    assert (told["providerStatus"], told["amount"]) == (" Closed", "13")
    assert told["fields"] == {"status": " Closed", "amount": "13"}
    assert told["deliveries"] == {
        "count": 8,
        "first": "2026-10-14T17:46:40.000Z",
        "last": "2026-10-14T17:46:47.000Z",
    }


def test_an_entry_without_a_transaction_number_says_null() -> None:
    fact = Fact(kind=Kind.NOTIFICATION, merchant_no="200043")
    entry = Entry(seq=1, recorded_at_ms=0, fact=fact, hash="cd" * 32)
    deliveries = DeliveryCount(count=1, first_at_ms=0, last_at_ms=0)
    told = written(
        models.Entry.of(results.ReadEntry(entry=entry, held=None, deliveries=deliveries))
    )
    assert told["transactionNo"] is None
    assert (told["held"], told["heldReason"]) == (False, None)


def test_a_single_transaction_is_a_transaction_plus_its_entries() -> None:
    for has_more, after in ((False, None), (True, LINE.entry.seq)):
        detail = models.TransactionDetail.with_entries(TRANSACTION, [LINE], has_more=has_more)
        told = written(detail)
        assert told.pop("nextAfter") == after
        entries = told.pop("entries")
        assert told == written(models.Transaction.of(TRANSACTION))
        assert entries == [written(models.Entry.of(LINE))]


def test_the_deliveries_of_the_ledger_are_its_entries_and_their_repeats() -> None:
    head = results.Head(epoch="e", seq=10, hash="ab", events=4, transactions=3, repeats=7)
    counts = results.Totals(entries=10, transactions=3, events=4, repeats=7)
    assert written(models.LedgerHead.of(head, counts))["counts"] == {
        "entries": 10,
        "transactions": 3,
        "events": 4,
        "deliveries": 17,
        "repeats": 7,
    }


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.001z", 1),
        ("1970-01-01T00:00:00.0019999Z", 1),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1970-01-01T08:00:00+08:00", 0),
        ("1969-12-31T16:00:00-08:00", 0),
        ("1970-01-02", 86_400_000),
    ],
)
def test_a_time_is_read_to_the_millisecond_in_any_zone(text: str, at_ms: int) -> None:
    assert TransactionsQuery.model_validate({"since": text}).since == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "0",
        "2026-02-30",
        "2026-11-23Z",
        "2026-11-23T10:11:12",
        "2026-11-23 10:11:12Z",
        "20261123T101112Z",
        "2026-02-30T00:00:00Z",
        "2026-11-23T10:11:12+99:00",
        "2026-11-23T10:11:12 08:00",
        "٢٠٢٦-11-23T10:11:12Z",
        "2026-11-23T10:11:12Z\n",
    ],
)
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=re.escape("2026-11-23T10:11:12Z")):
        TransactionsQuery.model_validate({"until": text})


@pytest.mark.parametrize("text", ["", "+1", "-1", " 1", "1_0", "1.5", "0x1", "٣", "9" * 17])
def test_a_whole_number_is_digits_and_nothing_else(text: str) -> None:
    with pytest.raises(ValidationError, match="whole number"):
        EntriesQuery.model_validate({"after": text})


@pytest.mark.parametrize(
    ("name", "least", "most"), [("limit", 1, 500), ("wait", 0, 30), ("after", 0, 2**53 - 1)]
)
def test_each_number_is_taken_at_its_edges_and_refused_past_them(
    name: str, least: int, most: int
) -> None:
    for value in (least, most):
        assert getattr(EntriesQuery.model_validate({name: str(value)}), name) == value
    for value in (least - 1, most + 1):
        with pytest.raises(ValidationError):
            EntriesQuery.model_validate({name: str(value)})


@pytest.mark.parametrize(("name", "most"), [("reference", 256), ("merchantNo", 64)])
def test_each_text_is_taken_at_its_length_and_refused_past_it(name: str, most: int) -> None:
    TransactionsQuery.model_validate({name: "1" * most})
    for text in ("", "1" * (most + 1)):
        with pytest.raises(ValidationError):
            TransactionsQuery.model_validate({name: text})


def test_a_cursor_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(ValidationError):
        TransactionsQuery.model_validate({"cursor": "A" * (CURSOR_CHARS_MAX + 1)})


def test_times_are_written_as_they_are_read() -> None:
    told = written(models.Transaction.of(TRANSACTION))
    at = datetime.fromisoformat(str(told["createdAt"]))
    assert at.utcoffset() == timedelta(0)
    assert TransactionsQuery.model_validate({"since": told["createdAt"]}).since == (
        TRANSACTION.created_at_ms
    )
