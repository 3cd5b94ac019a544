"""Whatever fields a notification has: they are read as they were meant, and told apart."""

import json
from itertools import combinations
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from listener.pockyt.body import read_form, read_json
from listener.pockyt.signature import FIELD, Token, fingerprint, is_ambiguous, sign, signed_text

TOKEN = Token("5cbfb079f15b150122261c8537086d77a")

# Whatever a form can carry: any text that has UTF-8.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = TEXT.filter(lambda name: name and not set(name) & set("&=") and name != FIELD)
FORMS = st.dictionaries(NAMES, TEXT, max_size=8)
# Names and values that run into each other easily.
ODD = st.dictionaries(st.text("ab&=", max_size=3), st.text("ab&=", max_size=3), max_size=3)


def print_of(fields: dict[str, str], *, verify_sign: str | None = None) -> str | None:
    """Return the fingerprint of fields; None where the signature does not fit them."""
    fields = {**fields, FIELD: verify_sign or sign(fields, TOKEN)}
    signed = signed_text(fields, [TOKEN])
    return None if signed is None else fingerprint("200043", signed)


@given(FORMS)
def test_a_form_is_read_as_it_was_meant(fields: dict[str, str]) -> None:
    sent = {**fields, FIELD: "s"}
    assert read_form(urlencode(sent).encode()).values == sent


@given(FORMS)
def test_json_text_is_read_as_it_was_meant(fields: dict[str, str]) -> None:
    sent = {**fields, FIELD: "s"}
    assert read_json(json.dumps(sent).encode()).values == sent


@given(FORMS, NAMES)
def test_an_empty_field_makes_no_other_notification(fields: dict[str, str], name: str) -> None:
    added = {name: "", **fields}
    assert print_of(added) == print_of(fields)
    if all(fields.values()):
        assert print_of(added, verify_sign=sign(fields, TOKEN)) == print_of(fields)


@given(FORMS, FORMS)
def test_other_fields_are_another_notification(one: dict[str, str], two: dict[str, str]) -> None:
    def said(fields: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in fields.items() if value}

    if is_ambiguous(one) or is_ambiguous(two):
        return
    assert (print_of(one) == print_of(two)) is (said(one) == said(two))


@given(ODD, ODD)
def test_bodies_with_one_signature_are_one_notification(
    one: dict[str, str], two: dict[str, str]
) -> None:
    found = print_of(two, verify_sign=sign(one, TOKEN))
    assert found in (None, print_of(one))


@given(FORMS)
def test_a_message_cut_into_other_fields_is_the_same(fields: dict[str, str]) -> None:
    """Any run of neighbours may be written as one name or as one value."""
    pairs = [f"{name}={fields[name]}" for name in sorted(fields)]
    for start, end in combinations(range(len(pairs) + 1), 2):
        run = "&".join(pairs[start:end])
        others = dict(pair.split("=", 1) for pair in (*pairs[:start], *pairs[end:]))
        for cut in (run.partition("="), run.rpartition("=")):
            anew = {**others, cut[0]: cut[2]}
            assert print_of(anew, verify_sign=sign(fields, TOKEN)) in (None, print_of(fields))
