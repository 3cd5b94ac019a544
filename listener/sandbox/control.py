"""Routes for a person or a test: pay a sale, see the truth, plan faults; under ``/sandbox/``."""

import html
import json
from typing import Final

from aiohttp import web

from listener.sandbox.book import Book, RefusalError, RetCode, Sale
from listener.sandbox.faults import Fault, Planned, Script
from listener.sandbox.front import Front

CHECKOUT_PATH: Final = "/sandbox/checkout/"

_CHECKOUT: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sandbox checkout</title>
<h1>{amount} {currency}</h1><p>Sale {number} ({reference}) is <b>{word}</b>.</p>
<form method="post" action="/sandbox/pay/{number}"><button>Pay</button></form>
</html>
"""


class Control:
    """The routes that Pockyt itself does not have."""

    def __init__(self, *, book: Book, script: Script, front: Front) -> None:
        self._book = book
        self._script = script
        self._front = front

    def routes(self) -> list[web.RouteDef]:
        """List the routes."""
        return [
            web.get(CHECKOUT_PATH + "{transactionNo}", self._checkout),
            web.post("/sandbox/pay/{transactionNo}", self._pay),
            web.get("/sandbox/sales", self._sales),
            web.get("/sandbox/faults", self._faults),
            web.post("/sandbox/faults", self._plan),
        ]

    async def _checkout(self, request: web.Request) -> web.Response:
        """Show a sale with a button that pays it, as the customer's phone would."""
        sale = self._book.get(request.match_info["transactionNo"])
        if sale is None:
            raise web.HTTPNotFound
        page = _CHECKOUT.format(
            amount=sale.amount,
            currency=sale.order.currency,
            number=sale.transaction_no,
            reference=html.escape(sale.order.reference),
            word=sale.word,
        )
        return web.Response(text=page, content_type="text/html")

    async def _pay(self, request: web.Request) -> web.Response:
        """Pay as the customer does; a browser is sent back to the page it came from."""
        try:
            sale = self._front.pay(request.match_info["transactionNo"])
        except RefusalError as refusal:
            status = 404 if refusal.code is RetCode.NO_RECORD else 409
            return web.json_response({"error": refusal.message}, status=status)
        if "text/html" in request.headers.get("Accept", ""):
            raise web.HTTPSeeOther(CHECKOUT_PATH + sale.transaction_no)
        return web.json_response(self._told(sale))

    async def _sales(self, _request: web.Request) -> web.Response:
        """List the truth about every sale, oldest first."""
        self._front.expire()
        return web.json_response({"data": [self._told(sale) for sale in self._book]})

    def _told(self, sale: Sale) -> dict[str, str]:
        return {
            "transactionNo": sale.transaction_no,
            "merchantNo": sale.order.merchant_no,
            "storeNo": sale.order.store_no,
            "reference": sale.order.reference,
            "amount": f"{sale.amount}",
            "currency": sale.order.currency,
            "status": sale.word,
            "shownStatus": self._book.shown(sale),
            "refunded": f"{sale.refunded:.2f}",
            "truth": self._book.truth(sale),
        }

    async def _faults(self, _request: web.Request) -> web.Response:
        """List the planned faults, those that have struck, and those that exist."""
        return web.json_response(
            {
                "faults": [str(planned) for planned in self._script.planned],
                "struck": dict(self._script.struck),
                "names": list(Fault),
            }
        )

    async def _plan(self, request: web.Request) -> web.Response:
        """Plan ``{"faults": ["NAME", "NAME@2", "NAME%25"]}`` instead of the present plan."""
        try:
            wanted = json.loads(await request.read())["faults"]
            self._script.replace([Planned.parse(str(text)) for text in wanted])
        except (ValueError, KeyError, TypeError) as error:
            return web.json_response({"error": f"{error}"}, status=400)
        return await self._faults(request)
