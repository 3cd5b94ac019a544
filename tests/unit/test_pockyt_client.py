"""The client against a Pockyt that answers whatever it is told to, over a real socket."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from listener.pockyt import signature
from listener.pockyt.answer import (
    CODE_CHARS_MAX,
    HIDDEN,
    MESSAGE_CHARS_MAX,
    NUMBER_CHARS_MAX,
    read_answer,
)
from listener.pockyt.client import (
    ANSWER_BYTES_MAX,
    Answer,
    Call,
    Credentials,
    PockytCalls,
    PockytClient,
    PockytRefusedError,
    PockytUnavailableError,
)
from listener.pockyt.signature import Token
from listener.pockyt.texts import DEPTH_MAX, json_fields
from listener.refusals import NOT_CARRIED_OUT
from tests.support.ports import free_port

TOKEN_TEXT = "5cbfb079f15b150122261c8537086d77a"
TOKEN = Token(TOKEN_TEXT)
CREDENTIALS = Credentials(merchant_no="200043", store_no="300014", token=TOKEN)
ACCEPTED = b'{"result": {"status": "success"}, "ret_code": "000100", "ret_msg": "query success "}'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def pockyt(handler: Handler, *, timeout_seconds: float = 5) -> AsyncIterator[PockytClient]:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession() as session:
            yield PockytClient(
                f"http://{host}:{port}/", session=session, timeout_seconds=timeout_seconds
            )
    finally:
        await runner.cleanup()


def answering(*bodies: bytes, status: int = 200) -> tuple[Handler, list[web.Request]]:
    """Answer with each body in turn, the last one for ever; keep the requests."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        await request.read()
        return web.Response(body=bodies[min(len(seen), len(bodies)) - 1], status=status)

    return answer, seen


class Kept(PockytCalls):
    """A carrier that keeps what is to be sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Call, dict[str, str], str]] = []

    async def exchange(self, call: Call, body: bytes, *, request_id: str) -> bytes:
        self.sent.append((call, json.loads(body), request_id))
        return ACCEPTED


async def test_the_calls_sign_as_published_messages_do() -> None:
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))
    published = {vector["verifySign"] for vector in vectors}
    calls = Kept()
    await calls.prepay(
        CREDENTIALS,
        transaction_no="297553636764407286",
        payment_barcode="286498530672949108",
        vendor="alipay",
    )
    await calls.refund(
        CREDENTIALS,
        refund_amount="0.01",
        currency="USD",
        settle_currency="USD",
        transaction_no="297553638301777927",
        refund_reference="refund2020101305",
    )
    await calls.tran_query(CREDENTIALS, transaction_no="297553638300708562")
    await calls.create_trans_qrcode(
        CREDENTIALS,
        amount="0.11",
        currency="USD",
        settle_currency="USD",
        reference="test2020102023",
        vendor="alipay",
        ipn_url="http://zk-tys.yunkeguan.com/login/test",
        timeout_minutes=120,
    )
    assert [sent["verifySign"] in published for _, sent, _ in calls.sent] == [True] * 4


async def test_every_call_goes_to_its_own_path_with_a_signature_that_verifies() -> None:
    calls = Kept()
    await calls.add(
        CREDENTIALS,
        amount="13",
        currency="USD",
        settle_currency="USD",
        reference="r-1",
        ipn_url="https://pos.example.com/notify/200043",
    )
    await calls.create_trans_qrcode(
        CREDENTIALS,
        amount="13.00",
        currency="USD",
        settle_currency="USD",
        reference="r-2",
        vendor="wechatpay",
        ipn_url="https://pos.example.com/notify/200043",
        need_qrcode=False,
        description="Ünïcode & more",
    )
    await calls.cancel(CREDENTIALS, reference="r-1")
    assert [call for call, _, _ in calls.sent] == [Call.ADD, Call.CREATE_TRANS_QRCODE, Call.CANCEL]
    assert all(signature.verify(sent, [TOKEN]) for _, sent, _ in calls.sent)
    assert calls.sent[1][1]["needQrcode"] == "false"
    assert calls.sent[2][1]["reference"] == "r-1"
    assert "transactionNo" not in calls.sent[2][1]


async def test_request_ids_are_given_or_made_and_never_the_same_for_two_calls() -> None:
    calls = Kept()
    await calls.tran_query(CREDENTIALS, reference="r", request_id="mine")
    await calls.tran_query(CREDENTIALS, reference="r")
    await calls.cancel(CREDENTIALS, reference="r")
    ids = [request_id for _, _, request_id in calls.sent]
    assert ids[0] == "mine"
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("transaction_no", "reference"), [(None, None), ("1", "r"), ("", ""), ("", None)]
)
async def test_a_sale_is_named_in_one_way(
    transaction_no: str | None, reference: str | None
) -> None:
    calls = Kept()
    with pytest.raises(ValueError, match="one of the two"):
        await calls.tran_query(CREDENTIALS, transaction_no=transaction_no, reference=reference)
    with pytest.raises(ValueError, match="one of the two"):
        await calls.cancel(CREDENTIALS, transaction_no=transaction_no, reference=reference)
    with pytest.raises(ValueError, match="one of the two"):
        await calls.prepay(
            CREDENTIALS,
            payment_barcode="28",
            transaction_no=transaction_no,
            reference=reference,
        )
    assert calls.sent == []


async def test_an_answer_is_read_with_numbers_in_their_source_text() -> None:
    body = b"""\xef\xbb\xbf{"ret_code": "000100", "retMsg": "ok", "new": {}, "result": {
        "transactionNo": 297553638301777927, "amount": 13.00, "status": "closed ",
        "currency": "USD", "settleCurrency": null, "reference": "r", "flag": true,
        "verifySign": "never kept", "qrcodeUrl": "https://q", "deepLink": "app://d",
        "goods": [{"n": 1.50, "t": "\xc3\xa9"}, null], "refundTransactionNo": "9",
        "refundInfo": [{"refundAmount": 0.10}, {"amount": "2.00", "status": "success"},
                       "odd", {"status": "success"}]}}"""
    handler, _ = answering(body)
    async with pockyt(handler) as client:
        answer = await client.cancel(CREDENTIALS, reference="r")
    assert answer == Answer(
        transaction_no="297553638301777927",
        reference="r",
        amount="13.00",
        currency="USD",
        word="closed ",
        qrcode_url="https://q",
        deep_link="app://d",
        refund_transaction_no="9",
        fields=answer.fields,
    )
    assert answer.fields["goods"] == '[{"n":1.50,"t":"é"},null]'
    assert answer.fields["flag"] == "true"
    assert "settleCurrency" not in answer.fields
    assert "verifySign" not in answer.fields


@pytest.mark.parametrize("result", ["", '"result": null,', '"result": [1],', '"result": "x",'])
def test_an_accepted_answer_without_a_result_says_nothing(result: str) -> None:
    assert read_answer(f'{{{result} "ret_code": 000100}}'.replace("000100", "100").encode()) == (
        Answer()
    )


def test_transaction_status_is_read_where_there_is_one() -> None:
    body = b'{"ret_code": "000100", "result": {"transactionStatus": "init", "status": "x"}}'
    assert read_answer(body).word == "init"


@pytest.mark.parametrize("name", ["ret_msg", "retMsg"])
@pytest.mark.parametrize("status", [200, 201, 400])
async def test_a_refusal_says_what_pockyt_said(name: str, status: int) -> None:
    handler, seen = answering(
        json.dumps({"ret_code": "000021", name: " no such record "}).encode(), status=status
    )
    async with pockyt(handler) as client:
        with pytest.raises(PockytRefusedError, match="000021 no such record") as raised:
            await client.tran_query(CREDENTIALS, reference="r")
    assert (raised.value.ret_code, raised.value.ret_msg) == ("000021", "no such record")
    assert not raised.value.outcome_unknown
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("code", "message", "unknown"),
    [
        ("000000", "system error", True),
        ("000080", "supplier error", True),
        ("000000", "data error : verifySign", False),
        ("000099", "accepted, pending review", True),
        ("000099", "verifySign", True),
        *((code, "refused", False) for code in sorted(NOT_CARRIED_OUT)),
    ],
)
def test_an_error_that_is_no_refusal_leaves_the_outcome_unknown(
    code: str, message: str, unknown: bool
) -> None:
    assert PockytRefusedError(code, message).outcome_unknown is unknown


def test_a_refusal_shows_no_secret_and_is_not_for_ever() -> None:
    text = f"wrong {TOKEN_TEXT} and {'0' * 32} " + "long " * 100
    error = PockytRefusedError("000000", text)
    assert TOKEN_TEXT not in str(error)
    assert "0" * 32 not in str(error)
    assert len(error.ret_msg) == MESSAGE_CHARS_MAX


def test_credentials_do_not_show_their_token() -> None:
    assert TOKEN_TEXT not in repr(CREDENTIALS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"ret_code": "000100"',
        b"[]",
        b'{"result": {}}',
        b'{"ret_code": "000100", "result": {"amount": NaN}}',
        b'{"ret_code": "\xff"}',
        b'{"ret_code": "000100", "result": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"ret_code": "000100", "result": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
    ],
)
async def test_a_body_that_is_not_an_answer_of_pockyts_is_unreadable(body: bytes) -> None:
    handler, seen = answering(body)
    async with pockyt(handler) as client:
        with pytest.raises(PockytUnavailableError) as raised:
            await client.tran_query(CREDENTIALS, reference="r")
    assert (raised.value.reason, raised.value.sent) == ("unreadable", True)
    assert raised.value.__cause__ is None
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(201, b"<html>"), (404, b"<html>"), (302, ACCEPTED), (500, ACCEPTED), (503, b"<html>")],
)
async def test_other_http_statuses_are_unavailability(status: int, body: bytes) -> None:
    handler, _ = answering(body, status=status)
    async with pockyt(handler) as client:
        with pytest.raises(PockytUnavailableError, match=f"HTTP {status}") as raised:
            await client.cancel(CREDENTIALS, reference="r")
    assert (raised.value.reason, raised.value.sent) == ("status", True)


async def test_a_signed_request_is_not_carried_on_to_where_a_redirect_points() -> None:
    paths: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"}, body=ACCEPTED)

    async with pockyt(redirect) as client:
        with pytest.raises(PockytUnavailableError, match="HTTP 307"):
            await client.cancel(CREDENTIALS, reference="r")
    assert paths == [Call.CANCEL]


async def test_an_answer_may_be_as_long_as_the_limit_and_no_longer() -> None:
    just = ACCEPTED + b" " * (ANSWER_BYTES_MAX - len(ACCEPTED))
    handler, _ = answering(just, just + b" ")
    async with pockyt(handler) as client:
        assert (await client.cancel(CREDENTIALS, reference="r")).word == "success"
        with pytest.raises(PockytUnavailableError) as raised:
            await client.cancel(CREDENTIALS, reference="r")
    assert raised.value.reason == "too_large"


async def test_a_pockyt_that_cannot_be_reached_has_not_heard() -> None:
    port = free_port()
    async with aiohttp.ClientSession() as session:
        client = PockytClient(f"http://127.0.0.1:{port}", session=session)
        with pytest.raises(PockytUnavailableError) as raised:
            await client.cancel(CREDENTIALS, reference="r")
    assert (raised.value.reason, raised.value.sent) == ("connection", False)


async def test_a_pockyt_that_does_not_answer_in_time_may_have_heard() -> None:
    heard: list[str] = []

    async def never(request: web.Request) -> web.Response:
        heard.append(request.headers["Pockyt-Request-ID"])
        await asyncio.Event().wait()
        raise AssertionError

    async with pockyt(never, timeout_seconds=0.2) as client:
        with pytest.raises(PockytUnavailableError) as raised:
            await client.tran_query(CREDENTIALS, reference="r")
    assert (raised.value.reason, raised.value.sent) == ("timeout", True)
    assert len(heard) == 1


async def test_a_query_is_tried_twice_under_one_id_and_nothing_else_is() -> None:
    ids: list[str] = []

    async def hang_up_first(request: web.Request) -> web.Response:
        ids.append(request.headers["Pockyt-Request-ID"])
        if len(ids) % 2:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=ACCEPTED)

    async with pockyt(hang_up_first) as client:
        assert (await client.tran_query(CREDENTIALS, reference="r")).word == "success"
        assert len(ids) == 2
        assert ids[0] == ids[1]
        with pytest.raises(PockytUnavailableError) as raised:
            await client.cancel(CREDENTIALS, reference="r")
    assert (raised.value.reason, raised.value.sent) == ("connection", True)
    assert len(ids) == 3


async def test_a_query_gives_up_after_its_second_failure() -> None:
    handler, seen = answering(b"", status=503)
    async with pockyt(handler) as client:
        with pytest.raises(PockytUnavailableError):
            await client.tran_query(CREDENTIALS, reference="r")
    assert len(seen) == 2


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"a":' * 900 + b"1" + b"}" * 900])
def test_a_body_that_is_not_a_json_object_has_no_fields(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of them will do
        json_fields(body)


class Echo(PockytCalls):
    """A Pockyt that quotes the secrets of a call, at a place of its answer."""

    def __init__(self, where: str, spelt: Callable[[str], str]) -> None:
        self._where = where
        self._spelt = spelt
        self.secrets: tuple[str, ...] = ()

    async def exchange(self, call: Call, body: bytes, *, request_id: str) -> bytes:
        del call, request_id
        digest = hashlib.md5(TOKEN_TEXT.encode(), usedforsecurity=False).hexdigest()
        signed = json.loads(body)["verifySign"]
        self.secrets = (TOKEN_TEXT, digest, signed)
        text = f"<{self._spelt(TOKEN_TEXT)}> <{self._spelt(digest)}> <{signed}>"
        results: dict[str, object] = {
            "word": {"status": text},
            "nested": {"data": {"verifySign": [text]}},
            "name": {text: "x"},
            "url": {"qrcodeUrl": f"https://q/{text}"},
        }
        if self._where == "refusal":
            return json.dumps({"ret_code": "000023", "ret_msg": text}).encode()
        return json.dumps({"ret_code": "000100", "result": results[self._where]}).encode()


@pytest.mark.parametrize("where", ["word", "nested", "name", "url", "refusal"])
@pytest.mark.parametrize("spelt", [str.lower, str.upper])
async def test_no_secret_of_the_call_comes_back_out_of_an_answer(
    where: str, spelt: Callable[[str], str]
) -> None:
    calls = Echo(where, spelt)
    try:
        shown = repr(await calls.tran_query(CREDENTIALS, reference="r"))
    except PockytRefusedError as error:
        shown = repr(error) + error.ret_msg
    assert HIDDEN in shown
    for secret in calls.secrets:
        assert secret.lower() not in shown.lower()


@pytest.mark.parametrize(
    ("number", "read"),
    [
        ("297", "297"),
        (" 297 ", "297"),
        ("7" * NUMBER_CHARS_MAX, "7" * NUMBER_CHARS_MAX),
        ("7" * (NUMBER_CHARS_MAX + 1), ""),
        ("7" * 200_000, ""),
        ("2\ud8007", ""),
        ("2\x007", ""),
        ("316129873376769782.0", "316129873376769782"),
        ("A-7/297", "A-7/297"),
        *((none, "") for none in ("null", "N/A", "none", "0", "-1", "3.16E17", "3E+17", "297.5")),
    ],
)
def test_an_invalid_transaction_number_is_read_as_none(number: str, read: str) -> None:
    body = json.dumps({"ret_code": "000100", "result": {"transactionNo": number}}).encode()
    assert read_answer(body).transaction_no == read


@pytest.mark.parametrize(
    ("number", "read"),
    [
        ("316129873376769782", "316129873376769782"),
        ("316129873376769782.0", "316129873376769782"),
        *((none, "") for none in ("3.1612987337676979E17", "true", "{}", "[297]", '{"a":1}', "-1")),
        *((none, None) for none in ("null", '""', '" "')),
    ],
)
def test_a_json_value_that_is_no_transaction_number_is_none(number: str, read: str | None) -> None:
    body = f'{{"ret_code": "000100", "result": {{"transactionNo": {number}}}}}'.encode()
    assert read_answer(body).transaction_no == read


def test_an_empty_text_is_absence() -> None:
    names = ("transactionNo", "reference", "amount", "currency", "settleCurrency", "status")
    for empty in ("", " "):
        result = dict.fromkeys([*names, "qrcodeUrl", "deepLink"], empty)
        body = json.dumps({"ret_code": "000100", "result": result}).encode()
        assert read_answer(body) == Answer(fields=result)


@pytest.mark.parametrize("name", ["amount", "refundAmount", "refundRmbAmount", "voidAmount", "tip"])
def test_an_amount_with_all_decimals_of_a_double_is_read(name: str) -> None:
    amount = "67.2000000000000028421709430404007434844970703125"
    body = f'{{"ret_code": "000100", "result": {{"{name}": {amount}}}}}'.encode()
    assert read_answer(body).fields[name] == amount


def test_an_answer_in_gbk_is_read() -> None:
    # The second byte of 誠 is a backslash.
    body = '{"ret_code":"000100","result":{"status":"success","note":"誠品"}}'.encode("gbk")
    answer = read_answer(body)
    assert (answer.word, answer.fields["note"]) == ("success", "誠品")


def test_control_characters_are_replaced_in_an_answer() -> None:
    odd = "a\ud800\x1b[31m\x00\x9fb"
    body = json.dumps({"ret_code": "000100", "result": {"qrcodeUrl": odd, odd: "x"}}).encode()
    answer = read_answer(body)
    assert answer.qrcode_url == "a\ufffd\ufffd[31m\ufffd\ufffdb"
    assert answer.fields[answer.qrcode_url] == "x"
    assert str(dict(answer.fields)).encode()


@pytest.mark.parametrize("code", ["9" * 200_000, "\ud800", "\x1b"])
def test_a_refusal_is_short_and_fit_to_be_shown(code: str) -> None:
    body = json.dumps({"ret_code": code, "ret_msg": "m\ud800" * 1_000}).encode()
    with pytest.raises(PockytRefusedError) as refused:
        read_answer(body)
    assert len(str(refused.value).encode()) < 1_000
    assert len(refused.value.ret_code) <= CODE_CHARS_MAX


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_may_nest_as_deep_as_the_limit_and_no_deeper(opening: bytes, closing: bytes) -> None:
    def nested(depth: int) -> bytes:
        # Brackets within text do not count.
        inner = opening * (depth - 1) + b"1" + closing * (depth - 1)
        return b'{"text": "\\"[{' + b"[" * DEPTH_MAX + b'", "deep": ' + inner + b"}"

    assert json_fields(nested(DEPTH_MAX))["deep"].startswith(opening.decode())
    with pytest.raises(ValueError, match="nested too deeply"):
        json_fields(nested(DEPTH_MAX + 1))
