"""Run the benchmark: ``python -m bench [--quick] [--only SECTION] [--skip SERVER]``."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import (
    fanout,
    hostile,
    latency,
    machine,
    native,
    nodes,
    report,
    servers,
    size,
    speed,
    throughput,
    tills,
    work,
)
from bench.measuring import ROUNDS, SEED, Bench, Results
from bench.peer_check import check_peer

SECTIONS: Final[dict[str, Callable[[Bench], None]]] = {
    "peer": check_peer,
    "speed": speed.speed,
    "generator": throughput.generator,
    "startup": throughput.startup,
    "throughput": throughput.throughput,
    "latency": latency.latency,
    "fanout": fanout.fanout,
    "memory": fanout.memory,
    "stalled": fanout.stalled,
    "size": size.size,
    "nodes": nodes.nodes,
    "bell": nodes.bell,
    "growth": nodes.growth,
    "tills": tills.tills,
    "hostile": hostile.hostile,
}
NODES: Final = ("nodes", "bell", "growth", "tills")
REQUESTS: Final = 500_000
REQUESTS_QUICK: Final = 150_000
DOCS: Final = servers.ROOT / "docs"


@click.command()
@click.option("--quick", is_flag=True, help="One round of short measurements, under 2 minutes.")
@click.option("--only", type=click.Choice(list(SECTIONS)), multiple=True, help="These sections.")
@click.option("--speed", "only_speed", is_flag=True, help="--only speed: 7 minutes, quick 1.5.")
@click.option("--hostile", "only_hostile", is_flag=True, help="--only hostile: 5 minutes, quick 2.")
@click.option(
    "--nodes",
    "only_nodes",
    is_flag=True,
    help=f"--only {' '.join(NODES)}, on PostgreSQL: 12 minutes.",
)
@click.option("--skip", multiple=True, help="Leave a server out, by its name.")
@click.option("--rounds", type=click.IntRange(min=1), help=f"Rounds [{ROUNDS}, quick 1].")
@click.option("--server-cores", help="Of every server, as for taskset [all].")
@click.option("--generator-cores", help="Of the load generator and the tills [the last].")
@click.option(
    "--entries-max",
    type=int,
    help=f"Of the largest ledger [{size.SIZES[-1]:,}, quick {size.SIZES[0]:,}].",
)
@click.option(
    "--ledgers",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the large ledgers are kept for the next run [nowhere].",
)
@click.option(
    "--docs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where benchmarks.md and bench/ go [docs/; with --quick only the terminal].",
)
def main(
    *,
    quick: bool,
    only: tuple[str, ...],
    only_speed: bool,
    only_hostile: bool,
    only_nodes: bool,
    skip: tuple[str, ...],
    rounds: int | None,
    server_cores: str | None,
    generator_cores: str | None,
    entries_max: int | None,
    ledgers: Path | None,
    docs: Path | None,
) -> None:
    """Measure the listener and its peers, alternating in one run; write docs/benchmarks.md.

    A section that is measured replaces its former results; the others stay as they were.
    """
    native.raise_file_limit()
    # What was started ends with us, also when we are asked to end.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    console = Console()
    last_core = (os.cpu_count() or 1) - 1
    docs = docs or (None if quick else DOCS)
    kept = Results.load(docs / "bench" / "results.json") if docs else Results()
    only += ("speed",) * only_speed + ("hostile",) * only_hostile + NODES * only_nodes
    chosen = [name for name in SECTIONS if name in only or not only]
    bar = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn())
    # In the working directory's file system: /tmp may be memory, and nothing would be synced.
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as made,
        Progress(*bar, TimeElapsedColumn(), console=console) as progress,
    ):
        directory = Path(made)
        native.build(directory)
        requests = directory / "requests"
        count = REQUESTS_QUICK if quick else REQUESTS
        work.write_requests(requests, work.notify_requests(count=count, seed=SEED))
        bench = Bench(
            generator=native.Generator(
                directory=directory,
                requests=requests,
                cores=generator_cores or str(last_core),
            ),
            server_cores=server_cores or f"0-{last_core}",
            rounds=rounds or (1 if quick else ROUNDS),
            quick=quick,
            skip=frozenset(skip),
            results=kept,
            console=console,
            progress=progress,
            directory=directory,
            ledgers=ledgers or directory,
            entries_max=entries_max or (size.SIZES[0] if quick else size.SIZES[-1]),
        )
        for name in chosen:
            kept.begin(name, rounds=bench.rounds)
            SECTIONS[name](bench)
            if docs:
                kept.save(docs / "bench" / "results.json")
        facts = machine.describe(bench)
    if docs:
        report.write(docs, kept, facts)
    console.print(report.text(kept, facts), markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
