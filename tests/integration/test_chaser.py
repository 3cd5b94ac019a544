"""The chaser within its limits, on the fake clock, with the real ledger and the sandbox's desk."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from listener.ledger.model import EVERY_STREAM, CancelState, Status, Transaction
from listener.ledger.results import RecordedSale
from listener.ledger.schedule import ASK_SECONDS
from listener.lifecycle import Decision, Lifecycle, OutcomeUnknownError
from listener.lifecycle.chaser import Chaser
from listener.pockyt.answer import PockytRefusedError
from listener.sandbox.faults import Planned
from tests.property.scenario import find
from tests.property.world import BEGAN_MS, Plan, World

MANY = 60


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    opened = World(Plan(seed=1), directory=tmp_path)
    await opened.start()
    yield opened
    await opened.stop()


async def _sell(world: World, reference: str) -> Transaction:
    async def wish(lifecycle: Lifecycle) -> Transaction:
        return (await lifecycle.start_sale(world.order(reference))).transaction

    sold = await world.act(wish)
    assert sold is not None
    return sold


async def _cancel(world: World, transaction: Transaction, *, refund: bool = False) -> Transaction:
    done = await world.act(lambda life: life.cancel(transaction, refund_if_paid=refund))
    assert done is not None
    return done


def _decision(status: Status) -> Decision:
    return Decision(status=status, name="Kim", reason="Seen.", key_id="k")


async def _until(world: World, seconds: float) -> None:
    await world.run(until_ms=BEGAN_MS + int(seconds * 1_000))


async def _cancels(world: World) -> list[CancelState]:
    found = [await find(world, f"R-{n}") for n in range(MANY)]
    return [t.cancel.state for t in found if t and t.cancel]


async def test_a_pockyt_that_is_down_is_left_alone_and_every_silence_is_raised(
    world: World,
) -> None:
    sold = [await _sell(world, f"R-{n}") for n in range(MANY)]
    world.is_pockyt_down = True
    for transaction in sold:
        after = await _cancel(world, transaction)
        assert after.cancel is not None
        assert after.cancel.state is CancelState.REQUESTED
    assert world.rests()
    tried = world.pockyt.tries
    await _until(world, 62)
    assert await _cancels(world) == [CancelState.UNRESOLVED] * MANY
    # A probe after 5, 10, 20 and 40 s; without the breaker it would be six questions a sale.
    assert world.pockyt.tries - tried <= 8
    world.is_pockyt_down = False
    await _until(world, 300)
    assert await _cancels(world) == [CancelState.CONFIRMED] * MANY
    assert not world.rests()
    events = await world.ledger.read_events(EVERY_STREAM, after=0, limit=1_000)
    raised = [e for e in events if orjson.loads(e.body)["type"] == "transaction.unresolved"]
    assert len(raised) == MANY


async def test_questions_due_at_the_same_time_are_sent_at_a_limited_rate(world: World) -> None:
    sold = [await _sell(world, f"R-{n}") for n in range(MANY)]
    world.script.replace([Planned.parse("query-html")])
    for transaction in sold:
        await _cancel(world, transaction)
    # The cashiers' own questions opened the breaker, and one answer closes it.
    world.script.replace([])
    await _until(world, 8)
    sent = sorted(one.at_ms for one in world.sent if one.at_ms > BEGAN_MS)
    assert len(sent) >= MANY
    for first in sent:
        at_once = [at for at in sent if first <= at < first + 1_000]
        # A chase of a cancel is three calls; the burst is 20 chases, then 10 a second.
        assert len(at_once) <= 3 * (20 + 10)


async def test_the_schedule_survives_a_kill(world: World) -> None:
    sold = await _sell(world, "R-1")
    world.script.replace([Planned.parse("query-5xx")])
    await _cancel(world, sold)
    await world.kill(for_seconds=1)
    world.script.replace([])
    await _until(world, 10)
    found = await find(world, "R-1")
    assert found is not None
    assert found.status is Status.CANCELLED


async def test_a_sale_that_nobody_pays_or_cancels_is_asked_about_at_its_time_out(
    world: World,
) -> None:
    await _sell(world, "R-1")
    world.script.replace([Planned.parse("notification-lost")])
    world.sent.clear()
    await _until(world, 7_190)
    assert not world.sent
    await _until(world, 7_260)
    found = await find(world, "R-1")
    assert found is not None
    assert found.status is Status.CANCELLED
    assert len(world.sent) == 1


async def test_a_sale_whose_number_was_lost_is_looked_for_and_found(world: World) -> None:
    world.script.replace([Planned.parse("sale-5xx"), Planned.parse("query-5xx")])
    with pytest.raises(Exception, match="did not say"):
        await _sell(world, "R-1")
    assert await find(world, "R-1") is None
    world.script.replace([])
    await _until(world, 60)
    found = await find(world, "R-1")
    assert found is not None
    assert found.status is Status.CREATED
    assert found.terminal == "T-1"


async def test_a_payment_that_lands_after_a_confirmed_cancel_is_found_without_a_notification(
    world: World,
) -> None:
    sold = await _sell(world, "R-1")
    world.script.replace(
        [Planned.parse(text) for text in ("wallet-down@1", "wallet-paid@2", "notification-lost")]
    )
    after = await _cancel(world, sold)
    assert after.status is Status.CANCELLED
    await _until(world, 61)
    found = await find(world, "R-1")
    assert found is not None
    assert found.status is Status.PAID
    assert found.cancel is not None
    assert found.cancel.state is CancelState.REFUSED


async def test_a_paid_sale_is_not_refunded_twice_for_one_press(world: World) -> None:
    sold = await _sell(world, "R-1")
    world.pay("R-1")
    world.script.replace([Planned.parse("cancel-html")])
    after = await _cancel(world, sold, refund=True)
    assert after.status is Status.REFUNDED
    await _until(world, 8_000)
    cancels = [one for one in world.sent if one.call.endswith("/cancel")]
    assert len(cancels) == 1


async def test_one_transactions_trouble_harms_no_other(world: World) -> None:
    bad, good = await _sell(world, "R-bad"), await _sell(world, "R-good")
    world.script.replace([Planned.parse("query-5xx")])
    await _cancel(world, bad)
    await _cancel(world, good)
    world.script.replace([])
    world.pockyt.breaks_at.add(bad.transaction_no)
    # What breaks behind a cashier's cancel is chased as any other doubt.
    again = await _cancel(world, bad)
    assert again.cancel is not None
    assert again.cancel.state is CancelState.REQUESTED
    await _until(world, 70)
    found, other = await find(world, "R-good"), await find(world, "R-bad")
    assert found is not None
    assert found.status is Status.CANCELLED
    assert other is not None
    assert other.cancel is not None
    assert other.cancel.state is CancelState.UNRESOLVED
    world.pockyt.breaks_at.clear()
    await _until(world, 80)
    other = await find(world, "R-bad")
    assert other is not None
    assert other.status is Status.CANCELLED


async def test_a_decision_ends_a_cancel_that_pockyt_does_not_answer(world: World) -> None:
    sold = await _sell(world, "R-1")
    world.is_pockyt_down = True
    await _cancel(world, sold)
    await _until(world, 100)
    done = await world.act(lambda life: life.decide(sold, _decision(Status.CANCELLED)))
    assert done is not None
    assert done.cancel is not None
    assert done.cancel.state is CancelState.CONFIRMED
    tried = world.pockyt.tries
    world.is_pockyt_down = False
    await _until(world, 3_000)
    # Nothing is in doubt any more, so nobody asks.
    assert world.pockyt.tries == tried


async def test_pressing_cancel_again_does_not_put_the_alarm_off(world: World) -> None:
    sold = await _sell(world, "R-1")
    world.is_pockyt_down = True
    for seconds in (10, 30, 50):
        await _cancel(world, sold)
        await _until(world, seconds)
    await _until(world, 61)
    found = await find(world, "R-1")
    assert found is not None
    assert found.cancel is not None
    assert found.cancel.state is CancelState.UNRESOLVED


async def test_a_cancel_that_is_pressed_twice_at_once_is_sent_once(world: World) -> None:
    sold = await _sell(world, "R-1")
    before = world.pockyt.tries

    async def press_twice(life: Lifecycle) -> Transaction:
        _, other = await asyncio.gather(life.cancel(sold), life.cancel(sold))
        return other

    after = await world.act(press_twice)
    assert after is not None
    assert after.cancel is not None
    assert after.cancel.state is CancelState.CONFIRMED
    # A question, /cancel, and what came of it.
    assert world.pockyt.tries == before + 3


async def test_a_cancel_goes_before_sales_without_a_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sold = await _sell(world, "R-1")
    world.script.replace([Planned.parse("sale-5xx"), Planned.parse("query-5xx")])
    await _cancel(world, sold)
    for number in (2, 3):
        with pytest.raises(OutcomeUnknownError):
            await _sell(world, f"R-{number}")
    asked: list[Transaction | RecordedSale] = []
    monkeypatch.setattr(Chaser, "_may_ask", lambda *_, **__: True)
    monkeypatch.setattr(Chaser, "_start", lambda _self, doubt, **_: asked.append(doubt))
    # Nothing is really asked, so that in the end all is due.
    await _until(world, 60)
    assert [type(doubt) for doubt in asked[-3:]] == [Transaction, RecordedSale, RecordedSale]


async def test_asking_about_what_pockyt_does_not_know_says_so_and_is_recorded(
    world: World,
) -> None:
    sold = await _sell(world, "R-1")
    unknown = Transaction(
        **{
            name: getattr(sold, name)
            for name in ("merchant_no", "first_seq", "provider_status", "evidence", "held")
        },
        transaction_no="1",
        status=Status.UNKNOWN,
        state_version=0,
        created_at_ms=0,
        updated_at_ms=0,
    )
    decided = await world.act(lambda life: life.decide(unknown, _decision(Status.PAID)))
    assert decided is not None
    with pytest.raises(PockytRefusedError, match="000021"):
        await world.act(lambda life: life.ask(decided))
    lines = await world.ledger.read_transaction_entries(decided)
    assert lines[-1].entry.fact.field("retCode") == "000021"
    assert lines[-1].entry.fact.says is None


async def test_after_a_decision_no_question_gives_the_money_back_but_a_new_wish_does(
    world: World,
) -> None:
    sold = await _sell(world, "R-0")
    world.pay("R-0")
    world.script.replace([Planned.parse("query-5xx")])
    await _cancel(world, sold, refund=True)
    await _until(world, 70)
    await world.act(lambda life: life.decide(sold, _decision(Status.PAID)))
    world.script.replace([])
    asked = await world.act(lambda life: life.ask(sold))
    assert asked is not None
    await _until(world, 7_200)
    assert await _cancels(world) == [CancelState.REFUSED]
    after = await _cancel(world, asked, refund=True)
    assert after.cancel is not None
    assert after.cancel.state is CancelState.REFUNDED


async def test_after_a_downtime_pockyt_is_asked_once_before_anything_is_raised(
    world: World,
) -> None:
    sold = await _sell(world, "R-0")
    world.is_pockyt_down = True
    await _cancel(world, sold)
    await world.stop()
    world.now_ms += 600_000
    world.is_pockyt_down = False
    await world.start()
    await world.run(until_ms=world.now_ms + 20_000)
    found = await find(world, "R-0")
    assert found is not None
    assert found.cancel is not None
    assert found.cancel.state is CancelState.CONFIRMED
    events = await world.ledger.read_events(EVERY_STREAM, after=0, limit=100)
    types = [orjson.loads(event.body)["type"] for event in events]
    assert "transaction.unresolved" not in types


@pytest.mark.parametrize("days", [1, 3])
async def test_a_cancel_that_was_open_while_the_listener_was_off_for_days_is_asked_about_soon(
    world: World, days: int
) -> None:
    sold = await _sell(world, "R-1")
    world.is_pockyt_down = True
    await _cancel(world, sold)
    off_seconds = days * 86_400
    await world.kill(for_seconds=off_seconds)
    # The network comes up two minutes after the machine.
    await _until(world, off_seconds + 120)
    world.is_pockyt_down = False
    await _until(world, off_seconds + 600)
    found = await find(world, "R-1")
    assert found is not None
    assert found.status is Status.CANCELLED


async def test_after_two_days_a_doubt_is_given_up_once_the_missed_questions_were_asked(
    world: World,
) -> None:
    sold = await _sell(world, "R-1")
    world.is_pockyt_down = True
    await _cancel(world, sold)
    await world.kill(for_seconds=3 * 86_400)
    await _until(world, 4 * 86_400)
    found = await find(world, "R-1")
    assert found is not None
    assert found.ask is not None
    assert found.ask.due_at_ms is None
    assert found.ask.attempt == len(ASK_SECONDS)
