"""A form that is laid out like one that verified is read in one match, and as any other is."""

import pytest

from listener.pockyt.body import read_form
from listener.pockyt.layout import LAYOUTS_KEPT, Layouts
from listener.pockyt.signature import FIELD, signed_text
from tests.support.service import FIELDS, TOKEN
from tests.support.service import signed as form


@pytest.fixture
def layouts() -> Layouts:
    """Layouts that know one form's."""
    known = Layouts()
    known.learn(read_form(form(FIELDS)).values)
    return known


def test_a_known_layout_gives_the_fields_and_the_signed_text(layouts: Layouts) -> None:
    body = form({**FIELDS, "amount": "1,300.50", "reference": "a:b=c~"}).replace(b"%2C", b",")
    body = body.replace(b"%3A", b":").replace(b"%3D", b"=")
    found = layouts.read(body)
    assert found is not None
    fields, signed = found
    assert fields.values == read_form(body).values
    assert signed == signed_text(fields.values, [TOKEN])
    assert fields.encoding == "utf-8"


@pytest.mark.parametrize("value", ["", "%41", "a+b", "ü", "a b", "a\r\n", "a\0b", "a&b=c", "&"])
def test_a_value_that_is_not_plain_is_read_in_full(layouts: Layouts, value: str) -> None:
    body = form(FIELDS)
    assert layouts.read(body) is not None
    assert layouts.read(body.replace(b"amount=13.00", f"amount={value}".encode())) is None


@pytest.mark.parametrize(
    "names",
    [["b", "a", FIELD], ["a", "b", "c", FIELD], ["a", FIELD], ["a", "B", FIELD], ["a", "a", FIELD]],
)
def test_another_form_is_read_in_full(names: list[str]) -> None:
    layouts = Layouts()
    layouts.learn({"a": "1", "b": "2", FIELD: "s"})
    assert layouts.read(b"a=1&b=2&verifySign=s") is not None
    assert layouts.read("&".join(f"{name}=1" for name in names).encode()) is None


@pytest.mark.parametrize("name", ["a b", "a&b", "a=b", "a%", "ä", "a.b", ""])
def test_a_name_that_is_not_plain_is_not_learned(name: str) -> None:
    layouts = Layouts()
    layouts.learn({"a": "1", name: "2", FIELD: "s"})
    assert layouts.read(f"a=1&{name}=2&verifySign=s".encode()) is None


def test_the_newest_layouts_are_kept() -> None:
    layouts = Layouts()
    names = [f"a{n}" for n in range(LAYOUTS_KEPT + 1)]
    for name in names:
        layouts.learn({name: "1", "b": "2", FIELD: "s"})
    known = [layouts.read(f"{name}=1&b=2&verifySign=s".encode()) is not None for name in names]
    assert known == [False, *[True] * LAYOUTS_KEPT]
