"""What is not HTTP, or not the body that it says it is, is the sender's mistake, and never told."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from listener.keys import Role
from listener.web.shapes import raw
from listener.web.unread import PAUSE_SECONDS, Unread
from tests.support.service import Serving, serving
from tests.support.tills import DEADLINE_SECONDS

KEY = "lk_0123456789ab_do-not-tell"
ONE = "/v1/transactions/297553638301777927"


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def answer_to(service: Serving, request: bytes) -> bytes:
    """Send bytes as they are; return the head and body of the answer."""
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(request)
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await reader.read(4_096)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {KEY}\x01",
        f"Authorization : Bearer {KEY}",
        f"Authorization: Bearer {KEY}{'x' * 9_000}",
        f"\x7f: Bearer {KEY}",
    ],
)
async def test_a_torn_header_is_not_logged(
    service: Serving, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    caplog.set_level(logging.DEBUG)
    told = await answer_to(
        service, f"GET /v1/ledger HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode()
    )
    assert b" 400 " in told
    assert "unread_request" in caplog.text
    formatted = "\n".join(f"{record.__dict__}" for record in caplog.records)
    assert "do-not-tell" not in caplog.text + formatted


def test_a_flood_of_what_is_not_http_is_one_line_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    unread = Unread(clock=lambda: now[0])
    record = logging.LogRecord("x", logging.ERROR, "", 0, "m", None, None)
    assert unread(record)
    error = web.RequestPayloadError("400")
    record.exc_info = (type(error), error, None)
    for _ in range(3):
        assert not unread(record)
    now[0] = PAUSE_SECONDS
    assert not unread(record)
    lines = [one.__dict__["fields"]["count"] for one in caplog.records]
    assert lines == [1, 3]


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
    assert (answer.status, problem["code"]) == (400, "cut-off")


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "BODY_SECONDS", 0.05)
    head = f"POST /v1/pos/acks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key()}"
    told = await answer_to(service, f"{head}\r\nContent-Length: 9\r\n\r\n{{".encode())
    assert b" 408 " in told
    assert b'"too-slow"' in told
