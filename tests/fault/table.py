"""Play every fault of the sandbox, and write docs/faults.md: ``python -m tests.fault.table``.

The stories run on the fake clock of ``tests/property/world.py``, so that the table comes out the
same each time; ``tests/integration/test_lifecycle.py`` plays the same faults over real HTTP.
"""

import asyncio
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import orjson

from listener.errors import ListenerError
from listener.ledger.model import EVERY_STREAM, Transaction
from listener.lifecycle import Lifecycle
from listener.sandbox.faults import Fault, Place, Planned
from tests.property.scenario import find
from tests.property.world import BEGAN_MS, Plan, World

PAGE: Final = Path(__file__).parents[2] / "docs" / "faults.md"
REFERENCE: Final = "R-1"
MEMORY: Final = Path("/dev/shm")
# When the customer pays, or the cashier cancels.
ACTS_SECONDS: Final = 10.0
# Questions that Pockyt does not answer are answered again from here on.
REPAIRED_SECONDS: Final = 150.0
ENDS_SECONDS: Final = 3 * 3_600.0

STORIES: Final[Mapping[Place, Sequence[str]]] = {
    Place.NOTIFICATION: ("the customer pays", "the cashier cancels"),
    Place.WALLET: ("the cashier cancels",),
    Place.SALE: ("the till starts a sale",),
    Place.PAY: ("the till scans the customer's code",),
    Place.CANCEL: ("the cashier cancels",),
    Place.QUERY: ("the cashier cancels",),
}
# Also without any fault, and what no fault is: a Pockyt that never notifies of a cancel.
PLAIN: Final = ("the customer pays", "the cashier cancels", "the cashier cancels what is paid")

HEADER: Final = f"""\
# What each fault does

For anyone who wants to know what a till shows when Pockyt fails. In every row the ledger says what
is true, or the till learns within 60 s that nobody knows (`unresolved`).

| column | holds |
|---|---|
| told | the events that the till got, in order, with the seconds since the sale was started |
| ledger, truth | how it ended here, and at Pockyt |

The cashier cancels, and the customer pays, at {ACTS_SECONDS:.0f} s. Faults of tran-query end at
{REPAIRED_SECONDS:.0f} s.

A run makes this page: `python -m tests.fault.table` plays every fault of the sandbox, every time it
can strike, on a fake clock, with the real ledger, ingest and lifecycle. A test checks that this
page is what a run produces.

| fault | story | told | ledger | truth |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one story went: what the till heard (event, seconds), and how it ended."""

    fault: str
    story: str
    told: tuple[tuple[str, int], ...]
    ledger: str
    truth: str

    @property
    def was_raised(self) -> bool:
        """Whether the till was told that nobody knows."""
        return any(event in ("unresolved", "conflict") for event, _ in self.told)

    def line(self) -> str:
        """Write it as a line of the table."""
        told = ", ".join(f"{event} {seconds} s" for event, seconds in self.told) or "–"
        return f"| {self.fault} | {self.story} | {told} | {self.ledger} | {self.truth} |\n"


async def play(fault: Fault | None, story: str, *, directory: Path) -> Row:
    """Play a story with a fault that strikes whenever it can."""
    faults = () if fault is None else (Planned(fault=fault),)
    world = World(Plan(seed=1, faults=faults), directory=directory)
    await world.start()
    try:
        await _schedule(world, fault, story)
        await world.run(until_ms=BEGAN_MS + int(ENDS_SECONDS * 1_000))
        return await _row(world, fault, story)
    finally:
        await world.stop()


async def _schedule(world: World, fault: Fault | None, story: str) -> None:
    async def start(lifecycle: Lifecycle) -> Transaction:
        return (await lifecycle.start_sale(world.order(REFERENCE))).transaction

    async def begin() -> None:
        try:
            await world.act(start)
        except ListenerError:
            # The till is told, and starts another sale; this one is looked for.
            return

    async def press() -> None:
        transaction = await find(world, REFERENCE)
        assert transaction is not None
        await world.act(lambda life: life.cancel(transaction, terminal="T-1"))

    async def scan() -> None:
        transaction = await find(world, REFERENCE)
        assert transaction is not None
        try:
            await world.act(lambda life: life.pay(transaction, payment_barcode="284957205723"))
        except ListenerError:
            return

    world.at(0, begin)
    if "pays" in story or "what is paid" in story:
        world.at(ACTS_SECONDS, lambda: world.pay(REFERENCE), is_outside=True)
    if "cancels" in story:
        world.at(ACTS_SECONDS + ("what is paid" in story), press)
    if "scans" in story:
        world.at(ACTS_SECONDS, scan)
    if fault is not None and fault.place is Place.QUERY:
        world.at(REPAIRED_SECONDS, lambda: world.script.replace(()))


async def _row(world: World, fault: Fault | None, story: str) -> Row:
    transaction = await find(world, REFERENCE)
    sale = next(iter(world.book), None)
    told = []
    for event in await world.ledger.read_events(EVERY_STREAM, after=0, limit=100):
        body = orjson.loads(event.body)
        at = datetime.fromisoformat(body["time"]).timestamp() - BEGAN_MS / 1_000
        told.append((str(body["type"]).removeprefix("transaction."), round(at)))
    state = transaction.cancel.state if transaction and transaction.cancel else None
    ledger = "nothing was started" if transaction is None else str(transaction.status)
    return Row(
        fault=f"`{fault}`" if fault else "none",
        story=story,
        told=tuple(told),
        ledger=f"{ledger}, cancel {state}" if state else ledger,
        truth=world.book.truth(sale) if sale else "nothing was started",
    )


async def play_all() -> list[Row]:
    """Play every fault in each of its stories."""
    plays: list[tuple[Fault | None, str]] = [(None, story) for story in PLAIN]
    plays += [(fault, story) for fault in Fault for story in STORIES[fault.place]]
    rows = []
    for fault, story in plays:
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
            rows.append(await play(fault, story, directory=Path(directory)))
    return rows


def page(rows: Sequence[Row]) -> str:
    """Write the page."""
    return HEADER + "".join(row.line() for row in rows)


@click.command(help=__doc__)
@click.option("--page", "path", type=click.Path(path_type=Path), default=PAGE, help="Where to.")
def main(path: Path) -> None:
    """Play all, and write the page."""
    # Pockyt fails all the time here; each failure would be logged.
    logging.disable(logging.CRITICAL)
    try:
        rows = asyncio.run(play_all())
    finally:
        logging.disable(logging.NOTSET)
    path.parent.mkdir(exist_ok=True)
    path.write_text(page(rows))
    click.echo(f"{len(rows)} stories, in {path.name}")


if __name__ == "__main__":
    main()
