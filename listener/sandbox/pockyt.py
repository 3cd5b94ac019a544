"""Run the stand-in Pockyt: the documented paths, and the callback of the wallet server.

Source: Pockyt, "Signing API Calls", "Cancel API" and the page of each call.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web

from listener.pockyt.calls import Call
from listener.pockyt.client import REQUEST_ID_HEADER
from listener.pockyt.texts import json_fields
from listener.sandbox.book import Book, Sale
from listener.sandbox.desk import Desk, Follow
from listener.sandbox.front import HTML_ERROR, Front, Served
from listener.sandbox.notifier import Notifier
from listener.sandbox.stage import Stage
from listener.sandbox.steps import SandboxStep
from listener.sandbox.wallet import ABANDON_PATH

BODY_BYTES_MAX: Final = 64 * 1024
FIELDS_MAX: Final = 100
REQUEST_ID_CHARS_MAX: Final = 128
ABANDONING_MAX: Final = 1_000
HANG_SECONDS: Final = 120.0
SWEEP_SECONDS: Final = 30.0
SWEEP_REAL_SECONDS_MIN: Final = 0.02
WALLET_PAUSES_SECONDS: Final = (0, 5, 30)
CALLBACK_PATH: Final = "/sandbox/wallet-callback/"

_OLDER_PATHS: Final[Mapping[str, Call]] = MappingProxyType(
    {"/app-instore/v3/pay": Call.PREPAY, "/app-data-search/v3/reverse": Call.CANCEL}
)
_Handler = Callable[[web.Request], Awaitable[web.Response]]


class PockytServer:
    """Pockyt's HTTP side: answers calls, tells the wallet server, relays its callback."""

    def __init__(
        self,
        *,
        book: Book,
        desk: Desk,
        notifier: Notifier,
        stage: Stage,
        url: str,
        wallet_url: str,
        notify_on_cancel: bool,
    ) -> None:
        self.front = Front(
            book=book,
            desk=desk,
            script=stage.script,
            now_seconds=stage.clock.now_seconds,
            on_follow=self._follow,
            notify_on_cancel=notify_on_cancel,
            on_step=stage.on_step,
        )
        self._book = book
        self._notifier = notifier
        self._stage = stage
        self._url = url
        self._wallet_url = wallet_url
        # By the secret key of each callback: the sale, and whether its end is to be relayed.
        self._abandoning: OrderedDict[str, tuple[Sale, bool]] = OrderedDict()

    def routes(self) -> list[web.RouteDef]:
        """List the routes of Pockyt's calls, under their present and older names."""
        paths = {**{call.value: call for call in Call}, **_OLDER_PATHS}
        return [
            *[web.post(path, self._answering(call)) for path, call in paths.items()],
            web.post(CALLBACK_PATH + "{key}", self._wallet_callback),
        ]

    async def sweep(self) -> None:
        """Close the sales whose time is up, for ever."""
        pause_seconds = max(self._stage.clock.real_seconds(SWEEP_SECONDS), SWEEP_REAL_SECONDS_MIN)
        while True:
            self.front.expire()
            await asyncio.sleep(pause_seconds)

    def _answering(self, call: Call) -> _Handler:
        """Make the handler of one call."""

        async def answer(request: web.Request) -> web.Response:
            fields = _read_fields(await request.read())
            request_id = request.headers.get(REQUEST_ID_HEADER, "")[:REQUEST_ID_CHARS_MAX]
            # Nothing is awaited in here: a caller that hangs up cannot interrupt it.
            served = self.front.serve(call, fields, request_id=request_id)
            if served.hangs:
                # The caller hung up, or the sandbox stopped.
                await asyncio.sleep(HANG_SECONDS)
            return written(served)

        return answer

    def _follow(self, follow: Follow, sale: Sale, relay: bool) -> None:
        if follow is Follow.ABANDON:
            self._abandon(sale, relay=relay)
        else:
            self._notifier.notify(sale, self._book.shown(sale))

    def _abandon(self, sale: Sale, *, relay: bool) -> None:
        """Start to tell the wallet server; only it knows the key for its callback."""
        key = secrets.token_urlsafe()
        self._abandoning[key] = (sale, relay)
        if len(self._abandoning) > ABANDONING_MAX:
            self._abandoning.popitem(last=False)
        if not self._stage.tasks.start(self._tell_wallet(key, sale)):
            self._give_up(key, sale, SandboxStep.WALLET_UNREACHABLE)

    async def _tell_wallet(self, key: str, sale: Sale) -> None:
        word = {
            "transactionNo": sale.transaction_no,
            "callbackUrl": f"{self._url}{CALLBACK_PATH}{key}",
        }
        for pause_seconds in WALLET_PAUSES_SECONDS:
            await self._stage.clock.sleep(pause_seconds)
            self._stage.on_step(SandboxStep.WALLET_TOLD, {"transactionNo": sale.transaction_no})
            try:
                async with self._stage.session.post(
                    self._wallet_url + ABANDON_PATH, json=word
                ) as told:
                    said = json_fields(await told.content.read(BODY_BYTES_MAX)).get("status")
            except (OSError, ValueError, aiohttp.ClientError):
                continue
            if said == "accepted":
                return
            if said in ("paid", "refused"):
                self._give_up(key, sale, SandboxStep.WALLET_REFUSED)
                if said == "paid":
                    self.front.pay_late(sale)
                return
        self._give_up(key, sale, SandboxStep.WALLET_UNREACHABLE)

    def _give_up(self, key: str, sale: Sale, step: SandboxStep) -> None:
        self._abandoning.pop(key, None)
        self._stage.on_step(step, {"transactionNo": sale.transaction_no})

    async def _wallet_callback(self, request: web.Request) -> web.Response:
        """Receive the cancellation status from the wallet server, and relay it."""
        try:
            status = json_fields(await request.read())["status"]
        except (ValueError, KeyError):
            return web.json_response({"error": "unreadable"}, status=400)
        sale, relay = self._abandoning.pop(request.match_info["key"], (None, False))
        if sale is None:
            return web.json_response({"error": "no such cancellation"}, status=404)
        detail = {"transactionNo": sale.transaction_no, "status": status}
        self._stage.on_step(SandboxStep.WALLET_CALLED_BACK, detail)
        if relay:
            self._notifier.notify(sale, sale.word)
        return web.json_response({"status": "taken"})


def written(served: Served) -> web.Response:
    """Write what a call was answered."""
    if served.hangs or served.fails:
        return web.Response(status=503, text="Service Unavailable")
    if served.is_html:
        return web.Response(text=HTML_ERROR, content_type="text/html")
    return web.Response(body=served.body, content_type="application/json")


def _read_fields(body: bytes) -> dict[str, str]:
    """Read a call, JSON or form; an unreadable one has no fields, and so no signature."""
    try:
        if body.lstrip().startswith(b"{"):
            return json_fields(body)
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX
        )
    except ValueError:
        return {}
    return dict(pairs)
