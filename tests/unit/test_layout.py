"""A form that is laid out like one that verified is read in one match, and as any other is."""

import pytest

from listener.pockyt.body import read_form
from listener.pockyt.layout import LAYOUTS_KEPT, LEARN_SECONDS, NAMES_CHARS_MAX, Layouts
from listener.pockyt.signature import FIELD, signed_text
from tests.support.service import FIELDS, TOKEN, signed


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def form(names: list[str], value: str = "1") -> bytes:
    return "&".join(f"{name}={value}" for name in names).encode()


def taught(*forms: bytes) -> Layouts:
    """Make layouts that have seen some forms, each when it was time to learn."""
    clock = Clock()
    layouts = Layouts(clock=clock)
    for body in forms:
        layouts.learn(body, dict(pair.split("=", 1) for pair in body.decode().split("&")))
        clock.now += LEARN_SECONDS
    return layouts


def test_a_known_layout_gives_the_fields_and_the_signed_text() -> None:
    fields = {**FIELDS, "amount": "1,300.50", "reference": "a:b=c~"}
    body = signed(fields).replace(b"%2C", b",").replace(b"%3A", b":").replace(b"%3D", b"=")
    found = taught(signed(FIELDS)).read(body)
    assert found is not None
    said, text = found
    assert said.values == read_form(body).values
    assert said.is_plain
    assert text == signed_text(said.values, [TOKEN])


NOT_PLAIN = ["", "%41", "a+b", "ü", "a b", "a\r\n", "a\0b", "a&b=c", "&"]


@pytest.mark.parametrize("value", NOT_PLAIN)
def test_a_value_that_is_not_plain_is_read_in_full(value: str) -> None:
    body = signed(FIELDS)
    layouts = taught(body)
    assert layouts.read(body) is not None
    assert layouts.read(body.replace(b"amount=13.00", f"amount={value}".encode())) is None


@pytest.mark.parametrize("value", [value for value in NOT_PLAIN if value != "a&b=c"])
def test_a_form_that_is_not_plain_is_not_learned(value: str) -> None:
    layouts = Layouts()
    body = f"a={value}&b=1&{FIELD}=s".encode()
    layouts.learn(body, {"a": value, "b": "1", FIELD: "s"})
    assert layouts.read(form(["a", "b", FIELD])) is None


@pytest.mark.parametrize(
    "names",
    [["b", "a", FIELD], ["a", "b", "c", FIELD], ["a", FIELD], ["a", "B", FIELD], ["a", "a", FIELD]],
)
def test_another_form_is_read_in_full(names: list[str]) -> None:
    layouts = taught(form(["a", "b", FIELD]))
    assert layouts.read(form(["a", "b", FIELD])) is not None
    assert layouts.read(form(names)) is None


@pytest.mark.parametrize("name", ["a b", "a%", "ä", "a.b", "a+", ""])
def test_a_name_that_is_not_plain_is_not_learned(name: str) -> None:
    body = form(["a", name, FIELD])
    assert taught(body).read(body) is None


def test_the_names_of_a_layout_are_limited() -> None:
    rest = NAMES_CHARS_MAX - len("b" + FIELD)
    longest, longer = (form(["a" * (rest + more), "b", FIELD]) for more in (0, 1))
    layouts = taught(longest, longer)
    assert layouts.read(longest) is not None
    assert layouts.read(longer) is None


def test_the_newest_layouts_are_kept() -> None:
    forms = [form([f"a{n}", "b", FIELD]) for n in range(LAYOUTS_KEPT + 1)]
    layouts = taught(*forms, forms[1])
    assert [layouts.read(body) is not None for body in forms] == [False, *[True] * LAYOUTS_KEPT]


def test_one_layout_a_second_is_learned_however_many_orders_are_sent() -> None:
    clock = Clock()
    layouts = Layouts(clock=clock)
    one, two = form(["a", "b", FIELD]), form(["b", "a", FIELD])
    for body in (one, two):
        layouts.learn(body, dict.fromkeys(body.decode().replace("=1", "").split("&"), "1"))
    assert layouts.read(one) is not None
    assert layouts.read(two) is None
    clock.now += LEARN_SECONDS
    layouts.learn(two, {"b": "1", "a": "1", FIELD: "1"})
    assert layouts.read(two) is not None
