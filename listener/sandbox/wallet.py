"""Run the wallet server: Pockyt tells it to abandon a sale, it cancels and calls back.

Source: Pockyt, the "Cancel API" tutorial, steps 4 and 5.
"""

import json
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import web

from listener.pockyt.texts import json_fields
from listener.sandbox.faults import Fault, Place
from listener.sandbox.stage import Stage
from listener.sandbox.steps import SandboxStep

ABANDON_PATH: Final = "/wallet/abandon"
SLOW_SECONDS: Final = 120.0
CALLBACK_PAUSES_SECONDS: Final = (0, 5, 30)


class WalletServer:
    """The wallet's side of a cancel, over HTTP and with its own faults."""

    def __init__(self, *, stage: Stage) -> None:
        self._stage = stage

    def routes(self) -> list[web.RouteDef]:
        """List its one route."""
        return [web.post(ABANDON_PATH, self._abandon)]

    async def _abandon(self, request: web.Request) -> web.Response:
        """Accept the request to abandon a sale: 202, and the status follows by callback."""
        try:
            said = json_fields(await request.read())
            transaction_no, callback_url = said["transactionNo"], said["callbackUrl"]
        except (ValueError, KeyError):
            return _status("unreadable", http_status=400)
        detail = {"transactionNo": transaction_no}
        faults = self._stage.strike(Place.WALLET, detail)
        if Fault.WALLET_DOWN in faults and request.transport is not None:
            request.transport.abort()
        if Fault.WALLET_PAID in faults:
            return _status("paid", http_status=409)
        if Fault.WALLET_REFUSING in faults:
            return _status("refused", http_status=409)
        slow = Fault.WALLET_SLOW in faults
        if Fault.WALLET_DOWN in faults or not self._stage.tasks.start(
            self._cancel(detail, callback_url, slow=slow)
        ):
            return _status("overloaded", http_status=503)
        return _status("accepted", http_status=202)

    async def _cancel(self, detail: Mapping[str, str], callback_url: str, *, slow: bool) -> None:
        if slow:
            await self._stage.clock.sleep(SLOW_SECONDS)
        self._stage.on_step(SandboxStep.WALLET_CANCELLED, detail)
        for pause_seconds in CALLBACK_PAUSES_SECONDS:
            await self._stage.clock.sleep(pause_seconds)
            try:
                async with self._stage.session.post(
                    callback_url, json={**detail, "status": "cancelled"}
                ) as response:
                    if response.status == 200:
                        return
            except (OSError, aiohttp.ClientError):
                continue


def _status(status: str, *, http_status: int) -> web.Response:
    return web.Response(
        status=http_status,
        body=json.dumps({"status": status}).encode(),
        content_type="application/json",
    )
