"""What is recorded: once, in order, for ever, and all that follows from it in the same commit."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final

import orjson
import pytest
from msgspec.structs import replace

from listener.errors import LedgerUnavailableError, ReferenceTakenError
from listener.ledger.chain import GENESIS, columns
from listener.ledger.model import EVERY_STREAM, CancelState, Event, Fact, Status, Why, fields_text
from listener.ledger.promise import ANSWER_DAYS, ANSWERS_DELETED
from listener.ledger.results import Recorded
from listener.ledger.sale import SALE_ANSWER_MS
from listener.ledger.scope import EVERYWHERE, Scope
from listener.lifecycle.facts import found_fact, opened_fact
from listener.lifecycle.orders import order_of
from listener.pockyt.answer import Answer, PockytRefusedError
from listener.refusals import NO_RECORD
from listener.storage import AnyLedger
from listener.storage.sqlite.ledger import SqliteLedger
from tests.support import told
from tests.support.backends import Backend
from tests.support.stored import STREAM, Clock, bound, numbered, sold, without_number
from tests.support.tills import place as place_of

ALL: Final = Scope()
DAY_MS: Final = 86_400_000


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="commits")
def _commits() -> list[int]:
    """How much each commit carried."""
    return []


@pytest.fixture(name="ledger")
async def _ledger(place: Backend, clock: Clock, commits: list[int]) -> AsyncIterator[AnyLedger]:
    ledger = await place.open(clock=clock, on_commit=lambda _seconds, items: commits.append(items))
    async with ledger:
        yield ledger


async def record(ledger: AnyLedger, *facts: Fact) -> list[Recorded]:
    """Record facts that wait at the same time, and so share a commit."""
    return await asyncio.gather(*(ledger.record(fact) for fact in facts))


async def events_of(ledger: AnyLedger, stream: str = STREAM) -> list[Event]:
    return await ledger.read_events(stream, after=0, limit=1_000)


async def test_who_counts_commits_and_fails_stops_nobody(
    place: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    def count(_seconds: float, _items: int) -> None:
        raise RuntimeError("no counting")

    async with await place.open(on_commit=count) as ledger:
        assert [(await ledger.record(numbered(n))).seq for n in (1, 2)] == [1, 2]
    assert "count_failed" in caplog.text


# Numbers


async def test_entries_are_numbered_without_a_hole(ledger: AnyLedger) -> None:
    facts = [numbered(n) for n in range(600)]
    recorded = await record(ledger, *facts)
    # On PostgreSQL two commits may be under way, and the second may come first.
    seqs = [one.seq for one in recorded]
    assert sorted(seqs) == list(range(1, 601))
    lines = await ledger.read_entries(after=0, limit=1_000, scope=ALL)
    by_seq = dict(zip(seqs, facts, strict=True))
    assert [line.entry.fact for line in lines] == [by_seq[n] for n in range(1, 601)]


async def test_neither_repeats_nor_failures_burn_a_number(ledger: AnyLedger) -> None:
    await record(ledger, numbered(1))
    await record(ledger, numbered(1), numbered(1))
    with pytest.raises(LedgerUnavailableError):
        await ledger.record(replace(numbered(2), reference="\ud800"))
    (after,) = await record(ledger, numbered(3))
    assert after.seq == 2
    assert [event.offset for event in await events_of(ledger)] == [1, 2]


async def test_each_stream_counts_for_itself_and_the_whole_ledger_counts_all(
    ledger: AnyLedger,
) -> None:
    await record(
        ledger,
        numbered(1),
        numbered(2, store_no="300014"),
        numbered(3, store_no=None),
        numbered(4),
        numbered(5, merchant_no="200044"),
    )
    other, nobodys = f"{told.MERCHANT}/300014", f"{told.MERCHANT}/-"
    streams = [STREAM, other, nobodys, f"200044/{told.STORE}", "200043/none", EVERY_STREAM]
    heads = await ledger.stream_heads(streams)
    assert list(heads.values()) == [2, 1, 1, 1, 0, 5]
    assert [event.seq for event in await events_of(ledger)] == [1, 4]
    every = await events_of(ledger, EVERY_STREAM)
    assert [(event.number, event.seq) for event in every] == [(n, n) for n in range(1, 6)]


async def test_a_fact_without_a_transaction_number_is_an_entry_without_an_event(
    ledger: AnyLedger,
) -> None:
    (first, again) = await record(ledger, without_number("a"), without_number("a"))
    assert (first.is_new, again.is_new, again.seq) == (True, False, first.seq)
    assert first.transaction is None
    (other, later) = await record(ledger, without_number("b"), without_number("a"))
    assert (other.is_new, later.is_new, later.seq) == (True, False, first.seq)
    head = await ledger.head()
    assert (head.seq, head.events, head.transactions, head.repeats) == (2, 0, 0, 2)


async def test_numbers_go_on_after_a_restart(place: Backend) -> None:
    async with await place.open() as ledger:
        await record(ledger, numbered(1))
        epoch = ledger.epoch
    async with await place.open() as ledger:
        (recorded,) = await record(ledger, numbered(2))
        assert ledger.epoch == epoch
        assert recorded.seq == 2
        assert [event.offset for event in await events_of(ledger)] == [1, 2]
    assert (await place.verify()).entries == 2


# Once


async def test_repeats_are_counted_with_their_first_and_last_time(
    ledger: AnyLedger, clock: Clock
) -> None:
    await record(ledger, numbered(1))
    for _ in range(7):
        clock.at_ms += 1_000
        (again,) = await record(ledger, numbered(1))
        assert (again.seq, again.is_new, again.event_type) == (1, False, None)
    (line,) = await ledger.read_entries(after=0, limit=9, scope=ALL)
    assert line.deliveries.count == 8
    assert line.deliveries.first_at_ms == told.START_MS
    assert line.deliveries.last_at_ms == told.START_MS + 7_000
    assert len(await events_of(ledger)) == 1
    assert (await ledger.head()).repeats == 7


async def test_the_same_message_twice_in_one_commit_is_one_entry(
    ledger: AnyLedger, commits: list[int]
) -> None:
    recorded = await record(ledger, *[numbered(1)] * 3, numbered(2))
    assert commits == [4]
    assert [(one.seq, one.is_new) for one in recorded] == [
        (1, True),
        (1, False),
        (1, False),
        (2, True),
    ]
    (line, _) = await ledger.read_entries(after=0, limit=9, scope=ALL)
    assert line.deliveries.count == 3


async def test_a_repeat_is_known_after_a_restart(place: Backend) -> None:
    async with await place.open() as ledger:
        await record(ledger, numbered(1))
    async with await place.open() as ledger:
        (again,) = await record(ledger, numbered(1))
    assert (again.seq, again.is_new) == (1, False)


async def test_two_merchants_may_share_a_transaction_number(ledger: AnyLedger) -> None:
    ours, theirs = await record(ledger, numbered(1), numbered(1, merchant_no="200044"))
    assert ours.is_new
    assert theirs.is_new
    found = await ledger.read_transaction("1", merchant_no=None)
    assert sorted(one.merchant_no for one in found) == ["200043", "200044"]
    (only,) = await ledger.read_transaction("1", merchant_no="200044")
    assert only.merchant_no == "200044"


async def test_only_a_notification_can_be_a_repeat(
    ledger: AnyLedger,
) -> None:
    recorded = await record(ledger, told.cancel_request(), told.cancel_request())
    assert [one.is_new for one in recorded] == [True, True]


# Whole


@pytest.mark.parametrize(
    "text",
    ["a\0b", "\0", "é – 支付 🧾", "\u2028\x7f\x1b", "'; DROP TABLE entries; --", "x" * 60_000, ""],
    ids=["nul", "only nul", "scripts", "control", "quotes", "60 kB", "empty"],
)
async def test_text_is_kept_as_it_came(ledger: AnyLedger, place: Backend, text: str) -> None:
    fact = replace(
        numbered(f"n{text[:40]}"),
        reference=text,
        provider_status=text,
        fields=fields_text({"note": text}),
    )
    await record(ledger, fact, numbered(2))
    # Found again by a number that holds it, too.
    (again,) = await record(ledger, fact)
    assert not again.is_new
    (line, _) = await ledger.read_entries(after=0, limit=9, scope=ALL)
    assert line.entry.fact == fact
    assert line.entry.fact.field("note") == text
    assert (await place.verify()).entries == 2


async def test_as_many_facts_as_a_commit_can_carry_are_recorded_whole(
    ledger: AnyLedger, place: Backend, commits: list[int]
) -> None:
    if isinstance(ledger, SqliteLedger):
        # In the writer's thread, where most is carried.
        ledger._writer._slow_commits = 1
    note = fields_text({"note": "x" * 20_000})
    recorded = await record(ledger, *(replace(numbered(n), fields=note) for n in range(512)))
    assert sum(commits) == 512
    assert set(commits) == {place.batch_max}
    # On PostgreSQL two batches may be on their way, and the later one be committed first.
    assert sorted(one.seq for one in recorded) == [*range(1, 513)]
    assert (await place.verify()).transactions == 512


async def test_a_fact_that_cannot_be_written_fails_only_itself(
    ledger: AnyLedger, place: Backend
) -> None:
    bad = replace(numbered("bad"), reference="\ud800")
    results = await asyncio.gather(
        *(ledger.record(fact) for fact in (numbered(1), bad, numbered(2), bad, numbered(3))),
        return_exceptions=True,
    )
    failed = [isinstance(result, LedgerUnavailableError) for result in results]
    assert failed == [False, True, False, True, False]
    assert (await place.verify()).entries == 3


async def test_a_transaction_is_what_its_entries_add_up_to(ledger: AnyLedger) -> None:
    first, second = await record(ledger, numbered(1, "init"), numbered(1, "success"))
    assert first.transaction
    assert first.transaction.status is Status.CREATED
    assert (first.event_type, second.event_type) == ("transaction.created", "transaction.paid")
    (transaction,) = await ledger.read_transaction("1", merchant_no=None)
    assert transaction == second.transaction
    assert (transaction.status, transaction.state_version) == (Status.PAID, 2)


async def test_an_event_is_stored_as_it_was_sent(ledger: AnyLedger) -> None:
    heard: list[Event] = []
    ledger.listen(heard.extend)
    await record(ledger, numbered(1), numbered(1, "closed"), numbered(2))
    assert await events_of(ledger) == heard
    body = orjson.loads(heard[0].body)
    assert body["id"] == f"{ledger.epoch}-1"
    assert body["type"] == "transaction.paid"


# Sales


async def test_a_sale_waits_for_its_number_and_is_looked_for(
    ledger: AnyLedger, clock: Clock
) -> None:
    (recorded,) = await record(ledger, sold("r1"))
    (found,) = await ledger.read_sales(merchant_no=told.MERCHANT, reference="r1", store_no=None)
    assert (found.seq, found.transaction_no) == (recorded.seq, None)
    due_ms = await ledger.next_due_ms()
    assert due_ms
    assert not await ledger.read_due_sales(now_ms=due_ms - 1, limit=9)
    assert await ledger.read_due_sales(now_ms=due_ms, limit=9) == [found]
    clock.at_ms = due_ms
    await record(ledger, bound("r1", 77, sale_seq=recorded.seq))
    (found,) = await ledger.read_sales(merchant_no=told.MERCHANT, reference="r1", store_no=None)
    assert found.transaction_no == "77"
    assert not await ledger.read_due_sales(now_ms=due_ms + DAY_MS, limit=9)


async def open_sales(ledger: AnyLedger, clock: Clock, scope: Scope = EVERYWHERE) -> list[str]:
    found = await ledger.read_open_sales(scope=scope, now_ms=clock.at_ms, limit=2)
    return [sale.state.reference for sale in found]


async def doubts(ledger: AnyLedger, clock: Clock) -> dict[tuple[Why, bool], int]:
    found = await ledger.read_doubts(now_ms=clock.at_ms)
    return {(one.why, one.is_raised): one.count for one in found}


async def test_a_sale_without_an_answer_is_told_of_until_its_number_comes(
    ledger: AnyLedger, clock: Clock
) -> None:
    ours = Scope(merchant_no=told.MERCHANT, store_no=told.STORE, terminal="T-42")
    (first, _) = await record(ledger, sold("r1"), sold("r2", store_no="303661"))
    clock.at_ms += SALE_ANSWER_MS - 1
    # Pockyt may still answer.
    assert (await open_sales(ledger, clock), await doubts(ledger, clock)) == ([], {})
    clock.at_ms += 1
    assert await open_sales(ledger, clock) == ["r2", "r1"]
    assert await open_sales(ledger, clock, ours) == ["r1"]
    assert await open_sales(ledger, clock, replace(ours, terminal="T-1")) == []
    assert await doubts(ledger, clock) == {(Why.SALE, False): 2}
    await record(ledger, sold("r3"))
    assert await open_sales(ledger, clock) == ["r2", "r1"]
    await record(ledger, bound("r1", 77, sale_seq=first.seq))
    assert await open_sales(ledger, clock) == ["r2"]
    assert (await doubts(ledger, clock))[Why.SALE, False] == 1
    # Paid, as a notification says: it is among the transactions.
    await record(ledger, numbered(2))
    assert await open_sales(ledger, clock) == []
    assert (Why.SALE, False) not in await doubts(ledger, clock)


async def test_a_cancel_of_a_sale_without_a_number_is_told_of_until_it_ends(
    ledger: AnyLedger, clock: Clock
) -> None:
    (sale,) = await record(ledger, sold("r1"))
    about = {"transaction_no": "", "reference": "r1", "sale_seq": sale.seq}
    await record(ledger, replace(told.cancel_request(), **about))
    assert await open_sales(ledger, clock) == ["r1"]
    assert await doubts(ledger, clock) == {(Why.CANCEL, False): 1}
    await record(ledger, replace(told.alarm(), **about))
    assert await doubts(ledger, clock) == {(Why.CANCEL, True): 1}
    (found,) = await ledger.read_open_sales(scope=EVERYWHERE, now_ms=clock.at_ms, limit=9)
    assert found.state.cancel
    assert found.state.cancel.state is CancelState.UNRESOLVED
    clock.at_ms += SALE_ANSWER_MS
    unknown = fields_text({"error": "refused", "retCode": NO_RECORD})
    await record(ledger, replace(told.query(None, as_of=1), **about, fields=unknown, says=None))
    assert (await open_sales(ledger, clock), await doubts(ledger, clock)) == ([], {})


async def test_a_notification_opens_the_cancel_of_a_sale_that_seemed_to_have_ended(
    ledger: AnyLedger, clock: Clock, place: Backend
) -> None:
    (recorded,) = await record(ledger, sold("r7"))
    wish = replace(told.cancel_request(), transaction_no="", sale_seq=recorded.seq)
    clock.at_ms += 30_000
    unknown = fields_text({"error": "refused", "retCode": "000021"})
    nothing = replace(told.query(None, as_of=1, reference="r7"), transaction_no="", fields=unknown)
    await record(ledger, wish, replace(nothing, sale_seq=recorded.seq))
    assert await _cancel_of(ledger, "r7") == (None, CancelState.CONFIRMED)
    # In a commit of its own, and in one with others.
    await record(ledger, numbered(7))
    assert await _cancel_of(ledger, "r7") == (None, CancelState.REQUESTED)
    (due,) = await ledger.read_due_sales(now_ms=clock.at_ms, limit=9)
    assert due.seq == recorded.seq
    await place.verify()
    await record(ledger, numbered(7, mark="again"), replace(wish, transaction_no="7"))
    assert await _cancel_of(ledger, "r7") == ("7", CancelState.REQUESTED)
    (transaction,) = await ledger.read_transaction("7", merchant_no=told.MERCHANT)
    assert (transaction.status, transaction.sale_seq) == (Status.PAID, recorded.seq)
    assert transaction.is_being_cancelled
    await place.verify()


@pytest.mark.parametrize("names", [True, False], ids=["as-now", "as-before"])
async def test_a_query_ends_a_cancel_alike_whether_or_not_it_names_the_sale(
    ledger: AnyLedger, clock: Clock, place: Backend, names: bool
) -> None:
    (recorded,) = await record(ledger, sold("r7"))
    wish = replace(told.cancel_request(), transaction_no="", sale_seq=recorded.seq)
    clock.at_ms += SALE_ANSWER_MS
    order = order_of(sold("r7"))
    outcome = PockytRefusedError(NO_RECORD, "no such record")
    query = found_fact(order, outcome, sale_seq=recorded.seq, as_of=1)
    # As it was recorded before queries named the sale.
    nameless = replace(query, reference=None, store_no=None)
    await record(ledger, wish)
    await record(ledger, query if names else nameless)
    assert await _cancel_of(ledger, "r7") == (None, CancelState.CONFIRMED)
    await place.verify()
    scope = Scope(merchant_no=told.MERCHANT, store_no=told.STORE)
    lines = await ledger.read_entries(after=recorded.seq, limit=9, scope=scope)
    assert [line.entry.fact.reference for line in lines] == (["r7"] if names else [])


@pytest.mark.parametrize("names", [True, False], ids=["as-now", "as-before"])
async def test_an_answer_binds_a_number_alike_whether_or_not_it_names_the_sale(
    ledger: AnyLedger, place: Backend, names: bool
) -> None:
    await record(ledger, numbered(7, "pending", store_no=None))
    (recorded,) = await record(ledger, sold("r7"))
    said = Answer(word="init", transaction_no="7", fields={"transactionNo": "7"})
    fact = opened_fact(order_of(sold("r7")), said, call="add", sale_seq=recorded.seq)
    (after,) = await record(ledger, fact if names else replace(fact, reference=None, store_no=None))
    assert after.transaction
    assert after.transaction.sale_seq == recorded.seq
    assert after.transaction.stream == STREAM
    assert (after.transaction.reference, after.transaction.status) == ("r7", Status.PENDING)
    await place.verify()


async def _cancel_of(ledger: AnyLedger, reference: str) -> tuple[str | None, CancelState | None]:
    """Return the number of a sale, and how far the cancel that was wished before it has come."""
    (found,) = await ledger.read_sales(
        merchant_no=told.MERCHANT, reference=reference, store_no=None
    )
    cancel = found.state.cancel
    return found.transaction_no, cancel.state if cancel else None


async def test_a_query_that_finds_no_number_has_the_sale_looked_for_again(
    ledger: AnyLedger, clock: Clock
) -> None:
    (recorded,) = await record(ledger, sold("r1"))
    clock.at_ms += 30_000
    nothing = replace(told.query(None, as_of=1, reference="r1"), transaction_no="")
    await record(ledger, replace(nothing, sale_seq=recorded.seq))
    due_ms = await ledger.next_due_ms()
    assert due_ms
    assert due_ms > clock.at_ms


async def test_a_number_without_a_store_finds_its_till_through_the_sale(
    ledger: AnyLedger,
) -> None:
    await record(ledger, numbered(1, store_no="300014"))
    (recorded,) = await record(ledger, sold("r77", store_no="300014"))
    await record(ledger, bound("r77", 77, sale_seq=recorded.seq))
    (paid,) = await record(ledger, numbered(77, store_no=None))
    assert paid.transaction
    assert paid.transaction.stream == f"{told.MERCHANT}/300014"
    assert paid.transaction.terminal == "T-42"
    events = await events_of(ledger, f"{told.MERCHANT}/300014")
    assert [event.offset for event in events] == [1, 2, 3]


async def test_a_sale_after_its_notification_moves_it_to_the_sales_stream(
    ledger: AnyLedger, place: Backend
) -> None:
    await record(ledger, numbered(77, store_no=None))
    (recorded,) = await record(ledger, sold("r77", store_no="300014"))
    await record(ledger, bound("r77", 77, sale_seq=recorded.seq))
    (transaction,) = await ledger.read_transaction("77", merchant_no=None)
    assert (transaction.store_no, transaction.sale_seq) == ("300014", recorded.seq)
    lines = await ledger.read_transaction_entries(transaction)
    assert [line.entry.seq for line in lines] == [1, 2, 3]
    (await place.verify())


async def test_a_used_reference_is_refused_and_fails_nobody_else(
    ledger: AnyLedger, place: Backend, commits: list[int]
) -> None:
    await record(ledger, sold("r1"))
    results = await asyncio.gather(
        *(ledger.record(fact) for fact in (sold("r1"), numbered(1), sold("r2"), sold("r2"))),
        return_exceptions=True,
    )
    refused = [isinstance(result, ReferenceTakenError) for result in results]
    assert refused == [True, False, False, True]
    assert commits == [1, 4]
    assert (await place.verify()).entries == 3


async def test_another_merchant_may_use_the_same_reference(ledger: AnyLedger) -> None:
    await record(ledger, sold("r1"), replace(sold("r1"), merchant_no="200044"))
    assert (await ledger.head()).seq == 2


# The chain


async def test_each_hash_covers_the_entry_and_the_hash_before_it(ledger: AnyLedger) -> None:
    await record(ledger, numbered(1), numbered(2))
    await record(ledger, sold("r1"))
    previous = GENESIS
    for line in await ledger.read_entries(after=0, limit=9, scope=ALL):
        row = orjson.dumps(columns(line.entry))
        digest = hashlib.sha256(previous.encode() + row).hexdigest()
        assert line.entry.hash == digest
        previous = digest
    assert (await ledger.head()).hash == previous


# Acknowledgements, and answers to be given again


async def test_an_acknowledgement_only_grows(ledger: AnyLedger, clock: Clock) -> None:
    assert await ledger.acked(terminal="T", stream=STREAM) is None
    await ledger.ack(terminal="T", stream=STREAM, offset=5)
    clock.at_ms += 1
    await ledger.ack(terminal="T", stream=STREAM, offset=3)
    (kept,) = await ledger.acks()
    assert (kept.offset, kept.acked_at_ms) == (5, told.START_MS)
    await ledger.ack(terminal="T", stream=STREAM, offset=6)
    await ledger.ack(terminal="U", stream=STREAM, offset=1)
    assert await place_of(ledger, terminal="T", stream=STREAM) == 6
    assert [(one.terminal, one.offset) for one in await ledger.acks()] == [("T", 6), ("U", 1)]


async def test_an_acknowledgement_of_another_epoch_changes_nothing(ledger: AnyLedger) -> None:
    await ledger.start(terminal="T", offsets={STREAM: 1, f"{STREAM}0": 2})
    await ledger.ack(terminal="T", stream=STREAM, offset=5, epoch="of-another-ledger")
    assert await place_of(ledger, terminal="T", stream=STREAM) == 1
    assert await place_of(ledger, terminal="T", stream=f"{STREAM}0") == 2
    await ledger.ack(terminal="T", stream=STREAM, offset=5, epoch=ledger.epoch)
    assert await place_of(ledger, terminal="T", stream=STREAM) == 5


async def test_the_first_acknowledgement_counts_even_below_the_start(ledger: AnyLedger) -> None:
    await ledger.start(terminal="T", offsets={STREAM: 60})
    await ledger.ack(terminal="T", stream=STREAM, offset=57)
    assert await place_of(ledger, terminal="T", stream=STREAM) == 57
    await ledger.ack(terminal="T", stream=STREAM, offset=55)
    assert await place_of(ledger, terminal="T", stream=STREAM) == 57


async def test_an_acknowledgement_outlives_the_service(place: Backend) -> None:
    async with await place.open() as ledger:
        await ledger.ack(terminal="T", stream=STREAM, offset=5)
    async with await place.open() as ledger:
        assert await place_of(ledger, terminal="T", stream=STREAM) == 5


async def test_an_idempotency_key_is_claimed_once_and_keeps_its_answer(
    ledger: AnyLedger, clock: Clock
) -> None:
    async def claim(request: str) -> tuple[str, int | None, str | None] | None:
        kept = await ledger.remember(key_id="k", idempotency_key="i", request=request)
        return (kept.request, kept.status, kept.body) if kept else None

    assert await claim("a") is None
    assert await claim("b") == ("a", None, None)
    await ledger.remember_answer(key_id="k", idempotency_key="i", status=201, body="{}")
    assert await claim("a") == ("a", 201, "{}")
    other = await ledger.remember(key_id="l", idempotency_key="i", request="c")
    assert other is None
    clock.at_ms += ANSWER_DAYS * DAY_MS + 1
    assert await claim("d") is None


async def test_old_answers_are_deleted_some_at_a_time(ledger: AnyLedger, clock: Clock) -> None:
    async def is_kept(number: int) -> bool:
        found = await ledger.remember(key_id="k", idempotency_key=f"{number}", request="r")
        return found is not None

    for number in range(2 * ANSWERS_DELETED + 1):
        clock.at_ms += 1
        assert not await is_kept(number)
    clock.at_ms += ANSWER_DAYS * DAY_MS + 1
    # The oldest go first, and each claim deletes before it looks.
    assert await is_kept(ANSWERS_DELETED)
    assert not await is_kept(2 * ANSWERS_DELETED - 1)
    assert not await is_kept(2 * ANSWERS_DELETED)
    assert not await is_kept(0)


async def test_two_claims_in_one_commit_are_one(ledger: AnyLedger) -> None:
    claims = await asyncio.gather(
        *(ledger.remember(key_id="k", idempotency_key="i", request=text) for text in "ab")
    )
    assert [claim.request if claim else None for claim in claims] == [None, "a"]
