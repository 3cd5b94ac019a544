"""Play many random scenarios against the whole core: ``python -m tests.property.simulate``.

A failure prints its seed; ``--seed N --scenarios 1`` plays it again.
"""

import asyncio
import gc
import logging
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import click

from tests.property.scenario import Report, play
from tests.support.databases import database

SCENARIOS: Final = 5_000
CHUNK: Final = 25
PROGRESS_SECONDS: Final = 5.0
FAILURES_SHOWN_MAX: Final = 10


def play_some(seeds: range, *, nodes: int = 1) -> tuple[Report, list[tuple[int, str]]]:
    """Play some scenarios; returns what happened, and the seeds that failed with their reasons."""
    # Pockyt fails thousands of times here; each would be logged.
    logging.disable(logging.CRITICAL)
    try:
        return _play_quietly(seeds, nodes=nodes)
    finally:
        logging.disable(logging.NOTSET)


def _play_quietly(seeds: range, *, nodes: int) -> tuple[Report, list[tuple[int, str]]]:
    memory = Path("/dev/shm")
    report, failures = Report(), []
    for seed in seeds:
        with ExitStack() as stack:
            made = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
            directory = Path(stack.enter_context(made))
            url = stack.enter_context(database()) if nodes > 1 else None
            try:
                report.add(asyncio.run(play(seed, directory=directory, nodes=nodes, url=url)))
            except Exception as error:  # noqa: BLE001 - whatever it is, its seed is told
                at = traceback.extract_tb(error.__traceback__)[-1]
                told = f"{type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno})"
                failures.append((seed, told))
    gc.collect()
    return report, failures


@click.command(help=__doc__)
@click.option("--scenarios", default=SCENARIOS, show_default=True, help="How many.")
@click.option("--seed", default=1, show_default=True, help="Of the first scenario.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="How many at once.")
@click.option("--nodes", default=1, show_default=True, help="More than one: on PostgreSQL.")
def main(scenarios: int, seed: int, jobs: int, nodes: int) -> None:
    """Play them all, on every core."""
    began = shown = time.monotonic()
    report = Report()
    failures: list[tuple[int, str]] = []
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        playing = partial(play_some, nodes=nodes)
        for done, failed in pool.map(playing, _chunks(range(seed, seed + scenarios))):
            report.add(done)
            failures += failed
            for number, told in failed:
                click.echo(f"seed {number}: {told}", err=True)
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                count = report.counts["scenarios"] + len(failures)
                rate = count / (shown - began)
                click.echo(f"{count}/{scenarios} scenarios, {rate:.0f}/s", err=True)
    _print(report, seconds=time.monotonic() - began)
    for number, told in failures[:FAILURES_SHOWN_MAX]:
        click.echo(f"FAILED seed {number}: {told}")
        again = f"--seed {number} --scenarios 1 --nodes {nodes}"
        click.echo(f"  replay: python -m tests.property.simulate {again}")
    click.echo(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)


def _chunks(seeds: range) -> Iterator[range]:
    for first in range(seeds.start, seeds.stop, CHUNK):
        yield range(first, min(first + CHUNK, seeds.stop))


def _print(report: Report, *, seconds: float) -> None:
    counts = report.counts
    click.echo(f"{counts.pop('scenarios', 0)} scenarios held, in {seconds:.0f} s")
    click.echo("  " + _listed(counts))
    click.echo("  ended: " + _listed(report.statuses))
    click.echo("  faults struck: " + _listed(report.struck))


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counter.most_common())


if __name__ == "__main__":
    main()
