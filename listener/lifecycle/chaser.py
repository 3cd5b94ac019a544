"""Chase every doubt: ask on schedule, raise what stays silent, and never die of one of them."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.ledger.model import Transaction
from listener.ledger.promise import Ledger, RecordedSale
from listener.lifecycle import facts
from listener.lifecycle.caller import Caller
from listener.lifecycle.clock import Clock
from listener.lifecycle.gate import Bucket, Limits
from listener.lifecycle.steps import Steps

# How many due transactions are read at a time.
DUE_MAX: Final = 256
# The longest rest: a doubt that rang no bell is found after so long.
IDLE_SECONDS_MAX: Final = 10.0
# The rest while more is due than may be asked: what is to be raised is not kept waiting.
BEHIND_SECONDS: Final = 1.0
# The shortest rest, so that a flood of notifications costs few looks.
REST_SECONDS_MIN: Final = 0.25
FAILED_SECONDS: Final = 1.0
# One node chases, so that the limits hold for all of them; another looks whether it still does.
TURN: Final = "chaser"
TURN_SECONDS: Final = 1.0

_LOG: Final = logging.getLogger(__name__)


class Chaser:
    """Does what the ledger's schedule says, within the limits; a restart goes on with it."""

    def __init__(
        self, *, ledger: Ledger, caller: Caller, steps: Steps, limits: Limits, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._steps = steps
        self._limits = limits
        self._clock = clock
        self._bucket = Bucket(limits, now_ms=clock.now_ms())
        self._chasing: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._bell = asyncio.Event()

    def nudge(self) -> None:
        """Have the schedule looked at again soon."""
        self._bell.set()

    async def run(self) -> None:
        """Chase for ever; cancelling this ends what is under way, to be taken up again later."""
        self._ledger.listen(lambda _events: self.nudge())
        try:
            while True:
                await self._rest(await self._look())
        finally:
            await self.stop()
            # At once, so that another node goes on.
            await self._ledger.release_turn(TURN)

    async def stop(self) -> None:
        """End what is under way."""
        tasks = list(self._chasing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # One that was cancelled before it began could not take itself out.
        self._chasing.clear()

    async def chase(self) -> bool:
        """Do all that is due now, and wait until it is done.

        Returns:
            Whether more is due than may be asked now.
        """
        is_behind = await self.start()
        while self._chasing:
            await asyncio.wait(self._chasing.values())
            is_behind = await self.start()
        return is_behind

    async def start(self) -> bool:
        """Raise what is to be raised, and start to ask what is due; see :meth:`chase`."""
        now_ms = self._clock.now_ms()
        due = await self._ledger.read_due(now_ms=now_ms, limit=DUE_MAX)
        sales = await self._ledger.read_due_sales(now_ms=now_ms, limit=DUE_MAX)
        silent = [t for t in due if t.ask and (t.ask.raise_at_ms or now_ms + 1) <= now_ms]
        # Together, so that they share a commit.
        await asyncio.gather(*(self._guard(t, self._raise(t)) for t in silent))
        # Somebody may wait at a till for a cancel: it goes before sales without a number.
        doubts: list[Transaction | RecordedSale] = [
            t for t in due if t.ask and (t.ask.due_at_ms or now_ms + 1) <= now_ms
        ]
        doubts += sales
        is_behind = len(due) >= DUE_MAX or len(sales) >= DUE_MAX
        for doubt in doubts:
            if _key(doubt) in self._chasing:
                continue
            if not self._may_ask(now_ms):
                return True
            self._start(doubt, is_probe=self._caller.breaker.is_open)
        return is_behind

    def _may_ask(self, now_ms: int) -> bool:
        if len(self._chasing) >= self._limits.asks_at_once:
            return False
        # A probe is taken last, so that one that is taken is sent.
        breaker = self._caller.breaker
        return breaker.would_admit(now_ms) and self._bucket.take(now_ms) and breaker.admit(now_ms)

    def _start(self, doubt: Transaction | RecordedSale, *, is_probe: bool) -> None:
        task = asyncio.create_task(self._chase(doubt, is_probe=is_probe), name="chase")
        self._chasing[_key(doubt)] = task

    async def _chase(self, doubt: Transaction | RecordedSale, *, is_probe: bool) -> None:
        ask = self._ask(doubt) if isinstance(doubt, Transaction) else self._look_for(doubt)
        try:
            await self._guard(doubt, ask)
        finally:
            if is_probe:
                # Of no use where the question was sent: what came of it is noted already.
                self._caller.breaker.leave()
            self._chasing.pop(_key(doubt), None)
            self.nudge()

    async def _guard(
        self, about: Transaction | RecordedSale, work: Coroutine[None, None, None]
    ) -> None:
        """Do one thing; what goes wrong with it is logged, and harms no other."""
        try:
            await work
        except LedgerUnavailableError as error:
            log.event(_LOG, "chase_postponed", level=logging.WARNING, reason=str(error))
        except Exception:  # noqa: BLE001 - whatever one transaction raises, the others go on
            _LOG.exception("chase_failed", extra={"fields": {"of": " ".join(_key(about))}})

    async def _ask(self, transaction: Transaction) -> None:
        async with self._steps.turns.of(*_key(transaction)):
            current = await self._steps.read(transaction)
            # Somebody else may have asked meanwhile.
            due_at_ms = current.ask.due_at_ms if current.ask else None
            if due_at_ms is not None and due_at_ms <= self._clock.now_ms():
                await self._steps.settle(current)

    async def _look_for(self, sale: RecordedSale) -> None:
        reference = sale.fact.reference or ""
        async with self._steps.turns.of(*_key(sale)):
            current = await self._ledger.read_sale(
                merchant_no=sale.fact.merchant_no, reference=reference
            )
            if current is not None and current.transaction_no is None:
                await self._steps.look_for(current)

    async def _raise(self, transaction: Transaction) -> None:
        """Raise the silence about a transaction, unless it was broken meanwhile."""
        current = await self._steps.read(transaction)
        if current.ask is None or current.ask.raise_at_ms is None:
            return
        if current.ask.raise_at_ms > self._clock.now_ms():
            return
        await self._ledger.record(facts.unresolved_fact(current))
        log.event(
            _LOG,
            "unresolved",
            level=logging.WARNING,
            merchantNo=current.merchant_no,
            transactionNo=current.transaction_no,
            why=current.ask.why,
        )

    async def _look(self) -> float:
        """Do what is due; returns how long to rest, in seconds."""
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
        """Wait for so long, or for a bell; but never for no time at all."""
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


def _key(doubt: Transaction | RecordedSale) -> tuple[str, ...]:
    """Name what is chased, as its turn is named."""
    if isinstance(doubt, Transaction):
        return (doubt.merchant_no, doubt.transaction_no)
    return (doubt.fact.merchant_no, "", doubt.fact.reference or "")
