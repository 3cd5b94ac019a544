"""What is not HTTP, or not the body that it says it is, is the sender's mistake, and never told."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, InvalidURLError

from listener.keys import Role
from listener.web.http_connection import FIELD_BYTES_MAX
from listener.web.shapes import raw
from listener.web.unread import Unread, rule_of
from tests.support.deliveries import NOTIFY, entries
from tests.support.service import FIELDS, FORM, Serving, serving, signed
from tests.support.tills import DEADLINE_SECONDS

KEY = "lk_0123456789ab_do-not-tell"
ONE = "/v1/transactions/297553638301777927"


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def answer_to(service: Serving, request: bytes, *, until_closed: bool = False) -> bytes:
    """Send bytes as they are; return the head and body of the answer, or all until the end."""
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(request)
        async with asyncio.timeout(DEADLINE_SECONDS):
            if until_closed:
                return await reader.read()
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await reader.read(4_096)
    finally:
        writer.close()
        await writer.wait_closed()


BODY: Final = signed(FIELDS)
POST: Final = f"POST {NOTIFY} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n".encode()
LENGTH: Final = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
GET: Final = b"GET /v1/ledger HTTP/1.1\r\nHost: x\r\n"
HIDDEN: Final = f"success {KEY}".encode()

# What is not HTTP, and a part of the rule that the log names.
MALFORMED: Final = {
    "a control character in a value": (
        GET + b"Authorization: Bearer %b\x01\r\n\r\n",
        "header value",
    ),
    "a blank before the colon": (GET + b"Authorization : Bearer %b\r\n\r\n", "header token"),
    "a long header": (GET + b"Authorization: %b" + b"x" * 9_000 + b"\r\n\r\n", "LineTooLong"),
    "an odd name": (GET + b"\x7f: Bearer %b\r\n\r\n", "header token"),
    "a long line": (b"GET /%b" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "LineTooLong"),
    "too many headers": (GET + b"X: %b\r\n" * 200 + b"\r\n", "Too many headers"),
    "two hosts": (GET + b"Host: %b\r\n\r\n", "Duplicate 'Host'"),
    "two types": (POST + LENGTH + b"Content-Type: %b\r\n\r\n", "Duplicate 'Content-Type'"),
    "two agents": (
        GET + b"User-Agent: a\r\nUser-Agent: %b\r\n\r\n",
        "Duplicate 'User-Agent'",
    ),
    "no host": (b"GET /%b HTTP/1.1\r\n\r\n", "Missing 'Host'"),
    "two lengths": (POST + LENGTH + LENGTH + b"\r\n%b", "Content-Length"),
    "a length and chunks": (
        POST + LENGTH + b"Transfer-Encoding: chunked\r\nX: %b\r\n\r\n" + CHUNKED,
        "Transfer-Encoding",
    ),
    "a length that is no number": (POST + b"Content-Length: %b\r\n\r\n", "Content-Length"),
    "a folded header": (GET + b"X: a\r\n %b\r\n\r\n", ""),
    "another version": (b"GET /%b HTTP/9.9\r\nHost: x\r\n\r\n", "version"),
    "another method": (b"success-%b / HTTP/1.1\r\nHost: x\r\n\r\n", "method"),
    "a line of the PROXY protocol": (b"PROXY TCP4 %b 127.0.0.1 1 2\r\n" + GET + b"\r\n", ""),
    "no HTTP at all": (b"\x16\x03\x01%b\r\n\r\n", ""),
    "lines without a carriage return": (b"GET /%b HTTP/1.1\nHost: x\n\n", "CRLF"),
    "a URL that is none": (b"GET http://[%b HTTP/1.1\r\nHost: x\r\n\r\n", ""),
}


@pytest.mark.parametrize("name", sorted(MALFORMED))
async def test_malformed_http_is_answered_in_our_words_and_logged_by_its_rule(
    service: Serving, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    request, rule = MALFORMED[name]
    told = await answer_to(service, request.replace(b"%b", HIDDEN.replace(b" ", b"-")))
    assert re.match(rb"HTTP/1\.[01] 400 ", told)
    assert b"Content-Type: application/problem+json" in told
    assert b'"code":"malformed"' in told
    # Whatever stands in front garbled it: a till comes back.
    assert b'"retry":true' in told
    formatted = "\n".join(f"{record.__dict__}" for record in caplog.records)
    for secret in (b"success", b"do-not-tell"):
        assert secret not in told
        assert secret.decode() not in caplog.text + formatted
    (line,) = [one.__dict__["fields"] for one in caplog.records if one.msg == "%s"]
    assert rule in line["rule"]
    assert line["sender"] == "127.0.0.1"
    assert await entries(service) == []


async def test_a_header_has_its_length(service: Serving) -> None:
    for size, status in ((FIELD_BYTES_MAX, b"401"), (FIELD_BYTES_MAX + 1, b"400")):
        told = await answer_to(service, GET + b"Cookie: %b\r\n\r\n" % (b"x" * size))
        assert told.split()[1] == status
    assert b"one of its headers, is too long" in told


async def test_bytes_after_an_overlong_body_are_not_quoted(
    service: Serving,
) -> None:
    body = urlencode({**FIELDS, "status": "success", "verifySign": "not-to-be-told"}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % (len(body) - 40) + body
    told = await answer_to(service, request, until_closed=True)
    assert re.findall(rb"HTTP/1\.[01] (\d+)", told)[-1] == b"400"
    assert b"success" not in told
    assert b"not-to-be-told" not in told


@pytest.mark.parametrize("line", ["OPTIONS *", "CONNECT success.example:443", "GET *success"])
async def test_a_target_without_a_path_is_answered_in_our_words(
    service: Serving, line: str
) -> None:
    told = await answer_to(service, f"{line} HTTP/1.1\r\nHost: success\r\n\r\n".encode())
    assert b"application/problem+json" in told
    assert b"X-Content-Type-Options: nosniff" in told
    assert b"success" not in told


@pytest.mark.parametrize("path", [NOTIFY, "/healthz", "/nowhere"])
async def test_an_expectation_that_cannot_be_met_is_not_quoted(service: Serving, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: success {KEY}\r\n"
    told = await answer_to(service, head.encode() + b"Content-Length: 0\r\n\r\n")
    assert b" 417 " in told
    assert b"application/problem+json" in told
    assert b"success" not in told
    assert b"do-not-tell" not in told


@pytest.mark.parametrize(
    ("version", "interim"), [("1.1", b"HTTP/1.1 100 Continue\r\n\r\n"), ("1.0", b"")]
)
async def test_only_a_sender_of_http_1_1_is_asked_for_its_body(
    service: Serving, version: str, interim: bytes
) -> None:
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = POST.replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    async with asyncio.timeout(DEADLINE_SECONDS):
        writer.write(
            head + LENGTH + b"Expect: 100-continue, 100-continue\r\nConnection: close\r\n\r\n"
        )
        # Behind the head, so that the body is still awaited when it would be asked for.
        await asyncio.sleep(0.05)
        writer.write(BODY)
        told = await reader.read()
    assert told.startswith(interim + f"HTTP/{version} 200 ".encode())
    assert told.endswith(b"success")
    writer.close()
    await writer.wait_closed()


async def test_the_body_is_asked_for_once_it_is_wanted(service: Serving) -> None:
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    async with asyncio.timeout(DEADLINE_SECONDS):
        writer.write(POST + LENGTH + b"Expect: 100-Continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(7) == b"success"
        # What is refused by its head is answered at once, and its body is not asked for.
        head = POST.replace(b"/notify/", b"/notify/9")
        writer.write(head + LENGTH + b"Expect: 100-continue\r\n\r\n")
        assert b" 404 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("path", ["/healthz", "/v1/ledger", "/nowhere", NOTIFY, "/"])
async def test_no_answer_tells_a_version_or_may_be_guessed_at(service: Serving, path: str) -> None:
    async with service.client.get(service.url + path) as answer:
        assert answer.headers["Server"] == "listener"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] in {"no-store", "no-cache"}
    key = f"Authorization: Bearer {service.key()}\r\nSec-WebSocket-Version: 13\r\n"
    up = (
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {'A' * 22}==\r\n{key}\r\n"
    )
    told = await answer_to(service, b"GET /v1/pos/stream HTTP/1.1\r\nHost: x\r\n" + up.encode())
    assert b" 101 " in told
    assert b"Server: listener\r\n" in told
    told = await answer_to(service, b"not HTTP\r\n\r\n")
    assert b"Server: listener\r\n" in told
    assert b"X-Content-Type-Options: nosniff\r\n" in told


def test_an_error_that_is_not_the_parsers_tells_its_name_only() -> None:
    assert rule_of(web.RequestPayloadError("success")) == "RequestPayloadError"
    assert rule_of(InvalidURLError("/success")) == "InvalidURLError"
    assert rule_of(BadHttpMessage("Duplicate 'success\n' header found.")) == "BadHttpMessage"


async def test_a_failure_of_our_own_is_a_problem_too(caplog: pytest.LogCaptureFixture) -> None:
    answer = Unread().answer(500, ValueError("secret"), sender="192.0.2.1")
    assert (answer.status, answer.content_type) == (500, "application/problem+json")
    assert "secret" not in caplog.text
    (line,) = [one.__dict__["fields"] for one in caplog.records]
    assert line == {"status": 500, "error": "ValueError", "sender": "192.0.2.1", "count": 1}


async def test_bodies_that_aiohttp_quotes_are_kept_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted: list[None] = []
    unread = Unread(count=lambda: counted.append(None))
    record = logging.LogRecord("x", logging.ERROR, "", 0, "m", None, None)
    assert unread(record)
    error = web.RequestPayloadError("400")
    record.exc_info = (type(error), error, None)
    for _ in range(1_000):
        assert not unread(record)
    assert len(counted) == 1_000
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("/v1/pos/acks", Role.POS),
        ("/v1/transactions", Role.POS),
        (f"{ONE}/pay", Role.POS),
        (f"{ONE}/cancel", Role.POS),
        (f"{ONE}/ask", Role.ADMIN),
        (f"{ONE}/decide", Role.ADMIN),
    ],
)
async def test_a_body_that_is_not_encoded_as_it_says_is_400(
    service: Serving, path: str, role: Role
) -> None:
    headers = {"Authorization": f"Bearer {service.key(role)}", "Content-Encoding": "gzip"}
    async with service.client.post(service.url + path, data=b"no gzip", headers=headers) as answer:
        problem = await answer.json(content_type="application/problem+json")
    assert (answer.status, problem["code"]) == (400, "bad-coding")


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "BODY_SECONDS", 0.05)
    head = f"POST /v1/pos/acks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key()}"
    told = await answer_to(service, f"{head}\r\nContent-Length: 9\r\n\r\n{{".encode())
    assert b" 408 " in told
    assert b'"too-slow"' in told
