"""What the rounds of `speed` come to: each ratio within a round, every round, the median."""

import statistics
from dataclasses import dataclass
from typing import Final, Literal

from bench import servers
from bench.measuring import Section

OURS: Final = servers.LISTENER.name
FAIR: Final = servers.NODE_FAIR.name
BARE: Final = servers.BARE.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One line of the table: a metric of ours, against what, and where it is to be.

    The round's number is ours over theirs, or less theirs, or ours alone.
    """

    title: str
    point: str
    metric: str = "rate"
    ours: str = OURS
    theirs: str = FAIR
    # Where it is another than ours.
    their_metric: str | None = None
    how: Literal["over", "less", "alone"] = "over"
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    def rounds(self, section: Section) -> list[float]:
        """Return the number of each round; none where something was not measured."""
        ours = section.get(self.ours, {}).get(self.point, {}).get(self.metric, [])
        if self.how == "alone":
            return ours
        metric = self.their_metric or self.metric
        theirs = section.get(self.theirs, {}).get(self.point, {}).get(metric, [])
        if len(ours) != len(theirs):
            # A turn failed in some round, and nobody knows any more what was measured beside what.
            return []
        pairs = zip(ours, theirs, strict=True)
        return [one / other if self.how == "over" else one - other for one, other in pairs]

    def is_reached(self, value: float) -> bool:
        """Return whether a number is where it is to be."""
        enough = self.at_least is None or value >= self.at_least
        return enough and (self.at_most is None or value <= self.at_most)

    @property
    def wanted(self) -> str:
        """The aim as text."""
        if self.at_least is not None:
            return f"≥ {self.at_least:.2f}{self.unit}"
        return f"≤ {self.at_most:.2f}{self.unit}" if self.at_most is not None else "-"


AIMS: Final = (
    Aim(title="64 connections, a fresh process", point="64 fresh", at_least=1.10),
    Aim(title="64 connections, after others", point="64 after", at_least=1.00),
    Aim(title="64 connections, the server pinned to one core", point="64 pinned", at_least=1.00),
    Aim(title="256 connections, a fresh process", point="256 fresh", at_least=1.20),
    Aim(title="256 connections, after others", point="256 after", at_least=1.20),
    Aim(title="16 connections, a fresh process", point="16 fresh", at_least=1.00),
    Aim(title="16 connections, after others", point="16 after", at_least=1.00),
    Aim(title="1 connection, a fresh process", point="1 fresh", at_least=0.95),
    Aim(title="1 connection, after others", point="1 after", at_least=0.95),
    Aim(title="64 connections, a head of its own in each request", point="64 heads differ",
        at_least=0.85),
    Aim(title="64 connections, of bare aiohttp, pinned", point="64 pinned", theirs=BARE,
        at_least=0.90),
    Aim(title="64 connections, of bare aiohttp, after others", point="64 after", theirs=BARE,
        at_least=0.60),
    Aim(title="64 connections, `fast_path = false`, a fresh process", point="64 fresh",
        ours=servers.LISTENER_ORDINARY.name, at_least=0.65),
    Aim(title="64 connections, of the unlocked textbook, a fresh process", point="64 fresh",
        theirs=servers.TEXTBOOK_UNLOCKED.name, at_least=1.50),
    Aim(title="64 connections, of the locked textbook, a fresh process", point="64 fresh",
        theirs=servers.TEXTBOOK.name),
    Aim(title="acknowledged at 100/s, p50", point="100/s", metric="ack_p50", at_most=1.10),
    Aim(title="acknowledged at 1,000/s, p50", point="1000/s", metric="ack_p50", at_most=1.10),
    Aim(title="acknowledged at 100/s, p99", point="100/s", metric="ack_p99", at_most=1.00),
    Aim(title="acknowledged at 1,000/s, p99", point="1000/s", metric="ack_p99", at_most=1.00),
    Aim(title="notify to till at 1,000/s, p50, less the disk's own p50", point="1000/s",
        metric="till_p50", theirs="disk", their_metric="ack_p50", how="less", unit=" ms",
        at_most=0.60),
    Aim(title="`listener verify`, an entry", point="verify", metric="verify_us", how="alone",
        unit=" µs", at_most=20.0),
)  # fmt: skip


def table(section: Section) -> list[str]:
    """Return the table as markdown; empty where nothing was measured."""
    rows = []
    for aim in AIMS:
        rounds = aim.rounds(section)
        if not rounds:
            continue
        middle = statistics.median(rounds)
        wanted = "-" if aim.wanted == "-" else f"{aim.wanted}: {_verdict(aim, middle)}"
        shown = " · ".join(f"{value:.2f}" for value in rounds)
        rows.append(f"| {aim.title} | {middle:.2f}{aim.unit} | {shown} | {wanted} |")
    if not rows:
        return []
    how = (
        "A ratio is worked out within each round, from turns that follow each other; the median of"
        " the rounds counts. Throughput in a closed loop."
    )
    return [
        "### The listener, of the fair Node.js peer unless said otherwise",
        "",
        how,
        "",
        "| | median | each round | aim |",
        "|---|---:|---|---|",
        *rows,
        "",
    ]


def _verdict(aim: Aim, value: float) -> str:
    return "reached" if aim.is_reached(value) else "**not reached**"
