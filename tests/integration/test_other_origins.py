"""Pages of other origins: those of the setting may use the API, the others are told nothing."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from listener.keys import Role
from listener.web.origins import EXPOSED_HEADERS
from listener.web.reference.catalogue import OPERATIONS
from listener.web.reference.openapi import document
from tests.support.service import MERCHANT_NO, STREAM, Serving, serving

LISTED = "https://till.example.com"
SALES = "/v1/transactions"
NUMBER = "297553638301777927"
HEADERS = "authorization,content-type,idempotency-key,x-listener-key"


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    origins = [LISTED, "capacitor://localhost"]
    async with serving(
        tmp_path / "ledger.db", public_url="https://pos.example.com", origins=origins
    ) as running:
        yield running


async def ask(
    service: Serving, method: str, path: str, headers: Mapping[str, str]
) -> tuple[int, Mapping[str, str], bytes]:
    async with service.client.request(method, service.url + path, headers=headers) as answer:
        return answer.status, answer.headers, await answer.read()


async def preflight(
    service: Serving, path: str, origin: str, method: str = "POST"
) -> tuple[int, Mapping[str, str], bytes]:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": HEADERS,
    }
    return await ask(service, "OPTIONS", path, asked)


def names(text: str) -> set[str]:
    return {name.strip().lower() for name in text.split(",")}


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (SALES, "POST"),
        (SALES, "GET"),
        (f"{SALES}/{NUMBER}/cancel", "POST"),
        (f"{SALES}/{NUMBER}/pay", "POST"),
        ("/v1/sales/r1/cancel", "POST"),
        ("/v1/pos/events?wait=25", "GET"),
        ("/v1/pos/acks", "POST"),
        ("/v1/entries", "GET"),
    ],
)
async def test_a_browser_is_told_what_a_page_of_the_setting_may_send(
    service: Serving, path: str, method: str
) -> None:
    for origin in (LISTED, "capacitor://localhost"):
        status, headers, body = await preflight(service, path, origin, method)
        assert (status, body) == (204, b"")
        assert headers["Access-Control-Allow-Origin"] == origin
        assert method.lower() in names(headers["Access-Control-Allow-Methods"])
        assert names(HEADERS) <= names(headers["Access-Control-Allow-Headers"])
        assert int(headers["Access-Control-Max-Age"]) > 0
        assert headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        (SALES, True, 200),
        ("/v1/pos/events?after=earliest", True, 200),
        (SALES, False, 401),
        ("/v1/ledger", True, 403),
        (f"{SALES}/1", True, 404),
        ("/v1/nothing", True, 404),
        (f"{SALES}?limit=0", True, 400),
        (f"/v1/pos/events?stream={STREAM}&after=other:1", True, 410),
    ],
)
async def test_a_page_of_the_setting_reads_every_answer(
    service: Serving, path: str, key: bool, status: int
) -> None:
    sent = {"Authorization": f"Bearer {service.key()}"} if key else {}
    found, headers, _ = await ask(service, "GET", path, {**sent, "Origin": LISTED})
    assert found == status
    assert headers["Access-Control-Allow-Origin"] == LISTED
    assert headers["Vary"] == "Origin"
    assert "retry-after" in names(headers["Access-Control-Expose-Headers"])
    assert "Access-Control-Allow-Credentials" not in headers


async def test_a_refused_expectation_and_a_wrong_method_are_read_too(service: Serving) -> None:
    for method, more, status in (("GET", {"Expect": "x"}, 417), ("DELETE", {}, 405)):
        found, headers, _ = await ask(service, method, SALES, {"Origin": LISTED, **more})
        assert found == status
        assert headers["Access-Control-Allow-Origin"] == LISTED


def test_a_page_may_read_every_header_that_the_api_describes() -> None:
    told = document(OPERATIONS)["paths"]
    assert isinstance(told, dict)
    described = {
        name
        for path, methods in told.items()
        if path.startswith("/v1/")
        for operation in methods.values()
        for answer in operation["responses"].values()
        for name in answer.get("headers", ())
    }
    assert {"Retry-After", "Ledger-Head"} < described <= set(EXPOSED_HEADERS)


async def test_the_client_can_be_imported_by_a_page_of_the_setting_and_nothing_else(
    service: Serving,
) -> None:
    _, headers, _ = await ask(service, "GET", "/static/pos-client.js", {"Origin": LISTED})
    assert headers["Access-Control-Allow-Origin"] == LISTED
    tagged = {"Origin": LISTED, "If-None-Match": headers["ETag"]}
    status, headers, _ = await ask(service, "GET", "/static/pos-client.js", tagged)
    assert (status, headers["Access-Control-Allow-Origin"]) == (304, LISTED)
    admin = {"Authorization": f"Bearer {service.key(Role.ADMIN, merchant_no=None, store_no=None)}"}
    for path in ("/", "/till", "/metrics", "/healthz", "/readyz", "/docs", "/static/api.js", "/x"):
        _, headers, _ = await ask(service, "GET", path, {**admin, "Origin": LISTED})
        assert not [name for name in headers if name.lower().startswith("access-control")], path


async def raw(service: Serving, head: str) -> bytes:
    """Send a request as these lines; return the whole answer, without its date."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"{head}\r\nHost: pos.example.com\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return re.sub(rb"Date: .*\r\n", b"", answer)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://till.example.com.evil.example",
        "https://till.example.com:8443",
        "http://till.example.com",
        "null",
        "",
        "*",
        # Its own pages need no leave; programs that send an URL or no scheme are no browsers.
        "https://pos.example.com",
        "https://till.example.com/page",
        "till.example.com",
        f"{LISTED}\r\nOrigin: https://evil.example",
    ],
)
async def test_to_every_other_origin_each_answer_is_as_it_is_to_none(
    service: Serving, origin: str
) -> None:
    asked = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization"
    for head in (
        f"OPTIONS {SALES} HTTP/1.1\r\n{asked}",
        f"GET {SALES} HTTP/1.1",
        f"GET {SALES} HTTP/1.1\r\nAuthorization: Bearer {service.key()}",
        "GET /static/pos-client.js HTTP/1.1",
    ):
        plain = await raw(service, head)
        assert b"access-control" not in plain.lower()
        assert await raw(service, f"{head}\r\nOrigin: {origin}") == plain


async def test_a_notification_is_answered_the_same_from_anywhere(service: Serving) -> None:
    for method in ("OPTIONS", "POST"):
        head = f"{method} /notify/{MERCHANT_NO} HTTP/1.1\r\nAccess-Control-Request-Method: POST"
        plain = await raw(service, f"{head}\r\nContent-Length: 0")
        assert await raw(service, f"{head}\r\nContent-Length: 0\r\nOrigin: {LISTED}") == plain


async def test_options_that_is_no_question_of_a_browser_is_refused(service: Serving) -> None:
    status, headers, _ = await ask(service, "OPTIONS", SALES, {"Origin": LISTED})
    assert (status, headers["Allow"]) == (405, "GET, HEAD, POST")
    assert (await preflight(service, "/v1/nothing", LISTED))[0] == 404
    assert (await preflight(service, "/metrics", LISTED, "GET"))[0] == 405


async def test_null_may_use_the_api_only_where_the_setting_says_so(
    service: Serving, tmp_path: Path
) -> None:
    assert (await preflight(service, SALES, "null"))[0] == 405
    async with serving(tmp_path / "other.db", origins=["null"]) as other:
        status, headers, _ = await preflight(other, SALES, "null")
        assert (status, headers["Access-Control-Allow-Origin"]) == (204, "null")
