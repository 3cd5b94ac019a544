"""Which codes were charged, by a transaction's entries, and what may have come of each."""

import pytest

from listener.ledger.model import Entry, Fact, Kind
from listener.lifecycle import charges, facts
from listener.lifecycle.charges import Charge
from listener.pockyt.answer import (
    Answer,
    PockytError,
    PockytRefusedError,
    PockytUnavailableError,
)
from tests.unit.test_lifecycle_facts import TRANSACTION

REFUSED = PockytRefusedError("000040", "balance insufficient")
UNSENT = PockytUnavailableError("", reason="connection", sent=False)
LOST = PockytUnavailableError("", reason="timeout")
FAILED = PockytRefusedError("000000", "system error")


def _read(*said: Fact) -> list[Charge]:
    return charges.read_charges(
        Entry(seq=seq, recorded_at_ms=0, fact=fact, hash="") for seq, fact in enumerate(said, 1)
    )


def _sending(code: str = "a", *, again: Charge | None = None) -> Fact:
    return charges.charging_fact(TRANSACTION, code=code, again=again)


def _answer(outcome: Answer | PockytError, *, charge: int = 1, in_doubt: bool = False) -> Fact:
    return facts.charged_fact(TRANSACTION, outcome, charge=charge, in_doubt=in_doubt)


def test_a_charge_without_an_answer_is_in_doubt() -> None:
    (charge,) = _read(_sending())
    assert charge == Charge(seq=1, code="a", sent=1)
    assert charge.is_in_doubt


@pytest.mark.parametrize(
    ("outcome", "may_have_happened", "is_in_doubt"),
    [
        (LOST, True, True),
        (FAILED, True, True),
        (REFUSED, False, False),
        (UNSENT, False, False),
        (Answer(word="pending"), True, False),
    ],
    ids=["lost", "failed", "refused", "unsent", "answered"],
)
def test_an_answer_says_whether_a_charge_may_have_happened(
    outcome: Answer | PockytError, may_have_happened: bool, is_in_doubt: bool
) -> None:
    (charge,) = _read(_sending(), _answer(outcome))
    assert (charge.may_have_happened, charge.is_in_doubt) == (may_have_happened, is_in_doubt)


def test_the_refusal_of_a_repeat_leaves_the_first_in_doubt() -> None:
    first = Charge(seq=1, code="a", sent=1)
    (charge,) = _read(_sending(), _sending(again=first), _answer(REFUSED))
    assert (charge.seq, charge.sent, charge.without_effect) == (1, 2, 1)
    assert charge.is_in_doubt


def test_only_what_may_have_happened_is_the_same_charge_again() -> None:
    read = _read(_sending("a"), _answer(REFUSED), _sending("b"), _sending("a"))
    found = charges.find_charge(read, "a")
    assert found is not None
    assert found.seq == 4
    assert charges.find_charge(read, "c") is None
    assert charges.find_charge(read[:1], "a") is None


def test_an_answer_that_an_earlier_version_recorded_is_a_charge_of_an_unknown_code() -> None:
    lost = facts.answer_fact(TRANSACTION, LOST, call="prepay")
    refused = facts.answer_fact(TRANSACTION, REFUSED, call="prepay")
    cancelled = facts.answer_fact(TRANSACTION, LOST, call="cancel")
    in_doubt = [(one.seq, one.code, one.is_in_doubt) for one in _read(lost, refused, cancelled)]
    assert in_doubt == [(1, None, True), (2, None, False)]


def test_nothing_that_pockyt_answers_is_taken_for_our_own_words() -> None:
    fields = {"chargeSeq": "77", "next": "prepay", "doubt": "true"}
    said = _answer(Answer(word="pending", fields=fields))
    assert (said.kind, said.field("chargeSeq"), said.field("next")) == (Kind.ANSWER, "1", None)
    assert said.field("doubt") is None


def test_a_code_is_kept_as_a_digest_that_only_this_ledger_can_make() -> None:
    made = charges.digest_of("2812345678901234", TRANSACTION, secret=b"a")
    assert len(made) == 32
    assert made == charges.digest_of("2812345678901234", TRANSACTION, secret=b"a")
    assert made != charges.digest_of("2812345678901234", TRANSACTION, secret=b"b")
    assert made != charges.digest_of("2812345678901235", TRANSACTION, secret=b"a")
