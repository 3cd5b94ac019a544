"""What every section needs: the servers' turns, the results, the progress."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import Progress

from bench import native, servers

# server → point (connections, tills, a rate) → metric → one value a round
Section = dict[str, dict[str, dict[str, list[float]]]]

SEED: Final = 20261123
ROUNDS: Final = 3


@dataclass(slots=True)
class Results:
    """All that was measured, kept as JSON so that one section can be measured anew.

    ``measured`` says of each section when, and in how many rounds.
    """

    sections: dict[str, Section] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Results":
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"measured": self.measured, "sections": self.sections}
        path.write_text(json.dumps(kept, indent=1) + "\n")

    def begin(self, section: str, *, rounds: int) -> None:
        """Forget what a section had; what follows is of one run."""
        self.sections[section] = {}
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.measured[section] = f"{now}, {rounds} {'round' if rounds == 1 else 'rounds'}"

    def add(self, section: str, server: str, point: object, **metrics: float) -> None:
        place = self.sections.setdefault(section, {}).setdefault(server, {})
        for metric, value in metrics.items():
            place.setdefault(str(point), {}).setdefault(metric, []).append(round(float(value), 4))


@dataclass(slots=True, kw_only=True)
class Bench:
    """One run: the generator, the cores of the servers, and where results go."""

    generator: native.Generator
    server_cores: str
    rounds: int
    quick: bool
    skip: frozenset[str]
    results: Results
    console: Console
    progress: Progress
    directory: Path
    ledgers: Path
    entries_max: int

    def pick(self, *, full: float, quick: float) -> float:
        """Choose a length or size by how long the run may take."""
        return quick if self.quick else full

    def contenders(self, *candidates: servers.Server) -> list[servers.Server]:
        return [server for server in candidates if server.name not in self.skip]

    def alternate(
        self,
        section: str,
        candidates: list[servers.Server],
        measure: Callable[[servers.Running], None],
        *,
        before_round: Callable[[], None] | None = None,
        ledger: Path | None = None,
        keys: int = servers.KEYS,
    ) -> None:
        """Measure each server in turn, round after round (A B C A B C …).

        One that fails is told of and left out of that round; the others go on.
        """
        task = self.progress.add_task(section, total=self.rounds * len(candidates))
        for _ in range(self.rounds):
            if before_round is not None:
                before_round()
            for server in candidates:
                self.progress.update(task, description=f"{section}: {server.name}")
                try:
                    with servers.run(
                        server, cores=self.server_cores, keys=keys, ledger=ledger
                    ) as running:
                        measure(running)
                except native.BenchError as error:
                    self.failed(section, server, error)
                self.progress.advance(task)
        self.progress.update(task, description=section)

    def show(self, text: str) -> None:
        """Show what is being measured, in place of what the newest bar said."""
        self.progress.update(self.progress.task_ids[-1], description=text)

    def failed(self, section: str, server: servers.Server, error: Exception) -> None:
        """Show that a server's turn came to nothing."""
        self.console.print(f"[red]{section}: {server.name}: {error}")


def quantiles(values_ms: np.ndarray, prefix: str = "") -> dict[str, float]:
    """Return the p50 and p99 of some times, nothing where there are none."""
    if not len(values_ms):
        return {}
    p50, p99 = np.percentile(values_ms, [50, 99])
    return {f"{prefix}p50": float(p50), f"{prefix}p99": float(p99)}
