"""Reading the body of a notification: its fields exactly as they were signed, within limits."""

import json
import time
from collections.abc import Callable
from itertools import count
from typing import Final
from urllib.parse import quote, urlencode

import pytest

from listener.errors import SignatureError, UnreadableError
from listener.pockyt import body as bodies
from listener.pockyt.body import (
    FIELDS_MAX,
    NODES_MAX,
    SEPARATORS_MAX,
    TORN_MAX,
    Fields,
    read_form,
    read_json,
    readings,
)
from listener.pockyt.layout import LAYOUTS_KEPT, Layouts
from listener.pockyt.notification import BODY_BYTES_MAX
from listener.pockyt.texts import DEPTH_MAX

SIGNATURE: Final = "verifySign=s"


def form(text: str) -> dict[str, str]:
    """Read a form that has a signature; return its other fields."""
    fields = read_form(f"{text}&{SIGNATURE}".encode())
    assert fields.encoding == "utf-8"
    assert fields.values.pop("verifySign") == "s"
    return fields.values


def as_json(text: str) -> dict[str, str]:
    """Read a JSON object that has a signature; return its other fields."""
    fields = read_json(('{"verifySign":"s",' + text[1:]).encode())
    assert fields.encoding == "utf-8"
    assert fields.values.pop("verifySign") == "s"
    return fields.values


def test_a_plus_and_an_escape_are_decoded_once() -> None:
    assert form("a=1+2%2B3%252B&b=%E6%B1%89") == {"a": "1 2+3%2B", "b": "汉"}


def test_a_value_keeps_its_equals_signs_and_its_spaces() -> None:
    assert form("a=b=c&d= e ") == {"a": "b=c", "d": " e "}


def test_a_name_without_a_value_is_an_empty_field_and_no_name_is_none() -> None:
    assert form("a&&b=&") == {"a": "", "b": ""}


def test_a_percent_sign_that_is_not_an_escape_stays() -> None:
    assert form("a=100%&b=%zz&c=%4") == {"a": "100%", "b": "%zz", "c": "%4"}


@pytest.mark.parametrize("text", ["%E6%B1%89=%3D%25 + ", "%0D%0A_=41=%E6%B1%89", "é%41%7e%7E\t"])
def test_a_form_of_many_escapes_is_read_as_one_of_few(text: str) -> None:
    many = "%41" * (TORN_MAX + 1)
    assert form(f"{text}&b={many}") == {**form(text), "b": "A" * (TORN_MAX + 1)}


def test_nested_json_is_compact_in_source_order_with_its_numbers_as_sent() -> None:
    fields = as_json('{"n": {"b": [1.50, true, null, "\\u6c49"], "a": 1e2}, "x": -0, "y": false}')
    assert fields == {"n": '{"b":[1.50,true,null,"汉"],"a":1e2}', "x": "-0", "y": "false"}


def test_null_fields_are_left_out() -> None:
    assert as_json('{"a": null, "b": ""}') == {"b": ""}


def test_an_empty_field_that_could_hide_a_neighbour_is_left_out() -> None:
    assert form("a%26b=&c%3D1=&d=&e%26=1") == {"d": "", "e&": "1"}


@pytest.mark.parametrize(
    "body",
    [
        b"verifySign=s&a=1&a=1",
        b"verifySign=s&" + quote("a").encode() + b"=1&%61=2",
        b"&".join(b"f%d=" % n for n in range(FIELDS_MAX + 1)),
        b"&" * (SEPARATORS_MAX + 1) + b"verifySign=s",
        b"verifySign=s&a=" + b"%41" * TORN_MAX + b"%4",
    ],
)
def test_a_form_that_cannot_be_read_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(UnreadableError) as refused:
        read_form(body)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({f"f{n}": "" for n in range(FIELDS_MAX + 1)}).encode(),
        b'{"a":{"b":1,"b":2}}',
        b'{"a":1,"a":1}',
        b"[" * 60_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"a":Infinity}',
        b'{"a":"\\udc00"}',
        b'{"a":"\xff"}',
        b"{",
        b"[]",
        b"null",
        b"",
    ],
)
def test_json_that_cannot_be_read_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(UnreadableError) as refused:
        read_json(body)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


def test_as_many_fields_as_are_allowed_are_read() -> None:
    names = [f"f{n}" for n in range(FIELDS_MAX - 1)]
    assert len(form("&".join(names))) == FIELDS_MAX - 1
    assert len(as_json(json.dumps(dict.fromkeys(names, "")))) == FIELDS_MAX - 1


def test_as_many_separators_as_are_allowed_are_read() -> None:
    assert read_form(b"&" * SEPARATORS_MAX + b"verifySign=s").values == {"verifySign": "s"}


def test_escapes_may_be_torn_where_there_are_few() -> None:
    assert form("a=" + "%" * TORN_MAX) == {"a": "%" * TORN_MAX}


@pytest.mark.parametrize(("more", "is_read"), [(0, True), (1, False)])
def test_the_values_of_json_are_limited_wherever_they_are_nested(more: int, is_read: bool) -> None:
    # Two objects' worth of brackets and commas: the outer one has two members, the list the rest.
    body = ('{"verifySign":"s","a":[' + ",".join(["1"] * (NODES_MAX - 2 + more)) + "]}").encode()
    if is_read:
        assert len(read_json(body).values) == 2
    else:
        with pytest.raises(UnreadableError, match="too many values"):
            read_json(body)


@pytest.mark.parametrize(("more", "is_read"), [(0, True), (1, False)])
def test_the_depth_of_json_is_limited(more: int, is_read: bool) -> None:
    depth = DEPTH_MAX - 1 + more
    body = ('{"verifySign":"s","a":' + "[" * depth + "]" * depth + "}").encode()
    if is_read:
        assert read_json(body).values["a"] == "[" * depth + "]" * depth
    else:
        with pytest.raises(UnreadableError, match="nested too deeply"):
            read_json(body)


def test_brackets_inside_a_text_count_for_nothing() -> None:
    text = '[{,"\\' * NODES_MAX
    assert as_json(json.dumps({"a": text})) == {"a": text}


@pytest.mark.parametrize("body", [b"", b"a=1", b"verifysign=1", b"xverifySig%6e=1&a=b", b"a=%41"])
def test_a_form_without_a_signature_is_not_decoded(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_decoder", None)
    with pytest.raises(SignatureError):
        read_form(body)


@pytest.mark.parametrize("body", [b"a=1&a=2", b"\xff=1", b"a=caf\xe9"])
def test_a_form_without_a_signature_is_unreadable_where_that_shows(body: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_form(body)


def test_a_signature_under_an_escaped_name_is_found() -> None:
    assert read_form(b"a=1&%76erif%79Sign=s").values == {"a": "1", "verifySign": "s"}


def test_json_without_a_signature_is_unsigned() -> None:
    with pytest.raises(SignatureError):
        read_json(b'{"a":"verifySign"}')


def test_a_form_that_is_not_utf_8_keeps_its_bytes_and_is_read_as_gb18030() -> None:
    for body in (b"verifySign=s&note=%B2%E2%CA%D4", b"verifySign=s&note=\xb2\xe2\xca\xd4"):
        fields = read_form(body)
        assert fields.values["note"].encode(fields.encoding) == "测试".encode("gbk")
        assert fields.as_text() == {"verifySign": "s", "note": "测试"}
        assert fields.suspect == "not_utf8"


def test_json_that_is_not_utf_8_is_read_in_the_same_way() -> None:
    fields = read_json('{"verifySign":"s","note":"测试\\u6c49"}'.encode("gbk"))
    assert fields.values["note"].encode(fields.encoding) == "测试汉".encode("gbk")
    assert (fields.as_text()["note"], fields.suspect) == ("测试汉", "not_utf8")


def test_bytes_that_are_no_text_at_all_are_replaced_and_make_an_unsigned_form_unreadable() -> None:
    fields = read_form(b"verifySign=s&note=caf%e9")
    assert fields.as_text()["note"] == "caf\ufffd"
    assert isinstance(fields.fault(), UnreadableError)
    told = b'{"verifySign":"s","note":"caf\xe9 \\u00e8"}'
    for body in (told, b"\xef\xbb\xbf" + told):
        assert read_json(body).values == {"verifySign": "s", "note": "caf\xe9 \xe8"}
    with pytest.raises(UnreadableError, match="neither UTF-8 nor GB18030"):
        # Which bytes were signed for that character, nobody knows.
        read_json(told.replace(b"00e8", b"6c49"))
    assert isinstance(read_form(b"verifySign=s&note=%b2%e2").fault(), SignatureError)


def test_the_declared_way_to_read_a_body_comes_first_and_every_other_after_it() -> None:
    text = json.dumps({"verifySign": "s", "a": "1"}).encode()
    said = {"verifySign": "s", "a": "1"}
    first, *others = readings(text, is_json=True)
    assert isinstance(first, Fields)
    assert first.values == said
    first, *others = readings(text, is_json=False)
    assert isinstance(first, Fields)
    assert "verifySign" not in first.values
    assert isinstance(others[-1], Fields)
    assert others[-1].values == said


@pytest.mark.parametrize("is_json", [True, False])
def test_a_byte_order_mark_and_closing_line_breaks_are_no_part_of_a_form(is_json: bool) -> None:
    sent = b"\xef\xbb\xbfverifySign=s&a=1\r\n\n"
    found = [way.values for way in readings(sent, is_json=is_json) if isinstance(way, Fields)]
    assert {"a": "1", "verifySign": "s"} in found


# Each would take tens of milliseconds if it were split, decoded or walked before it is counted.
DEAR: Final = {
    "JSON escapes": b'{"x":"' + b"\\/" * 32_000 + b'","a":{',
    "JSON texts of escapes": b'{"a":[' + b'"\\/",' * 12_000 + b"0]}",
    "many fields": b"a=%41&" * 10_900,
    "separators": b"&" * BODY_BYTES_MAX,
    "escapes without a signature": b"a=" + b"%41" * 21_000,
    "torn escapes": b"verifySign=s&a=" + b"%" * 65_000,
    "torn escapes in many fields": b"verifySign=s&" + (b"%" * 900 + b"=1&") * 60,
    "JSON values": b'{"a":[' + b"true," * 12_000 + b"0]}",
    "JSON texts": b'{"a":[' + b'"",' * 20_000 + b"0]}",
    "JSON objects": b'{"a":' * 10_000,
    "JSON brackets": b"{" + b"[" * 65_000,
    "a long value": b"a=" + b"x" * 65_000 + b"\n",
    "quotes": b'{"a":' + b'"' * 65_000,
    "escaped quotes": b'{"a":"' + b'\\"' * 32_000,
}


@pytest.mark.parametrize("name", sorted(DEAR))
@pytest.mark.parametrize("is_json", [True, False])
def test_a_dear_body_is_refused_cheaply(name: str, is_json: bool) -> None:
    layouts = Layouts(clock=count().__next__)
    for n in range(LAYOUTS_KEPT):
        fields = {"a": "1", f"b{n}": "2", "verifySign": "s"}
        layouts.learn(urlencode(fields).encode(), fields)

    def refuse() -> None:
        assert layouts.read(DEAR[name]) is None
        for found in readings(DEAR[name], is_json=is_json):
            assert not isinstance(found, Fields)

    # 4 ms on a machine that refuses the dearest in 4 ms; slower where that is slower.
    assert least_seconds(refuse) < 2 * least_seconds(lambda: [str(n) for n in range(50_000)])


def least_seconds(work: Callable[[], object]) -> float:
    """Return the processor time that something takes when nothing disturbs it."""

    def seconds() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(seconds() for _ in range(5))


def test_a_long_form_of_escapes_is_decoded_cheaply() -> None:
    body = urlencode({"verifySign": "s", "note": "汉" * 7_000}).encode()
    started = time.process_time()
    assert read_form(body).values["note"] == "汉" * 7_000
    assert time.process_time() - started < 0.02
