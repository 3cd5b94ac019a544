"""verifySign over any fields: their order never matters, and every change of them does."""

from random import Random
from typing import Final

from hypothesis import assume, given
from hypothesis import strategies as st

from listener.pockyt.signature import FIELD, Token, is_ambiguous, sign, verify

TOKEN: Final = Token("5cbfb079f15b150122261c8537086d77a")
OTHER: Final = Token("359c05eb811c7c8576f4a8a277dc6f6b")

# Few different characters, those with a meaning among them, so that collisions are looked for
# where they could be; and any other text that has UTF-8.
_TEXT: Final = st.text("ab=&1", max_size=5) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=8
)
_NAME: Final = _TEXT.filter(lambda name: name != FIELD)
_FIELDS: Final = st.dictionaries(_NAME, _TEXT, max_size=5)


def signed(fields: dict[str, str]) -> dict[str, str]:
    return {**fields, FIELD: sign(fields, TOKEN)}


def said(fields: dict[str, str]) -> dict[str, str]:
    """Return what says something: an empty value can be added or taken away unseen."""
    return {name: value for name, value in fields.items() if value}


@given(_FIELDS, st.randoms(use_true_random=False))
def test_any_order_of_fields_is_accepted(fields: dict[str, str], random: Random) -> None:
    pairs = list(signed(fields).items())
    random.shuffle(pairs)
    assert verify(dict(pairs), [OTHER, TOKEN])


@given(st.data(), _FIELDS, _TEXT)
def test_any_change_of_a_value_is_refused(
    data: st.DataObject, fields: dict[str, str], value: str
) -> None:
    assume(said(fields))
    name = data.draw(st.sampled_from(sorted(said(fields))))
    changed = {**fields, name: value}
    assume(changed != fields)
    _refused_or_flagged(fields, changed)


@given(st.data(), _FIELDS, _NAME)
def test_any_change_of_a_name_is_refused(
    data: st.DataObject, fields: dict[str, str], name: str
) -> None:
    assume(said(fields) and name not in fields)
    old = data.draw(st.sampled_from(sorted(said(fields))))
    _refused_or_flagged(fields, {name if n == old else n: v for n, v in fields.items()})


@given(_FIELDS, _FIELDS)
def test_a_signature_is_good_for_no_other_fields(
    fields: dict[str, str], others: dict[str, str]
) -> None:
    assume(said(fields) != said(others))
    _refused_or_flagged(fields, others)


@given(_FIELDS, st.integers(0, 4))
def test_a_pair_that_slips_into_its_neighbour_is_flagged(fields: dict[str, str], at: int) -> None:
    names = sorted(fields)
    assume(at + 1 < len(names))
    first, second = names[at], names[at + 1]
    absorbed = {name: value for name, value in fields.items() if name != second}
    absorbed[first] = f"{fields[first]}&{second}={fields[second]}"
    assert verify({**absorbed, FIELD: sign(fields, TOKEN)}, [TOKEN])
    assert is_ambiguous(absorbed)


@given(_FIELDS)
def test_another_token_never_verifies(fields: dict[str, str]) -> None:
    assert not verify(signed(fields), [OTHER])


def _refused_or_flagged(fields: dict[str, str], changed: dict[str, str]) -> None:
    """Hold that a changed message is refused, but for the ambiguity, which one of the two shows."""
    if verify({**changed, FIELD: sign(fields, TOKEN)}, [TOKEN]):
        assert is_ambiguous(fields) or is_ambiguous(changed)
