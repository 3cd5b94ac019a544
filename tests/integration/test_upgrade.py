"""The upgrade to a websocket, by the letter of its RFCs: origins, subprotocols, lists of names."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.service import Serving, serving
from tests.support.tills import PATH

PUBLIC_URL = "https://pos.example.com/listener"
Lines = list[tuple[str, str]]
# RFC 6455, section 1.3.
NONCE = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    origins = ["capacitor://localhost", "https://till.example.com:443", "file://"]
    async with serving(tmp_path / "ledger.db", public_url=PUBLIC_URL, origins=origins) as running:
        yield running


async def upgrade(
    service: Serving,
    *lines: tuple[str, str],
    host: str = "pos.example.com",
    version: str = "HTTP/1.1",
) -> str:
    """Send an upgrade with exactly these lines beside the usual ones; return the answer."""
    usual = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": NONCE,
    }
    given = {name for name, _ in lines}
    sent = [("Host", host), *[(n, v) for n, v in usual.items() if n not in given], *lines]
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = "".join(f"{name}: {value}\r\n" for name, value in sent)
        writer.write(f"GET {PATH} {version}\r\n{head}\r\n".encode())
        async with asyncio.timeout(10):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"Content-Length: (\d+)", answer)
            return answer + (await reader.readexactly(int(length[1]) if length else 0)).decode()
    finally:
        writer.close()


def status_of(head: str) -> int:
    return int(head.split()[1])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        # The proxy adds the port, or the client does.
        ("https://pos.example.com", "pos.example.com:443"),
        ("https://pos.example.com:443", "pos.example.com"),
        ("http://other.example.com", "other.example.com:80"),
        ("http://other.example.com:80", "other.example.com"),
        ("wss://other.example.com", "other.example.com"),
        ("https://[::1]:8443", "[::1]:8443"),
        # The proxy names another host: public_url says who we are.
        ("https://pos.example.com", "127.0.0.1:8080"),
        ("HTTPS://POS.example.com", "backend"),
        # Those of the setting.
        ("capacitor://localhost", "pos.example.com"),
        ("https://till.example.com", "pos.example.com"),
        ("file://", "pos.example.com"),
        # As native libraries send it: the URL of the websocket, host and port alone.
        ("wss://pos.example.com/v1/pos/stream", "pos.example.com"),
        ("https://pos.example.com/listener/v1/pos/stream?x=1", "127.0.0.1:8080"),
        ("ws://10.0.0.7:8080/v1/pos/stream", "10.0.0.7:8080"),
        ("pos.example.com:443", "pos.example.com:443"),
        ("pos.example.com", "127.0.0.1:8080"),
        ("10.0.0.7:8080", "10.0.0.7:8080"),
        # Some send http whatever the scheme is, and the proxy names another host.
        ("http://pos.example.com", "127.0.0.1:8080"),
        ("ws://pos.example.com/", "backend"),
    ],
)
async def test_an_origin_of_our_own_or_of_the_setting_is_let_in(
    service: Serving, origin: str, host: str
) -> None:
    head = await upgrade(service, ("Origin", origin), host=host)
    assert status_of(head) == 101


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "https://pos.example.com:8443",
        "http://pos.example.com:443",
        "https://evil.example",
        "https://pos.example.com.evil.example",
        "https://pos.example.com@evil.example",
        "ionic://localhost",
        "capacitor://pos.example.com",
        "null",
        "http://pos.example.com:8080",
        # As URLs, and without a scheme.
        "https://evil.example/v1/pos/stream",
        "https://evil.example/https://pos.example.com",
        "https://evil.example#pos.example.com",
        "https://evil.example?//pos.example.com",
        "https://pos.example.com@evil.example/",
        "https://evil.example\\@pos.example.com/",
        "https://evil.example\\.pos.example.com/",
        "https://pos.example.com/, https://evil.example",
        "https://pos.example.com/ https://evil.example",
        "https://pos.example.com https://evil.example",
        "capacitor://pos.example.com/x",
        "evil.example:443",
        "evil.example",
        "pos.example.com:8443",
        "evil@pos.example.com",
        "//pos.example.com",
        "/v1/pos/stream",
    ],
)
async def test_a_foreign_origin_is_refused(service: Serving, origin: str) -> None:
    assert status_of(await upgrade(service, ("Origin", origin))) == 403


async def test_a_public_port_is_part_of_our_own_origin(tmp_path: Path) -> None:
    url = "https://pos.example.com:8443"
    async with serving(tmp_path / "ledger.db", public_url=url) as service:
        for origin, status in (
            (url, 101),
            ("http://pos.example.com:8443", 101),
            (f"wss://pos.example.com:8443{PATH}", 101),
            ("pos.example.com:8443", 101),
            ("https://pos.example.com", 403),
            ("http://pos.example.com", 403),
        ):
            head = await upgrade(service, ("Origin", origin), host="127.0.0.1:8080")
            assert status_of(head) == status, origin


async def test_both_of_two_origins_must_be_allowed(service: Serving) -> None:
    good, evil = ("Origin", "https://pos.example.com"), ("Origin", "https://evil.example")
    assert status_of(await upgrade(service, good, good)) == 101
    assert status_of(await upgrade(service, good, evil)) == 403
    assert status_of(await upgrade(service, evil, good)) == 403


async def test_null_is_let_in_only_where_the_setting_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger.db", origins=["null"]) as service:
        assert status_of(await upgrade(service, ("Origin", "null"))) == 101


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        ([], None),
        ([("Sec-WebSocket-Protocol", "")], None),
        ([("Sec-WebSocket-Protocol", " , ")], None),
        ([("Sec-WebSocket-Protocol", "chat, pos.v1")], "pos.v1"),
        ([("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "pos.v1")], "pos.v1"),
        ([("Sec-WebSocket-Protocol", ""), ("Sec-WebSocket-Protocol", "pos.v1")], "pos.v1"),
    ],
)
async def test_several_lines_of_subprotocols_are_one_list_and_an_empty_one_is_none(
    service: Serving, lines: Lines, answer: str | None
) -> None:
    head = await upgrade(service, *lines)
    assert status_of(head) == 101
    assert (f"Sec-WebSocket-Protocol: {answer}" in head) is (answer is not None)
    assert ("sec-websocket-protocol" in head.lower()) is (answer is not None)


async def test_only_other_subprotocols_are_refused(service: Serving) -> None:
    for lines in (
        [("Sec-WebSocket-Protocol", "chat")],
        [("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "pos.v2")],
        # Subprotocols compare with their case.
        [("Sec-WebSocket-Protocol", "POS.V1")],
    ):
        assert status_of(await upgrade(service, *lines)) == 400


@pytest.mark.parametrize(
    "lines",
    [
        [("Upgrade", "WebSocket")],
        [("Upgrade", "websocket, h2c")],
        [("Upgrade", "h2c"), ("Upgrade", "websocket")],
        [("Connection", "keep-alive, Upgrade")],
        [("Connection", "upgrade")],
        [("Connection", "keep-alive"), ("Connection", "Upgrade")],
        # What another header holds in bytes of its own is no concern of the upgrade's.
        [("X-Name", "caf\u00e9")],
    ],
)
async def test_the_names_of_an_upgrade_are_lists_in_any_case(
    service: Serving, lines: Lines
) -> None:
    head = await upgrade(service, *lines)
    assert status_of(head) == 101
    # RFC 6455, section 1.3: what this key is answered by.
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([("Upgrade", "h2c")], 426),
        ([("Connection", "keep-alive")], 426),
        ([("Sec-WebSocket-Version", "99")], 426),
        ([("Sec-WebSocket-Version", "8")], 426),
        ([("Sec-WebSocket-Version", "13\u00e9")], 426),
        ([("Sec-WebSocket-Key", "short")], 400),
        ([("Sec-WebSocket-Key", "caf\u00e9")], 400),
    ],
)
async def test_a_request_that_is_not_an_upgrade_is_answered_as_a_problem(
    service: Serving, lines: Lines, status: int
) -> None:
    head = await upgrade(service, *lines)
    assert status_of(head) == status
    assert "application/problem+json" in head
    assert status != 426 or "Sec-WebSocket-Version: 13" in head


@pytest.mark.parametrize("nonce", ["", "abc", NONCE[:-1], f"{NONCE}=", "dGhlIHNhbXBs*SBub25jZQ=="])
async def test_a_key_that_is_none_is_named(service: Serving, nonce: str) -> None:
    head = await upgrade(service, ("Sec-WebSocket-Key", nonce))
    assert status_of(head) == 400
    assert '"code":"bad-handshake"' in head
    assert "Sec-WebSocket-Key must be 16 bytes" in head


async def test_an_upgrade_over_http_1_0_is_none(service: Serving) -> None:
    head = await upgrade(service, version="HTTP/1.0")
    assert status_of(head) == 426
    assert "Sec-WebSocket-Version: 13" in head


async def test_a_problem_says_that_it_is_ours_and_whether_to_come_back(service: Serving) -> None:
    for path, retry in (("?stream=1/2/3", False), ("", False)):
        _, problem = await service.get(f"/v1/pos/events{path}", "lk_unknown_key")
        text = json.dumps(problem)
        assert '"type": "urn:pockyt-listener:problem:unauthorized"' in text
        assert f'"retry": {str(retry).lower()}' in text
    _, problem = await service.get("/v1/pos/nothing")
    assert '"retry": true' in json.dumps(problem)
    _, problem = await service.get(PATH)
    assert '"retry": true' in json.dumps(problem)
