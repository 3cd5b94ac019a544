"""A Pockyt over HTTP that knows how each sale stands, and writes down what it was asked.

Each sale has faults of its own, drawn from the seed and its reference: what happens to one does not
depend on how quickly others are served.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import aiohttp
from aiohttp import web

from listener.clock import now_ms
from listener.pockyt.calls import Call
from listener.pockyt.client import REQUEST_ID_HEADER
from listener.pockyt.signature import Token
from listener.pockyt.texts import json_fields
from listener.sandbox.book import Book, RefundShows, RefusalError, RetCode, Sale, Word
from listener.sandbox.desk import Desk, Follow
from listener.sandbox.faults import Fault, Place, Planned, Script
from listener.sandbox.front import Front, Served
from listener.sandbox.message import SignedMessage, notification_fields, truncate, word_notification
from listener.sandbox.pockyt import written
from listener.sandbox.servers import SAMPLE_MERCHANT_NO, SAMPLE_OLD_TOKEN, SAMPLE_TOKEN
from tests.outside.bodies import Fields, read_fields, send_and_hang_up

# The pauses between the attempts to bring a notification; afterwards the last one, again and again.
PAUSES_SECONDS: Final = (0.0, 0.5, 1.0, 2.0, 3.0)
ATTEMPTS_MAX: Final = 60
ATTEMPT_SECONDS: Final = 5.0
LATE_SECONDS: Final = (5.0, 25.0)
REORDERED_SECONDS: Final = 2.0
REPEATED_SECONDS: Final = (0.0, 8.0)
WALLET_SECONDS: Final = 0.05
# Longer than the listener waits for an answer.
HANG_SECONDS: Final = 2.0
LATE_CALL_SECONDS: Final = (1.5, 6.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A call that arrived: about which sale, when, and what its answer was.

    ``word`` is None where the listener cannot have read the answer; ``refused`` says that Pockyt
    did nothing, whether that was read or not.
    """

    call: Call
    reference: str
    at_ms: int
    word: str | None
    refused: bool


@dataclass(slots=True, kw_only=True)
class Story:
    """What goes wrong with one sale at Pockyt."""

    script: Script
    front: Front
    dice: random.Random
    # The share of calls that are carried out after the listener has given up.
    late_calls: float


@dataclass(slots=True, kw_only=True)
class Kept:
    """What was written down."""

    calls: list[Called] = field(default_factory=list)
    brought: set[Fields] = field(default_factory=set)
    acknowledged: Counter[Fields] = field(default_factory=Counter)
    # The sales of which a notification was lost for ever.
    lost: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class PockytOfTruth:
    """A running Pockyt. ``book`` says what is true; ``kept``, what was asked and brought."""

    def __init__(self, *, seed: int, refund_shows: RefundShows, notify_on_cancel: bool) -> None:
        self.book = Book(seed=seed, refund_shows=refund_shows)
        self.kept = Kept()
        self.url = ""
        self.is_down = False
        self._seed = seed
        self._notify_on_cancel = notify_on_cancel
        self._desk = Desk(self.book, merchants={SAMPLE_MERCHANT_NO: Token(SAMPLE_TOKEN)})
        self._stories: dict[str, Story] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def tell(self, reference: str, *, faults: Sequence[Planned], late_calls: float) -> Story:
        """Begin the story of a sale that is not started yet."""
        dice = random.Random(f"pockyt {self._seed} {reference}")
        script = Script(faults, seed=dice.randrange(2**32))
        story = Story(
            script=script,
            front=Front(
                book=self.book,
                desk=self._desk,
                script=script,
                now_seconds=lambda: now_ms() / 1_000,
                on_follow=partial(self._follow, reference),
                notify_on_cancel=self._notify_on_cancel,
            ),
            dice=dice,
            late_calls=late_calls,
        )
        self._stories[reference] = story
        return story

    def number(self, reference: str) -> str | None:
        """Return the number of a sale; None where Pockyt has not started it."""
        with suppress(RefusalError):
            return self.book.find(SAMPLE_MERCHANT_NO, reference=reference).transaction_no
        return None

    def pay(self, reference: str) -> None:
        """Pay as the customer does, if that can be paid."""
        number = self.number(reference)
        with suppress(RefusalError):
            if number:
                self._stories[reference].front.pay(number)

    def refund(self, reference: str, *, part: bool) -> None:
        """Refund as the shop's owner does at Pockyt's own pages; it is notified of."""
        with suppress(RefusalError):
            sale = self.book.find(SAMPLE_MERCHANT_NO, reference=reference)
            refund = self.book.refund(sale, "1.00" if part else f"{sale.amount - sale.refunded}")
            self.kept.counts["refunds by others"] += 1
            fields = {
                **notification_fields(sale, Word.SUCCESS, now_seconds=now_ms() / 1_000),
                "transactionType": "refund",
                "refundTransactionNo": refund.transaction_no,
                "refundAmount": f"{refund.amount}",
            }
            self._begin(self._bring(sale, fields, frozenset()))

    async def forge(self, url: str, reference: str, word: Word) -> None:
        """Send a notification as somebody does who does not know the token."""
        sale = self.book.find(SAMPLE_MERCHANT_NO, reference=reference)
        fields = notification_fields(sale, word, now_seconds=now_ms() / 1_000)
        wrong = frozenset({Fault.NOTIFICATION_WRONG_TOKEN})
        message = word_notification({**fields, "note": "forged"}, token=Token("-"), faults=wrong)
        status, _ = await self._post(url, message.body, message.content_type)
        self.kept.counts["forged"] += 1
        if status not in (None, 401, 503):
            self.kept.wrong.append(f"{reference}: what was forged is answered {status}")

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self.is_down = False
        for story in self._stories.values():
            story.script.replace(())
            story.late_calls = 0.0

    async def idle(self) -> None:
        """Wait until everything was brought that had to be."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def struck(self) -> Counter[str]:
        """How often each fault has struck."""
        found: Counter[str] = Counter()
        for story in self._stories.values():
            found.update({str(fault): times for fault, times in story.script.struck.items()})
        return found

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer calls for as long as the block lasts."""
        app = web.Application()
        app.add_routes([web.post(call, partial(self._answer, call)) for call in Call])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=HANG_SECONDS)
        async with aiohttp.ClientSession() as self._session:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield
            finally:
                for task in self._tasks:
                    task.cancel()
                await self.idle()
                await runner.cleanup()

    async def _answer(self, call: Call, request: web.Request) -> web.Response:
        fields = json_fields(await request.read())
        request_id = request.headers.get(REQUEST_ID_HEADER, "")
        sale = self.book.get(fields.get("transactionNo", ""))
        reference = sale.order.reference if sale else fields.get("reference", "")
        if self.is_down and request.transport is not None:
            request.transport.abort()
            return web.Response(status=503)
        story = self._stories[reference]
        if call is not Call.TRAN_QUERY and story.dice.random() < story.late_calls:
            return await self._serve_late(story, call, fields, request_id, reference)
        served = self._serve(story, call, fields, request_id, reference)
        if served.hangs:
            await asyncio.sleep(HANG_SECONDS)
        return written(served)

    async def _serve_late(
        self, story: Story, call: Call, fields: dict[str, str], request_id: str, reference: str
    ) -> web.Response:
        """Carry a call out when the listener waits no more; it is written down as it arrives."""
        self.kept.counts["late calls"] += 1
        self._write(call, reference, word=None, refused=False)

        async def carry_out() -> None:
            await asyncio.sleep(story.dice.uniform(*LATE_CALL_SECONDS))
            story.front.serve(call, fields, request_id=request_id)

        self._begin(carry_out())
        await asyncio.sleep(HANG_SECONDS)
        return web.Response(status=503)

    def _serve(
        self, story: Story, call: Call, fields: dict[str, str], request_id: str, reference: str
    ) -> Served:
        served = story.front.serve(call, fields, request_id=request_id)
        said = json.loads(served.body or b"{}")
        is_read = not (served.hangs or served.fails or served.is_html)
        word = said.get("result", {}).get("status") if is_read else None
        refused = said.get("ret_code") not in (None, RetCode.ACCEPTED)
        self._write(call, reference, word=word, refused=refused)
        return served

    def _write(self, call: Call, reference: str, *, word: str | None, refused: bool) -> None:
        self.kept.counts["calls"] += 1
        self.kept.calls.append(
            Called(call=call, reference=reference, at_ms=now_ms(), word=word, refused=refused)
        )

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _follow(self, reference: str, follow: Follow, sale: Sale, relay: bool) -> None:
        if follow is Follow.NOTIFY:
            self._notify(reference, sale)
        else:
            self._begin(self._tell_wallet(reference, sale, relay=relay))

    async def _tell_wallet(self, reference: str, sale: Sale, *, relay: bool) -> None:
        """Ask the wallet to abandon a sale: it does, refuses, or has taken the money already."""
        story = self._stories[reference]
        faults = story.script.strike(Place.WALLET)
        await asyncio.sleep(WALLET_SECONDS)
        if Fault.WALLET_PAID in faults:
            story.front.pay_late(sale)
        elif not faults and relay:
            self._notify(reference, sale)

    def _notify(self, reference: str, sale: Sale) -> None:
        fields = notification_fields(sale, self.book.shown(sale), now_seconds=now_ms() / 1_000)
        faults = self._stories[reference].script.strike(Place.NOTIFICATION)
        if faults & {Fault.NOTIFICATION_LOST, Fault.NOTIFICATION_WRONG_TOKEN}:
            self.kept.lost.add(sale.transaction_no)
        if Fault.NOTIFICATION_LOST not in faults:
            self._begin(self._bring(sale, fields, faults))

    async def _bring(self, sale: Sale, fields: Mapping[str, str], faults: frozenset[Fault]) -> None:
        """Bring a notification until it is acknowledged; then again, if that is its fault."""
        dice = random.Random(f"{self._seed} {sorted(fields.items())[1:]}")
        message = word_notification(
            fields, token=Token(SAMPLE_TOKEN), old_token=Token(SAMPLE_OLD_TOKEN), faults=faults
        )
        url = sale.order.ipn_url or ""
        if Fault.NOTIFICATION_LATE in faults:
            await asyncio.sleep(dice.uniform(*LATE_SECONDS))
        if Fault.NOTIFICATION_REORDERED in faults:
            await asyncio.sleep(REORDERED_SECONDS)
        is_forged = Fault.NOTIFICATION_WRONG_TOKEN in faults
        for attempt in range(ATTEMPTS_MAX):
            await asyncio.sleep(PAUSES_SECONDS[min(attempt, len(PAUSES_SECONDS) - 1)])
            settled = await self._attempt(url, message, faults if attempt == 0 else frozenset())
            if settled or is_forged:
                break
        else:
            self.kept.wrong.append(f"{sale.order.reference}: never acknowledged: {fields}")
        if settled and is_forged:
            self.kept.wrong.append(f"{sale.order.reference}: a wrong token was acknowledged")
        for _ in range(2 if Fault.NOTIFICATION_REPEATED in faults else 0):
            await asyncio.sleep(dice.uniform(*REPEATED_SECONDS))
            await self._attempt(url, message, frozenset())

    async def _attempt(self, url: str, message: SignedMessage, faults: frozenset[Fault]) -> bool:
        """Bring a notification once; return whether Pockyt holds it to be acknowledged."""
        if Fault.NOTIFICATION_STALLED in faults:
            return False
        fields = read_fields(message)
        if Fault.NOTIFICATION_WRONG_TOKEN not in faults:
            self.kept.brought.add(fields)
        if Fault.NOTIFICATION_HUNG_BEFORE in faults:
            await send_and_hang_up(url, message)
            return False
        is_cut = Fault.NOTIFICATION_TRUNCATED in faults
        body = truncate(message.body) if is_cut else message.body
        status, text = await self._post(url, body, message.content_type)
        if "success" in text and (status != 200 or text != "success"):
            self.kept.wrong.append(f"an answer {status} has the word success in it")
        is_acknowledged = status == 200
        if is_acknowledged and is_cut:
            self.kept.wrong.append("half of a notification was acknowledged")
        if is_acknowledged:
            self.kept.acknowledged[fields] += 1
        return is_acknowledged and Fault.NOTIFICATION_HUNG_AFTER not in faults

    async def _post(self, url: str, body: bytes, content_type: str) -> tuple[int | None, str]:
        assert self._session is not None
        try:
            async with (
                asyncio.timeout(ATTEMPT_SECONDS),
                self._session.post(
                    url, data=body, headers={"Content-Type": content_type}
                ) as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError):
            return None, ""
