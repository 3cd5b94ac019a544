"""The life of sales over real HTTP: the service, the sandbox, its faults, compressed time."""

import asyncio
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from listener.ledger.model import CancelState, Kind, Status, Transaction
from listener.ledger.schedule import RAISE_SECONDS
from listener.lifecycle import Lifecycle, Limits
from listener.sandbox.faults import Fault, Place
from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.web.context import LIFECYCLE
from tests.support.service import MERCHANT_NO
from tests.support.shop import HURRY, Shop, Told, admin, beside, hurried, open_shop, order

SALES = "/v1/transactions"
AT_ONCE = 12
RACES = 200
# Faults after which only a fresh call could settle a cancel, so that it ends as unresolved.
NEVER_HEARD = {Fault.CANCEL_TIMEOUT_UNHEARD, Fault.CANCEL_5XX_UNHEARD}


async def _transaction(shop: Shop, number: str) -> Transaction:
    (found,) = await shop.serving.ledger.read_transaction(number, merchant_no=MERCHANT_NO)
    return found


async def _play(fault: Fault, path: Path) -> str | None:
    """Play one fault to its end; returns what is wrong with that, if anything."""
    async with hurried(path) as shop:
        if fault.place is Place.SALE:
            shop.plan(str(fault))
            told = await shop.post(SALES, order(reference="R-1"))
            heard = len(shop.sandbox.book) > 0
            return None if (told.status == 201) is heard else f"told {told}"
        started = await _start(shop)
        # Only now, so that no fault strikes what the start itself may have to ask.
        shop.plan(str(fault))
        pays = fault.place is Place.PAY
        body = {"paymentBarcode": "284957205723"} if pays else {}
        await shop.post(f"{SALES}/{started.number}/{'pay' if pays else 'cancel'}", body)
        began = time.monotonic()
        is_repaired = False
        async with asyncio.timeout(15):
            while not await _has_ended(shop, started.number):
                if not is_repaired and time.monotonic() - began > 120 / HURRY:
                    if not await _was_raised(shop, started.number):
                        return "neither ended nor raised"
                    if fault in NEVER_HEARD:
                        return None
                    # From here on Pockyt can be asked.
                    shop.plan()
                    is_repaired = True
                await asyncio.sleep(0.05)
    return None


async def _start(shop: Shop) -> Told:
    """Start a sale as a till does: where this machine was too slow to answer, once more."""
    body = order(reference="R-1")
    while (told := await shop.post(SALES, body, idempotency_key="start")).status == 502:
        pass
    assert told.status == 201, told
    return told


async def _was_raised(shop: Shop, number: str) -> bool:
    lines = await shop.serving.ledger.read_transaction_entries(await _transaction(shop, number))
    return any(line.entry.fact.kind is Kind.ALARM for line in lines)


async def _has_ended(shop: Shop, number: str) -> bool:
    """Return whether the ledger says what is true, and nobody waits."""
    found = await _transaction(shop, number)
    sale = shop.sandbox.book.get(number)
    assert sale is not None
    is_settled = found.cancel is None or found.cancel.resolved_at_ms is not None
    return is_settled and found.status == shop.sandbox.book.truth(sale)


async def test_every_fault_ends_in_the_truth_or_is_raised(tmp_path: Path) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    wrong: dict[Fault, str] = {}

    async def play(fault: Fault) -> None:
        async with gate:
            told = await _play(fault, tmp_path / f"{fault}.db")
            if told is not None:
                wrong[fault] = told

    async with asyncio.TaskGroup() as group:
        for fault in Fault:
            group.create_task(play(fault))
    assert not wrong


async def test_silence_is_raised_after_a_minute_although_pockyt_hangs(tmp_path: Path) -> None:
    async with hurried(tmp_path / "ledger.db") as shop:
        started = await shop.start()
        shop.plan("query-timeout")
        told = await shop.post(f"{SALES}/{started.number}/cancel", {})
        assert told.status == 202
        async with asyncio.timeout(10):
            while (await _transaction(shop, started.number)).status is not Status.CANCELLED:
                found = await _transaction(shop, started.number)
                if found.cancel and found.cancel.state is CancelState.UNRESOLVED:
                    break
                await asyncio.sleep(0.02)
        lines = await shop.serving.ledger.read_transaction_entries(found)
        asked = next(x.entry for x in lines if x.entry.fact.kind is Kind.CANCEL_REQUEST)
        raised = next(x.entry for x in lines if x.entry.fact.kind is Kind.ALARM)
        waited = (raised.recorded_at_ms - asked.recorded_at_ms) / 1_000
        # The schedule is looked at every second; what is over that is this machine's.
        assert RAISE_SECONDS <= waited <= 75


async def test_a_restart_goes_on_with_what_is_in_doubt(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with Sandbox.start(SandboxSettings()) as sandbox:
        async with beside(sandbox, path) as served:
            shop = Shop(sandbox=sandbox, serving=served, key=served.key(terminal="T-42"))
            started = await shop.start()
            shop.plan("query-5xx")
            assert (await shop.post(f"{SALES}/{started.number}/cancel")).status == 202
        sandbox.script.replace(())
        async with beside(sandbox, path) as served:
            shop = Shop(sandbox=sandbox, serving=served, key=shop.key)
            async with asyncio.timeout(10):
                while (await _transaction(shop, started.number)).status is not Status.CANCELLED:
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("changes", [{"amount": "13.01"}, {"currency": "GBP"}])
@pytest.mark.parametrize("word", ["success", "closed", "refunded", "failed"])
async def test_a_notification_of_another_amount_or_currency_changes_no_status(
    tmp_path: Path, changes: dict[str, str], word: str
) -> None:
    async with open_shop(tmp_path / "ledger.db") as shop:
        started = await shop.start(reference="R-1")
        fields = {"transactionNo": started.number, "reference": "R-1", "status": word, **changes}
        assert await shop.serving.notify(fields) == (200, "success")
        found = await _transaction(shop, started.number)
        assert found.status is Status.CREATED
        assert found.held


async def test_a_payment_that_lands_between_question_and_cancel_ends_refunded(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path / "ledger.db", "cancel-paid-meanwhile") as shop:
        started = await shop.start()
        told = await shop.post(f"{SALES}/{started.number}/cancel", {})
        assert told.status == 200
        assert told.body["status"] == "refunded"
        cancel = told.body["cancel"]
        assert isinstance(cancel, dict)
        assert cancel["state"] == "refunded"
        status, body = await shop.serving.get(
            "/v1/pos/events?stream=200043/303660&after=earliest", shop.key
        )
        assert status == 200
        assert isinstance(body, dict)
        assert body["events"][-1]["event"]["data"]["status"] == "refunded"


async def test_pay_and_cancel_race_two_hundred_times_and_the_ledger_is_right(
    tmp_path: Path,
) -> None:
    dice = random.Random(20261123)
    # One key's share of wishes is not what is tried here.
    limits = Limits(wishes_burst=2 * RACES)
    fault = "cancel-paid-meanwhile%25"
    async with open_shop(tmp_path / "ledger.db", fault, limits=limits) as shop:
        refunding = shop.serving.key(may_refund=True)
        gate = asyncio.Semaphore(AT_ONCE)

        async def race(number: int) -> tuple[str, Told, bool]:
            async with gate:
                started = await shop.start(vendor="alipay", reference=f"R-{number}")
                refunds = dice.random() < 0.25
                cancel = asyncio.create_task(
                    _cancel_after(shop, started, dice.random() / 50, refunding if refunds else None)
                )
                await asyncio.sleep(dice.random() / 4)
                async with shop.serving.client.post(
                    f"{shop.sandbox.url}/sandbox/pay/{started.number}"
                ):
                    pass
                return started.number, await cancel, refunds

        raced = await asyncio.gather(*(race(n) for n in range(RACES)))
        async with asyncio.timeout(30):
            for number, _, _ in raced:
                while not await _has_ended(shop, number):
                    await asyncio.sleep(0.05)
        ends = set()
        for number, told, refunds in raced:
            found = await _transaction(shop, number)
            ends.add(found.status)
            assert told.status in (200, 202, 409), told
            assert told.status != 409 or found.status is Status.PAID
            await _judge_order(shop, found, refunds=refunds)
        # All three ways of ending were seen, or the race was none.
        assert ends == {Status.PAID, Status.CANCELLED, Status.REFUNDED}


async def _cancel_after(shop: Shop, started: Told, seconds: float, key: str | None) -> Told:
    await asyncio.sleep(seconds)
    body = {"refundIfPaid": True} if key else {}
    return await shop.post(f"{SALES}/{started.number}/cancel", body, key=key)


async def _judge_order(shop: Shop, transaction: Transaction, *, refunds: bool) -> None:
    """/cancel follows a question whose answer allowed it, and no other."""
    last: Status | None = None
    for line in await shop.serving.ledger.read_transaction_entries(transaction):
        fact = line.entry.fact
        if fact.kind is Kind.QUERY:
            last = fact.says
        elif fact.kind is Kind.ANSWER and fact.field("call") == "cancel":
            allowed = {Status.CREATED, Status.PENDING} | ({Status.PAID} if refunds else set())
            assert last in allowed
            last = None


async def test_nothing_is_left_running_when_the_service_stops(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "ledger.db") as shop:
        started = await shop.start()
        shop.plan("query-timeout")
        waiting = asyncio.create_task(shop.post(f"{SALES}/{started.number}/cancel", {}))
        while len(await shop.kinds(started.number)) < 3:
            await asyncio.sleep(0.01)
        assert (await waiting).status == 202
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not names & {"settle", "chase", "ledger-writer"}


async def test_every_call_is_counted_in_the_metrics(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "ledger.db") as shop:
        lifecycle: Lifecycle = shop.serving.service.app[LIFECYCLE]
        heard: list[tuple[str, str]] = []
        lifecycle.on_call(lambda call, outcome, _seconds: heard.append((call, outcome)))
        started = await shop.start()
        await shop.post(f"{SALES}/{started.number}/cancel", {})
        shop.plan("query-html")
        await shop.post(f"{SALES}/{started.number}/ask", key=admin(shop))
        shop.plan("sale-timeout")
        await shop.post(SALES, order(vendor="no_such_wallet"))
    assert heard[:4] == [
        ("add", "answered"),
        ("tran-query", "answered"),
        ("cancel", "answered"),
        ("tran-query", "answered"),
    ]
    assert ("tran-query", "unreadable") in heard
    assert ("create-trans-qrcode", "timeout") in heard


def _rename(shop: Shop, before: str, after: str) -> None:
    """Rename a table behind the service's back, so that its ledger cannot be used."""
    with closing(sqlite3.connect(shop.serving.path, isolation_level=None)) as db:
        db.execute("PRAGMA legacy_alter_table = ON")
        db.execute(f"ALTER TABLE {before} RENAME TO {after}")


async def test_a_ledger_that_fails_for_a_while_does_not_end_the_chasing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_shop(tmp_path / "ledger.db") as shop:
        started = await shop.start()
        shop.plan("query-5xx")
        assert (await shop.post(f"{SALES}/{started.number}/cancel")).status == 202
        _rename(shop, "transactions", "hidden")
        async with asyncio.timeout(10):
            while "chase_postponed" not in caplog.messages:
                await asyncio.sleep(0.02)
        told = await shop.post(SALES, order(), idempotency_key="press-1")
        assert told.status == 503
        assert "Retry-After" in told.headers
        _rename(shop, "hidden", "transactions")
        shop.plan()
        async with asyncio.timeout(15):
            while (await _transaction(shop, started.number)).status is not Status.CANCELLED:
                await asyncio.sleep(0.05)


async def test_a_merchant_that_is_gone_is_not_asked_about_and_others_are(tmp_path: Path) -> None:
    path, token = tmp_path / "ledger.db", "5cbfb079f15b150122261c8537086d77a"
    one: dict[str, object] = {"tokens": [token], "stores": ["303660"]}
    async with Sandbox.start(SandboxSettings()) as sandbox:
        async with beside(sandbox, path) as served:
            shop = Shop(sandbox=sandbox, serving=served, key=served.key(terminal="T-42"))
            started = await shop.start()
            shop.plan("query-5xx")
            assert (await shop.post(f"{SALES}/{started.number}/cancel")).status == 202
        shop.plan()
        async with beside(sandbox, path, merchants={"200044": one}) as served:
            shop = Shop(sandbox=sandbox, serving=served, key=shop.key)
            async with asyncio.timeout(10):
                while await _last_error(shop, started.number) != "connection":
                    await asyncio.sleep(0.05)
            told = await shop.post(
                SALES, order(storeNo="1"), key=served.key(merchant_no="200044", store_no="1")
            )
            assert told.status == 422
            assert not served.service.app[LIFECYCLE].is_pockyt_down


async def _last_error(shop: Shop, number: str) -> str | None:
    lines = await shop.serving.ledger.read_transaction_entries(await _transaction(shop, number))
    return lines[-1].entry.fact.field("error")


async def test_pockyts_own_failure_is_looked_into_and_is_not_the_tills_fault(
    tmp_path: Path,
) -> None:
    settings = SandboxSettings(sales_max=1)
    async with open_shop(tmp_path / "ledger.db", sandbox=settings) as shop:
        await shop.start()
        # The sandbox is full: a system error, after which nobody knows.
        told = await shop.post(SALES, order())
        assert (told.status, told.body["code"]) == (502, "outcome-unknown")
