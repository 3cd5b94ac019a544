"""Pockyt called through a proxy, as the network of a shop may demand."""

import asyncio
import base64
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from listener.pockyt.client import Credentials, PockytClient, PockytUnavailableError
from listener.pockyt.signature import Token

CREDENTIALS = Credentials(merchant_no="200043", store_no="300014", token=Token("t" * 32))
PASSWORD = "hidden:5cf371e7b1a9"
ACCEPTED = b'{"result": {"status": "success"}, "ret_code": "000100", "ret_msg": "query success "}'


class Proxy:
    """A proxy that answers everything itself; ``heard`` is what it was asked, head by head."""

    def __init__(self, answer: bytes) -> None:
        self.heard: list[str] = []
        self.port = 0
        self._answer = answer

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self._answer)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def proxying(answer: bytes) -> AsyncIterator[Proxy]:
    proxy = Proxy(answer)
    async with await asyncio.start_server(proxy.talk, "127.0.0.1", 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy


async def ask(url: str, proxy: str) -> str | None:
    async with aiohttp.ClientSession() as session:
        client = PockytClient(url, session=session, timeout_seconds=5, proxy=proxy)
        return (await client.tran_query(CREDENTIALS, reference="r")).word


async def test_a_call_goes_through_the_proxy_with_its_user_and_password() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ACCEPTED)
    async with proxying(head + ACCEPTED) as proxy:
        url = f"http://me:{PASSWORD.replace(':', '%3A')}@127.0.0.1:{proxy.port}"
        assert await ask("http://mapi.pockyt.invalid", url) == "success"
    (heard,) = proxy.heard
    assert heard.startswith("POST http://mapi.pockyt.invalid/app-data-search/v3/tran-query ")
    known = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert f"Proxy-Authorization: Basic {known}" in heard


async def test_a_proxy_that_makes_no_way_has_sent_nothing() -> None:
    refusal = b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n"
    async with proxying(refusal) as proxy:
        with pytest.raises(PockytUnavailableError, match="the proxy answered HTTP 407") as caught:
            await ask("https://mapi.pockyt.invalid", f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}")
    assert (caught.value.reason, caught.value.sent) == ("connection", False)
    assert proxy.heard[0].startswith("CONNECT mapi.pockyt.invalid:443 ")
    _shows_no_password(caught.value)


async def test_a_proxy_that_cannot_be_reached_has_sent_nothing() -> None:
    async with proxying(b"") as proxy:
        url = f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"
    with pytest.raises(PockytUnavailableError, match="cannot be reached") as caught:
        await ask("https://mapi.pockyt.invalid", url)
    assert (caught.value.reason, caught.value.sent) == ("connection", False)
    _shows_no_password(caught.value)


def _shows_no_password(error: BaseException) -> None:
    everything = "".join(traceback.format_exception(error)) + repr(error.__context__)
    assert PASSWORD not in everything
    assert base64.b64encode(f"me:{PASSWORD}".encode()).decode() not in everything
