"""Whose a transaction number and a reference are, where Pockyt or another store's till errs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from listener.ledger.model import Alarm, Kind
from listener.ledger.scope import Scope
from listener.sandbox.servers import Sandbox, SandboxSettings
from tests.support.service import MERCHANT_NO, OTHER_STORE_NO, STORE_NO
from tests.support.shop import Shop, Told, beside, open_shop, order

SALES = "/v1/transactions"


def _code(told: Told) -> tuple[int, object]:
    return told.status, told.body.get("code")


@asynccontextmanager
async def _restarted_pockyt(path: Path) -> AsyncIterator[tuple[Shop, Told]]:
    """Sell once; then open a shop whose sandbox was started again with the same seed."""
    async with Sandbox.start(SandboxSettings(seed=7)) as first, beside(first, path) as served:
        shop = Shop(sandbox=first, serving=served, key=served.key(terminal="T-42"))
        sold = await shop.start(reference="R-old")
    async with Sandbox.start(SandboxSettings(seed=7)) as again, beside(again, path) as served:
        yield Shop(sandbox=again, serving=served, key=shop.key), sold


async def _alarms(shop: Shop) -> list[str | None]:
    lines = await shop.serving.ledger.read_entries(after=0, limit=500, scope=Scope())
    alarms = [line.entry.fact for line in lines if line.entry.fact.kind is Kind.ALARM]
    return [fact.field("alarm") for fact in alarms]


async def test_a_new_sale_is_never_answered_with_an_old_ones_number(tmp_path: Path) -> None:
    async with _restarted_pockyt(tmp_path / "ledger.db") as (shop, old):
        told = await shop.post(SALES, order(reference="R-new"))
        assert _code(told) == (502, "number-taken")
        assert old.number not in str(told.body)
        assert await _alarms(shop) == [Alarm.NUMBER_TAKEN]
        # The old one is as it was, and the new one was not started.
        detail = await shop.detail(old.number)
        assert detail["reference"] == "R-old"
        assert len(detail["entries"]) == 2  # type: ignore[arg-type]
        (sale,) = await shop.serving.ledger.read_sales(
            merchant_no=MERCHANT_NO, reference="R-new", store_no=None
        )
        assert sale.transaction_no is None
        # Looked up by its reference, it is the same number again.
        assert _code(await shop.post(SALES, order(reference="R-new"))) == (502, "number-taken")


async def test_the_alarm_of_a_taken_number_names_the_new_sale_and_the_number_names_the_old(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _restarted_pockyt(tmp_path / "ledger.db") as (shop, old):
        assert _code(await shop.post(SALES, order(reference="R-new"))) == (502, "number-taken")
        lines = await shop.serving.ledger.read_entries(after=0, limit=500, scope=Scope())
        (alarm,) = [x.entry.fact for x in lines if x.entry.fact.kind is Kind.ALARM]
        assert (alarm.field("reference"), alarm.field("holderReference")) == ("R-new", "R-old")
        (line,) = [
            one.__dict__["fields"] for one in caplog.records if one.getMessage() == "number_taken"
        ]
        assert (line["reference"], line["holderReference"]) == ("R-new", "R-old")
        assert (alarm.reference, alarm.store_no) == ("R-new", None)
        number = alarm.field("transactionNo")
        assert number == old.number
        assert (await shop.detail(number))["reference"] == "R-old"


async def test_a_sale_whose_number_was_taken_is_started_by_the_same_request(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    wish = order(reference="R-new")
    async with _restarted_pockyt(path) as (shop, _):
        told = await shop.post(SALES, wish)
        assert _code(told) == (502, "number-taken")
        assert told.body["retry"] is True
        assert _code(await shop.post(SALES, {**wish, "amount": "14.00"})) == (
            409,
            "reference-taken",
        )
    # Pockyt knows no sale under its reference.
    async with Sandbox.start(SandboxSettings(seed=8)) as other, beside(other, path) as served:
        shop = Shop(sandbox=other, serving=served, key=shop.key)
        told = await shop.post(SALES, wish)
        assert (told.status, told.body["reference"]) == (201, "R-new")


async def test_a_number_that_is_found_is_not_bound_where_it_is_anothers(tmp_path: Path) -> None:
    async with _restarted_pockyt(tmp_path / "ledger.db") as (shop, old):
        shop.plan("sale-5xx")
        told = await shop.post(SALES, order(reference="R-new"))
        assert _code(told) == (502, "number-taken")
        told = await shop.post("/v1/sales/R-new/cancel", {})
        assert told.status == 202
        sale = shop.sandbox.book.get(old.number)
        assert sale is not None
        # What Pockyt knows under the number is not cancelled for a sale that is not its own.
        assert shop.sandbox.book.truth(sale) == "created"


async def test_a_sale_that_pockyt_refuses_is_not_looked_up_and_takes_no_other(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path / "ledger.db") as shop:
        whole = shop.serving.key(store_no=None)
        victim = await shop.post(
            SALES, order(reference="R-1", storeNo=OTHER_STORE_NO, vendor="alipay"), key=whole
        )
        assert victim.status == 201
        for _ in range(2):
            # The sandbox knows the reference from the other store, and refuses it.
            told = await shop.post(SALES, order(reference="R-1", vendor="alipay"))
            assert _code(told) == (422, "pockyt-refused")
            assert victim.number not in str(told.body)
        told = await shop.post(f"{SALES}/{victim.number}/cancel", {})
        assert _code(told) == (404, "no-transaction")
        told = await shop.post("/v1/sales/R-1/cancel", {})
        assert (told.status, told.body["transactionNo"]) == (200, None)
        sale = shop.sandbox.book.get(victim.number)
        assert sale is not None
        assert shop.sandbox.book.truth(sale) == "pending"


async def test_a_till_that_was_not_answered_does_not_find_another_stores_sale(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path / "ledger.db") as shop:
        whole = shop.serving.key(store_no=None)
        victim = await shop.post(SALES, order(reference="R-1", storeNo=OTHER_STORE_NO), key=whole)
        shop.plan("sale-5xx-unheard")
        told = await shop.post(SALES, order(reference="R-1"))
        assert _code(told) == (502, "number-taken")
        (found,) = await shop.serving.ledger.read_transaction(victim.number, merchant_no=None)
        assert found.store_no == OTHER_STORE_NO


async def test_a_reference_is_free_again_where_pockyt_refused_the_sale(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "ledger.db") as shop:
        refused = await shop.post(SALES, order(reference="R-1", vendor="no_such_wallet"))
        assert _code(refused) == (422, "pockyt-refused")
        told = await shop.post(SALES, order(reference="R-1", amount="14.00"))
        assert (told.status, told.body["amount"]) == (201, "14.00")
        assert _code(await shop.post(SALES, order(reference="R-1"))) == (409, "reference-taken")


async def test_a_store_cannot_use_up_the_references_of_another(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "ledger.db", "sale-5xx-unheard@1", "query-5xx@1") as shop:
        assert (await shop.post(SALES, order(reference="R-1"))).status == 502
        other = shop.serving.key(store_no=OTHER_STORE_NO, terminal="T-9")
        told = await shop.post(
            SALES, order(reference="R-1", storeNo=OTHER_STORE_NO, terminal="T-9"), key=other
        )
        assert (told.status, told.body["storeNo"]) == (201, OTHER_STORE_NO)
        mine = await shop.post(SALES, order(reference="R-1", amount="15.00"))
        assert _code(mine) == (409, "reference-taken")
        assert mine.body["transactionNo"] is None


@pytest.mark.parametrize("store_no", [STORE_NO, OTHER_STORE_NO])
async def test_a_number_that_a_notification_told_first_is_the_stores_that_it_named(
    tmp_path: Path, store_no: str
) -> None:
    path = tmp_path / "ledger.db"
    async with Sandbox.start(SandboxSettings(seed=7)) as first, beside(first, path) as served:
        shop = Shop(sandbox=first, serving=served, key=served.key(terminal="T-42"))
        number = (await shop.start(reference="R-1")).number
    path = tmp_path / "other.db"
    async with Sandbox.start(SandboxSettings(seed=7)) as again, beside(again, path) as served:
        shop = Shop(sandbox=again, serving=served, key=served.key(terminal="T-42"))
        fields = {"transactionNo": number, "reference": "R-1", "status": "pending"}
        await served.notify(fields, path=f"/notify/{MERCHANT_NO}/{store_no}")
        told = await shop.post(SALES, order(reference="R-1"))
        assert told.status == (201 if store_no == STORE_NO else 502)
