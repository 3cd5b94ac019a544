"""What verifies is never refused, however it was sent; what is refused is counted and logged."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import pytest

from listener.keys import Role
from listener.pockyt import signature
from listener.web.metrics import NOTIFY_STATUSES
from listener.web.refusals import FORWARDED_CHARS_MAX, PART_CHARS_MAX
from tests.support.deliveries import JSON, NOTIFY, entries, post
from tests.support.service import (
    FIELDS,
    FORM,
    MERCHANT_NO,
    STORE_NO,
    TOKEN,
    TOKEN_TEXT,
    Serving,
    serving,
    signed,
)

SIGNED: Final = {**FIELDS, signature.FIELD: signature.sign(FIELDS, TOKEN)}
SIGN: Final = SIGNED[signature.FIELD].encode()
AS_JSON: Final = json.dumps(SIGNED).encode()
AS_FORM: Final = signed(FIELDS)
BOM: Final = b"\xef\xbb\xbf"


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def raw(service: Serving, request: bytes, *, ends: bool = False) -> bytes:
    """Send bytes as they are, and close our half if it ``ends``; return all that comes back."""
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request)
    if ends:
        writer.write_eof()
    told = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(5 if ends else 0.5):
            while part := await reader.read(4_096):
                told += part
                if told.endswith(b"success"):
                    break
    writer.close()
    return told


def head(target: str = NOTIFY, *more: str, body: bytes = AS_FORM) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: x", f"Content-Type: {FORM}", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


@pytest.mark.parametrize(
    ("path", "store_no"),
    [
        (f"/notify/{MERCHANT_NO}/{STORE_NO}/", STORE_NO),
        (f"/notify/{MERCHANT_NO}/{STORE_NO}//", STORE_NO),
        (f"//notify/{MERCHANT_NO}/{STORE_NO}", STORE_NO),
        (f"/notify//{MERCHANT_NO}///{STORE_NO}", STORE_NO),
        (f"/notify/{MERCHANT_NO}/", None),
        (f"///notify//{MERCHANT_NO}//", None),
        (f"{NOTIFY}/?a=b/c", STORE_NO),
        (f"{NOTIFY}?source=portal&x=%2F", STORE_NO),
        (f"/notify/%32{MERCHANT_NO[1:]}/%33{STORE_NO[1:]}/", STORE_NO),
        (f"/notify/%32{MERCHANT_NO[1:]}/%33{STORE_NO[1:]}", STORE_NO),
        (f"http://proxy.example{NOTIFY}", STORE_NO),
        (f"http://proxy.example/{NOTIFY}/", STORE_NO),
    ],
)
async def test_an_extra_slash_changes_nothing(
    service: Serving, path: str, store_no: str | None
) -> None:
    assert (await raw(service, head(path))).endswith(b"\r\n\r\nsuccess")
    (entry,) = await entries(service)
    assert entry["storeNo"] == store_no


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, AS_JSON),
        ("text/plain", AS_JSON),
        (None, AS_JSON),
        (JSON, AS_FORM),
        (f"{FORM}, {FORM}", AS_FORM),
        (f"{FORM},{JSON}", AS_FORM),
        (f"{JSON}, {JSON}; charset=utf-8", AS_JSON),
        (f"{FORM} charset=UTF-8", AS_FORM),
        (f"{FORM}, charset=utf-8", AS_FORM),
        (f"{JSON}; charset=UTF-8,UTF-8", AS_JSON),
        (f"{FORM}; text/html; charset=UTF-8", AS_FORM),
        (f'{FORM}; charset="utf-8"', AS_FORM),
        (f'{FORM}; charset="a,b"', AS_FORM),
        (f"{FORM};charset=GBK;", AS_FORM),
        (FORM.upper(), AS_FORM),
        ("application/json;charset=ISO-8859-1", AS_JSON),
        ("text/json", AS_JSON),
        ("application/vnd.pockyt+json", AS_JSON),
        (FORM, b"\r\n" + AS_FORM),
        (FORM, AS_JSON + b"="),
        (FORM, quote(AS_JSON).encode() + b"="),
        (FORM, quote_plus(AS_JSON).encode() + b"=\n"),
        (JSON, AS_JSON + b"="),
        (FORM, AS_FORM + b"\r\n"),
        (FORM, AS_FORM + b"\n"),
        (FORM, AS_FORM + b"&"),
        (FORM, AS_FORM + b"%0D%0A"),
        (JSON, AS_JSON.replace(SIGN, b"%b\\n" % SIGN)),
        (JSON, AS_FORM + b"\r\n"),
        (JSON, b" \r\n" + AS_JSON + b"\r\n"),
        (FORM, b"\n" + AS_JSON + b"\n"),
        (FORM, BOM + AS_FORM),
        (JSON, BOM + AS_JSON),
        (FORM, BOM + AS_JSON),
        (JSON, BOM + AS_FORM + b"\n"),
        (
            FORM,
            AS_FORM.replace(SIGN, SIGN.upper()),
        ),
        (
            JSON,
            AS_JSON.replace(SIGN, SIGN.upper()),
        ),
    ],
)
async def test_a_notification_that_verifies_is_recorded_whatever_its_label(
    service: Serving, content_type: str | None, body: bytes
) -> None:
    assert (await post(service, body, content_type=content_type))[0] == 200
    # The same message in its plainest form is a repeat of it.
    assert (await post(service, AS_FORM))[0] == 200
    (entry,) = await entries(service)
    assert (entry["fields"], entry["held"]) == (dict(FIELDS), False)
    assert isinstance(entry["deliveries"], dict)
    assert entry["deliveries"]["count"] == 2


@pytest.mark.parametrize("more", [b"\0", b"+", b" ", b"%20", b"0"], ids=repr)
async def test_of_what_follows_a_signature_only_line_breaks_are_forgiven(
    service: Serving, more: bytes
) -> None:
    assert (await post(service, AS_FORM + more))[0] == 401
    assert await entries(service) == []


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", f"{FORM}, text/html"])
async def test_a_type_of_which_a_part_is_not_read_is_415(
    service: Serving, content_type: str
) -> None:
    assert (await post(service, AS_FORM, content_type=content_type))[0] == 415


async def test_a_line_break_that_was_signed_is_a_part_of_its_value(service: Serving) -> None:
    fields = {"time": "1", "zz": "ends with\n"}
    sent = {**fields, signature.FIELD: signature.sign(fields, TOKEN)}
    body = "&".join(f"{name}={value}" for name, value in sorted(sent.items())).encode()
    assert (await post(service, body, content_type="text/plain"))[0] == 200
    (entry,) = await entries(service)
    assert entry["fields"] == fields


async def test_a_blank_may_be_a_plus_or_an_escape(service: Serving) -> None:
    fields = {**FIELDS, "note": "a b+c%20d 100%"}
    body = signed(fields)
    assert (await post(service, body))[0] == 200
    assert (await post(service, body.replace(b"+", b"%20")))[0] == 200
    (entry,) = await entries(service)
    assert entry["fields"] == fields


@pytest.mark.parametrize("is_json", [False, True])
async def test_a_message_in_gbk_is_kept_and_held(service: Serving, is_json: bool) -> None:
    fields = {**FIELDS, "note": "测试商品"}
    text = signature.join(fields).encode("gbk")
    sent = {**fields, signature.FIELD: TOKEN.sign(text).decode()}
    if is_json:
        body, content_type = json.dumps(sent, ensure_ascii=False).encode("gbk"), JSON
    else:
        body, content_type = urlencode(sent, encoding="gbk").encode(), f"{FORM};charset=GBK"
    assert (await post(service, body, content_type=content_type))[0] == 200
    (entry,) = await entries(service)
    assert entry["fields"] == fields
    assert (entry["held"], entry["heldReason"]) == (True, "not_utf8")


async def test_bytes_that_are_not_text_are_stored_and_held_if_they_are_signed(
    service: Serving,
) -> None:
    sign = TOKEN.sign(b"note=caf\xe9").decode()
    as_json = b'{"note":"caf\xe9","verifySign":"%b"}' % sign.encode()
    assert (await post(service, as_json, content_type=JSON))[0] == 200
    assert (await post(service, f"note=caf%E9&verifySign={sign}".encode()))[0] == 200
    forged = as_json.replace(b"caf", b"bar")
    assert (await post(service, forged, content_type=JSON))[0] == 400
    assert (await post(service, b"note=caf%E9&verifySign=" + b"0" * 32))[0] == 400
    assert (await post(service, b"note=%B2%E2&verifySign=" + b"0" * 32))[0] == 401
    (entry,) = await entries(service)
    assert entry["fields"] == {"note": "caf\ufffd"}
    assert entry["heldReason"] == "not_utf8"


async def test_a_message_cut_into_other_fields_is_a_repeat_and_holds_nothing(
    service: Serving,
) -> None:
    paid = {**FIELDS, "status": "success"}
    pairs = [f"{name}={paid[name]}" for name in sorted(paid)]
    sign = signature.sign(paid, TOKEN)
    assert (await post(service, signed(paid)))[0] == 200
    cuts = 0
    for start in range(len(pairs)):
        for end in range(start + 2, len(pairs) + 1):
            others = dict(pair.split("=") for pair in (*pairs[:start], *pairs[end:]))
            run = "&".join(pairs[start:end])
            for name, _, value in (run.partition("="), run.rpartition("=")):
                sent = {**others, name: value, signature.FIELD: sign}
                status, _, _ = await post(service, urlencode(sent).encode())
                # Where the order of names allows it, the signature fits.
                assert status in (200, 401)
                cuts += status == 200
    (entry,) = await entries(service)
    assert isinstance(entry["deliveries"], dict)
    assert cuts > 20
    assert entry["deliveries"]["count"] == 1 + cuts
    _, found = await service.get(f"/v1/transactions/{paid['transactionNo']}", service.key())
    assert isinstance(found, dict)
    assert (found["status"], found["held"]) == ("paid", False)


async def test_cutting_an_empty_signed_value_into_other_fields_is_in_vain(service: Serving) -> None:
    fields = {**FIELDS, "note": ""}
    sign = signature.sign(fields, TOKEN)
    assert (await post(service, signed(fields)))[0] == 200
    anew = {name: value for name, value in FIELDS.items() if name != "reference"}
    anew |= {"note": f"&reference={FIELDS['reference']}", signature.FIELD: sign}
    assert (await post(service, urlencode(anew).encode()))[0] == 200
    (entry,) = await entries(service)
    assert entry["held"] is False


async def test_json_with_numbers_nulls_and_nested_values_is_verified_as_it_was_sent(
    service: Serving,
) -> None:
    goods = '[{"name":"a \\" b","price":1.50,"tags":[null,true]}]'
    fields = {**FIELDS, "amount": "13.0", "count": "1e2", "goodsInfo": goods, "ok": "true"}
    sent = json.dumps({**fields, "verifySign": signature.sign(fields, TOKEN), "note": None})
    for name in ("amount", "count", "ok", "goodsInfo"):
        sent = sent.replace(f'"{name}": {json.dumps(fields[name])}', f'"{name}": {fields[name]}')
    assert '"amount": 13.0,' in sent
    assert (await post(service, sent.encode(), content_type=JSON))[0] == 200
    (entry,) = await entries(service)
    assert entry["fields"] == fields


@pytest.mark.parametrize(
    "goods",
    [r'[{"name":"a\/b \u00e9 \"{}\"","price":1.50}]', r'{"\u540d":["\\","\ud83d\ude00",null]}'],
)
async def test_nested_json_is_verified_also_with_its_escapes_as_they_were_sent(
    service: Serving, goods: str
) -> None:
    fields = {**FIELDS, "note": "a/b é", "goodsInfo": goods}
    sent = json.dumps({**fields, "verifySign": signature.sign(fields, TOKEN)}).replace("/", r"\/")
    assert json.dumps(goods).replace("/", r"\/") in sent
    spaced = goods.replace('":', '" :\n ')
    sent = sent.replace(json.dumps(goods).replace("/", r"\/"), spaced)
    assert (await post(service, sent.encode(), content_type=JSON))[0] == 200
    (entry,) = await entries(service)
    assert entry["fields"] == fields


@pytest.mark.parametrize(
    "request_",
    [
        head(NOTIFY, "Connection: close"),
        head().replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"\r\n\r\n" + head(),
        head(
            NOTIFY, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAE"
        ),
        head(NOTIFY, "Upgrade: websocket", "Connection: Upgrade"),
        head(NOTIFY, "X-Forwarded-For: a", "X-Forwarded-For: b"),
        head(NOTIFY, "Content-Encoding: UTF-8"),
        head(NOTIFY, "Content-Encoding: identity"),
        head().replace(
            b"Content-Length: %d\r\n\r\n%b" % (len(AS_FORM), AS_FORM),
            b"Transfer-Encoding: chunked\r\n\r\n1\r\n%b\r\n%x;x=y\r\n%b\r\n0\r\nX: y\r\n\r\n"
            % (AS_FORM[:1], len(AS_FORM) - 1, AS_FORM[1:]),
        ),
    ],
)
@pytest.mark.parametrize("ends", [False, True])
async def test_a_request_as_libraries_send_it_is_answered_also_when_its_sender_has_ended(
    service: Serving, request_: bytes, ends: bool
) -> None:
    assert (await raw(service, request_, ends=ends)).endswith(b"\r\n\r\nsuccess")


async def test_every_request_from_before_a_sender_ended_is_answered(service: Serving) -> None:
    # More than aiohttp reads at once.
    count = 100
    bodies = [signed({**FIELDS, "transactionNo": f"{number}"}) for number in range(count)]
    told = b""
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"".join(head(body=body) for body in bodies))
    writer.write_eof()
    async with asyncio.timeout(5):
        told = await reader.read()
    writer.close()
    assert told.count(b"\r\n\r\nsuccess") == count


async def test_a_body_that_its_sender_cut_off_is_answered_as_well(service: Serving) -> None:
    told = await raw(service, head()[:-10], ends=True)
    assert b" 400 " in told
    assert b'"code":"cut-off"' in told
    assert await entries(service) == []


@pytest.mark.parametrize("request_", [b"", b"POST /notify/1", head("/v1/pos/stream")[:40]])
async def test_a_sender_that_ends_before_it_asked_is_let_go(
    service: Serving, request_: bytes
) -> None:
    assert await raw(service, request_, ends=True) == b""


def counts(text: str) -> dict[str, float]:
    """Read the counts of notifications by status from the metrics."""
    start = "listener_notifications_total{"
    lines = [line.split() for line in text.splitlines() if line.startswith(start)]
    return {name.split('"')[1]: float(value) for name, value in lines}


async def test_every_refusal_is_counted_from_zero_and_logged_with_its_sender(
    service: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    admin = {"Authorization": f"Bearer {service.key(Role.ADMIN, merchant_no=None, store_no=None)}"}

    async def told() -> dict[str, float]:
        async with service.client.get(service.url + "/metrics", headers=admin) as answer:
            return counts(await answer.text())

    assert await told() == {str(status): 0.0 for status in NOTIFY_STATUSES}
    await post(service, AS_FORM, path="/notify/999999")
    for path in ("/notify", "/notify/", "//notify", "/notify/1/2/3", "/Notify/1", "/notify//"):
        await post(service, AS_FORM, path=path, headers={"X-Forwarded-For": "203.0.113.9"})
    await post(service, b"", method="GET")
    await post(service, b"x" * 70_000)
    await post(service, AS_FORM, content_type="text/html")
    await post(service, b"{", content_type=JSON)
    await post(service, AS_FORM, headers={"Expect": "much"})
    await post(service, b"a=1")
    found = {status: count for status, count in (await told()).items() if count}
    assert found == {"404": 7, "405": 1, "413": 1, "415": 1, "400": 1, "417": 1, "401": 1}
    lines = [one.__dict__["fields"] for one in caplog.records if "fields" in one.__dict__]
    assert {line["status"] for line in lines} == {400, 401, 404, 405, 413, 415, 417}
    assert {line["sender"] for line in lines} == {"127.0.0.1"}
    assert {line["path"] for line in lines} >= {NOTIFY, "/notify/999999", "/notify"}
    assert "203.0.113.9" in {line["forwardedFor"] for line in lines}
    assert TOKEN_TEXT not in caplog.text


@pytest.mark.parametrize(
    "lines",
    [("203.0.113.9", "192.0.2.7"), ("203.0.113.9, 192.0.2.7",), (f"{'9' * 1_000}, 192.0.2.7",)],
    ids=["a line of the proxy's own", "one line", "the sender's is long"],
)
async def test_whoever_names_another_as_the_sender_is_named_himself(
    service: Serving, caplog: pytest.LogCaptureFixture, lines: Sequence[str]
) -> None:
    headers = [("Content-Type", FORM), *(("X-Forwarded-For", line) for line in lines)]
    async with service.client.post(service.url + NOTIFY, data=b"a=1", headers=headers) as answer:
        assert answer.status == 401
    (told,) = [one.__dict__["fields"] for one in caplog.records if one.args == ("refused",)]
    assert told["forwardedFor"].endswith(", 192.0.2.7")
    assert len(told["forwardedFor"]) <= FORWARDED_CHARS_MAX


async def test_a_flood_of_refusals_is_one_line_a_second_of_each_kind(
    service: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(100):
        await post(service, b"a=1")
        await post(service, b"a=1", path="/notify/999999")
    lines = [one for one in caplog.records if one.name == "listener.web.refusals"]
    # Two kinds, one line each at first and one a second since then.
    assert 2 <= len(lines) <= 20


@pytest.mark.parametrize("part", [TOKEN_TEXT, "x" * (PART_CHARS_MAX + 1), "x" * 300])
async def test_of_a_long_part_of_a_refused_path_only_the_beginning_is_logged(
    service: Serving, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    short = "y" * PART_CHARS_MAX
    await post(service, AS_FORM, path=f"/notify/{part}")
    await post(service, AS_FORM, path=f"/notify/{short}/{part}/z")
    lines = [one.__dict__["fields"] for one in caplog.records if "fields" in one.__dict__]
    begin = part[:4]
    paths = [f"/notify/{begin}…", f"/notify/{short}/{begin}…/z"]
    assert [line["path"] for line in lines if "path" in line] == paths
    assert part not in caplog.text
