"""Play random histories against the real program: ``python -m tests.outside``.

A listener runs as a process, on a ledger of its own, beside a Pockyt that knows the truth. It is
killed, and started again; many sales share its minutes of waiting. A failure names its seed, which
draws again what is wished, what is notified and what goes wrong; not how long each step takes.
"""

import asyncio
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import click

from listener.sandbox.book import FAILING_BARCODE, PENDING_BARCODE, Word
from listener.sandbox.faults import Fault, Planned
from tests.outside.checks import find_wrong, is_stale
from tests.outside.listener import Found, Listener, Till
from tests.outside.people import People, Wishes
from tests.outside.pockyt import PockytOfTruth
from tests.property.scenario import draw_plan
from tests.support.service import OTHER_STORE_NO, STORE_NO

SCENARIOS: Final = 4
SALES: Final = 60
AT_ONCE: Final = 4
# So long sales begin and everything goes wrong; some of Pockyt's silence lasts longer than a cancel
# may be left open.
BUSY_SECONDS: Final = 28.0
STUBBORN_SECONDS: Final = 64.0
# By then the last question about a cancel has come.
QUIET_SECONDS: Final = 110.0
# All that is asked and sent once more would have been so by then.
QUIET_SECONDS_MIN: Final = 40.0
LOOK_SECONDS: Final = 3.0
FAILURES_SHOWN_MAX: Final = 20
# What may go wrong in any one sale; what stays silent for long is chosen apart.
FAULTS: Final = tuple(Fault)
STUBBORN: Final = (Fault.QUERY_TIMEOUT, Fault.QUERY_5XX, Fault.QUERY_HTML)


Do = Callable[[], Awaitable[None]]
# When, in seconds, and what.
Act = tuple[float, Do]


@dataclass(slots=True, kw_only=True)
class Report:
    """What was done, and what was found wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class History:
    """One ledger's minutes: its sales, its tills, and the deaths of its listener."""

    def __init__(self, seed: int, *, sales: int, directory: Path) -> None:
        self._dice = random.Random(f"history {seed}")
        self.pockyt = PockytOfTruth(
            seed=seed,
            refund_shows=self._dice.choice(["success", "closed"]),
            notify_on_cancel=self._dice.random() < 0.7,
        )
        self._seed = seed
        self._sales = sales
        self._directory = directory
        self._confirm = self._dice.choice(["suspicious", "suspicious", "always"])
        self.wishes: dict[str, Wishes] = {}
        self._people: dict[str, People] = {}
        self.counts: Counter[str] = Counter()

    async def play(self) -> Report:
        """Play it to its end; return what was found wrong."""
        async with self.pockyt.serving(), aiohttp.ClientSession() as client:
            listener = Listener(
                self._directory, pockyt_url=self.pockyt.url, confirm=self._confirm, client=client
            )
            tills = [Till(listener, store_no=store) for store in (STORE_NO, OTHER_STORE_NO)]
            following: list[asyncio.Task[None]] = []
            try:
                await listener.start()
                following += [asyncio.create_task(till.follow(self._seed)) for till in tills]
                await self._be_busy(listener)
                wrong = await self._become_quiet(listener, tills)
            finally:
                for task in following:
                    task.cancel()
                await asyncio.gather(*following, return_exceptions=True)
                await listener.kill()
            wrong += await listener.verify()
        counts = self.counts + self.pockyt.kept.counts + self.pockyt.struck + listener.counts
        return Report(counts=counts, wrong=wrong)

    async def _be_busy(self, listener: Listener) -> None:
        """Sell, pay, cancel, decide, fail and die, all at once."""
        sales = [self._sell(listener, f"S{self._seed}-{n}") for n in range(self._sales)]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._trouble(listener))
            for sale in sales:
                group.create_task(sale)

    async def _become_quiet(self, listener: Listener, tills: list[Till]) -> list[str]:
        """Wait until all that was asked and brought has come to its end; return what has not."""
        self.pockyt.calm()
        await self.pockyt.idle()
        began = time.monotonic()
        await asyncio.sleep(QUIET_SECONDS_MIN)
        while True:
            found = await listener.read(self.wishes)
            if await self._help(listener, found):
                found = await listener.read(self.wishes)
            wrong = find_wrong(found, self.pockyt, self.wishes, tills, down=listener.down)
            if not wrong or time.monotonic() - began > QUIET_SECONDS:
                self.counts["sales"] += len(self.wishes)
                self.counts.update(f"ended {t['status']}" for t in found.transactions.values())
                self.counts["events"] += sum(len(events) for events in found.events.values())
                return wrong
            await asyncio.sleep(LOOK_SECONDS)

    async def _help(self, listener: Listener, found: Found) -> bool:
        """Do what people do about what is left open; return whether there was anything."""
        helped = 0
        decided = {entry["transactionNo"] for entry in found.entries if entry["kind"] == "decision"}
        for transaction in (*found.transactions.values(), *found.sales.values()):
            number, cancel = transaction["transactionNo"], transaction["cancel"]
            # Of a sale that is open, and whose notification was lost, Pockyt is asked hours later.
            if is_stale(transaction, self.pockyt):
                await listener.ask(number)
                self.counts["asked in the end"] += 1
                helped += 1
            # A /cancel that Pockyt never heard is sent again only if somebody presses again.
            elif cancel and cancel["state"] == "unresolved" and number not in decided:
                people = self._people[transaction["reference"]]
                await people.cancel(refunds=False, by_reference=False)
                self.counts["cancelled again in the end"] += 1
                helped += 1
        return helped > 0

    async def _trouble(self, listener: Listener) -> None:
        """Kill the listener, and cut the way to Pockyt."""
        dice = random.Random(f"trouble {self._seed}")
        for _ in range(dice.choice([2, 3, 4])):
            await asyncio.sleep(dice.uniform(1, BUSY_SECONDS / 4))
            if dice.random() < 0.3:
                self.pockyt.is_down = True
                await asyncio.sleep(dice.uniform(0.5, 3))
                self.pockyt.is_down = False
            await listener.kill()
            self.counts["kills"] += 1
            await asyncio.sleep(dice.choice([0.0, 0.3, 2.0]))
            await listener.start()

    async def _sell(self, listener: Listener, reference: str) -> None:
        """Play one sale: what is drawn first happens side by side, each at its moment."""
        dice = random.Random(f"sale {self._seed} {reference}")
        wishes = Wishes(reference=reference, store_no=dice.choice([STORE_NO, OTHER_STORE_NO]))
        is_stubborn = dice.random() < 0.12
        self.wishes[reference] = wishes
        people = self._people[reference] = People(listener, self.pockyt, wishes)
        faults = [draw_plan(one, dice) for one in dice.sample(FAULTS, dice.choice([0, 1, 3, 6]))]
        if is_stubborn:
            faults.append(Planned(fault=dice.choice(STUBBORN)))
        self.pockyt.tell(reference, faults=faults, late_calls=dice.choice([0.0, 0.0, 0.2, 0.6]))
        begin = dice.uniform(0, 3 if is_stubborn else BUSY_SECONDS / 2)
        acts = _draw_stubborn(people, dice) if is_stubborn else _draw_acts(people, dice)
        await asyncio.gather(
            _at(begin, partial(people.start, dice.choice([None, "alipay"]))),
            *(_at(begin + seconds, act) for seconds, act in acts),
        )


def _draw_acts(people: People, dice: random.Random) -> Iterator[Act]:
    """Draw what everybody does about a sale, and when (seconds after it began)."""
    if dice.random() < 0.5:
        yield dice.uniform(0, 10), people.customer_pays
    if dice.random() < 0.12:
        yield dice.uniform(2, 14), partial(people.owner_refunds, part=dice.random() < 0.4)
    if dice.random() < 0.3:
        barcode = dice.choice(["284957205723", PENDING_BARCODE, FAILING_BARCODE])
        yield dice.uniform(0.2, 10), partial(people.charge, barcode)
    for _ in range(dice.choice([0, 1, 1, 1, 2])):
        yield dice.uniform(0.1, 12), _cancel(people, dice, refunds=0.25)
    if dice.random() < 0.15:
        yield dice.uniform(1, 14), people.ask
    if dice.random() < 0.2:
        yield dice.uniform(0.5, 14), partial(people.forge, dice.choice([Word.SUCCESS, Word.CLOSED]))
    if dice.random() < 0.12:
        status = dice.choice(["paid", "failed", "cancelled", "refunded", None])
        yield dice.uniform(3, 14), partial(people.decide, status, looks=dice.random() < 0.7)


def _draw_stubborn(people: People, dice: random.Random) -> Iterator[Act]:
    """Draw what is done about a sale on which Pockyt is silent for longer than a minute."""
    if dice.random() < 0.5:
        yield dice.uniform(0, 10), people.customer_pays
    yield dice.uniform(0.1, 12), _cancel(people, dice, refunds=0.6)
    # That cancel is still open then.
    again = _cancel(people, dice, refunds=0.0)
    late: list[Do] = [again, partial(people.decide, "paid"), people.nothing]
    yield STUBBORN_SECONDS - 6, dice.choice(late)
    yield STUBBORN_SECONDS, people.nothing


def _cancel(people: People, dice: random.Random, *, refunds: float) -> Do:
    return partial(people.cancel, refunds=dice.random() < refunds, by_reference=dice.random() < 0.3)


async def _at(seconds: float, act: Do) -> None:
    await asyncio.sleep(seconds)
    await act()


async def play_some(seeds: range, *, sales: int, directory: Path) -> dict[int, Report]:
    """Play some histories side by side, so that they wait together."""

    async def play(seed: int) -> Report:
        made = directory / f"{seed}"
        made.mkdir(parents=True)
        try:
            return await History(seed, sales=sales, directory=made).play()
        except Exception as error:  # noqa: BLE001 - whatever it is, its seed is told
            return Report(wrong=["".join(traceback.format_exception(error))])

    reports = await asyncio.gather(*(play(seed) for seed in seeds))
    return dict(zip(seeds, reports, strict=True))


@click.command(help=__doc__)
@click.option("--scenarios", default=SCENARIOS, show_default=True, help="How many ledgers.")
@click.option("--sales", default=SALES, show_default=True, help="Of each ledger.")
@click.option("--seed", default=1, show_default=True, help="Of the first ledger.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave the ledgers and logs here.")
def main(scenarios: int, sales: int, seed: int, keep: Path | None) -> None:
    """Play them all, some at once."""
    with tempfile.TemporaryDirectory() as made:
        seeds = range(seed, seed + scenarios)
        failed = _play_all(seeds, sales=sales, directory=keep or Path(made))
    sys.exit(1 if failed else 0)


def _play_all(seeds: range, *, sales: int, directory: Path) -> int:
    """Return how many failed."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[int] = []
    for first in range(0, len(seeds), AT_ONCE):
        playing = play_some(seeds[first : first + AT_ONCE], sales=sales, directory=directory)
        for number, report in asyncio.run(playing).items():
            counts += report.counts
            if report.wrong:
                failed.append(number)
            for what in report.wrong[:FAILURES_SHOWN_MAX]:
                click.echo(f"seed {number}: {what}")
    click.echo(f"{len(seeds) - len(failed)} histories held, in {time.monotonic() - began:.0f} s")
    click.echo("  " + ", ".join(f"{times} {what}" for what, times in counts.most_common()))
    for number in failed:
        again = f"--seed {number} --scenarios 1 --sales {sales}"
        click.echo(f"  replay: python -m tests.outside {again}")
    click.echo(f"{len(failed)} failed")
    return len(failed)


if __name__ == "__main__":
    main()
