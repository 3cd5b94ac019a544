"""One random scenario: what is drawn from its seed, and what must be true when it is over."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import orjson

from listener.errors import ListenerError
from listener.ledger.history import History
from listener.ledger.model import EVERY_STREAM, Alarm, CancelState, Entry, Kind, Status, Transaction
from listener.ledger.results import ReadEntry, RecordedSale
from listener.ledger.schedule import RAISE_SECONDS
from listener.ledger.scope import Scope
from listener.ledger.transaction import advance
from listener.lifecycle import Lifecycle
from listener.pockyt.client import Call
from listener.sandbox.book import FAILING_BARCODE, PENDING_BARCODE, Sale, Word
from listener.sandbox.faults import Fault, Planned
from listener.sandbox.servers import SAMPLE_MERCHANT_NO
from tests.property.world import BEGAN_MS, Plan, World

HOUR_SECONDS: Final = 3_600
# Faults end within so long: after 48 hours nobody asks any more.
FAULTS_HOURS_MAX: Final = 40
END_HOURS: Final = 60
TRIES_MAX: Final = 5
# Of several nodes: how many wishes come to two of them at once.
DOUBLED: Final = 0.3
PAGE: Final = 10_000
# One look of the chaser's, and the second that it may be late.
RAISE_SLACK_MS: Final = 2_000


@dataclass(slots=True)
class Report:
    """What happened in a scenario."""

    statuses: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Report") -> None:
        """Add another scenario's."""
        self.statuses += other.statuses
        self.struck += other.struck
        self.counts += other.counts


async def play(seed: int, *, directory: Path, nodes: int = 1, url: str | None = None) -> Report:
    """Play the scenario of a seed.

    Args:
        seed: All is drawn from it.
        directory: Where the ledger's file is made.
        nodes: How many listeners share the ledger.
        url: The empty database of a ledger that several share.

    Raises:
        AssertionError: Something that must be true is not.
    """
    dice = random.Random(f"scenario {seed}")
    plan = replace(_plan(seed, dice), nodes=nodes, doubled=DOUBLED if nodes > 1 else 0.0)
    world = World(plan, directory=directory, url=url)
    await world.start()
    try:
        references = [f"R-{n}" for n in range(dice.randint(1, 3))]
        for reference in references:
            _schedule_sale(world, dice, reference)
        _schedule_trouble(world, dice)
        faults_end = dice.choice([600, 2 * HOUR_SECONDS, FAULTS_HOURS_MAX * HOUR_SECONDS])
        await world.run(until_ms=BEGAN_MS + int(dice.uniform(300, faults_end) * 1_000))
        # From here on Pockyt can be asked.
        world.script.replace(())
        world.is_pockyt_down = False
        await world.run(until_ms=BEGAN_MS + END_HOURS * HOUR_SECONDS * 1_000)
        return await _judge(world, references)
    finally:
        await world.stop()


def _plan(seed: int, dice: random.Random) -> Plan:
    faults = dice.sample(list(Fault), dice.choice([0, 1, 1, 2, 3, 5]))
    return Plan(
        seed=seed,
        confirm=dice.choice(["suspicious", "suspicious", "always"]),
        notify_on_cancel=dice.random() < 0.7,
        refund_shows=dice.choice(["success", "closed"]),
        faults=tuple(draw_plan(fault, dice) for fault in faults),
        meanwhile=dice.choice([0.0, 0.1, 0.3]),
        kills=tuple(
            (dice.randint(1, 12), dice.random() < 0.5) for _ in range(dice.choice([0, 0, 1, 2]))
        ),
        down_seconds=dice.choice([1.0, 30.0, 300.0, 3_000.0]),
        tips=dice.random() < 0.15,
        repeats_numbers=dice.choice([0.0, 0.0, 0.0, 0.5]),
        late_calls=dice.choice([0.0, 0.0, 0.2, 0.6]),
    )


def draw_plan(fault: Fault, dice: random.Random) -> Planned:
    """Draw whether a fault strikes always, once, or by chance."""
    kind = dice.randrange(3)
    if kind == 0:
        return Planned(fault=fault)
    if kind == 1:
        return Planned(fault=fault, nth=dice.randint(1, 3))
    return Planned(fault=fault, percent=dice.choice([25, 50, 75]))


def _schedule_sale(world: World, dice: random.Random, reference: str) -> None:
    """Schedule a sale, its customer and its cashier."""
    vendor = dice.choice([None, "alipay"])
    begin = dice.uniform(0, 60)
    till = _Till(world, reference)
    world.at(begin, lambda: till.start(vendor))
    if dice.random() < 0.5:
        after = dice.choice([5.0, 60.0, 300.0])
        pays_at = begin + dice.uniform(0, after)
        world.at(pays_at, lambda: world.pay(reference), is_outside=True)
    if dice.random() < 0.2:
        part = dice.random() < 0.4
        at = begin + dice.uniform(5, 400)
        world.at(at, lambda: world.refund(reference, part=part), is_outside=True)
    if dice.random() < 0.25:
        barcode = dice.choice(["284957205723", PENDING_BARCODE, FAILING_BARCODE])
        world.at(begin + dice.uniform(1, 90), lambda: till.pay(barcode))
    for _ in range(dice.choice([0, 1, 1, 1, 2])):
        refunds = dice.random() < 0.25
        _schedule_cancel(world, till, begin + dice.uniform(1, 120), refunds=refunds)


def _schedule_cancel(world: World, till: "_Till", at: float, *, refunds: bool) -> None:
    world.at(at, lambda: till.cancel(refunds=refunds))


def _schedule_trouble(world: World, dice: random.Random) -> None:
    """Schedule deaths of the listener, and times when Pockyt cannot be reached."""
    for _ in range(dice.choice([0, 0, 1, 2])):
        down_seconds = dice.choice([1.0, 60.0, 2_000.0])
        world.at(dice.uniform(0, 300), lambda s=down_seconds: world.kill(for_seconds=s))  # type: ignore[misc]
    if dice.random() < 0.2:
        seconds = dice.choice([2.0, 60.0])
        world.at(dice.uniform(0, 200), lambda: world.restart_pockyt(down_seconds=seconds))
    if dice.random() < 0.3:
        begin = dice.uniform(0, 200)

        def cut(*, is_down: bool) -> None:
            world.is_pockyt_down = is_down

        world.at(begin, lambda: cut(is_down=True))
        end = begin + dice.choice([20.0, 200.0, 4_000.0])
        world.at(end, lambda: cut(is_down=False))


class _Till:
    """A till that tries again as a real one would."""

    def __init__(self, world: World, reference: str) -> None:
        self._world = world
        self._reference = reference
        self._tries: Counter[str] = Counter()

    async def start(self, vendor: str | None) -> None:
        order = self._world.order(self._reference, vendor=vendor)
        is_repeat = self._tries["start"] > 0

        async def wish(lifecycle: Lifecycle) -> Transaction:
            return (await lifecycle.start_sale(order, is_repeat=is_repeat)).transaction

        try:
            done = await self._world.act(wish)
        except ListenerError:
            done = None
        if done is None and self._again("start"):
            self._world.at(15.0, lambda: self.start(vendor))

    async def pay(self, barcode: str) -> None:
        transaction = await self._transaction()
        if transaction is None:
            return
        try:
            await self._world.act(lambda life: life.pay(transaction, payment_barcode=barcode))
        except ListenerError:
            return

    async def cancel(self, *, refunds: bool) -> None:
        transaction = await self._transaction()
        sale = await self._sale()
        self._world.wished[self._reference] += 1
        done: object = None
        if transaction is not None:
            done = await self._world.act(
                lambda life: life.cancel(transaction, terminal="T-1", refund_if_paid=refunds)
            )
        elif sale is not None:
            self._world.odd["cancels by reference"] += 1
            done = await self._world.act(
                lambda life: life.cancel_sale(sale, terminal="T-1", refund_if_paid=refunds)
            )
        if done is None and self._again("cancel"):
            self._world.at(20.0, lambda: self.cancel(refunds=refunds))

    async def _sale(self) -> RecordedSale | None:
        if not self._world.is_up:
            return None
        found = await self._world.ledger.read_sales(
            merchant_no=SAMPLE_MERCHANT_NO, reference=self._reference, store_no=None
        )
        return found[0] if found else None

    async def _transaction(self) -> Transaction | None:
        if not self._world.is_up:
            return None
        return await find(self._world, self._reference)

    def _again(self, what: str) -> bool:
        self._tries[what] += 1
        return self._tries[what] < TRIES_MAX


async def find(world: World, reference: str) -> Transaction | None:
    """Return the transaction of a reference, as the ledger has it."""
    sales = await world.ledger.read_sales(
        merchant_no=SAMPLE_MERCHANT_NO, reference=reference, store_no=None
    )
    if not sales or sales[0].transaction_no is None:
        return None
    found = await world.ledger.read_transaction(
        sales[0].transaction_no, merchant_no=SAMPLE_MERCHANT_NO
    )
    return found[0]


async def _judge(world: World, references: Sequence[str]) -> Report:
    """Check a world that has come to rest."""
    report = Report()
    report.struck.update({str(fault): n for fault, n in world.script.struck.items()})
    report.counts.update(scenarios=1, calls=len(world.sent), kills=world.kills)
    report.counts.update(world.odd)
    sold = {sale.order.reference: sale for sale in world.book}
    for reference in references:
        await _judge_wish_at_sale(world, reference)
        transaction = await find(world, reference)
        if reference not in sold:
            assert transaction is None, f"{reference}: Pockyt knows nothing of it"
            report.statuses["never started"] += 1
            continue
        if transaction is None and await _was_given_anothers_number(world, reference):
            report.statuses["number of another"] += 1
            continue
        assert transaction is not None, f"{reference}: never found at Pockyt"
        lines = await world.ledger.read_transaction_entries(transaction)
        _judge_status(world, sold[reference], transaction, lines)
        _judge_cancels(world, transaction, lines)
        requests = sum(one.entry.fact.kind is Kind.CANCEL_REQUEST for one in lines)
        assert requests <= world.wished[reference], "a wish was recorded twice"
        _judge_raised(world, lines)
        report.statuses[transaction.status] += 1
        report.counts["cancels"] += sum(one.entry.fact.kind is Kind.CANCEL_REQUEST for one in lines)
        report.counts["unresolved"] += sum(_is_raised(one.entry) for one in lines)
    lines = await world.ledger.read_entries(after=0, limit=PAGE, scope=Scope())
    _judge_acknowledged(world, lines)
    await _judge_events(world, sold)
    report.counts.update(entries=len(lines), notifications=len(world.acknowledged))
    return report


async def _judge_wish_at_sale(world: World, reference: str) -> None:
    """A cancel that came before the number ended, was raised, or is the transaction's now."""
    sales = await world.ledger.read_sales(
        merchant_no=SAMPLE_MERCHANT_NO, reference=reference, store_no=None
    )
    for sale in sales:
        if sale.transaction_no is None and sale.state.cancel is not None:
            assert sale.state.cancel.state is not CancelState.REQUESTED, f"{reference}: forgotten"
            # One that Pockyt refused leaves its reference to another sale.
            transaction = None if sale.state.is_refused else await find(world, reference)
            assert transaction is None or transaction.cancel, (
                f"{reference}: the wish is left behind"
            )
        else:
            assert sale.state.cancel is None or sale.state.due_ms is None, "not taken over"


async def _was_given_anothers_number(world: World, reference: str) -> bool:
    """Return whether an alarm was raised, since Pockyt gave the sale a number that is another's."""
    sales = await world.ledger.read_sales(
        merchant_no=SAMPLE_MERCHANT_NO, reference=reference, store_no=None
    )
    lines = await world.ledger.read_entries(after=0, limit=PAGE, scope=Scope())
    taken = {
        one.entry.fact.sale_seq
        for one in lines
        if one.entry.fact.field("alarm") == Alarm.NUMBER_TAKEN
    }
    return any(sale.seq in taken for sale in sales)


def _judge_status(
    world: World, sale: Sale, transaction: Transaction, lines: Sequence[ReadEntry]
) -> None:
    """What the ledger says is what is true at Pockyt."""
    truth, said = world.book.truth(sale), str(transaction.status)
    assert transaction.transaction_no == sale.transaction_no, "bound to another number"
    if said == truth:
        return
    # Money that went back by other means, and nobody told the listener.
    if truth == "refunded" and sale.transaction_no in world.unheard_refunds:
        return
    # A refund that Pockyt shows as `closed`, of a payment that nobody was ever told of.
    was_heard_of = any(one.entry.fact.says is Status.PAID and not one.held for one in lines)
    is_shown_closed = world.book.shown(sale) is Word.CLOSED and truth == "refunded"
    is_hidden = is_shown_closed and not was_heard_of and said == "cancelled"
    assert is_hidden, f"{sale.order.reference}: {said}, in truth {truth}"


def _judge_cancels(world: World, transaction: Transaction, lines: Sequence[ReadEntry]) -> None:
    """/cancel was sent only after a query that said unpaid, or for a cashier who may refund.

    And once for each wish, however many listeners heard of it.
    """
    may_refund = any(one.entry.fact.field("refundIfPaid") == "true" for one in lines)
    last: str | None = None
    sent_count = 0
    for sent in world.sent:
        if sent.number != transaction.transaction_no:
            continue
        if sent.call is Call.TRAN_QUERY:
            last = sent.word
        elif sent.call is Call.CANCEL:
            is_open = last in (Word.INIT, Word.PENDING)
            assert is_open or (may_refund and last == Word.SUCCESS), f"/cancel after {last}"
            last = None
            sent_count += 1
    facts = [one.entry.fact for one in lines]
    wishes = sum(fact.kind is Kind.CANCEL_REQUEST for fact in facts)
    # What Pockyt has refused had no effect, and may be tried again.
    refused = sum(
        fact.field("call") == "cancel" and fact.field("error") == "refused" for fact in facts
    )
    assert sent_count <= wishes + refused, f"{sent_count} /cancel for {wishes} wishes"


def _judge_raised(world: World, lines: Sequence[ReadEntry]) -> None:
    """Every cancel ended within 60 s, or was raised by then, unless the listener was dead."""
    before: Transaction | None = None
    history = History()
    by_seq = {one.entry.seq: one.entry for one in lines}
    since_ms: int | None = None
    for entry in [one.entry for one in lines if one.entry.fact.transaction_no]:
        if since_ms is not None:
            late_ms = entry.recorded_at_ms - since_ms - RAISE_SECONDS * 1_000 - RAISE_SLACK_MS
            assert late_ms <= _dead_ms(world, since_ms), f"silent {late_ms} ms too long"
        summary = history.add(entry, sales=by_seq)
        sale = by_seq.get(summary.judge or 0)
        before = advance(before, summary, entry, sale=sale, confirm=world.plan.confirm).transaction
        is_waiting = before.cancel is not None and before.cancel.resolved_at_ms is None
        if entry.fact.kind is Kind.CANCEL_REQUEST and is_waiting:
            since_ms = since_ms or entry.recorded_at_ms
        elif _is_raised(entry) or not is_waiting:
            since_ms = None
    assert since_ms is None, "a cancel neither ended nor was raised"


def _dead_ms(world: World, since_ms: int) -> int:
    """Return how long the listener was dead, or held up in calls, from a moment on."""
    return sum(max(0, end - max(begin, since_ms)) for begin, end in world.outages)


def _is_raised(entry: Entry) -> bool:
    return entry.fact.kind is Kind.ALARM and entry.fact.field("alarm") == Alarm.UNRESOLVED


def _judge_acknowledged(world: World, lines: Sequence[ReadEntry]) -> None:
    """What was acknowledged is in the ledger, and each notification once."""
    names = ("transactionNo", "status", "time", "reference")
    kept = Counter(
        tuple(one.entry.fact.field(name) for name in names)
        for one in lines
        if one.entry.fact.kind is Kind.NOTIFICATION
    )
    for fields in world.acknowledged:
        key = tuple(fields[name] for name in names)
        assert kept[key] > 0, f"acknowledged and lost: {key}"


async def _judge_events(world: World, sold: dict[str, Sale]) -> None:
    """The last word that a till heard of each sale is what is true."""
    events = await world.ledger.read_events(EVERY_STREAM, after=0, limit=PAGE)
    told: dict[str, list[str]] = {}
    for event in events:
        data = orjson.loads(event.body)["data"]
        told.setdefault(data["transactionNo"], []).append(data["status"])
    for reference, sale in sold.items():
        transaction = await find(world, reference)
        if transaction is None and await _was_given_anothers_number(world, reference):
            continue
        heard = told[sale.transaction_no]
        assert transaction is not None
        assert heard[-1] == transaction.status, f"the till believes {heard[-1]}"
        if "cancelled" in heard and world.book.truth(sale) == "paid":
            after = heard[heard.index("cancelled") :]
            assert {"paid", "conflict"} & set(after), "told cancelled, and never corrected"
