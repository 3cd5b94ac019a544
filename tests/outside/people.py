"""The people around one sale, who try again as real ones do: cashier, customer, owner, operator."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from listener.clock import now_ms
from listener.sandbox.book import Word
from tests.outside.listener import Answer, Json, Listener
from tests.outside.pockyt import PockytOfTruth
from tests.support.service import MERCHANT_NO

TRIES_MAX: Final = 12
TRY_AGAIN_SECONDS: Final = 1.0
# Nobody answered, too busy, under way, or cannot be done now.
AGAIN: Final = frozenset({None, 429, 500, 502, 503, 504})


@dataclass(slots=True, kw_only=True)
class Press:
    """A cashier's press of "cancel": when it began, and the answer, once there is one."""

    refunds: bool
    began_ms: int
    answer: Answer | None = None
    answered_ms: int = 0


@dataclass(slots=True, kw_only=True)
class Wishes:
    """What was wished of one sale, and what the listener answered."""

    reference: str
    store_no: str
    started: Answer | None = None
    presses: list[Press] = field(default_factory=list)


class People:
    """One sale's people."""

    def __init__(self, listener: Listener, pockyt: PockytOfTruth, wishes: Wishes) -> None:
        self._listener = listener
        self._pockyt = pockyt
        self._wishes = wishes
        self._reference = wishes.reference
        keys = listener.keys[wishes.store_no]
        self._key = keys[sum(wishes.reference.encode()) % len(keys)]

    async def start(self, vendor: str | None) -> None:
        """Start the sale; again where nobody can say whether it was."""
        body = {
            "reference": self._reference,
            "amount": "13.00",
            "currency": "USD",
            "settleCurrency": "USD",
            "storeNo": self._wishes.store_no,
        }
        if vendor:
            body["vendor"] = vendor
        self._wishes.started = await self._press("/v1/transactions", body, name="start")

    async def cancel(self, *, refunds: bool, by_reference: bool) -> None:
        """Cancel by the number, or by the reference where the till has none or prefers it."""
        press = Press(refunds=refunds, began_ms=now_ms())
        self._wishes.presses.append(press)
        number = self._number
        path = f"/v1/sales/{self._reference}/cancel"
        if number and not by_reference:
            path = f"/v1/transactions/{number}/cancel"
        name = f"cancel-{len(self._wishes.presses)}"
        press.answer = await self._press(path, {"refundIfPaid": refunds}, name=name)
        press.answered_ms = now_ms()

    async def charge(self, barcode: str) -> None:
        """Charge the customer's code."""
        if self._number:
            path = f"/v1/transactions/{self._number}/pay"
            await self._press(path, {"paymentBarcode": barcode}, name="pay")

    async def ask(self) -> None:
        """Ask Pockyt now, as an operator."""
        if self._number:
            await self._listener.ask(self._number)

    async def decide(self, status: str | None, *, looks: bool = True) -> None:
        """Decide as an operator who has seen the truth, or who is wrong about it.

        One who ``looks``, as on the dashboard, is refused if the transaction changes meanwhile.
        """
        sale = self._pockyt.book.get(self._number or "")
        status = status or (self._pockyt.book.truth(sale) if sale else None)
        if status in ("paid", "failed", "cancelled", "refunded"):
            body: Json = {"status": status, "name": "Ada", "reason": "seen at the wallet"}
            path = f"/v1/transactions/{self._number}"
            if looks:
                seen = await self._listener.call("GET", path)
                body["stateVersion"] = seen.body.get("stateVersion")
            await self._listener.call("POST", f"{path}/decide", body)

    async def customer_pays(self) -> None:
        """Pay by the code that the till shows."""
        self._pockyt.pay(self._reference)

    async def owner_refunds(self, *, part: bool) -> None:
        """Refund at Pockyt's own pages."""
        self._pockyt.refund(self._reference, part=part)

    async def forge(self, word: Word) -> None:
        """Send a notification without knowing the token."""
        if self._pockyt.number(self._reference):
            url = f"{self._listener.url}/notify/{MERCHANT_NO}/{self._wishes.store_no}"
            await self._pockyt.forge(url, self._reference, word)

    async def nothing(self) -> None:
        """Wait until now."""

    @property
    def _number(self) -> str | None:
        started = self._wishes.started
        return started.body["transactionNo"] if started and started.status == 201 else None

    async def _press(self, path: str, body: object, *, name: str) -> Answer:
        """Send a wish, and the same again for as long as nobody can say what became of it."""
        tries = 0
        while True:
            answer = await self._listener.call(
                "POST", path, body, key=self._key, idempotency_key=f"{self._reference}-{name}"
            )
            tries += 1
            is_under_way = answer.body.get("code") == "under-way"
            if (answer.status not in AGAIN and not is_under_way) or tries == TRIES_MAX:
                return answer
            await asyncio.sleep(TRY_AGAIN_SECONDS)
