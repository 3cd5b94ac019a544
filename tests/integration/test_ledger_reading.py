"""What is read: the right lines, in the right order, by a seek and never by a walk."""

import asyncio
from collections.abc import AsyncIterator
from itertools import product
from typing import Final

import pytest
from msgspec.structs import replace

from listener.ledger.model import NO_STORE, CancelState, Fact, Status, Transaction
from listener.ledger.scope import Cursor, Scope, Search
from listener.ledger.status import read_word
from listener.storage import AnyLedger, open_reader
from listener.storage.sqlite.pages import PAGE_ENTRIES
from tests.support import told
from tests.support.backends import Backend
from tests.support.stored import STREAM, Clock, bound, numbered, sold

ALL: Final = Scope()
EVERYTHING: Final = Search(scope=ALL)
HOUR_MS: Final = 3_600_000


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="ledger")
async def _ledger(place: Backend, clock: Clock) -> AsyncIterator[AnyLedger]:
    async with await place.open(clock=clock) as ledger:
        yield ledger


async def search(ledger: AnyLedger, wanted: Search, *, limit: int = 100) -> list[str]:
    found = await ledger.read_transactions(wanted, before=None, limit=limit)
    return [transaction.transaction_no for transaction in found]


# Events and entries


async def test_a_stream_is_read_past_an_offset_in_pages(ledger: AnyLedger) -> None:
    await asyncio.gather(*(ledger.record(numbered(n)) for n in range(10)))
    page = await ledger.read_events(STREAM, after=3, limit=4)
    assert [event.offset for event in page] == [4, 5, 6, 7]
    assert await ledger.read_events(STREAM, after=10, limit=4) == []
    assert await ledger.read_events("200043/none", after=0, limit=4) == []


async def test_entries_are_those_of_a_scope(ledger: AnyLedger) -> None:
    await ledger.record(numbered(1))
    await ledger.record(numbered(2, store_no="300014"))
    await ledger.record(numbered(3, store_no=None))
    await ledger.record(numbered(4, merchant_no="200044"))

    async def seqs(scope: Scope) -> list[int]:
        lines = await ledger.read_entries(after=0, limit=9, scope=scope)
        return [line.entry.seq for line in lines]

    assert await seqs(ALL) == [1, 2, 3, 4]
    assert await seqs(Scope(merchant_no=told.MERCHANT)) == [1, 2, 3]
    assert await seqs(Scope(merchant_no=told.MERCHANT, store_no="300014")) == [2]
    assert await seqs(Scope(merchant_no=told.MERCHANT, store_no=NO_STORE)) == [3]


async def test_counts_are_those_of_a_scope(ledger: AnyLedger) -> None:
    await ledger.record(numbered(1))
    await ledger.record(numbered(1))
    await ledger.record(numbered(2, store_no="300014"))
    await ledger.record(numbered(3, store_no=None))
    await ledger.record(numbered(4, merchant_no="200044"))

    async def counts(scope: Scope) -> tuple[int, ...]:
        found = await ledger.read_counts(scope)
        return found.entries, found.transactions, found.events, found.repeats

    assert await counts(ALL) == (4, 4, 4, 1)
    assert await counts(Scope(merchant_no=told.MERCHANT)) == (3, 3, 3, 1)
    assert await counts(Scope(merchant_no=told.MERCHANT, store_no="300014")) == (1, 1, 1, 0)
    assert await counts(Scope(merchant_no=told.MERCHANT, store_no=NO_STORE)) == (1, 1, 1, 0)
    assert await counts(Scope(merchant_no="200045")) == (0, 0, 0, 0)


async def test_held_is_worked_out_when_it_is_read(ledger: AnyLedger) -> None:
    await ledger.record(replace(numbered(77), amount="99.00", reference="r1"))
    (before,) = await ledger.read_entries(after=0, limit=9, scope=ALL)
    assert before.held is None
    # Only now it is known what was sold.
    sale = await ledger.record(sold("r1"))
    await ledger.record(bound("r1", 77, sale_seq=sale.seq))
    (after, _, _) = await ledger.read_entries(after=0, limit=9, scope=ALL)
    assert after.held == "amount_differs"
    (transaction,) = await ledger.read_transaction("77", merchant_no=None)
    lines = await ledger.read_transaction_entries(transaction)
    assert [line.held for line in lines] == ["amount_differs", None, None]


async def test_an_entry_is_held_by_a_sale_whose_number_is_not_known_yet(
    ledger: AnyLedger,
) -> None:
    await ledger.record(sold("r1"))
    await ledger.record(replace(numbered(77), amount="99.00", reference="r1"))
    (_, line) = await ledger.read_entries(after=0, limit=9, scope=ALL)
    assert line.held == "amount_differs"


async def test_entries_that_contradict_each_other_are_both_held(ledger: AnyLedger) -> None:
    await ledger.record(replace(numbered(77), fingerprint="a"))
    await ledger.record(replace(numbered(77), fingerprint="b", currency="JPY"))
    await ledger.record(replace(numbered(77), fingerprint="c", currency=None))
    lines = await ledger.read_entries(after=0, limit=9, scope=ALL)
    assert [line.held for line in lines] == ["currency_differs", "currency_differs", None]


# Transactions


async def test_transactions_come_newest_first_and_pages_do_not_overlap(
    ledger: AnyLedger, clock: Clock
) -> None:
    # Several at the same time, and a clock that steps back.
    for number, step_ms in enumerate((0, 0, 1_000, 0, -5_000, 0, 1)):
        clock.at_ms += step_ms
        await ledger.record(numbered(number))
    assert await search(ledger, EVERYTHING) == ["3", "2", "1", "0", "6", "5", "4"]
    seen: list[str] = []
    cursor = None
    while page := await ledger.read_transactions(EVERYTHING, before=cursor, limit=2):
        seen += [transaction.transaction_no for transaction in page]
        cursor = Cursor(created_at_ms=page[-1].created_at_ms, first_seq=page[-1].first_seq)
        clock.at_ms += 10_000
        # What comes meanwhile is newer, and does not move what is still to be read.
        await ledger.record(numbered(f"later {len(seen)}"))
    assert seen == ["3", "2", "1", "0", "6", "5", "4"]


async def test_transactions_are_found_by_what_is_asked_for(ledger: AnyLedger, clock: Clock) -> None:
    await ledger.record(numbered(1))
    clock.at_ms += 1_000
    await ledger.record(numbered(2, "closed", store_no="300014"))
    clock.at_ms += 1_000
    await ledger.record(numbered(3, "init", store_no=None))
    sale = await ledger.record(sold("r1"))
    await ledger.record(bound("r1", 4, sale_seq=sale.seq))
    await ledger.record(numbered(5, merchant_no="200044"))
    merchant = Scope(merchant_no=told.MERCHANT)
    store = replace(merchant, store_no="300014")
    at_ms = told.START_MS
    expected: dict[Search, list[str]] = {
        EVERYTHING: ["5", "4", "3", "2", "1"],
        Search(scope=merchant): ["4", "3", "2", "1"],
        Search(scope=store): ["2"],
        Search(scope=replace(merchant, store_no=NO_STORE)): ["3"],
        Search(scope=replace(merchant, terminal="T-42")): ["4"],
        Search(scope=ALL, status=Status.PAID): ["5", "1"],
        Search(scope=ALL, status=Status.CANCELLED): ["2"],
        Search(scope=ALL, status=Status.CREATED): ["4", "3"],
        Search(scope=ALL, status=Status.REFUNDED): [],
        Search(scope=store, status=Status.PAID): [],
        Search(scope=ALL, reference="r1"): ["4", "1"],
        Search(scope=merchant, reference="r5"): [],
        Search(scope=ALL, contains="R"): ["5", "4", "3", "2", "1"],
        Search(scope=ALL, contains="R1"): ["4", "1"],
        Search(scope=merchant, contains="5"): [],
        Search(scope=ALL, contains="r_"): [],
        Search(scope=ALL, since_ms=at_ms + 1_000): ["5", "4", "3", "2"],
        Search(scope=ALL, until_ms=at_ms + 1_000): ["1"],
        Search(scope=ALL, since_ms=at_ms + 1, until_ms=at_ms + 2_000): ["2"],
    }
    for wanted, numbers in expected.items():
        assert await search(ledger, wanted) == numbers, wanted
    assert await search(ledger, EVERYTHING, limit=2) == ["5", "4"]


async def test_each_filter_goes_with_every_other_and_its_pages_hold_each_once(
    ledger: AnyLedger, clock: Clock
) -> None:
    # What comes after the cancel is asked for, if it is: and so each of its states, with every
    # status that it can stand beside.
    ends = (None, "", "dealing", "closed", "success", "failed", "refunded", "alarm")
    words = ("success", "init", "closed", "disputed")
    for number, (word, end, is_held) in enumerate(product(words, ends, (False, True))):
        clock.at_ms += number % 2
        store_no = (None, told.STORE, "300014")[number % 3]
        await ledger.record(numbered(number, word, store_no=store_no))
        if is_held:
            notice = replace(numbered(number, mark="again"), suspect="refund_notice")
            await ledger.record(notice)
        if end is not None:
            terminal = "T-42" if number % 5 else None
            wish = told.cancel_request(terminal=terminal)
            as_of = (await ledger.record(replace(wish, transaction_no=str(number)))).seq
            follows = told.alarm() if end == "alarm" else told.query(end, as_of=as_of)
            if end:
                reference = f"r{number}"
                await ledger.record(
                    replace(follows, transaction_no=str(number), reference=reference)
                )
    everything = await ledger.read_transactions(EVERYTHING, before=None, limit=500)
    states = {one.cancel.state for one in everything if one.cancel}
    assert states == set(CancelState)
    assert {(one.held, one.status) for one in everything} > set(
        product((True, False), (Status.PAID, Status.UNKNOWN))
    )
    assert {one.status for one in everything if one.held and _is_open(one)} > {Status.PAID}

    where = (None, {"store_no": told.STORE}, {"store_no": NO_STORE}, {"terminal": "T-42"})
    days = (None, told.START_MS + 10)
    found_some = 0
    for place, status, state, held, since_ms in product(
        where, (None, Status.PAID, Status.UNKNOWN), (None, *CancelState), (None, True, False), days
    ):
        scope = Scope(merchant_no=told.MERCHANT, **place) if place else ALL
        wanted = Search(
            scope=scope, status=status, cancel_state=state, held=held, since_ms=since_ms
        )
        expected = [
            one.transaction_no
            for one in everything
            if scope.store_no in (None, one.store_no or NO_STORE)
            and scope.terminal in (None, one.terminal)
            and status in (None, one.status)
            and (state is None or (one.cancel is not None and one.cancel.state is state))
            and held in (None, one.held)
            and one.created_at_ms >= (since_ms or 0)
        ]
        assert await _paged(ledger, wanted) == expected, wanted
        found_some += bool(expected)
    assert found_some > 100


def _is_open(one: Transaction) -> bool:
    return one.cancel is not None and one.cancel.resolved_at_ms is None


async def _paged(ledger: AnyLedger, wanted: Search) -> list[str]:
    found: list[str] = []
    cursor = None
    while page := await ledger.read_transactions(wanted, before=cursor, limit=7):
        found += [one.transaction_no for one in page]
        cursor = Cursor(created_at_ms=page[-1].created_at_ms, first_seq=page[-1].first_seq)
    return found


# What is due


async def test_an_alarm_does_not_wait_behind_questions(ledger: AnyLedger, clock: Clock) -> None:
    await ledger.record(numbered(1, "disputed"))
    assert await ledger.read_due(now_ms=clock.at_ms, limit=9) == []
    first_ms = await ledger.next_due_ms()
    assert first_ms is not None
    assert clock.at_ms < first_ms <= clock.at_ms + 10_000
    (due,) = await ledger.read_due(now_ms=first_ms, limit=9)
    assert due.transaction_no == "1"
    # Asked meanwhile, so that its next question is far away, and its silence is near.
    clock.at_ms += 50_000
    nothing = replace(told.query(None, as_of=1), transaction_no="1", says=read_word("dealing"))
    await ledger.record(nothing)
    clock.at_ms += 1_000
    for number in range(2, 12):
        await ledger.record(numbered(number, "disputed"))
    clock.at_ms += 9_000
    (first, *others) = await ledger.read_due(now_ms=clock.at_ms, limit=5)
    assert first.transaction_no == "1"
    assert [one.transaction_no for one in others] == ["2", "3", "4", "5", "6"]


async def test_a_cancel_that_somebody_waits_for_does_not_wait_behind_other_doubts(
    ledger: AnyLedger, clock: Clock
) -> None:
    for number in range(1, 12):
        await ledger.record(numbered(number, "disputed"))
    clock.at_ms += 1_000
    await ledger.record(replace(told.cancel_request(), transaction_no="12"))
    due = await ledger.read_due(now_ms=clock.at_ms + 5_000, limit=3)
    assert [one.transaction_no for one in due] == ["1", "2", "3", "12"]


async def test_a_cancellation_is_unacknowledged_until_a_terminal_of_its_stream_has_it(
    ledger: AnyLedger, clock: Clock
) -> None:
    await ledger.record(numbered(1))
    await ledger.record(numbered(2, "closed"))
    await ledger.record(numbered(3, "refunded", store_no="300014"))
    later = clock.at_ms + 1

    async def open_ones() -> list[tuple[str, int, str]]:
        found = await ledger.read_unacked(before_ms=later, limit=9)
        return [(one.stream, one.offset, one.transaction_no) for one in found]

    assert await ledger.read_unacked(before_ms=clock.at_ms, limit=9) == []
    both = [(f"{told.MERCHANT}/300014", 1, "3"), (STREAM, 2, "2")]
    assert sorted(await open_ones()) == both
    await ledger.ack(terminal="T", stream=STREAM, offset=1)
    assert sorted(await open_ones()) == both
    await ledger.ack(terminal="U", stream=STREAM, offset=2)
    assert await open_ones() == both[:1]
    assert await ledger.read_unacked(before_ms=later, limit=0) == []


# Beside the service


async def test_pages_for_an_export_hold_every_line_once(ledger: AnyLedger, place: Backend) -> None:
    count = PAGE_ENTRIES * 2 + 1
    await asyncio.gather(*(ledger.record(numbered(n)) for n in range(count)))
    loop = asyncio.get_running_loop()

    def read() -> None:
        with open_reader(place.url) as reader:
            pages = reader.pages()
            upto, first = next(pages)
            # What is recorded meanwhile is past the end that was seen at the beginning.
            later = ledger.record(numbered("later"))
            asyncio.run_coroutine_threadsafe(later, loop).result()
            rest = list(pages)
            assert (upto, len(first)) == (PAGE_ENTRIES, PAGE_ENTRIES)
            assert [upto for upto, _ in rest] == [PAGE_ENTRIES * 2, count]
            seqs = [line.entry.seq for _, lines in [(upto, first), *rest] for line in lines]
            assert seqs == list(range(1, count + 1))
            assert reader.head().seq == count + 1

    # A command has no event loop of its own.
    await asyncio.to_thread(read)


async def test_an_export_can_leave_out_what_is_not_wanted(
    ledger: AnyLedger, place: Backend, clock: Clock
) -> None:
    stories: list[tuple[int, Fact]] = [
        (0, numbered(1)),
        (1_000, numbered(2, store_no="300014")),
        # The clock steps back.
        (-2_000, numbered(3, merchant_no="200044")),
        (5_000, numbered(4, store_no=None)),
    ]
    for step_ms, fact in stories:
        clock.at_ms += step_ms
        await ledger.record(fact)

    def read(wanted: dict[str, object]) -> list[int]:
        with open_reader(place.url) as reader:
            pages = reader.pages(**wanted)  # type: ignore[arg-type]  # as they are given below
            return [line.entry.seq for _, lines in pages for line in lines]

    async def seqs(**wanted: object) -> list[int]:
        return await asyncio.to_thread(read, wanted)

    assert await seqs() == [1, 2, 3, 4]
    assert await seqs(after=2) == [3, 4]
    assert await seqs(until=2) == [1, 2]
    assert await seqs(since_ms=told.START_MS) == [1, 2, 4]
    assert await seqs(until_ms=told.START_MS + 1) == [1, 3]
    assert await seqs(scope=Scope(merchant_no=told.MERCHANT)) == [1, 2, 4]
    assert await seqs(scope=Scope(merchant_no=told.MERCHANT, store_no="300014")) == [2]
    assert await seqs(scope=Scope(merchant_no=told.MERCHANT, store_no=NO_STORE)) == [4]
