"""The status is a function of the set: any order and any repetition ends in the same."""

import asyncio
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from listener.ledger.history import History
from listener.ledger.model import Fact, Kind, Status, Transaction
from listener.ledger.transaction import advance
from listener.storage.sqlite.ledger import SqliteLedger
from listener.suspects import REFUND_NOTICE
from tests.support.told import (
    MERCHANT,
    NUMBER,
    apart,
    believe,
    bound,
    entries,
    notification,
    sale,
)

ANOTHERS: Final = notification("success", reference="another")
# One word for each status, so that the word that is shown depends on the set alone, too.
MESSAGES: Final = (
    notification("init"),
    notification("pending"),
    notification("success"),
    notification("failed"),
    notification("closed"),
    notification("refunded"),
    notification("disputed"),
    notification("success", amount="12.00"),
    notification("closed", suspect="ambiguous"),
    notification("refunded", currency="EUR"),
    ANOTHERS,
    notification("closed", currency=None),
    notification("pending", reference=None),
    notification("success", amount=None, suspect="amount_unreadable"),
    notification("success", amount="3.00", reference="rf-1", suspect=REFUND_NOTICE),
)

Ending = tuple[object, ...]


def ending(facts: Sequence[Fact]) -> Ending:
    """Return what does not tell a time or a version of where facts end, told in this order."""
    story, started = with_sale_bound(facts)
    told, found = apart(entries([*started, *story]))
    transaction = None
    sales = {found.seq: found} if found else {}
    history = History()
    for entry in told:
        summary = history.add(entry, sales=sales)
        started_by = sales.get(summary.judge or 0)
        transaction = advance(transaction, summary, entry, sale=started_by).transaction
    assert transaction is not None
    belief = believe(told, sale=sales.get(transaction.sale_seq or 0))
    assert (transaction.status, transaction.held) == (belief.status, belief.held is not None)
    return timeless(transaction)


def with_sale_bound(facts: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
    """Where a sale is among the facts it is bound there; it was recorded before them all."""
    story = [bound(1) if fact.kind is Kind.SALE else fact for fact in facts]
    return story, [fact for fact in facts if fact.kind is Kind.SALE]


def timeless(transaction: Transaction) -> Ending:
    """Leave out what tells times and versions, and the two things that the newest or first say.

    They are the word that is shown where no word is believed, and what the sale is about where
    nobody recorded it.
    """
    why = transaction.ask.why if transaction.ask else None
    same = replace(
        transaction, first_seq=0, state_version=0, created_at_ms=0, updated_at_ms=0, ask=None
    )
    if same.status is Status.UNKNOWN:
        same = replace(same, provider_status=None)
    if same.sale_seq is None:
        same = replace(same, amount=None, currency=None, reference=None)
    return same, why


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("has_sale", [False, True])
def test_every_order_of_a_small_set_ends_in_the_same(count: int, has_sale: bool) -> None:
    for chosen in combinations(MESSAGES, count):
        told = [sale(), *chosen] if has_sale else list(chosen)
        endings = [ending(order) for order in permutations(told)]
        assert all(one == endings[0] for one in endings), [fact.fingerprint for fact in chosen]


def test_every_order_of_all_that_can_be_said_ends_in_the_same() -> None:
    told = [notification(w) for w in ("init", "pending", "success", "failed", "closed")]
    statuses = {believe(entries(order)).status for order in permutations(told)}
    assert statuses == {Status.CONFLICT}
    without = [fact for fact in told if fact.says is not Status.CANCELLED]
    assert {believe(entries(order)).status for order in permutations(without)} == {Status.PAID}


@given(st.data(), st.booleans())
def test_any_order_and_repetition_of_many_ends_in_the_same(
    data: st.DataObject, has_sale: bool
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=8))
    told = [sale(), *chosen] if has_sale else chosen
    # A repetition that is an entry of its own: other fields, the same words.
    unique = [*({id(fact): fact for fact in chosen}.values()), *([sale()] if has_sale else [])]
    assert ending(data.draw(st.permutations(told))) == ending(unique)


def test_the_place_of_the_sale_does_not_matter() -> None:
    chosen = [notification("success", amount="12.00"), notification("pending")]
    endings = [ending([*chosen[:at], sale(), *chosen[at:]]) for at in range(3)]
    assert endings == [endings[0]] * 3
    transaction = endings[0][0]
    assert isinstance(transaction, Transaction)
    assert (transaction.status, transaction.held, transaction.terminal) == (
        Status.PENDING,
        True,
        "T-42",
    )


async def recorded(
    path: Path, facts: Sequence[Fact], *, at_once: bool
) -> tuple[Ending, dict[str | None, int]]:
    """Record facts in a ledger of their own; return the ending and the deliveries of each."""
    story, started = with_sale_bound(facts)
    async with await SqliteLedger.open(path) as ledger:
        for fact in started:
            assert (await ledger.record(fact)).seq == 1
        if at_once:
            await asyncio.gather(*(ledger.record(fact) for fact in story))
        else:
            for fact in story:
                await ledger.record(fact)
        (transaction,) = await ledger.read_transaction(NUMBER, merchant_no=MERCHANT)
        lines = await ledger.read_transaction_entries(transaction)
    counts = {
        line.entry.fact.fingerprint: line.deliveries.count
        for line in lines
        if line.entry.fact.kind is Kind.NOTIFICATION
    }
    return timeless(transaction), counts


@settings(max_examples=25)
@given(st.data(), st.booleans(), st.booleans())
def test_a_ledger_ends_in_the_same_whatever_was_recorded_first(
    data: st.DataObject, has_sale: bool, at_once: bool
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=6, unique_by=id))
    # A number that another sale has already is not a sale's: that is another end.
    assume(not has_sale or ANOTHERS not in chosen)
    repeats = data.draw(st.lists(st.sampled_from(chosen), max_size=6))
    told = [*chosen, *repeats, *([sale()] if has_sale else [])]
    other = data.draw(st.permutations(told))
    with TemporaryDirectory() as folder:
        one, one_counts = asyncio.run(recorded(Path(folder, "one.db"), told, at_once=at_once))
        two, two_counts = asyncio.run(recorded(Path(folder, "two.db"), other, at_once=at_once))
    assert one == two
    assert one_counts == two_counts
    assert sum(one_counts.values()) == len(chosen) + len(repeats)
    # The repeats are one entry each: what was told once ends in the same.
    assert one == ending([*chosen, *([sale()] if has_sale else [])])
