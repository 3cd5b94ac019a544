"""Draw the plots, as SVG."""

import statistics
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from bench.measuring import Section

mpl.rcParams["svg.hashsalt"] = "bench"


def throughput(section: Section, titles: dict[str, str], path: Path) -> None:
    """Draw notifications a second by connections."""
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    _lines(axes, section, titles, "rate")
    axes.set(xlabel="connections", ylabel="durable notifications/s", yscale="log")
    _count_axis(axes, [int(count) for count in next(iter(section.values()))])
    _save(figure, axes, path)


def fanout(section: Section, titles: dict[str, str], path: Path) -> None:
    """Draw deliveries a second by tills."""
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    _lines(axes, section, titles, "rate")
    axes.set(xlabel="tills", ylabel="deliveries/s")
    _count_axis(axes, [int(count) for count in next(iter(section.values()))])
    axes.set_ylim(bottom=0)
    _save(figure, axes, path)


def latency(section: Section, titles: dict[str, str], path: Path) -> None:
    """Draw acknowledgement and notify-to-till, p50 and p99, by rate."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, what, title in ((left, "ack", "acknowledgement"), (right, "till", "notify to till")):
        for number, (server, points) in enumerate(section.items()):
            shown = {name: found for name, found in points.items() if f"{what}_p50" in found}
            for mark, quantile in (("o", "p50"), ("^", "p99")):
                heights = [statistics.median(found[f"{what}_{quantile}"])
                           for found in shown.values()]  # fmt: skip
                label = titles[server] if mark == "o" else None
                axes.plot(list(shown), heights, mark, color=f"C{number}", label=label)
        axes.set(title=f"{title} (● p50, ▲ p99)", ylabel="ms", yscale="log")
        axes.tick_params(axis="x", rotation=20)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.grid(alpha=0.3)
    _save(figure, left, path)


def size(section: Section, _titles: dict[str, str], path: Path) -> None:
    """Draw each cost by entries, as a multiple of what it is on the smallest ledger."""
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    points = section["listener"]
    counts = sorted(points, key=int)
    for metric, label in (
        ("insert_p50", "insert"),
        ("insert_cpu_us", "insert, processor time"),
        ("page_p50", "first page"),
        ("cancelled_p50", "first page, cancelled"),
        ("resume_p50", "resume"),
        ("verify_us", "verify, an entry"),
    ):
        costs = [statistics.median(points[count][metric]) for count in counts]
        axes.plot([int(one) for one in counts], [cost / costs[0] for cost in costs], "o-",
                  label=label)  # fmt: skip
    axes.set(xlabel="entries", ylabel="cost, the smallest ledger's = 1")
    _count_axis(axes, [int(count) for count in counts])
    axes.set_ylim(bottom=0)
    _save(figure, axes, path)


def _count_axis(axes: Axes, counts: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))


def _lines(axes: Axes, section: Section, titles: dict[str, str], metric: str) -> None:
    for server, points in section.items():
        counts = [count for count in points if metric in points[count]]
        rounds = [points[count][metric] for count in counts]
        middle = [statistics.median(values) for values in rounds]
        below = [mid - min(values) for mid, values in zip(middle, rounds, strict=True)]
        above = [max(values) - mid for mid, values in zip(middle, rounds, strict=True)]
        axes.errorbar(
            [int(count) for count in counts], middle, yerr=(below, above), marker="o", capsize=3,
            label=titles[server], linewidth=2.5 if server == "listener" else 1.2,
        )  # fmt: skip


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    axes.grid(alpha=0.3)
    # Below, where it covers no line.
    figure.legend(*axes.get_legend_handles_labels(), fontsize="small", loc="outside lower center",
                  ncols=2)  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
