"""Chase every doubt: ask on schedule, raise an alarm on silence, and survive every error."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Final

from listener import log
from listener.errors import LedgerUnavailableError, NumberTakenError
from listener.ledger.model import Event, Transaction, Why
from listener.ledger.promise import Ledger
from listener.ledger.results import RecordedSale
from listener.lifecycle import orders
from listener.lifecycle.caller import Caller
from listener.lifecycle.clock import Clock
from listener.lifecycle.gate import Bucket, Limits
from listener.lifecycle.steps import Steps, sale_key

# How many due transactions are read at a time. When thousands of cancels wait for the same silence,
# this is how fast they are raised: 5,000 wished within 0.4 s took 3.7 s, with 256 at a time 7.3 s.
DUE_MAX: Final = 1_024
# The longest pause: a doubt that rang no bell is found after this time.
IDLE_SECONDS_MAX: Final = 10.0
# The pause while more is due than may be asked, so that alarms need not wait.
BEHIND_SECONDS: Final = 0.5
# After a start, silence from before it is not raised for this long, so that Pockyt is asked first.
GRACE_MS: Final = 15_000
# The order in which what is due is asked.
WAITED_FOR, STARTED, DOUBTED = range(3)
# The shortest pause, so that a flood of notifications causes few looks.
REST_SECONDS_MIN: Final = 0.25
FAILED_SECONDS: Final = 1.0
# One node chases, so that the limits hold for all nodes; the others check whether it still does.
TURN: Final = "chaser"
TURN_SECONDS: Final = 1.0

Doubt = Transaction | RecordedSale

_LOG: Final = logging.getLogger(__name__)


class Chaser:
    """Does what the schedule in the ledger says, within the limits; a restart resumes it."""

    def __init__(
        self, *, ledger: Ledger, caller: Caller, steps: Steps, limits: Limits, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._steps = steps
        self._limits = limits
        self._clock = clock
        self._began_ms = clock.now_ms()
        # Doubts from before the start that Pockyt has been asked about since.
        self._asked: set[tuple[str, ...]] = set()
        self._bucket = Bucket(
            per_second=limits.asks_per_second, burst=limits.asks_burst, now_ms=self._began_ms
        )
        self._chasing: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._bell = asyncio.Event()

    def nudge(self, _events: Sequence[Event] = ()) -> None:
        """Look at the schedule soon: something was recorded."""
        self._bell.set()

    async def run(self) -> None:
        """Chase for ever. Cancelling this ends what is under way; it is resumed later."""
        self._ledger.listen(self.nudge, follows=lambda _stream: False)
        try:
            while True:
                await self._rest(await self._look())
        finally:
            await self.stop()
            # Released immediately, so that another node takes over.
            await self._ledger.release_turn(TURN)

    async def stop(self) -> None:
        """End what is under way."""
        tasks = list(self._chasing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A task that was cancelled before it began could not remove itself.
        self._chasing.clear()

    async def chase(self) -> bool:
        """Do everything that is due now, and wait until it is done.

        Returns:
            Whether more is due than may be asked now.
        """
        is_behind = await self.start()
        while self._chasing:
            await asyncio.wait(self._chasing.values())
            is_behind = await self.start()
        return is_behind

    async def start(self) -> bool:
        """Raise what is due to be raised, and start asking what is due; see :meth:`chase`."""
        now_ms = self._clock.now_ms()
        due = await self._ledger.read_due(now_ms=now_ms, limit=DUE_MAX)
        sales = await self._ledger.read_due_sales(now_ms=now_ms, limit=DUE_MAX)
        doubts: list[Doubt] = [*due, *sales]
        silent = [
            one
            for one in doubts
            if _is_over(_raise_ms(one), now_ms) and not self._is_ours(one, now_ms)
        ]
        # Together, so that they share a commit.
        await asyncio.gather(*(self._guard(one, self._raise(one)) for one in silent))
        is_behind = max(len(due), len(sales)) >= DUE_MAX
        for doubt in sorted(doubts, key=_rank):
            is_due = _is_over(_due_ms(doubt), now_ms) or self._is_ours(doubt, now_ms)
            if not is_due or _key(doubt) in self._chasing:
                continue
            if not self._may_ask(now_ms, is_waited_for=_rank(doubt) == WAITED_FOR):
                return True
            self._start(doubt, is_probe=self._caller.breaker.is_open)
        return is_behind

    def _is_ours(self, doubt: Doubt, now_ms: int) -> bool:
        """Return whether a silence is our own: we have not asked since the start.

        Pockyt is asked first, and the silence is raised only if Pockyt does not answer either.
        """
        if now_ms >= self._began_ms + GRACE_MS or _since_ms(doubt) >= self._began_ms:
            return False
        return _is_over(_raise_ms(doubt), now_ms) and _key(doubt) not in self._asked

    def _may_ask(self, now_ms: int, *, is_waited_for: bool) -> bool:
        # Some room is left for waiting tills, however slow Pockyt is with the other questions.
        room = self._limits.asks_at_once - (0 if is_waited_for else self._limits.asks_reserved)
        if len(self._chasing) >= room:
            return False
        # The probe is taken last, so that a probe that is taken is always sent.
        breaker = self._caller.breaker
        return breaker.would_admit(now_ms) and self._bucket.take(now_ms) and breaker.admit(now_ms)

    def _start(self, doubt: Doubt, *, is_probe: bool) -> None:
        task = asyncio.create_task(self._chase(doubt, is_probe=is_probe), name="chase")
        self._chasing[_key(doubt)] = task

    async def _chase(self, doubt: Doubt, *, is_probe: bool) -> None:
        ask = self._ask(doubt) if isinstance(doubt, Transaction) else self._look_for(doubt)
        try:
            await self._guard(doubt, ask)
            if _since_ms(doubt) < self._began_ms:
                self._asked.add(_key(doubt))
        finally:
            if is_probe:
                # Does nothing if the question was sent: its outcome was counted already.
                self._caller.breaker.leave()
            self._chasing.pop(_key(doubt), None)
            self.nudge()

    async def _guard(self, about: Doubt, work: Coroutine[None, None, None]) -> None:
        """Run one piece of work; an error is logged and does not affect other work."""
        try:
            await work
        except LedgerUnavailableError as error:
            log.event(_LOG, "chase_postponed", level=logging.WARNING, reason=str(error))
        except NumberTakenError:
            # An alarm was recorded; or a wish could not be taken over, which is tried again.
            return
        except Exception:  # noqa: BLE001 - whatever one transaction raises, the others go on
            _LOG.exception("chase_failed", extra={"fields": {"of": " ".join(_key(about))}})

    async def _ask(self, transaction: Transaction) -> None:
        async with self._steps.turns.of(*_key(transaction)):
            current = await self._steps.read(transaction)
            # Somebody else may have asked meanwhile.
            if self._is_still_due(current):
                await self._steps.settle(current)

    async def _look_for(self, sale: RecordedSale) -> None:
        async with self._steps.turns.of(*_key(sale)):
            current = await self._steps.find_sale(orders.order_of(sale.fact))
            if current and self._is_still_due(current):
                await self._steps.settle_sale(current)

    def _is_still_due(self, current: Doubt) -> bool:
        now_ms = self._clock.now_ms()
        return _is_over(_due_ms(current), now_ms) or self._is_ours(current, now_ms)

    async def _raise(self, doubt: Doubt) -> None:
        """Record the alarm for a silence, unless it was broken meanwhile."""
        now_ms = self._clock.now_ms()
        current: Doubt | None
        if isinstance(doubt, Transaction):
            current = await self._steps.read(doubt)
        else:
            current = await self._steps.find_sale(orders.order_of(doubt.fact))
        if current is None or not _is_over(_raise_ms(current), now_ms):
            return
        if not await self._ledger.keep_turn(TURN, seconds=TURN_SECONDS):
            # This node was paused meanwhile, and the one that chases now raises it.
            return
        fact = orders.unresolved_fact(current)
        await self._ledger.record(fact)
        log.event(
            _LOG,
            "unresolved",
            level=logging.WARNING,
            merchantNo=fact.merchant_no,
            transactionNo=fact.transaction_no,
            reference=fact.reference,
            why=current.ask.why if isinstance(current, Transaction) and current.ask else Why.CANCEL,
        )

    async def _look(self) -> float:
        """Do what is due; return how long to rest, in seconds."""
        try:
            if not await self._ledger.claim_turn(TURN):
                return TURN_SECONDS
            is_behind = await self.start()
            if is_behind or self._chasing:
                return BEHIND_SECONDS
            due_ms = await self._ledger.next_due_ms()
        except LedgerUnavailableError as error:
            log.event(_LOG, "chase_postponed", level=logging.WARNING, reason=str(error))
            return FAILED_SECONDS
        except Exception:  # noqa: BLE001 - nothing may end the chasing
            _LOG.exception("chase_failed")
            return FAILED_SECONDS
        if due_ms is None:
            return IDLE_SECONDS_MAX
        return min((due_ms - self._clock.now_ms()) / 1_000, IDLE_SECONDS_MAX)

    async def _rest(self, seconds: float) -> None:
        """Wait this long or until the bell rings, but never for no time at all."""
        await self._clock.sleep(REST_SECONDS_MIN)
        if seconds > REST_SECONDS_MIN and not self._bell.is_set():
            waits = [
                asyncio.ensure_future(self._bell.wait()),
                asyncio.ensure_future(self._clock.sleep(seconds - REST_SECONDS_MIN)),
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        self._bell.clear()


def _key(doubt: Doubt) -> tuple[str, ...]:
    """Return the key that something is chased under; its turn has the same name."""
    if isinstance(doubt, Transaction):
        return (doubt.merchant_no, doubt.transaction_no)
    return sale_key(orders.order_of(doubt.fact))


def _rank(doubt: Doubt) -> int:
    """Return who goes first: cancels that a till waits for, other waiting tills, then the rest."""
    if isinstance(doubt, RecordedSale):
        return WAITED_FOR if doubt.state.is_being_cancelled else STARTED
    why = doubt.ask.why if doubt.ask else None
    if why is Why.CANCEL:
        return WAITED_FOR
    return STARTED if why is Why.SALE else DOUBTED


def _due_ms(doubt: Doubt) -> int | None:
    if isinstance(doubt, RecordedSale):
        return doubt.state.due_ms
    return doubt.ask.due_at_ms if doubt.ask else None


def _raise_ms(doubt: Doubt) -> int | None:
    if isinstance(doubt, RecordedSale):
        return doubt.state.raise_ms
    return doubt.ask.raise_at_ms if doubt.ask else None


def _is_over(at_ms: int | None, now_ms: int) -> bool:
    return at_ms is not None and at_ms <= now_ms


def _since_ms(doubt: Doubt) -> int:
    """Return when the doubt began."""
    if isinstance(doubt, RecordedSale):
        cancel = doubt.state.cancel
        return cancel.requested_at_ms if cancel else doubt.recorded_at_ms
    return doubt.ask.since_ms if doubt.ask else doubt.updated_at_ms
