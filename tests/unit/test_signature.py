"""verifySign: Pockyt's published messages, and everything that is not one of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import pytest

from listener.pockyt.signature import FIELD, Token, is_ambiguous, join, sign, verify

VECTORS: Final = json.loads((Path(__file__).parent / "vectors.json").read_text(encoding="utf-8"))
TEXT: Final = "5cbfb079f15b150122261c8537086d77a"
TOKEN: Final = Token(TEXT)
OTHER: Final = Token("359c05eb811c7c8576f4a8a277dc6f6b")
FIELDS: Final = {"amount": "13.00", "note": "", "status": "closed"}
# Worked out with md5sum, with the pair `note=` and without it.
KEPT: Final = "f4b3111d13741afd279f8ffc275fd279"
LEFT_OUT: Final = "d36521a0df391aba573b90d002c23ad2"


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def vector_fields(vector: dict[str, dict[str, object]]) -> dict[str, str]:
    return {name: as_text(value) for name, value in vector["params"].items()}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["verifySign"][:8] for vector in VECTORS])
def test_every_published_message_reproduces(vector: dict[str, dict[str, object]]) -> None:
    fields, published = vector_fields(vector), str(vector["verifySign"])
    token = Token(str(vector["token"]))
    assert sign(fields, token) == published
    assert verify({**fields, FIELD: published}, [token])
    assert not is_ambiguous(fields)


def test_all_eight_published_messages_are_here() -> None:
    assert len(VECTORS) == 8


def test_names_are_sorted_by_code_point_and_values_stay_raw() -> None:
    fields = {"b": " a b+%26 ", "a": "http://x/?q=1", "B": "ü", FIELD: "left out"}
    assert join(fields) == "B=ü&a=http://x/?q=1&b= a b+%26 "


def test_an_empty_value_is_signed_where_we_sign() -> None:
    assert join(FIELDS) == "amount=13.00&note=&status=closed"
    assert sign(FIELDS, TOKEN) == KEPT


@pytest.mark.parametrize("signature", [KEPT, LEFT_OUT])
def test_either_way_to_sign_an_empty_value_is_accepted(signature: str) -> None:
    assert verify({**FIELDS, FIELD: signature}, [TOKEN])


def test_an_empty_value_may_be_added_but_none_that_says_something() -> None:
    signed = {"amount": "13.00", FIELD: sign({"amount": "13.00"}, TOKEN)}
    assert verify({**signed, "foo": ""}, [TOKEN])
    assert not verify({**signed, "foo": "0"}, [TOKEN])


def test_thirteen_and_thirteen_with_cents_sign_differently() -> None:
    assert sign({"amount": "13"}, TOKEN) != sign({"amount": "13.00"}, TOKEN)


@pytest.mark.parametrize("signer", [TOKEN, OTHER])
def test_every_live_token_verifies(signer: Token) -> None:
    signed = {"status": "closed", FIELD: sign({"status": "closed"}, signer)}
    assert verify(signed, [TOKEN, OTHER])


def test_a_token_that_is_not_live_does_not_verify() -> None:
    signed = {"status": "closed", FIELD: sign({"status": "closed"}, OTHER)}
    assert not verify(signed, [TOKEN])
    assert not verify(signed, [])


GOOD: Final = sign({"status": "closed"}, TOKEN)


@pytest.mark.parametrize(
    "given",
    [
        "",
        " ",
        GOOD[:-1],
        GOOD + "0",
        f"{GOOD[:16]} {GOOD[16:]}",
        GOOD[:-1] + ("0" if GOOD[-1] != "0" else "1"),
        "é" * 32,
        GOOD[:-1] + "\uff11",
        "\0" * 32,
    ],
)
def test_a_wrong_signature_is_refused(given: str) -> None:
    assert verify({"status": "closed", FIELD: GOOD}, [TOKEN])
    assert not verify({"status": "closed", FIELD: given}, [TOKEN])


def test_a_missing_signature_is_refused() -> None:
    assert not verify({"status": "closed"}, [TOKEN])
    assert not verify({}, [TOKEN])


class CountingToken(Token):
    """A token that counts the texts that it signed."""

    __slots__ = ("signed",)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.signed: list[bytes] = []

    def sign(self, joined: bytes) -> bytes:
        self.signed.append(joined)
        return super().sign(joined)


def test_every_token_and_variant_is_tried_whatever_matched_before() -> None:
    tokens = [CountingToken(TEXT), CountingToken("359c05eb"), CountingToken("f00")]
    asked: list[CountingToken] = []

    def live() -> Iterator[Token]:
        for token in tokens:
            asked.append(token)
            yield token

    assert verify({**FIELDS, FIELD: sign(FIELDS, TOKEN)}, live())
    assert asked == tokens
    for token in tokens:
        assert token.signed == [
            b"amount=13.00&note=&status=closed",
            b"amount=13.00&status=closed",
        ]


def _refuse_equality(_self: object, _other: object) -> NoReturn:
    raise AssertionError("a signature was compared with == instead of in constant time")


class GuardedBytes(bytes):
    """Bytes that may only be compared in constant time."""

    __eq__ = _refuse_equality
    __ne__ = _refuse_equality
    __hash__ = bytes.__hash__

    def lower(self) -> "GuardedBytes":
        return GuardedBytes(super().lower())


class GuardedText(str):
    """A received signature that may only be compared in constant time."""

    __slots__ = ()
    __eq__ = _refuse_equality
    __ne__ = _refuse_equality
    __hash__ = str.__hash__

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return GuardedBytes(super().encode(encoding, errors))


def test_signatures_are_compared_in_constant_time_only() -> None:
    with pytest.raises(AssertionError, match="constant time"):
        assert GuardedText(GOOD).encode() == GOOD.encode()
    assert verify({"status": "closed", FIELD: GuardedText(GOOD)}, [OTHER, TOKEN])
    assert not verify({"status": "failed", FIELD: GuardedText(GOOD)}, [OTHER, TOKEN])


def test_a_pair_may_be_absorbed_or_released_unseen_and_both_are_flagged() -> None:
    one = {"note": "x&reference=9001-1", "reference": "17"}
    other = {"note": "x", "reference": "9001-1&reference=17"}
    assert sign(one, TOKEN) == sign(other, TOKEN)
    assert is_ambiguous(one)
    assert is_ambiguous(other)


@pytest.mark.parametrize("fields", [{"a": "1&b=2"}, {"a&b": "1"}, {"a=b": "1"}, {"a": "&"}])
def test_fields_that_can_be_read_in_two_ways_are_ambiguous(fields: dict[str, str]) -> None:
    assert is_ambiguous(fields)


def test_an_equals_sign_in_a_value_is_not_ambiguous() -> None:
    assert not is_ambiguous({"ipnUrl": "https://x/?a=b", "note": "1=1"})


def test_a_token_is_shown_by_nothing() -> None:
    shown = f"{TOKEN!r} {TOKEN} {[TOKEN]} {TOKEN:}"
    assert TEXT not in shown
    # md5(token) is as secret as the token; the documentation's worked example prints this one.
    assert "186abea4b8610d7ff03768255588597a" not in shown
    assert "**" in shown


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_an_empty_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a token is empty"):
        Token(text)
