"""Kill, cut and storm for as long as it takes to be sure: ``make faults``.

What is found wrong ends the run with its seed. What was done is written to docs/bench/faults.json.
"""

import asyncio
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from tests.fault import clients, cuts, kills, nodes, points, storm
from tests.fault.lives import ROOT, Nursery, nursery
from tests.fault.load import Outcome
from tests.support.databases import database

RESULTS: Final = ROOT / "docs" / "bench" / "faults.json"
# One ledger serves so many kills, and is read whole after each.
KILLS_A_LEDGER: Final = 25
POINTS_A_LEDGER: Final = 60
SENT_A_RECORDING: Final = 40
POINTS_A_RECORDING: Final = 120
# So many faults strike the nodes of one ledger, of which there are 2, 3 or 4.
FAULTS_A_LEDGER: Final = 400
NODES: Final = (2, 3, 4)
STORMS: Final = 3
CLIENTS: Final = 4
# As the protocol's jitter spreads them.
SPREAD_SECONDS: Final = 5.0

# Of several runs the highest is kept, and not the sum.
SLOWEST: Final = nodes.SLOWEST

Counts = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is done, from which seed on."""

    kills: int
    rounds: int
    cuts: int
    tills: int
    seconds: float
    faults: int
    seed: int


async def kill(fork: Nursery, plan: Plan) -> Counts:
    """Kill at random moments."""
    counts: Counts = {}
    seed = plan.seed
    while (left := plan.kills - counts.get("kills", 0)) > 0:
        with _folder() as made, _named(seed):
            now = min(KILLS_A_LEDGER, left)
            twists = ["checkpoint-often"] if seed % 2 else []
            _add(counts, await kills.run(fork, Path(made), kills=now, seed=seed, twists=twists))
        seed += 1
        click.echo(f"  {counts['kills']} kills", err=True)
    return counts


async def kill_everywhere(fork: Nursery, plan: Plan) -> Counts:
    """Kill before each system call of a life; the more rounds, the more lives."""
    counts: Counts = {}
    for number in range(plan.rounds):
        with _folder() as made:
            found = await points.survey(fork, Path(made))
        # Mixed, so that each kind of end is followed by each kind of start.
        random.Random(plan.seed + number).shuffle(found)
        counts["points"] = counts.get("points", 0) + len(found)
        for first in range(0, len(found), POINTS_A_LEDGER):
            some = found[first : first + POINTS_A_LEDGER]
            with _folder() as made, _named(plan.seed + number):
                _add(counts, await points.run(fork, Path(made), points=some))
            click.echo(f"  {counts['kills']} kills at steps", err=True)
    return counts


async def cut(fork: Nursery, plan: Plan) -> Counts:
    """Record services, on good and on failing disks, and cut the power."""
    counts: Counts = {"recordings": 0, "cuts": 0, "acknowledged": 0, "syncs failed": 0}
    seed = plan.seed
    while counts["cuts"] < plan.cuts:
        chance = random.Random(seed)
        syncs = f"fdatasync:error=EIO:when={chance.randint(6, 12)}+{chance.randint(3, 9)}"
        full = f"pwrite64:error=ENOSPC:when={chance.randint(70, 150)}+{chance.randint(30, 200)}"
        faults = [[], [], [syncs], [full]][seed % 4]
        with _folder() as made, _named(seed):
            recording = await cuts.record(
                fork, Path(made), each=SENT_A_RECORDING, faults=faults, is_new=seed % 4 == 1
            )
            promised = list(recording.points())
            chosen = chance.sample(promised, min(len(promised), POINTS_A_RECORDING // 2))
            chosen += chance.sample(range(len(recording.steps)), POINTS_A_RECORDING // 2)
            counts["cuts"] += await cuts.check(recording, points=chosen, seed=seed)
        counts["recordings"] += 1
        counts["acknowledged"] += recording.promises
        counts["syncs failed"] += recording.failed_syncs
        seed += 1
        click.echo(f"  {counts['cuts']} cuts", err=True)
    return counts


async def come_back(fork: Nursery, plan: Plan) -> Counts:
    """Make thousands of tills come back after a kill."""
    return await _storms(fork, plan, nullcontext)


async def come_back_to_postgres(fork: Nursery, plan: Plan) -> Counts:
    """Make them come back to a ledger on PostgreSQL."""
    return await _storms(fork, plan, _database)


async def _storms(
    fork: Nursery, plan: Plan, place: Callable[[], AbstractAsyncContextManager[str | None]]
) -> Counts:
    counts: Counts = {"storms": 0, "tills": plan.tills, "came again": 0, "events": 0}
    slowest, memory = 0.0, 0
    for seed in range(plan.seed, plan.seed + STORMS):
        with _folder() as made, _named(seed):
            async with place() as url:
                found = await storm.run(
                    fork,
                    Path(made),
                    tills=plan.tills,
                    seconds=SPREAD_SECONDS,
                    seed=seed,
                    database=url,
                )
            assert found.memory_bytes < storm.memory_bytes_max(plan.tills)
            # More, and they would hold up those who are let in meanwhile, and come again for ever.
            assert found.returns < plan.tills / 10
        counts["storms"] += 1
        counts["came again"] += found.returns
        counts["events"] += found.events
        slowest = max(slowest, found.slowest_seconds)
        memory = max(memory, found.memory_bytes)
    counts["ms until the slowest had all"] = round(slowest * 1_000)
    counts["bytes a till at most"] = memory // plan.tills
    return counts


async def kill_under_clients(fork: Nursery, plan: Plan) -> Counts:
    """Run the Python and the JavaScript client, directly and over a bad line."""
    node = shutil.which("node")
    if node is None:
        raise click.ClickException("the JavaScript client needs Node.js 20 or later")
    counts: Counts = {}
    with _folder() as made, _named(plan.seed):
        outcome, fates = await clients.run(
            fork, Path(made), node=node, seconds=plan.seconds, seed=plan.seed
        )
    _add(counts, outcome)
    # The shop's own till was counted already.
    counts |= {"clients": CLIENTS, "told": CLIENTS * counts["told"]}
    return counts | {f"connections {fate}": count for fate, count in sorted(fates.items())}


async def strike_nodes(fork: Nursery, plan: Plan) -> Counts:
    """Kill, pause and cut off two to four nodes on one PostgreSQL."""
    counts: Counter[str] = Counter()
    seed = plan.seed
    while (left := plan.faults - counts["faults"]) > 0:
        with _folder() as made, _named(seed):
            async with _database() as url:
                found = await nodes.run(
                    fork,
                    Path(made),
                    url,
                    nodes=NODES[seed % len(NODES)],
                    faults=min(FAULTS_A_LEDGER, left),
                    seed=seed,
                )
        slowest = max(counts.pop(SLOWEST, 0), found.pop(SLOWEST, 0))
        counts += found
        counts[SLOWEST] = slowest
        counts["ledgers"] += 1
        seed += 1
        click.echo(f"  {counts['faults']} faults of nodes", err=True)
    return dict(counts)


@asynccontextmanager
async def _database() -> AsyncIterator[str]:
    """Make a database; what makes and drops it has an event loop of its own."""
    made = database()
    url = await asyncio.to_thread(made.__enter__)
    try:
        yield url
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)


PARTS: Final[dict[str, Callable[[Nursery, Plan], Awaitable[Counts]]]] = {
    "kills": kill,
    "steps": kill_everywhere,
    "cuts": cut,
    "storms": come_back,
    "postgres-storms": come_back_to_postgres,
    "clients": kill_under_clients,
    "nodes": strike_nodes,
}


@click.command(help=__doc__)
@click.option("--kills", default=1_000, show_default=True, help="How many at random.")
@click.option("--rounds", default=1, show_default=True, help="How often at every step.")
@click.option("--cuts", default=3_000, show_default=True, help="How many power cuts at least.")
@click.option("--tills", default=5_000, show_default=True, help="How many come back at once.")
@click.option("--seconds", default=60.0, show_default=True, help="How long clients follow.")
@click.option("--faults", default=1_000, show_default=True, help="How many strike nodes.")
@click.option("--seed", default=1, show_default=True, help="Of the first.")
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="These parts.")
@click.option("--add", is_flag=True, help="Add to what is kept of a part.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=RESULTS,
    help="Where the counts are kept; a part that runs again replaces its own.",
)
def main(
    *,
    kills: int,
    rounds: int,
    cuts: int,
    tills: int,
    seconds: float,
    faults: int,
    seed: int,
    only: tuple[str, ...],
    add: bool,
    results: Path,
) -> None:
    """Run every part, and write down what it counted."""
    plan = Plan(
        kills=kills,
        rounds=rounds,
        cuts=cuts,
        tills=tills,
        seconds=seconds,
        faults=faults,
        seed=seed,
    )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for name in [name for name in PARTS if name in only or not only]:
        began = time.monotonic()
        counts = asyncio.run(_run(name, plan))
        counts["seconds"] = round(time.monotonic() - began)
        if add:
            counts = _sum(counts, _kept(results).get(name, {}))
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        _keep(results, name, {"measured": now, "seed": seed, **counts})
        told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        click.echo(f"{name}: {told}; nothing lost, double or out of order")


async def _run(name: str, plan: Plan) -> Counts:
    async with nursery() as fork:
        return await PARTS[name](fork, plan)


def _add(counts: Counts, outcome: Outcome) -> None:
    for what, count in (
        ("ledgers", 1),
        ("kills", outcome.kills),
        ("sent", outcome.sent),
        ("acknowledged", len(outcome.acknowledged)),
        ("told", len(outcome.told)),
    ):
        counts[what] = counts.get(what, 0) + count


def _sum(counts: Counts, kept: dict[str, int]) -> Counts:
    """Add what was counted before; the seed and the date stay those of the newest."""
    before = Counter({what: n for what, n in kept.items() if what not in ("measured", "seed")})
    slowest = max(counts.get(SLOWEST, 0), before[SLOWEST])
    return {**(before + Counter(counts)), **({SLOWEST: slowest} if slowest else {})}


def _kept(results: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(results.read_text()) if results.exists() else {}
    return found


def _keep(results: Path, name: str, found: dict[str, int | str]) -> None:
    kept = _kept(results)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps({**kept, name: found}, indent=1) + "\n")


def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="faults-")


class _named:  # noqa: N801 - used as a function
    """Report the seed of what goes wrong in the block."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            click.echo(f"FAILED: play it again with --seed {self._seed}", err=True)


if __name__ == "__main__":
    sys.exit(main())
