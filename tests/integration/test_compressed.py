"""Compressed bodies: a real coding is read, within the limit that every body has."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from listener.pockyt.notification import BODY_BYTES_MAX
from listener.web.http_connection import LINGER_BYTES_MAX
from listener.web.shapes.raw import MEMBERS_MAX
from tests.support.deliveries import NOTIFY, entries, post
from tests.support.service import FIELDS, FORM, Serving, serving, signed

FULL: Final = signed(
    {**FIELDS, "note": "n" * (BODY_BYTES_MAX - len(signed({**FIELDS, "note": ""})))}
)
ZEROS: Final = gzip.compress(b"\0" * (8 << 20))


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(body) + stream.flush()


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def coded(service: Serving, body: bytes, coding: str) -> int:
    return (await post(service, body, headers={"Content-Encoding": coding}))[0]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(signed(FIELDS))),
        ("GZIP", gzip.compress(signed(FIELDS))),
        ("x-gzip", gzip.compress(signed(FIELDS))),
        ("gzip, identity", gzip.compress(signed(FIELDS))),
        ("gzip", gzip.compress(signed(FIELDS)[:50]) + gzip.compress(signed(FIELDS)[50:])),
        ("deflate", zlib.compress(signed(FIELDS))),
        ("deflate", raw_deflate(signed(FIELDS))),
        ("UTF-8", signed(FIELDS)),
        ("identity", signed(FIELDS)),
        ("none, utf-8", signed(FIELDS)),
        ("", signed(FIELDS)),
    ],
)
async def test_a_signed_body_is_taken_in_every_coding(
    service: Serving, coding: str, body: bytes
) -> None:
    assert await coded(service, body, coding) == 200
    (entry,) = await entries(service)
    assert entry["fields"] == dict(FIELDS)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_plain_signed_body_that_is_called_compressed_is_taken(
    service: Serving, coding: str
) -> None:
    assert await coded(service, signed(FIELDS), coding) == 200
    (entry,) = await entries(service)
    assert entry["fields"] == dict(FIELDS)


@pytest.mark.parametrize(("coding", "status"), [("gzip", 400), ("br", 415)])
async def test_an_unsigned_body_that_is_called_compressed_is_refused(
    service: Serving, coding: str, status: int
) -> None:
    assert await coded(service, b"amount=13.00", coding) == status


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_body_has_64_kib_when_it_is_decompressed(
    service: Serving, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    assert len(FULL) == BODY_BYTES_MAX
    assert await coded(service, pack(FULL), coding) == 200
    assert await coded(service, pack(FULL + b"n"), coding) == 413


async def test_a_body_has_64_kib_when_it_is_compressed(service: Serving) -> None:
    """Gzip ignores what a name in its head says, which fills it up to any size."""
    short = gzip.compress(signed(FIELDS), mtime=0)
    for more, status in ((0, 200), (1, 413)):
        name = b"n" * (BODY_BYTES_MAX - len(short) - 1 + more) + b"\0"
        body = short[:3] + b"\x08" + short[4:10] + name + short[10:]
        assert len(body) == BODY_BYTES_MAX + more
        assert await coded(service, body, "gzip") == status


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", ZEROS, 413),
        ("gzip", gzip.compress(signed(FIELDS))[:-4], 400),
        ("gzip", gzip.compress(signed(FIELDS)) + b"more", 400),
        ("gzip", zlib.compress(signed(FIELDS)), 400),
        ("deflate", zlib.compress(signed(FIELDS)) + b"more", 400),
        ("gzip", b"", 401),
        ("gzip", gzip.compress(b"") * MEMBERS_MAX, 401),
        ("gzip", gzip.compress(b"") * (MEMBERS_MAX + 1), 400),
        ("gzip, gzip", gzip.compress(gzip.compress(signed(FIELDS))), 415),
        ("gzip, br", gzip.compress(signed(FIELDS)), 415),
    ],
)
async def test_a_body_not_encoded_as_it_says_is_refused(
    service: Serving, coding: str, body: bytes, status: int
) -> None:
    assert await coded(service, body, coding) == status
    assert await entries(service) == []


@pytest.mark.parametrize("length", ["Content-Length: 100000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [NOTIFY, "/notify/999999", "/v1/pos/acks", "/nowhere"])
async def test_a_body_that_is_refused_is_not_read_on_for(
    service: Serving, path: str, length: str
) -> None:
    parts = urlsplit(service.url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Encoding: gzip\r\n"
    writer.write(f"{head}{length}\r\n\r\n".encode())
    sent = 0
    block = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(5):
            while True:
                writer.write(block)
                sent += len(block)
                await writer.drain()
    # What the kernel took on both sides comes on top.
    assert sent < LINGER_BYTES_MAX + (16 << 20)
    writer.close()


async def test_the_request_after_a_small_refused_body_is_answered(service: Serving) -> None:
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    large = b"x" * (LINGER_BYTES_MAX // 2)
    head = f"POST {NOTIFY} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
    writer.write(f"{head}Content-Length: {len(large)}\r\n\r\n".encode() + large)
    body = signed(FIELDS)
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(5):
        told = await reader.read()
    assert b" 413 " in told
    assert told.endswith(b"success")
    writer.close()
