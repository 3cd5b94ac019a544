"""One shop's world on a fake clock: customers, tills, a faulty Pockyt, listeners that are killed.

Everything is drawn from a seed. The ledger, the ingest and the lifecycle are the real ones, and
Pockyt is the shipped sandbox's; only its timer-driven half (bringing notifications, telling the
wallet) is played here, because time is.
"""

import asyncio
import heapq
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from pydantic import SecretStr

from listener.errors import ListenerError
from listener.ingest import Ingest
from listener.ledger.schedule import Confirm
from listener.lifecycle import Clock, Lifecycle, Order
from listener.lifecycle.chaser import GRACE_MS, TURN
from listener.pockyt.answer import PockytUnavailableError
from listener.pockyt.client import TIMEOUT_SECONDS, Call
from listener.pockyt.signature import Token
from listener.sandbox.book import Book, RefundShows, RefusalError, Sale, Word
from listener.sandbox.desk import Desk, Follow
from listener.sandbox.faults import Fault, Place, Planned, Script
from listener.sandbox.front import Front
from listener.sandbox.message import (
    SignedMessage,
    notification_fields,
    truncate,
    word_notification,
)
from listener.sandbox.notifier import LATE_SECONDS, PAUSES_SECONDS, REPEATS
from listener.sandbox.pockyt import WALLET_PAUSES_SECONDS
from listener.sandbox.servers import SAMPLE_MERCHANT_NO, SAMPLE_OLD_TOKEN, SAMPLE_TOKEN
from listener.sandbox.wallet import SLOW_SECONDS
from listener.settings import Merchant
from listener.storage import AnyLedger, open_ledger
from tests.support.direct import DirectPockyt

STORE_NO: Final = "303660"
BEGAN_MS: Final = 1_792_000_000_000
MERCHANTS: Final = {
    SAMPLE_MERCHANT_NO: Merchant(
        tokens=(SecretStr(SAMPLE_TOKEN), SecretStr(SAMPLE_OLD_TOKEN)), stores=(STORE_NO,)
    )
}
# A call may take so long that the outside world goes on meanwhile.
CALL_SECONDS_MAX: Final = 20.0
TIP: Final = Decimal("2.00")
REORDERED_SECONDS: Final = 90.0
# How often the schedule is looked at while a call hangs.
LOOK_MS: Final = 1_000
# A call that was held up on the way reaches Pockyt so long after it was given up.
LATE_CALL_SECONDS: Final = (0.5, 14.0)

T = TypeVar("T")
Happening = Callable[[], Awaitable[None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one world is like, beside what is scheduled in it."""

    seed: int
    confirm: Confirm = "suspicious"
    notify_on_cancel: bool = True
    refund_shows: RefundShows = "success"
    faults: tuple[Planned, ...] = ()
    # How often something from outside happens while a call is under way.
    meanwhile: float = 0.0
    # The calls during which the listener is killed: their number, and whether Pockyt heard it.
    kills: tuple[tuple[int, bool], ...] = ()
    down_seconds: float = 30.0
    # A tip on top of each amount that tran-query shows.
    tips: bool = False
    # How often Pockyt gives a new sale the number of an old one.
    repeats_numbers: float = 0.0
    # How often a call that seems lost reaches Pockyt after its caller has given up.
    late_calls: float = 0.0
    # How many listeners share the ledger, and how often a wish is sent to two of them at once.
    nodes: int = 1
    doubled: float = 0.0


@dataclass(slots=True)
class Sent:
    """A call that reached Pockyt, in order."""

    call: Call
    number: str
    word: str | None
    at_ms: int


@dataclass(order=True, slots=True)
class _Due:
    at_ms: int
    number: int
    happening: Happening = field(compare=False)
    is_outside: bool = field(compare=False)


@dataclass(slots=True, eq=False, kw_only=True)
class Listener:
    """A listener that runs, at its place among the nodes; ``killed`` is set to kill it."""

    place: int
    ledger: AnyLedger
    lifecycle: Lifecycle
    ingest: Ingest
    killed: asyncio.Event = field(default_factory=asyncio.Event)


# The listener that does what is done.
_AT: Final[ContextVar[Listener]] = ContextVar("at")


class World:
    """A world; :meth:`at` schedules what happens, :meth:`run` lets time pass."""

    def __init__(self, plan: Plan, *, directory: Path, url: str | None = None) -> None:
        self.plan = plan
        self.now_ms = BEGAN_MS
        self.random = random.Random(plan.seed)
        self.script = Script(plan.faults, seed=plan.seed)
        self.book = Book(seed=plan.seed, refund_shows=plan.refund_shows)
        self.front = self._open_front()
        self.pockyt = _Wire(self)
        self.is_pockyt_down = False
        self.sent: list[Sent] = []
        self.acknowledged: list[dict[str, str]] = []
        # How often a cashier pressed cancel, by the sale's reference.
        self.wished: Counter[str] = Counter()
        # What happened at Pockyt beside the tills' wishes.
        self.odd: Counter[str] = Counter()
        # The sales whose money went back by other means, and of which the listener was not told.
        self.unheard_refunds: set[str] = set()
        self.kills = 0
        self.outages: list[tuple[int, int]] = []
        self._url = url or f"sqlite:///{directory / f'ledger-{plan.seed}.db'}"
        self._queue: list[_Due] = []
        self._numbers = count()
        self._up: list[Listener] = []
        # Which listener is asked; drawn apart, so that a seed means the same for any number.
        self._route = random.Random(f"route {plan.seed}")
        # Which calls are late; drawn apart for the same reason.
        self.delays = random.Random(f"delays {plan.seed}")

    @property
    def ledger(self) -> AnyLedger:
        """The ledger, as one of the listeners that run has it."""
        return self._one().ledger

    @property
    def killed(self) -> asyncio.Event:
        """What kills the listener that does what is done."""
        return _AT.get().killed

    def rests(self) -> bool:
        """Return whether a listener holds Pockyt to be down."""
        return any(listener.lifecycle.is_pockyt_down for listener in self._up)

    @property
    def is_up(self) -> bool:
        """Whether a listener runs."""
        return bool(self._up)

    def _one(self) -> Listener:
        assert self._up
        return self._route.choice(self._up)

    async def start(self) -> None:
        """Start all listeners."""
        for place in range(self.plan.nodes):
            await self._start(place)

    async def _start(self, place: int) -> None:
        if any(listener.place == place for listener in self._up):
            return
        ledger = await open_ledger(self._url, confirm=self.plan.confirm, clock=lambda: self.now_ms)
        lifecycle = Lifecycle(
            ledger=ledger,
            pockyt=self.pockyt,
            merchants=MERCHANTS,
            public_url="http://listener",
            clock=Clock(now_ms=lambda: self.now_ms, sleep=_for_ever),
        )
        ingest = Ingest(ledger=ledger, merchants=MERCHANTS)
        self._up.append(Listener(place=place, ledger=ledger, lifecycle=lifecycle, ingest=ingest))

    async def stop(self) -> None:
        """End all listeners, whatever they were doing; what was committed is what is left."""
        for listener in list(self._up):
            await self._end(listener)

    async def _end(self, listener: Listener) -> None:
        self._up.remove(listener)
        await listener.lifecycle.close()
        await listener.ledger.close()

    def at(self, seconds: float, happening: Happening, *, is_outside: bool = False) -> None:
        """Schedule something in so many seconds from now."""
        at_ms = self.now_ms + int(seconds * 1_000)
        due = _Due(at_ms, next(self._numbers), happening, is_outside)
        heapq.heappush(self._queue, due)

    async def run(self, *, until_ms: int) -> None:
        """Pass time, with all that happens in it, and with the chaser at work."""
        await self._chase()
        while True:
            next_ms = min(await self._next_due_ms(), until_ms + 1)
            if self._queue and self._queue[0].at_ms <= next_ms:
                due = heapq.heappop(self._queue)
                if due.at_ms > until_ms:
                    heapq.heappush(self._queue, due)
                    break
                self.now_ms = max(self.now_ms, due.at_ms)
                await self._happen(due.happening)
            elif next_ms > until_ms:
                break
            else:
                self.now_ms = max(self.now_ms, next_ms)
            await self._chase()
        self.now_ms = max(self.now_ms, until_ms)

    async def act(self, wish: Callable[[Lifecycle], Awaitable[T]]) -> T | None:
        """Run what a till wants; None where no listener runs, or the one is killed meanwhile.

        A till that is too impatient has it done by two at once; the first one's answer counts.

        Raises:
            ListenerError: The listener says no.
        """
        if not self._up:
            return None
        asked = [self._one()]
        others = [listener for listener in self._up if listener is not asked[0]]
        if others and self._route.random() < self.plan.doubled:
            self.odd["wishes at two nodes"] += 1
            asked.append(self._route.choice(others))
        found: dict[int, T] = {}

        async def do(number: int, lifecycle: Lifecycle) -> None:
            found[number] = await wish(lifecycle)

        first, *rest = await asyncio.gather(
            *(self._alive(one, do(n, one.lifecycle)) for n, one in enumerate(asked)),
            return_exceptions=True,
        )
        for error in rest:
            if error is not None and not isinstance(error, ListenerError):
                raise error
        if first is not None:
            raise first
        return found.get(0)

    async def kill(self, *, for_seconds: float, listener: Listener | None = None) -> None:
        """Kill a listener, to be started again later."""
        victim = listener or (self._one() if self._up else None)
        if victim not in self._up or victim is None:
            return
        self.kills += 1
        if len(self._up) == 1:
            # After a start Pockyt is asked before anything is raised.
            silent_ms = int(for_seconds * 1_000) + GRACE_MS
            self.outages.append((self.now_ms, self.now_ms + silent_ms))
        await self._end(victim)
        self.at(for_seconds, lambda: self._start(victim.place))

    def order(self, reference: str, *, vendor: str | None = None) -> Order:
        """Return the order of a sale."""
        return Order(
            merchant_no=SAMPLE_MERCHANT_NO,
            store_no=STORE_NO,
            terminal="T-1",
            reference=reference,
            amount="13.00",
            currency="USD",
            settle_currency="USD",
            vendor=vendor,
        )

    def pay(self, reference: str) -> None:
        """Pay as the customer does, where there is something to pay."""
        with suppress(RefusalError):
            self.front.pay(self.book.find(SAMPLE_MERCHANT_NO, reference=reference).transaction_no)

    def refund(self, reference: str, *, part: bool) -> None:
        """Refund as the shop's owner does at Pockyt's own pages; it is notified of."""
        with suppress(RefusalError):
            sale = self.book.find(SAMPLE_MERCHANT_NO, reference=reference)
            refund = self.book.refund(sale, "1.00" if part else f"{sale.amount - sale.refunded}")
            self.odd["refunds"] += 1
            if not part:
                self.unheard_refunds.add(sale.transaction_no)
            fields = {
                **notification_fields(sale, Word.SUCCESS, now_seconds=self.now_ms / 1_000),
                "transactionType": "refund",
                "refundTransactionNo": refund.transaction_no,
                "refundAmount": f"{refund.amount}",
            }
            self._bring(fields)

    def restart_pockyt(self, *, down_seconds: float) -> None:
        """Stop Pockyt for a while; it comes back without the answers that it remembered."""
        self.odd["restarts of Pockyt"] += 1
        self.is_pockyt_down = True

        def come_back() -> None:
            self.front = self._open_front()
            self.pockyt.front = self.front
            self.is_pockyt_down = False

        self.at(down_seconds, come_back, is_outside=True)

    def _open_front(self) -> Front:
        return Front(
            book=self.book,
            desk=Desk(
                self.book,
                merchants={SAMPLE_MERCHANT_NO: Token(SAMPLE_TOKEN)},
                checkout_url="http://sandbox/",
            ),
            script=self.script,
            now_seconds=lambda: self.now_ms / 1_000,
            on_follow=self._follow,
            notify_on_cancel=self.plan.notify_on_cancel,
        )

    async def meanwhile(self) -> None:
        """Run the outside world while a call is under way."""
        while self.random.random() < self.plan.meanwhile:
            if not await self._outside(until_ms=self.now_ms + int(CALL_SECONDS_MAX * 1_000)):
                return

    async def linger(self, seconds: float) -> None:
        """Pass time while a call hangs."""
        until_ms = self.now_ms + int(seconds * 1_000)
        while self.now_ms < until_ms:
            step_ms = min(self.now_ms + LOOK_MS, until_ms)
            while await self._outside(until_ms=step_ms):
                pass
            self.now_ms = max(self.now_ms, step_ms)
            for listener in list(self._up):
                if await listener.ledger.claim_turn(TURN):
                    await self._at(listener, listener.lifecycle.chaser.start())

    async def _outside(self, *, until_ms: int) -> bool:
        """Run the next thing that needs no listener; return whether there was one."""
        outside = [due for due in self._queue if due.is_outside and due.at_ms <= until_ms]
        if not outside:
            return False
        due = min(outside)
        self._queue.remove(due)
        heapq.heapify(self._queue)
        # Nobody looks at the schedule here while this passes; the real chaser would.
        self.outages.append((self.now_ms, max(self.now_ms, due.at_ms)))
        self.now_ms = max(self.now_ms, due.at_ms)
        await self._happen(due.happening)
        return True

    async def _happen(self, happening: Happening) -> None:
        done = happening()
        if done is not None:
            await done

    def _at(self, listener: Listener, work: Awaitable[T]) -> "asyncio.Task[T]":
        """Run something as a listener's own."""

        async def do() -> T:
            _AT.set(listener)
            return await work

        return asyncio.create_task(do())

    async def _alive(self, listener: Listener, work: Awaitable[None]) -> None:
        """Run something of a listener's, unless it is killed while it does."""
        task = self._at(listener, work)
        killed = asyncio.ensure_future(listener.killed.wait())
        try:
            await asyncio.wait([task, killed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            killed.cancel()
        if listener.killed.is_set():
            task.cancel()
            await asyncio.wait([task])
            await self.kill(for_seconds=self.plan.down_seconds, listener=listener)
        else:
            await task

    async def _chase(self) -> None:
        """Make the node that holds the turn chase, as it would by itself."""

        async def chase(lifecycle: Lifecycle) -> None:
            await lifecycle.chaser.chase()

        for listener in self._route.sample(self._up, len(self._up)):
            if listener in self._up and await listener.ledger.claim_turn(TURN):
                await self._alive(listener, chase(listener.lifecycle))

    async def _next_due_ms(self) -> int:
        if not self._up:
            return BEGAN_MS * 2
        due_ms = await self.ledger.next_due_ms()
        # What is due already waits for leave to be asked: look again in a second.
        return BEGAN_MS * 2 if due_ms is None else max(due_ms, self.now_ms + 1_000)

    def _follow(self, follow: Follow, sale: Sale, relay: bool) -> None:
        if follow is Follow.NOTIFY:
            self._notify(sale, self.book.shown(sale))
        else:
            self._tell_wallet(sale, relay=relay, attempt=0)

    def _tell_wallet(self, sale: Sale, *, relay: bool, attempt: int) -> None:
        """Ask the wallet to abandon a sale, as the sandbox's servers do."""
        faults = self.script.strike(Place.WALLET)
        if Fault.WALLET_DOWN in faults:
            if attempt + 1 < len(WALLET_PAUSES_SECONDS):
                self.at(
                    WALLET_PAUSES_SECONDS[attempt + 1],
                    lambda: self._tell_wallet(sale, relay=relay, attempt=attempt + 1),
                    is_outside=True,
                )
        elif Fault.WALLET_PAID in faults:
            self.at(0.05, lambda: self.front.pay_late(sale), is_outside=True)
        elif Fault.WALLET_REFUSING not in faults and relay:
            seconds = SLOW_SECONDS if Fault.WALLET_SLOW in faults else 0.05
            self.at(seconds, lambda: self._notify(sale, sale.word), is_outside=True)

    def _notify(self, sale: Sale, word: Word) -> None:
        """Begin to bring a notification, as the sandbox's notifier does."""
        self._bring(notification_fields(sale, word, now_seconds=self.now_ms / 1_000))

    def _bring(self, fields: dict[str, str]) -> None:
        faults = self.script.strike(Place.NOTIFICATION)
        if Fault.NOTIFICATION_LOST in faults:
            return
        notification = word_notification(
            fields,
            token=Token(SAMPLE_TOKEN),
            old_token=Token(SAMPLE_OLD_TOKEN),
            faults=faults,
        )
        seconds = LATE_SECONDS if Fault.NOTIFICATION_LATE in faults else 0.1
        if Fault.NOTIFICATION_REORDERED in faults:
            seconds += REORDERED_SECONDS
        self._bring_in(seconds, notification, fields, faults, attempt=0)

    def _bring_in(
        self,
        seconds: float,
        notification: SignedMessage,
        fields: dict[str, str],
        faults: frozenset[Fault],
        *,
        attempt: int,
    ) -> None:
        async def bring() -> None:
            settled = await self._attempt(notification, fields, faults, is_first=attempt == 0)
            if not settled and attempt + 1 < len(PAUSES_SECONDS):
                pause = PAUSES_SECONDS[attempt + 1]
                self._bring_in(pause, notification, fields, faults, attempt=attempt + 1)
            elif settled and Fault.NOTIFICATION_REPEATED in faults:
                for _ in range(REPEATS):
                    await self._attempt(notification, fields, frozenset(), is_first=False)

        self.at(seconds, bring, is_outside=True)

    async def _attempt(
        self,
        notification: SignedMessage,
        fields: dict[str, str],
        faults: frozenset[Fault],
        *,
        is_first: bool,
    ) -> bool:
        """Bring a notification once; tells whether Pockyt holds it to be acknowledged."""
        if not self._up or (is_first and Fault.NOTIFICATION_STALLED in faults):
            return False
        body = notification.body
        if is_first and Fault.NOTIFICATION_TRUNCATED in faults:
            body = truncate(body)
        try:
            await self._one().ingest.receive(
                merchant_no=SAMPLE_MERCHANT_NO,
                store_no=STORE_NO,
                is_json=notification.content_type == "application/json",
                body=body,
            )
        except ListenerError:
            return False
        self.acknowledged.append(fields)
        if "refundTransactionNo" in fields:
            self.unheard_refunds.discard(fields["transactionNo"])
        unheard = {Fault.NOTIFICATION_HUNG_BEFORE, Fault.NOTIFICATION_HUNG_AFTER}
        return not (is_first and unheard & faults)


class _Wire(DirectPockyt):
    """The way to Pockyt: what goes over it is written down, and the listener may die on it."""

    def __init__(self, world: World) -> None:
        super().__init__(world.front)
        self._world = world
        # How many calls were tried, whatever came of them.
        self.tries = 0
        # The numbers of sales at which it breaks in a way that nobody foresaw.
        self.breaks_at: set[str] = set()

    async def exchange(self, call: Call, body: bytes, *, request_id: str) -> bytes:
        world = self._world
        self.tries += 1
        kill = dict(world.plan.kills).get(self.tries)
        await world.meanwhile()
        if world.is_pockyt_down:
            raise PockytUnavailableError("it cannot be reached", reason="connection", sent=False)
        if kill is False:
            await self._die()
        number = self._number(json.loads(body))
        if number in self.breaks_at:
            raise RuntimeError("nobody foresaw this")
        sent = Sent(call, number, None, world.now_ms)
        world.sent.append(sent)
        if call is not Call.TRAN_QUERY and world.delays.random() < world.plan.late_calls:
            await self._give_up(call, body, request_id=request_id)
        try:
            answer = await super().exchange(call, body, request_id=request_id)
        except PockytUnavailableError as error:
            if error.reason == "timeout":
                await world.linger(TIMEOUT_SECONDS)
            raise
        if kill is True:
            await self._die()
        with suppress(ValueError):
            said = json.loads(answer)
            sent.word = said.get("result", {}).get("status")
            answer = await self._twist(call, said)
        await world.meanwhile()
        return answer

    async def _give_up(self, call: Call, body: bytes, *, request_id: str) -> NoReturn:
        """Get no answer in time to a call that Pockyt carries out afterwards."""
        world = self._world
        world.odd["late calls"] += 1

        async def carry_out() -> None:
            with suppress(PockytUnavailableError):
                await DirectPockyt(world.front).exchange(call, body, request_id=request_id)

        seconds = TIMEOUT_SECONDS + world.delays.uniform(*LATE_CALL_SECONDS)
        world.at(seconds, carry_out, is_outside=True)
        await world.linger(TIMEOUT_SECONDS)
        raise PockytUnavailableError("no answer", reason="timeout", sent=True)

    async def _twist(self, call: Call, said: dict[str, Any]) -> bytes:
        """Answer as an odd Pockyt does: with a tip, or with a number that it gave before."""
        world, result = self._world, said.get("result")
        if call is Call.TRAN_QUERY and world.plan.tips and result:
            result["amount"] = f"{Decimal(result['amount']) + TIP}"
            result["tip"] = f"{TIP}"
            refunds = result.get("refundInfo", [])
            # What was given back whole was given back with the tip.
            if sum(Decimal(one["refundAmount"]) for one in refunds) + TIP == Decimal(
                result["amount"]
            ):
                refunds[-1]["refundAmount"] = f"{Decimal(refunds[-1]['refundAmount']) + TIP}"
        if call in (Call.ADD, Call.CREATE_TRANS_QRCODE) and result:
            old = await self._old_number(result["transactionNo"])
            if old and world.random.random() < world.plan.repeats_numbers:
                world.odd["numbers repeated"] += 1
                result["transactionNo"] = old
        return json.dumps(said).encode()

    async def _old_number(self, new: str) -> str | None:
        """Return the number of a sale that the listener knows; None where there is none."""
        if not self._world.is_up:
            return None
        for sale in self._world.book:
            number = sale.transaction_no
            if number != new and await self._world.ledger.read_transaction(
                number, merchant_no=SAMPLE_MERCHANT_NO
            ):
                return number
        return None

    async def _die(self) -> None:
        self._world.killed.set()
        await _for_ever(0)

    def _number(self, fields: dict[str, str]) -> str:
        number = fields.get("transactionNo")
        if number:
            return number
        with suppress(RefusalError):
            found = self._world.book.find(SAMPLE_MERCHANT_NO, reference=fields["reference"])
            return found.transaction_no
        return ""


async def _for_ever(_seconds: float) -> None:
    await asyncio.get_running_loop().create_future()
