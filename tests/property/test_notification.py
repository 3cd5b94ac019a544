"""Whatever fields a notification has: they are read as they were meant, and told apart."""

import json
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from listener.pockyt.notification import fingerprint, read_fields

# Whatever a form can carry: any text that has UTF-8.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = TEXT.filter(lambda name: name and not set(name) & set("&="))
FORMS = st.dictionaries(NAMES, TEXT, max_size=8)


@given(FORMS)
def test_a_form_is_read_as_it_was_meant(fields: dict[str, str]) -> None:
    assert read_fields(urlencode(fields).encode(), is_json=False) == fields


@given(FORMS)
def test_json_text_is_read_as_it_was_meant(fields: dict[str, str]) -> None:
    assert read_fields(json.dumps(fields).encode(), is_json=True) == fields


@given(FORMS, TEXT)
def test_neither_empty_fields_nor_the_signature_make_another_notification(
    fields: dict[str, str], name: str
) -> None:
    added = {**fields, "verifySign": "x"}
    if name not in fields:
        added[name] = ""
    fields.pop("verifySign", None)
    added["verifySign"] = "y"
    assert fingerprint("200043", added) == fingerprint("200043", fields)


@given(FORMS, FORMS)
def test_other_fields_are_another_notification(one: dict[str, str], two: dict[str, str]) -> None:
    def said(fields: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in fields.items() if value and name != "verifySign"}

    same = fingerprint("200043", one) == fingerprint("200043", two)
    assert same is (said(one) == said(two))
