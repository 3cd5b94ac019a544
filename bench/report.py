"""Write what was measured as tables (docs/benchmarks.md), with the plots beside it."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import hostile, plots, ratios, servers
from bench.measuring import Results, Section

BEGIN: Final = "<!-- bench: begin; written by `python -m bench` -->"
END: Final = "<!-- bench: end -->"
TITLES: Final = {
    one.name: one.title
    for one in (
        servers.LISTENER,
        servers.LISTENER_ORDINARY,
        servers.BARE,
        servers.TEXTBOOK,
        servers.TEXTBOOK_UNLOCKED,
        servers.NODE_FAIR,
        servers.NODE_EACH,
        servers.NODE_GROUP,
        servers.NODE_FANOUT,
        servers.FASTAPI,
        servers.FLASK,
        servers.BARE_FANOUT,
        servers.WEBSOCKETS,
    )
} | {
    "disk": "the disk alone (write + fdatasync)",
    "answer": "a C program that answers at once",
    "nodes-1": "one listener on PostgreSQL",
    "nodes-2": "two listeners",
    "nodes-4": "four listeners",
    "workers-2": "one with `--workers 2`",
    "workers-4": "one with `--workers 4`",
    "same-node": "on PostgreSQL, a till of the same listener",
    "other-node": "on PostgreSQL, a till of another listener",
    "commit": "an INSERT of 700 bytes and its commit",
    "with-bell": "the same, with NOTIFY",
    "snapshot": "a commit each, while a snapshot stays open",
    "haproxy": "HAProxy, for each till that idles behind it, TLS included",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """How one metric of a section is shown: a row a server, a column a point."""

    heading: str
    section: str
    metric: str
    unit: str
    digits: int = 0
    # Also how many times the listener's each number is, by rounds of the same run.
    ratio: bool = False
    note: str = ""
    # Something that must not happen: shown where it did.
    trouble: bool = False


TABLES: Final = (
    Table(heading="Durable notifications a second, by connections", section="throughput",
          metric="rate", unit="/s", ratio=True,
          note="Closed loop. In brackets the lowest and the highest round; then the"
          " listener's rate over that server's, the median of the rounds."),
    Table(heading="Acknowledged within, p50", section="throughput", metric="p50", unit="ms",
          digits=2),
    Table(heading="Acknowledged within, p99", section="throughput", metric="p99", unit="ms",
          digits=2),
    Table(heading="Share of its core that the load generator used", section="throughput",
          metric="generator", unit="", digits=2),
    Table(heading="Not answered with `success`", section="throughput", metric="failed", unit="",
          trouble=True),
    Table(heading="Durable notifications a second, by connections and by the process",
          section="speed", metric="rate", unit="/s", ratio=True,
          note="Closed loop. *Fresh*: the first that the process serves, after a short warm-up;"
          " *after*: it has served the points before; *pinned*: one core for the server, the"
          " other for the load;"
          " *heads differ*: a proxy's request id in each. In brackets the lowest and the highest"
          " round; then the listener's rate over that server's, the median of the rounds."),
    Table(heading="The server's processor time a notification", section="speed", metric="cpu_us",
          unit="µs", digits=1, note="Of all its threads; it depends less on"
          " what else the machine does."),
    Table(heading="Acknowledged at a fixed rate, p50", section="speed", metric="ack_p50",
          unit="ms", digits=2),
    Table(heading="Acknowledged at a fixed rate, p99", section="speed", metric="ack_p99",
          unit="ms", digits=2),
    Table(heading="Notify to till at a fixed rate, p50", section="speed", metric="till_p50",
          unit="ms", digits=2),
    Table(heading="Not answered with `success`", section="speed", metric="failed", unit="",
          trouble=True),
    Table(heading="The load generator alone: answers a second, by connections",
          section="generator", metric="rate", unit="/s"),
    Table(heading="Acknowledgement at a fixed rate, p50", section="latency", metric="ack_p50",
          unit="ms", digits=2, note="Open loop, timed from when each notification was due. The"
          " disk's row is a bare write + fdatasync at the same rate, in the same rounds."),
    Table(heading="Acknowledgement at a fixed rate, p99", section="latency", metric="ack_p99",
          unit="ms", digits=2),
    Table(heading="Notify to till at a fixed rate, p50", section="latency", metric="till_p50",
          unit="ms", digits=2, note="From when the notification was due to the event at a till."),
    Table(heading="Notify to till at a fixed rate, p99", section="latency", metric="till_p99",
          unit="ms", digits=2),
    Table(heading="Notify to till without the commit's share, p50", section="latency",
          metric="after_ack_p50", unit="ms", digits=2,
          note="From the acknowledgement, which waits for the commit, to the event at a till;"
          " negative where the event is the sooner."),
    Table(heading="Rate of each point", section="latency", metric="due_rate",
          unit="/s"),
    Table(heading="Events that did not come", section="latency", metric="missing", unit="",
          trouble=True),
    Table(heading="Deliveries a second, by tills", section="fanout", metric="rate",
          unit="/s", ratio=True, note="A burst of events, from the first POST to the last delivery"
          " at the last till. The listener stores each event first; the others store nothing."),
    Table(heading="The server's processor time a delivery", section="fanout",
          metric="cpu_us", unit="µs", digits=2),
    Table(heading="One event after the other (50,000 deliveries/s, at most 200 events/s):"
          " p50", section="fanout", metric="paced_p50", unit="ms", digits=2),
    Table(heading="… p99", section="fanout", metric="paced_p99", unit="ms", digits=2),
    Table(heading="… the server's processor time a delivery", section="fanout",
          metric="paced_cpu_us", unit="µs", digits=2),
    Table(heading="Events that did not come", section="fanout", metric="missing", unit="",
          trouble=True),
    Table(heading="Memory of an idle till, by tills", section="memory", metric="kib", unit="KiB",
          digits=1),
    Table(heading="Memory before any till", section="memory", metric="base_mib", unit="MiB"),
    Table(heading="From start to first answer", section="startup", metric="seconds", unit="s",
          digits=2),
    Table(heading="One stalled till: p99 of the others", section="stalled", metric="p99",
          unit="ms", digits=2),
    Table(heading="Stop with tills connected, one of them stalled", section="stalled",
          metric="stop_seconds", unit="s", digits=2),
    Table(heading="Insert alone (one connection), p50, by entries", section="size",
          metric="insert_p50", unit="ms", digits=2),
    Table(heading="Inserts a second at 64 connections", section="size", metric="insert_rate",
          unit="/s"),
    Table(heading="Processor time an insert, at 64 connections", section="size",
          metric="insert_cpu_us", unit="µs"),
    Table(heading="First page of 50 transactions, p50", section="size", metric="page_p50",
          unit="ms", digits=2),
    Table(heading="First page of 50 cancelled transactions, p50", section="size",
          metric="cancelled_p50", unit="ms", digits=2),
    Table(heading="Resume 100 events behind, p50", section="size", metric="resume_p50", unit="ms",
          digits=2),
    Table(heading="`listener verify`, an entry", section="size", metric="verify_us", unit="µs",
          digits=1),
    Table(heading="Durable notifications a second at 256 connections a process", section="nodes",
          metric="rate", unit="/s", ratio=True,
          note="Closed loop; listeners, PostgreSQL and the load share this"
          " machine's cores. In brackets the lowest and the highest round; then the rate on"
          " SQLite over it, the median of the rounds."),
    Table(heading="The listeners' processor time a notification", section="nodes",
          metric="cpu_us", unit="µs", note="Of all their processes, PostgreSQL's not among them."),
    Table(heading="Acknowledged within at that load, p99", section="nodes",
          metric="loaded_p99", unit="ms", digits=1),
    Table(heading="Disk a notification", section="nodes", metric="disk_bytes", unit="bytes",
          note="By the size of the database before and after, indexes and events included."),
    Table(heading="WAL a notification", section="nodes", metric="wal_bytes", unit="bytes"),
    Table(heading="Not answered with `success`", section="nodes", metric="failed", unit="",
          trouble=True),
    Table(heading="Acknowledged, p50", section="nodes", metric="ack_p50", unit="ms", digits=2,
          note="Open loop, timed from when each was due."),
    Table(heading="Acknowledged, p99", section="nodes", metric="ack_p99", unit="ms", digits=2),
    Table(heading="Notify to till, p50", section="nodes", metric="till_p50", unit="ms", digits=2),
    Table(heading="Notify to till, p99", section="nodes", metric="till_p99", unit="ms", digits=2),
    Table(heading="Events that did not come", section="nodes", metric="missing", unit="",
          trouble=True),
    Table(heading="Commits a second of PostgreSQL alone, by clients", section="bell",
          metric="commits", unit="/s",
          note="What NOTIFY costs: at commit it takes one lock of the whole server, so that"
          " commits that ring sync one after the other."),
    Table(heading="A commit of PostgreSQL at that rate, p50", section="bell", metric="ack_p50",
          unit="ms", digits=2, note="As the listeners' latencies: from when it was due."),
    Table(heading="A commit of PostgreSQL at that rate, p99", section="bell", metric="ack_p99",
          unit="ms", digits=2),
    Table(heading="On PostgreSQL: insert alone (one connection), p50, by entries",
          section="growth", metric="insert_p50", unit="ms", digits=2),
    Table(heading="On PostgreSQL: inserts a second at 64 connections", section="growth",
          metric="insert_rate", unit="/s"),
    Table(heading="Size of the database, an entry", section="growth", metric="disk_bytes",
          unit="bytes"),
    Table(heading="While a snapshot stays open: a commit, p50", section="growth",
          metric="snapshot_p50", unit="ms", digits=2,
          note="One connection, so that each notification is a commit: 100,000 of them."),
    Table(heading="While a snapshot stays open: a commit, p99", section="growth",
          metric="snapshot_p99", unit="ms", digits=2),
    Table(heading="Not answered with `success`", section="growth", metric="failed", unit="",
          trouble=True),
    Table(heading="Tills that connect a second, one listener", section="tills",
          metric="connects", unit="/s",
          note="500 terminals with keys of their own, one after the other, from the upgrade to"
          " `ready`; again once all have gone."),
    Table(heading="Transactions of PostgreSQL for each", section="tills", metric="transactions",
          unit="", digits=1),
    Table(heading="Memory at the proxy, by tills", section="tills", metric="proxy_kib",
          unit="KiB", digits=1),
)  # fmt: skip
HEADINGS: Final = {
    "speed": "Speed, of the fair peer",
    "throughput": "Throughput",
    "generator": "The load generator",
    "latency": "Latency",
    "fanout": "Fan-out",
    "memory": "Memory",
    "stalled": "A stalled till",
    "startup": "Start-up",
    "size": "As the ledger grows",
    "nodes": "Several listeners on PostgreSQL",
    "bell": "PostgreSQL alone, and its bell",
    "growth": "As a ledger on PostgreSQL grows",
    "tills": "Many tills",
    "hostile": "Beside those who misbehave",
}
# What begins a section: a table of its own, which sums it up.
SUMMED_UP: Final[dict[str, Callable[[Section], list[str]]]] = {
    "speed": ratios.table,
    "hostile": hostile.table,
}
# The parts of the long run of faults, which is not of the bench: `make faults`.
FAULTS: Final = {
    "kills": "SIGKILL at random under load",
    "steps": "SIGKILL before each system call of a service's life",
    "cuts": "The power cut: only what was synced is sure to be left",
    "storms": "Tills that come back within 5 s of a kill",
    "postgres-storms": "The same, with the ledger on PostgreSQL",
    "clients": "The Python and the JavaScript client under kills and on a bad line",
    "nodes": "Nodes on one PostgreSQL: killed, paused, their connections cut",
}
_NO_COUNTS: Final = frozenset({"measured", "seed"})
PLOTS: Final[dict[str, Callable[[Section, dict[str, str], Path], None]]] = {
    "throughput": plots.throughput,
    "latency": plots.latency,
    "fanout": plots.fanout,
    "size": plots.size,
}


def text(results: Results, facts: dict[str, str]) -> str:
    """Return the tables as markdown."""
    lines = [f"- {name}: {fact}" for name, fact in facts.items()] + [""]
    for name, heading in HEADINGS.items():
        section = results.sections.get(name)
        if not section:
            continue
        lines += [f"## {heading}", "", f"Measured {results.measured[name]}.", ""]
        if name in PLOTS:
            lines += [f"![{heading}](bench/{name}.svg)", ""]
        if name in SUMMED_UP:
            lines += SUMMED_UP[name](section)
        for table in TABLES:
            if table.section == name:
                lines += _rows(table, section)
    return "\n".join(lines)


def write(docs: Path, results: Results, facts: dict[str, str]) -> None:
    """Put the tables into docs/benchmarks.md between their marks, and draw the plots."""
    path = docs / "benchmarks.md"
    page = path.read_text() if path.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    found = "\n".join([text(results, facts), *_faults(docs / "bench" / "faults.json")])
    path.write_text(f"{before}{BEGIN}\n{found}{END}{after}")
    for name, draw in PLOTS.items():
        if results.sections.get(name):
            draw(results.sections[name], TITLES, docs / "bench" / f"{name}.svg")


def _faults(path: Path) -> list[str]:
    """Return what the long run of faults has done, as it wrote it down."""
    if not path.exists():
        return []
    parts: dict[str, dict[str, Any]] = json.loads(path.read_text())
    held = (
        "By `make faults`. After each kill and cut, nothing that was acknowledged is missing,"
        " nothing is double, and what `listener verify` checks is sound; in the end each till had"
        " every event once, in order. Anything else ends the run, and nothing is written here."
    )
    lines = ["## Faults", "", held, "", "| | measured | counted |", "|---|---|---|"]
    for name, title in FAULTS.items():
        counts = parts.get(name)
        if counts:
            told = [f"{n:,} {what}" for what, n in counts.items() if what not in _NO_COUNTS]
            lines.append(f"| {title} | {counts['measured']} | {', '.join(told)} |")
    return [*lines, ""]


def _rows(table: Table, section: Section) -> list[str]:
    mine = {
        server: {point: found[table.metric] for point, found in points.items()
                 if table.metric in found}
        for server, points in section.items()
    }  # fmt: skip
    mine = {server: points for server, points in mine.items() if points}
    values = [value for points in mine.values() for found in points.values() for value in found]
    if not any(values) and (table.trouble or not values):
        return []
    columns = list(dict.fromkeys(point for points in mine.values() for point in points))
    unit = f" ({table.unit})" if table.unit else ""
    lines = [f"### {table.heading}{unit}", ""]
    lines += [table.note, ""] if table.note else []
    heads = [f"{int(one):,}" if one.isdigit() else one for one in columns]
    lines += ["| | " + " | ".join(heads) + " |", "|---" + "|---:" * len(columns) + "|"]
    listener = mine.get("listener", {})
    for server, points in mine.items():
        against = listener if table.ratio and server != "listener" else {}
        cells = [_cell(table, points.get(one), against.get(one)) for one in columns]
        lines.append(f"| {TITLES[server]} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(table: Table, values: list[float] | None, listener: list[float] | None) -> str:
    if not values:
        return "-"
    shown = [f"{value:,.{table.digits}f}" for value in sorted(values)]
    middle = f"{statistics.median(values):,.{table.digits}f}"
    cell = middle if len(values) == 1 else f"{middle} [{shown[0]} to {shown[-1]}]"
    if listener:
        ratios = [ours / theirs for ours, theirs in zip(listener, values, strict=False)]
        cell += f" · {statistics.median(ratios):.2f} x"
    return cell
