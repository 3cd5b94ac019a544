"""Simulate cells: merchants shared out over several ledgers. ``python -m bench.cells``.

Merchants are as unequal as words are (Zipf): the biggest brings 1/H of all, the second half of
that, and so on. A cell is as loaded as the merchants that it has, since one is never cut in two.
"""

import hashlib
import heapq
from collections.abc import Callable
from typing import Final

MERCHANTS: Final = 10_000
CELLS: Final = (2, 4, 8, 16)


def loads() -> list[float]:
    """Return what each merchant brings of all, the biggest first."""
    raw = [1 / rank for rank in range(1, MERCHANTS + 1)]
    return [one / sum(raw) for one in raw]


def by_hash(shares: list[float], cells: int) -> list[float]:
    """Put each merchant where its number's hash says."""
    found = [0.0] * cells
    for number, share in enumerate(shares):
        digest = hashlib.sha256(str(200_000 + number).encode()).digest()
        found[int.from_bytes(digest[:8]) % cells] += share
    return found


def by_map(shares: list[float], cells: int) -> list[float]:
    """Put the biggest that is left where there is least."""
    found = [0.0] * cells
    heapq.heapify(found)
    for share in shares:
        heapq.heapreplace(found, found[0] + share)
    return found


def table() -> list[str]:
    """Return how much more than its share the fullest cell has."""
    shares = loads()
    ways: dict[str, Callable[[list[float], int], list[float]]] = {"hash": by_hash, "map": by_map}
    lines = ["| | " + " | ".join(f"{count} cells" for count in CELLS) + " |"]
    lines.append("|---" + "|---:" * len(CELLS) + "|")
    for name, place in ways.items():
        most = [max(place(shares, count)) * count for count in CELLS]
        lines.append(f"| by {name} | " + " | ".join(f"{one:.2f} x" for one in most) + " |")
    lines.append(f"\nThe biggest of {MERCHANTS:,} merchants brings {shares[0]:.1%} of all.")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
