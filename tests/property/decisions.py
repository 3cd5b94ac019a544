"""Decide random histories in two ways: ``python -m tests.property.decisions``.

A transaction's first plain notification is decided in a short way. The long one is the definition:
both must come to the same, batch for batch. Each history is decided on a back-end in memory, which
reads nothing but what is wanted.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final
from unittest.mock import patch

import click
from msgspec.structs import replace

from listener.ledger import batch
from listener.ledger.batch import Changes, decide
from listener.ledger.model import Entry, Fact, Kind, Status, Transaction
from listener.ledger.sale import SaleState
from listener.ledger.schedule import Confirm
from listener.ledger.wanted import Key, Seen, Wanted, wanted
from tests.support import told
from tests.support.stored import bound, numbered, sold, without_number

BATCHES: Final = 100_000
BATCHES_A_HISTORY: Final = 8
FACTS_MAX: Final = 6
PROGRESS_SECONDS: Final = 5.0

_WORDS: Final = ("init", "pending", "success", "failed", "closed", "refunded", "disputed", "", None)
_AMOUNTS: Final = ("13.00", "13", "12.00", "", None)
_CURRENCIES: Final = ("USD", "EUR", None)
_SUSPECTS: Final = (None, None, None, "ambiguous", "amount_unreadable")
_CONFIRMS: Final[tuple[Confirm, ...]] = ("suspicious", "always", "off")


class Memory:
    """A back-end that holds everything in memory, and is asked as any other is."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.transactions: dict[Key, Transaction] = {}
        self.sales: dict[int, SaleState] = {}

    def read(self, wants: Wanted) -> Seen:
        """Read exactly what is wanted."""
        transactions = [t for key, t in self.transactions.items() if key in wants.transactions]
        sales = {*wants.sales, *(t.sale_seq for t in transactions if t.sale_seq)}
        return Seen(
            seq=len(self.entries),
            entries=[entry for entry in self.entries if _is_wanted(entry.fact, wants)],
            transactions=transactions,
            sales={seq: self.entries[seq - 1] for seq in sales},
            sale_states={seq: self.sales[seq] for seq in sales if seq in self.sales},
            references=frozenset(
                key
                for sale in self.sales.values()
                if not sale.is_refused
                and (key := (sale.merchant_no, sale.store_no, sale.reference)) in wants.references
            ),
        )

    def write(self, changes: Changes) -> None:
        """Store what a batch became."""
        self.entries += changes.entries
        self.transactions |= changes.transactions
        self.sales |= changes.sales


def _is_wanted(fact: Fact, wants: Wanted) -> bool:
    if fact.transaction_no:
        return (fact.merchant_no, fact.transaction_no) in wants.transactions
    return (fact.merchant_no, fact.fingerprint or "") in wants.unnumbered


def play(seed: int) -> Counter[str]:
    """Decide one history in both ways, and compare; return what happened in it.

    Raises:
        AssertionError: They differ.
    """
    chance = random.Random(seed)
    confirm = chance.choice(_CONFIRMS)
    memory = Memory()
    seen_kinds: Counter[str] = Counter()
    for number in range(BATCHES_A_HISTORY):
        facts = [any_fact(chance, memory) for _ in range(chance.randint(1, FACTS_MAX))]
        seen = memory.read(wanted(facts))
        at_ms = told.START_MS + number * chance.randint(0, 9_000)
        changes = decide(facts, seen, epoch="e", now_ms=at_ms, confirm=confirm)
        with patch.object(batch, "begin", return_value=None):
            longer = decide(facts, seen, epoch="e", now_ms=at_ms, confirm=confirm)
        assert _told(changes) == _told(longer), f"seed {seed}: batch {number}"
        memory.write(changes)
        seen_kinds.update(
            {
                "batches": 1,
                "entries": len(changes.entries),
                "repeats": sum(changes.repeats.values()),
                "begun": len(changes.begun),
                "events": len(changes.events),
            }
        )
    return seen_kinds


def _told(changes: Changes) -> Sequence[object]:
    """Return all that is to be equal; two errors are equal where their texts are."""
    recorded = [str(one) if isinstance(one, Exception) else one for one in changes.recorded]
    return [*(getattr(changes, name) for name in changes.__struct_fields__[1:]), recorded]


def any_fact(chance: random.Random, memory: Memory) -> Fact:
    """Make up something that may be told about one of a few transactions."""
    number = chance.randint(1, 5)
    kind = chance.randint(0, 9)
    if kind == 0:
        return sold(f"r{number}")
    if kind == 1:
        return without_number(f"consent {number}")
    if kind == 2 and (sales := [e for e in memory.entries if e.fact.kind is Kind.SALE]):
        sale = chance.choice(sales)
        return bound(sale.fact.reference or "", number, sale_seq=sale.seq)
    if kind == 3:
        other = chance.choice(
            [
                told.cancel_request(refund_if_paid=chance.random() < 0.5),
                told.alarm(),
                told.decision(
                    chance.choice([Status.PAID, Status.CANCELLED]),
                    as_of=chance.choice([None, len(memory.entries)]),
                ),
                told.query(chance.choice(_WORDS), as_of=len(memory.entries)),
                told.answer(chance.choice(_WORDS)),
            ]
        )
        return replace(other, transaction_no=str(number))
    return replace(
        numbered(number, chance.choice(_WORDS) or "", mark=str(chance.randint(0, 3))),
        amount=chance.choice(_AMOUNTS),
        currency=chance.choice(_CURRENCIES),
        suspect=chance.choice(_SUSPECTS),
        store_no=chance.choice((told.STORE, "300014", None)),
        terminal=chance.choice((None, None, "T-1")),
        merchant_no=chance.choice((told.MERCHANT, told.MERCHANT, "200044")),
    )


@click.command(help=__doc__)
@click.option("--batches", default=BATCHES, show_default=True, help="How many at least.")
@click.option("--seed", default=1, show_default=True, help="Of the first history.")
def main(batches: int, seed: int) -> None:
    """Decide them all, and print what was in them."""
    counts: Counter[str] = Counter()
    shown = time.monotonic()
    while counts["batches"] < batches:
        try:
            counts += play(seed)
        except AssertionError as error:
            click.echo(f"FAILED {error}")
            sys.exit(1)
        seed += 1
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            click.echo(f"{counts['batches']}/{batches} batches", err=True)
    click.echo("the same in both ways: " + ", ".join(f"{n} {name}" for name, n in counts.items()))


if __name__ == "__main__":
    main()
