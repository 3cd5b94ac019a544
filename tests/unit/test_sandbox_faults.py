"""The fault script, and the notifications it spoils."""

import json
from urllib.parse import parse_qsl

import pytest

from listener.pockyt import signature
from listener.pockyt.signature import Token
from listener.pockyt.texts import json_fields
from listener.sandbox.book import Book, SaleRequest, Word
from listener.sandbox.faults import FAULTS_MAX, Fault, Place, Planned, Script
from listener.sandbox.message import (
    JSON,
    WRONG_TOKEN,
    SignedMessage,
    notification_fields,
    truncate,
    word_notification,
)
from listener.sandbox.tasks import TIME_SCALE_MAX, SandboxClock

TOKEN = Token("current")
OLD_TOKEN = Token("previous")


@pytest.mark.parametrize("text", ["cancel-html", "cancel-html@3", "cancel-html%25"])
def test_a_fault_reads_as_it_is_written(text: str) -> None:
    assert str(Planned.parse(text)) == text


@pytest.mark.parametrize("text", ["", "nothing", "cancel-html@0", "cancel-html%101", "x" * 500])
def test_a_misspelt_fault_is_an_error_that_lists_the_names(text: str) -> None:
    with pytest.raises(ValueError, match="cancel-html") as raised:
        Planned.parse(text)
    assert "x" * 100 not in str(raised.value)


def test_every_fault_has_a_place() -> None:
    assert {fault.place for fault in Fault} == set(Place)


def test_a_fault_strikes_every_time_or_the_nth_time_at_its_own_place() -> None:
    script = Script([Planned.parse("cancel-html@2"), Planned.parse("query-5xx")])
    assert [script.strike(Place.CANCEL) for _ in range(3)] == [
        frozenset(),
        {Fault.CANCEL_HTML},
        frozenset(),
    ]
    assert [script.strike(Place.QUERY) for _ in range(2)] == [{Fault.QUERY_5XX}] * 2
    assert script.struck == {Fault.CANCEL_HTML: 1, Fault.QUERY_5XX: 2}


def test_counting_begins_anew_with_a_new_script() -> None:
    script = Script()
    script.strike(Place.WALLET)
    script.replace([Planned.parse("wallet-down@1")])
    assert script.strike(Place.WALLET) == {Fault.WALLET_DOWN}


def test_a_part_of_the_times_is_drawn_from_the_seed() -> None:
    def drawn(seed: int) -> list[bool]:
        script = Script([Planned.parse("sale-5xx%25")], seed=seed)
        return [bool(script.strike(Place.SALE)) for _ in range(400)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert 60 < sum(drawn(1)) < 140


def test_the_number_of_faults_is_limited() -> None:
    planned = [Planned(fault=Fault.PAY_HTML)] * FAULTS_MAX
    assert len(Script(planned).planned) == FAULTS_MAX
    with pytest.raises(ValueError, match="more than"):
        Script([*planned, planned[0]])


def fields() -> dict[str, str]:
    order = SaleRequest(
        merchant_no="200043",
        store_no="303660",
        reference="r & 1",
        amount="13",
        currency="USD",
        settle_currency="USD",
    )
    sale = Book().open(order, now_seconds=0)
    return notification_fields(sale, Word.CLOSED, now_seconds=1_666_247_297)


def read(notification: SignedMessage) -> dict[str, str]:
    if notification.content_type == JSON:
        return json_fields(notification.body)
    return dict(parse_qsl(notification.body.decode(), keep_blank_values=True))


def test_a_notification_is_a_signed_form_with_pockyts_seven_fields() -> None:
    said = read(word_notification(fields(), token=TOKEN))
    assert said.keys() == {*fields(), "verifySign"}
    assert len(said) == 8
    # The time of the published sample: UTC+8.
    assert (said["status"], said["amount"], said["time"]) == ("closed", "13.00", "20221020142817")
    assert signature.verify(said, [TOKEN])


@pytest.mark.parametrize(
    ("fault", "old_token", "signer"),
    [
        (Fault.NOTIFICATION_WRONG_TOKEN, OLD_TOKEN, WRONG_TOKEN),
        (Fault.NOTIFICATION_OLD_TOKEN, OLD_TOKEN, OLD_TOKEN),
        (Fault.NOTIFICATION_OLD_TOKEN, None, WRONG_TOKEN),
    ],
)
def test_a_fault_signs_with_another_token(
    fault: Fault, old_token: Token | None, signer: Token
) -> None:
    said = read(word_notification(fields(), token=TOKEN, old_token=old_token, faults={fault}))
    assert not signature.verify(said, [TOKEN])
    assert signature.verify(said, [signer])


@pytest.mark.parametrize(
    ("fault", "changed"),
    [
        (Fault.NOTIFICATION_WRONG_AMOUNT, {"amount": "14.00"}),
        (Fault.NOTIFICATION_WRONG_CURRENCY, {"currency": "GBP"}),
        (Fault.NOTIFICATION_EMPTY_FIELDS, {"note": "", "vendorId": ""}),
        (Fault.NOTIFICATION_AS_JSON, {}),
    ],
)
def test_a_spoilt_notification_still_verifies(fault: Fault, changed: dict[str, str]) -> None:
    notification = word_notification(fields(), token=TOKEN, faults={fault})
    said = read(notification)
    assert signature.verify(said, [TOKEN])
    said.pop("verifySign")
    assert said == fields() | changed
    if fault is Fault.NOTIFICATION_AS_JSON:
        assert b'"amount": 13.00' in notification.body
        assert json.loads(notification.body)["amount"] == 13


def test_the_wrong_currency_is_never_the_right_one() -> None:
    said = read(
        word_notification(
            fields() | {"currency": "PHP"},
            token=TOKEN,
            faults={Fault.NOTIFICATION_WRONG_CURRENCY},
        )
    )
    assert said["currency"] == "USD"


def test_half_a_body_is_left_of_a_truncated_one() -> None:
    assert truncate(b"123456") == b"123"


@pytest.mark.parametrize("time_scale", [0, -1, TIME_SCALE_MAX + 1])
def test_time_runs_forwards_and_not_too_fast(time_scale: float) -> None:
    with pytest.raises(ValueError, match="time_scale"):
        SandboxClock(time_scale=time_scale)
    assert SandboxClock(time_scale=TIME_SCALE_MAX).real_seconds(TIME_SCALE_MAX) == 1
