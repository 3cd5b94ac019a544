"""Who uses several nodes that fail: Pockyt's notifications, cashiers, and tills that hop."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Protocol

import aiohttp

from listener.pos.client import Follower, MemoryPositions
from tests.fault.load import QUICK
from tests.support.service import FIELDS, FORM, MERCHANT_NO, STORE_NO, STREAM, signed

PATH: Final = f"/notify/{MERCHANT_NO}/{STORE_NO}"
# Of all notifications: how many come again, and how many are of a few transactions.
REPEATED: Final = 0.05
SHARED: Final = 0.05
SHARED_TRANSACTIONS: Final = 20
REST_SECONDS: Final = 0.005
AGAIN_SECONDS: Final = 0.05
STAY_SECONDS: Final = (0.5, 3.0)
CANCEL_SECONDS: Final = 20.0

# A transaction number, and the time that the message tells.
Message = tuple[str, str]


class Place(Protocol):
    """A node, as those see it who use it."""

    @property
    def url(self) -> str: ...
    @property
    def is_paused(self) -> bool: ...


@dataclass(slots=True)
class Sent:
    """What all senders have sent."""

    numbers: "count[int]" = field(default_factory=lambda: count(1))
    acknowledged: set[Message] = field(default_factory=set)
    repeats: int = 0
    # How long an answer took (seconds) while another node was paused.
    beside_a_pause: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Sender:
    """Sends one notification after the other, to any node, again until it is acknowledged."""

    nodes: Sequence[Place]
    client: aiohttp.ClientSession
    chance: random.Random
    sent: Sent
    is_over: bool = False
    _again: deque[Message] = field(default_factory=deque)

    async def work(self) -> None:
        """Send until it is over, and all that was sent is acknowledged."""
        while self._again or not self.is_over:
            message = self._again.popleft() if self._again else self._next()
            if not await self._deliver(message):
                self._again.append(message)
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self.sent.acknowledged.add(message)
            if self.chance.random() < REPEATED:
                self.sent.repeats += 1
                await self._deliver(message)
            await asyncio.sleep(REST_SECONDS)

    def _next(self) -> Message:
        number = next(self.sent.numbers)
        if self.chance.random() < SHARED:
            return f"9{number % SHARED_TRANSACTIONS:017d}", f"{number:014d}"
        return f"{number:018d}", FIELDS["time"]

    async def _deliver(self, message: Message) -> bool:
        node = self.chance.choice(self.nodes)
        number, at = message
        fields = {**FIELDS, "transactionNo": number, "reference": f"r{number}", "time": at}
        is_beside = not node.is_paused and any(other.is_paused for other in self.nodes)
        began = time.monotonic()
        try:
            async with self.client.post(
                node.url + PATH, data=signed(fields), headers={"Content-Type": FORM}
            ) as answer:
                done = answer.status == 200 and await answer.read() == b"success"
        except (aiohttp.ClientError, TimeoutError):
            return False
        if done and is_beside and any(other.is_paused for other in self.nodes):
            self.sent.beside_a_pause.append(time.monotonic() - began)
        return done


@dataclass(slots=True)
class Cashier:
    """Sells and cancels; each wish is sent under its Idempotency-Key until a node answers it."""

    nodes: Sequence[Place]
    client: aiohttp.ClientSession
    chance: random.Random
    key: str
    is_over: bool = False
    sold: list[str] = field(default_factory=list)
    cancelled: int = 0

    async def work(self) -> None:
        """Sell and cancel until it is over."""
        while not self.is_over:
            reference = f"W-{self.chance.getrandbits(64):016x}"
            number = await self._sell(reference)
            if number is not None:
                self.sold.append(reference)
                await self._cancel(number)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _sell(self, reference: str) -> str | None:
        """Start a sale; None where it is over before a node has said how it went.

        The first is sold even so, once the nodes are left alone.
        """
        order = {
            "reference": reference,
            "amount": "13.00",
            "currency": "USD",
            "settleCurrency": "USD",
            "storeNo": STORE_NO,
            "terminal": "T-9",
        }
        while not (self.is_over and self.sold):
            status, body = await self._ask("/v1/transactions", order, wish=reference)
            if status == 201:
                return str(body["transactionNo"])
            assert status in (None, 409, 429, 502, 503), (status, body)
            await asyncio.sleep(AGAIN_SECONDS)
        return None

    async def _cancel(self, number: str) -> None:
        """Cancel, and have it told again until it has ended, or for so long as a cashier waits."""
        ends_at = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < ends_at and not self.is_over:
            path = f"/v1/transactions/{number}/cancel"
            status, body = await self._ask(path, None, wish=f"cancel {number}".replace(" ", "-"))
            if status == 200:
                self.cancelled += 1
                return
            assert status in (None, 202, 409, 429, 502, 503), (status, body)
            await asyncio.sleep(AGAIN_SECONDS * 4)

    async def _ask(
        self, path: str, body: object, *, wish: str
    ) -> tuple[int | None, dict[str, object]]:
        """POST to any node; no status where it did not answer."""
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": wish}
        url = self.chance.choice(self.nodes).url + path
        try:
            async with self.client.post(url, json=body, headers=headers) as answer:
                found = await answer.json(content_type=None)
                return answer.status, found if isinstance(found, dict) else {}
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None, {}


@dataclass(slots=True)
class HoppingTill:
    """A till that comes back to another node every few seconds, and goes on where it was."""

    nodes: Sequence[Place]
    chance: random.Random
    told: list[str] = field(default_factory=list)
    hops: int = 0

    async def hop(self, key: str) -> None:
        """Follow for ever."""
        position = MemoryPositions()
        while True:
            self.hops += 1
            async with Follower(
                self.chance.choice(self.nodes).url,
                key=key,
                streams=[STREAM],
                position=position,
                start="earliest",
                timing=QUICK,
            ) as follower:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.chance.uniform(*STAY_SECONDS)):
                        async for event in follower:
                            self.told.append(event.id)
