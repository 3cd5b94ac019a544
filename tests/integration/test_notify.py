"""The notify URL: every line of the contract's answer table, over real sockets."""

import asyncio
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from listener.errors import LedgerUnavailableError
from listener.ledger.model import Fact, Kind
from listener.ledger.results import Recorded
from listener.pockyt import signature
from listener.pockyt.body import FIELDS_MAX
from listener.pockyt.notification import BODY_BYTES_MAX
from listener.storage.sqlite import connection
from listener.web.shapes import raw
from tests.support.deliveries import JSON, NOTIFY, entries, post
from tests.support.service import (
    FIELDS,
    FORM,
    MERCHANT_NO,
    OTHER_STORE_NO,
    STORE_NO,
    STREAM,
    TOKEN,
    TOKEN_TEXT,
    Serving,
    serving,
    signed,
)

VECTORS = Path(__file__).parents[1] / "unit" / "vectors.json"
WAIT_SECONDS = 5


@pytest.fixture(name="serving_")
async def _serving(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def test_the_published_notification_reaches_ledger_and_till_once_however_often_it_comes(
    serving_: Serving,
) -> None:
    (vector,) = [v for v in json.loads(VECTORS.read_text()) if v["kind"] == "ipn"]
    body = urlencode({**vector["params"], "verifySign": vector["verifySign"]}).encode()
    key = serving_.key(terminal="T-1")
    async with connect(
        serving_.url.replace("http", "ws") + "/v1/pos/stream",
        additional_headers={"Authorization": f"Bearer {key}"},
        subprotocols=[Subprotocol("pos.v1")],
    ) as till:
        assert json.loads(await till.recv())["type"] == "hello"
        await till.send('{"type":"connect","id":1}')
        assert json.loads(await till.recv())["type"] == "ready"
        for _ in range(8):
            status, _, _ = await post(serving_, body)
            assert status == 200
        async with asyncio.timeout(WAIT_SECONDS):
            told = json.loads(await till.recv())
        assert (told["stream"], told["offset"]) == (STREAM, 1)
        assert told["event"]["type"] == "transaction.paid"
        assert told["event"]["data"]["amount"] == "0.01"
    number = vector["params"]["transactionNo"]
    status, found = await serving_.get(f"/v1/transactions/{number}", key)
    assert status == 200
    assert isinstance(found, dict)
    assert (found["amount"], found["status"]) == ("0.01", "paid")
    (entry,) = found["entries"]
    assert entry["deliveries"]["count"] == 8
    assert (await serving_.ledger.stream_heads([STREAM]))[STREAM] == 1


async def test_an_unknown_merchant_is_404_whatever_else_is_wrong(serving_: Serving) -> None:
    status, _, _ = await post(
        serving_, b"", path="/notify/999999", method="PUT", content_type="image/png"
    )
    assert status == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_another_method_than_post_is_405_whatever_else_is_wrong(
    serving_: Serving, method: str
) -> None:
    body = b"x" * (BODY_BYTES_MAX + 1)
    status, _, headers = await post(serving_, body, method=method, content_type="image/png")
    assert (status, headers["Allow"]) == (405, "POST")


async def test_a_body_over_64_kib_is_413_whatever_its_type(serving_: Serving) -> None:
    status, _, _ = await post(serving_, b"x" * (BODY_BYTES_MAX + 1), content_type="image/png")
    assert status == 413


async def test_a_body_without_a_length_is_413_past_64_kib(serving_: Serving) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 1024 + 1):
            yield b"x" * 1024

    async with serving_.client.post(
        serving_.url + NOTIFY, data=chunks(), headers={"Content-Type": FORM}
    ) as answer:
        assert answer.status == 413
        assert "success" not in await answer.text()


async def test_a_body_of_just_64_kib_is_recorded(serving_: Serving) -> None:
    short = signed({**FIELDS, "note": ""})
    body = signed({**FIELDS, "note": "n" * (BODY_BYTES_MAX - len(short))})
    assert len(body) == BODY_BYTES_MAX
    status, _, _ = await post(serving_, body)
    assert status == 200


@pytest.mark.parametrize("content_type", ["multipart/form-data", "text/html", "application/xml"])
async def test_another_type_is_415(serving_: Serving, content_type: str) -> None:
    status, _, _ = await post(serving_, signed(FIELDS), content_type=content_type)
    assert status == 415


@pytest.mark.parametrize(
    "content_type", [FORM, f"{FORM}; charset=UTF-8", "text/plain", "text/plain;charset=gbk", None]
)
async def test_all_but_json_is_read_as_a_form(serving_: Serving, content_type: str | None) -> None:
    status, _, _ = await post(serving_, signed(FIELDS), content_type=content_type)
    assert status == 200
    (entry,) = await entries(serving_)
    assert entry["fields"] == dict(FIELDS)


async def test_json_numbers_keep_the_text_that_was_signed(serving_: Serving) -> None:
    fields = {**FIELDS, "amount": "13.00", "goodsInfo": '[{"name":"a b","price":1.50}]'}
    verify_sign = signature.sign(fields, TOKEN)
    text = json.dumps({**FIELDS, "verifySign": verify_sign, "note": None})
    text = text.replace('"amount": "13.00"', '"amount": 13.00')
    text = text[:-1] + ', "goodsInfo": [{"name": "a b", "price": 1.50}]}'
    status, _, _ = await post(serving_, text.encode(), content_type=JSON)
    assert status == 200
    (entry,) = await entries(serving_)
    assert (entry["amount"], entry["fields"]) == ("13.00", fields)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, signed(FIELDS) + b"&note=\xff"),
        (FORM, signed(FIELDS) + b"&note=%e9"),
        (FORM, signed(FIELDS) + b"&note=%ff"),
        (FORM, signed(FIELDS) + b"&status=success"),
        (FORM, signed(FIELDS) + b"&status="),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b'"text"'),
        (JSON, b'{"a":"\xff"}'),
        (JSON, b'{"a":"1","a":"1"}'),
        (JSON, b'{"a":NaN}'),
        (JSON, b'{"a":"\\ud800"}'),
        (JSON, b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
        (JSON, b'{"success":1,"success":1}'),
    ],
)
async def test_an_unreadable_body_is_400(serving_: Serving, content_type: str, body: bytes) -> None:
    status, _, _ = await post(serving_, body, content_type=content_type)
    assert status == 400
    assert await entries(serving_) == []


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 400)])
async def test_the_number_of_fields_is_limited(serving_: Serving, more: int, status: int) -> None:
    count = FIELDS_MAX - len(FIELDS) - 1 + more
    fields = {**FIELDS, **{f"extra{n}": "x" for n in range(count)}}
    assert (await post(serving_, signed(fields)))[0] == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not a form at all",
        urlencode(FIELDS).encode(),
        urlencode({**FIELDS, "verifySign": "0" * 32}).encode(),
        signed(FIELDS, token=signature.Token("another token")),
        signed(FIELDS) + b"&note=x",
        signed(FIELDS).replace(b"13.00", b"13.0"),
    ],
)
async def test_an_unsigned_notification_is_401_and_not_kept(serving_: Serving, body: bytes) -> None:
    status, _, _ = await post(serving_, body)
    assert status == 401
    assert await entries(serving_) == []


async def test_a_malformed_message_that_is_not_signed_is_401_not_400(serving_: Serving) -> None:
    body = urlencode({"transactionNo": "", "amount": "a lot", "verifySign": "x"}).encode()
    assert (await post(serving_, body))[0] == 401


async def test_an_empty_field_added_to_a_captured_message_makes_it_no_other(
    serving_: Serving,
) -> None:
    for more in (b"&a%26b=", b"&a%3Db=", b"", b"&x=", b"&y="):
        body = signed(FIELDS) + more
        assert (await post(serving_, body))[0] == 200
    (entry,) = await entries(serving_)
    deliveries = entry["deliveries"]
    assert isinstance(deliveries, dict)
    assert (deliveries["count"], entry["held"]) == (5, False)


async def test_a_previous_token_still_verifies(tmp_path: Path) -> None:
    merchants = {MERCHANT_NO: {"tokens": ["new token", TOKEN_TEXT], "stores": [STORE_NO]}}
    async with serving(tmp_path / "ledger.db", merchants=merchants) as running:
        assert (await running.notify())[0] == 200


@pytest.mark.parametrize("word", ["init", "pending", "failed", "closed", "voided", ""])
async def test_every_status_is_acknowledged(serving_: Serving, word: str) -> None:
    assert (await serving_.notify({"status": word}))[0] == 200


@pytest.mark.parametrize(
    "amount", ["", "0", "0.00", "-1", "1.234", "1e3", "1,00", "12345678901234", "٣", " 1", "abc"]
)
async def test_an_unreadable_amount_is_held_and_acknowledged(
    serving_: Serving, amount: str
) -> None:
    assert (await serving_.notify({"amount": amount, "status": "success"}))[0] == 200
    _, found = await serving_.get(f"/v1/transactions/{FIELDS['transactionNo']}", serving_.key())
    assert isinstance(found, dict)
    assert (found["held"], found["status"], found["amount"]) == (True, "unknown", None)


@pytest.mark.parametrize("amount", ["0.01", "999999999999.99", "7", "7.5"])
async def test_a_readable_amount_is_kept_as_it_was_sent(serving_: Serving, amount: str) -> None:
    assert (await serving_.notify({"amount": amount}))[0] == 200
    _, found = await serving_.get(f"/v1/transactions/{FIELDS['transactionNo']}", serving_.key())
    assert isinstance(found, dict)
    assert (found["held"], found["status"], found["amount"]) == (False, "cancelled", amount)


async def test_a_value_that_holds_an_ampersand_is_held(serving_: Serving) -> None:
    assert (await serving_.notify({"note": "x&reference=1"}))[0] == 200
    (entry,) = await entries(serving_)
    assert (entry["held"], entry["heldReason"]) == (True, "ambiguous")


async def test_a_nul_in_a_signed_message_is_kept_and_held(serving_: Serving) -> None:
    assert (await serving_.notify({"reference": "a\0b"}))[0] == 200
    (entry,) = await entries(serving_)
    assert (entry["held"], entry["reference"]) == (True, "a\ufffdb")
    assert entry["fields"] == {**FIELDS, "reference": "a\0b"}


@pytest.mark.parametrize(
    "fields",
    [
        {"autoDebitNo": "1", "autoReference": "2", "vendor": "alipay", "time": "3", "note": ""},
        {"invoiceId": "9", "transactionNo": "5", "status": "success", "amount": "1.00"},
        {"hello": "world"},
    ],
)
async def test_a_notification_of_no_payment_is_an_entry_without_transaction_or_event(
    serving_: Serving, fields: dict[str, str]
) -> None:
    for _ in range(2):
        assert (await post(serving_, signed(fields)))[0] == 200
    (entry,) = await entries(serving_)
    assert (entry["kind"], entry["transactionNo"]) == ("notification", None)
    head = await serving_.ledger.head()
    assert (head.events, head.transactions, head.repeats) == (0, 0, 1)


async def test_a_store_that_is_not_configured_goes_to_no_store_and_raises_an_alarm(
    serving_: Serving,
) -> None:
    for _ in range(2):
        assert (await serving_.notify(path=f"/notify/{MERCHANT_NO}/nowhere"))[0] == 200
    notification, alarm = await entries(serving_)
    assert notification["storeNo"] is None
    assert alarm["kind"] == Kind.ALARM
    assert alarm["fields"] == {"alarm": "unknown_store", "storeNo": "nowhere"}
    assert (await serving_.ledger.stream_heads([f"{MERCHANT_NO}/-"])) == {f"{MERCHANT_NO}/-": 1}


async def test_an_alarm_that_cannot_be_recorded_does_not_refuse_its_notification(
    serving_: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = serving_.ledger.record

    async def careless(fact: Fact) -> Recorded:
        if fact.kind is Kind.ALARM:
            raise LedgerUnavailableError
        return await record(fact)

    monkeypatch.setattr(serving_.ledger, "record", careless)
    told = await serving_.notify(path=f"/notify/{MERCHANT_NO}/nowhere")
    assert told == (200, "success")
    assert [entry["kind"] for entry in await entries(serving_)] == [Kind.NOTIFICATION]


async def test_without_a_store_in_the_url_one_of_several_is_not_guessed(serving_: Serving) -> None:
    assert (await serving_.notify(path=f"/notify/{MERCHANT_NO}"))[0] == 200
    (entry,) = await entries(serving_)
    assert entry["storeNo"] is None


async def test_a_notification_without_a_store_belongs_to_the_only_one(tmp_path: Path) -> None:
    merchants = {MERCHANT_NO: {"tokens": [TOKEN_TEXT], "stores": [OTHER_STORE_NO]}}
    async with serving(tmp_path / "ledger.db", merchants=merchants) as running:
        assert (await running.notify(path=f"/notify/{MERCHANT_NO}"))[0] == 200
        (entry,) = await entries(running)
        assert entry["storeNo"] == OTHER_STORE_NO


async def test_a_ledger_that_cannot_commit_is_503_and_takes_the_message_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.05)
    async with serving(tmp_path / "ledger.db") as running:
        # Another program holds the database for longer than the ledger waits for it.
        with closing(sqlite3.connect(running.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            status, _, headers = await post(running, signed(FIELDS))
            assert (status, headers["Retry-After"]) == (503, "1")
            other.execute("ROLLBACK")
        assert (await post(running, signed(FIELDS)))[0] == 200
        assert len(await entries(running)) == 1


async def test_a_body_that_never_ends_is_given_up(
    serving_: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "BODY_SECONDS", 0.05)
    host, port = serving_.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), family=socket.AF_INET)
    head = (
        f"POST {NOTIFY} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 99\r\n\r\n"
    )
    writer.write(head.encode() + b"transactionNo=1")
    async with asyncio.timeout(WAIT_SECONDS):
        answer = await reader.readline()
    assert b"408" in answer
    writer.close()


async def test_a_number_with_an_ampersand_is_found_under_the_number_that_was_signed(
    serving_: Serving,
) -> None:
    assert await serving_.notify({"transactionNo": "1&2"}) == (200, "success")
    status, found = await serving_.get("/v1/transactions/1", serving_.key())
    assert status == 200
    assert isinstance(found, dict)
    assert (found["status"], found["held"]) == ("unknown", True)
    (entry,) = found["entries"]
    assert (entry["heldReason"], entry["fields"]["transactionNo"]) == ("ambiguous", "1&2")
