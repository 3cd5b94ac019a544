"""Call Pockyt: start a sale, cancel it, ask for it, give money back.

A public Python API, usable without the rest of the listener::

    async with aiohttp.ClientSession() as session:
        pockyt = PockytClient("https://mapi.pockyt.io", session=session)
        credentials = Credentials(merchant_no="200043", store_no="303660", token=Token(text))
        answer = await pockyt.tran_query(credentials, transaction_no="297553638301777927")
        print(answer.word, answer.amount)

Source: Pockyt, "Signing API Calls".
"""

from collections.abc import Mapping
from typing import Final

import aiohttp

from listener.pockyt.answer import (
    Answer,
    PockytError,
    PockytRefusedError,
    PockytUnavailableError,
    is_answer,
)
from listener.pockyt.calls import Call, Credentials, PockytCalls
from listener.pockyt.signature import Token

__all__ = [
    "Answer",
    "Call",
    "Credentials",
    "PockytCalls",
    "PockytClient",
    "PockytError",
    "PockytRefusedError",
    "PockytUnavailableError",
    "Token",
]

TIMEOUT_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 256 * 1024
REQUEST_ID_HEADER: Final = "Pockyt-Request-ID"


class PockytClient(PockytCalls):
    """Calls Pockyt over HTTPS with a session that the caller opens and closes.

    ``proxy`` is the URL of a proxy to call through, with user and password if it needs them.
    """

    def __init__(
        self,
        url: str,
        *,
        session: aiohttp.ClientSession,
        timeout_seconds: float = TIMEOUT_SECONDS,
        proxy: str | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._proxy = proxy
        # Half of the time is for connecting, so that a dead host is known not to have received the
        # call.
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=timeout_seconds / 2)

    async def exchange(self, call: Call, body: bytes, *, request_id: str) -> bytes:
        """POST a body. Cancelling this hangs up, which Pockyt may not notice."""
        headers = {"Content-Type": "application/json", REQUEST_ID_HEADER: request_id}
        try:
            status, answer = await self._post(call, body, headers)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise PockytUnavailableError(
                "it cannot be reached", reason="connection", sent=False
            ) from error
        except TimeoutError as error:
            raise PockytUnavailableError("it did not answer in time", reason="timeout") from error
        except aiohttp.ClientError as error:
            raise PockytUnavailableError("it hung up", reason="connection") from error
        # Pockyt's pages also show refusals under HTTP 400, and an edge may change a 200.
        is_read = status == 200 or (status // 100 in (2, 4) and is_answer(answer))
        if not is_read:
            raise PockytUnavailableError(f"HTTP {status}", reason="status")
        return answer

    async def _post(self, call: Call, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return the status and the body of an answer.

        Raises:
            PockytUnavailableError: The answer is too large, or the proxy could not reach Pockyt.
        """
        try:
            async with self._session.post(
                self._url + call,
                data=body,
                headers=headers,
                timeout=self._timeout,
                proxy=self._proxy,
                allow_redirects=False,
            ) as response:
                return response.status, await _read(response.content)
        except aiohttp.ClientHttpProxyError as error:
            proxy_status = error.status
        # Not within the block above, because that error holds the proxy's password.
        raise PockytUnavailableError(
            f"the proxy answered HTTP {proxy_status}", reason="connection", sent=False
        )


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Read a body to its end, up to a limit."""
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise PockytUnavailableError("its answer is too large", reason="too_large")
    return bytes(body)
