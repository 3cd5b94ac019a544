"""A sale is cancelled by its reference, where Pockyt's number is not known, over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from listener.keys import Role
from listener.ledger.model import Kind
from listener.ledger.results import RecordedSale
from listener.ledger.scope import Scope
from listener.sandbox.book import SaleRequest
from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.storage.sqlite.verify import verify
from tests.support.service import MERCHANT_NO, OTHER_STORE_NO, STORE_NO
from tests.support.shop import Shop, Told, admin, beside, hurried, order

SALES = "/v1/transactions"
CANCEL = "/v1/sales/R-1/cancel"


def _code(told: Told) -> tuple[int, object]:
    return told.status, told.body.get("code")


def _state(told: Told) -> object:
    cancel = told.body["cancel"]
    assert isinstance(cancel, dict)
    return cancel["state"]


async def _lose(shop: Shop, *faults: str) -> None:
    """Start a sale whose number does not arrive."""
    shop.plan(*faults)
    told = await shop.post(SALES, order(reference="R-1"))
    assert _code(told) == (502, "outcome-unknown")


async def _sale(shop: Shop) -> RecordedSale:
    found = await shop.serving.ledger.read_sales(
        merchant_no=MERCHANT_NO, reference="R-1", store_no=None
    )
    return found[0]


async def _entries(shop: Shop, kind: Kind) -> list[str]:
    """Return the transaction numbers in the entries of a kind."""
    lines = await shop.serving.ledger.read_entries(after=0, limit=500, scope=Scope())
    return [x.entry.fact.transaction_no for x in lines if x.entry.fact.kind is kind]


@pytest.mark.parametrize("path", [CANCEL, f"{SALES}/R-1/cancel"])
async def test_a_sale_whose_number_was_lost_is_found_and_cancelled(shop: Shop, path: str) -> None:
    await _lose(shop, "sale-5xx", "query-5xx")
    shop.plan()
    told = await shop.post(path, {})
    assert (told.status, told.body["status"], _state(told)) == (200, "cancelled", "confirmed")
    (sale,) = shop.sandbox.book
    assert told.number == sale.transaction_no
    assert shop.sandbox.book.truth(sale) == "cancelled"
    again = await shop.post(path, {})
    # The wallet's notification may come between the two, and confirm what is known.
    for name in ("transactionNo", "status", "cancel"):
        assert again.body[name] == told.body[name]
    # The wish at the sale, and the same one at its transaction.
    assert await _entries(shop, Kind.CANCEL_REQUEST) == ["", told.number]
    detail = await shop.detail(told.number)
    assert [e["fields"].get("call") for e in detail["entries"]].count("cancel") == 1  # type: ignore[attr-defined]


async def test_the_tills_hear_each_step_once_the_number_is_known(shop: Shop) -> None:
    await _lose(shop, "sale-5xx", "query-5xx")
    shop.plan()
    await shop.post(CANCEL, {})
    _, body = await shop.serving.get(
        f"/v1/pos/events?stream={MERCHANT_NO}/{STORE_NO}&after=earliest", shop.key
    )
    assert isinstance(body, dict)
    types = [event["event"]["type"].removeprefix("transaction.") for event in body["events"]]
    assert types[:3] == ["created", "cancelling", "cancelled"]


async def test_a_cancel_that_pockyt_does_not_answer_is_recorded_and_goes_on_after_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    async with Sandbox.start(SandboxSettings()) as sandbox:
        async with beside(sandbox, path) as served:
            shop = Shop(sandbox=sandbox, serving=served, key=served.key(terminal="T-42"))
            await _lose(shop, "sale-5xx", "query-5xx")
            told = await shop.post(CANCEL, {})
            assert (told.status, told.body["transactionNo"]) == (202, None)
            assert (told.body["status"], _state(told)) == ("unknown", "requested")
            assert (await shop.post(CANCEL, {})).status == 202
            assert await _entries(shop, Kind.CANCEL_REQUEST) == [""]
        shop.plan()
        async with beside(sandbox, path) as served:
            shop = Shop(sandbox=sandbox, serving=served, key=shop.key)
            async with asyncio.timeout(15):
                while (await shop.post(CANCEL, {})).status != 200:
                    await asyncio.sleep(0.1)
            (sale,) = sandbox.book
            assert sandbox.book.truth(sale) == "cancelled"


async def test_a_cancel_while_the_sale_is_being_started_waits_for_its_number(shop: Shop) -> None:
    shop.plan("sale-timeout@1")
    starting = asyncio.create_task(shop.post(SALES, order(reference="R-1")))
    while len(shop.sandbox.book) == 0:
        await asyncio.sleep(0.01)
    told = await shop.post(CANCEL, {})
    await starting
    assert (told.status, told.body["status"]) == (200, "cancelled")


async def test_a_paid_sale_is_not_cancelled_by_its_reference(shop: Shop) -> None:
    await _lose(shop, "sale-5xx", "query-5xx", "notification-lost")
    (sale,) = shop.sandbox.book
    shop.sandbox.pay(sale.transaction_no)
    shop.plan()
    assert _code(await shop.post(CANCEL, {})) == (409, "already-paid")
    refund = {"refundIfPaid": True}
    assert _code(await shop.post(CANCEL, refund)) == (403, "may-not-refund")
    told = await shop.post(CANCEL, refund, key=shop.serving.key(may_refund=True))
    assert (told.status, told.body["status"]) == (200, "refunded")


async def test_a_sale_that_pockyt_refused_is_cancelled_at_once(shop: Shop) -> None:
    refused = await shop.post(SALES, order(reference="R-1", vendor="no_such_wallet"))
    assert _code(refused) == (422, "pockyt-refused")
    told = await shop.post(CANCEL, {})
    assert (told.status, told.body["status"], _state(told)) == (200, "cancelled", "confirmed")
    assert told.body["transactionNo"] is None


async def _settled(shop: Shop, number: str) -> dict[str, object]:
    """Return how the cancel of a transaction ended, or that it was raised."""
    async with asyncio.timeout(20):
        while True:
            cancel = (await shop.detail(number))["cancel"]
            if isinstance(cancel, dict) and cancel["state"] != "requested":
                return cancel
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _ended_unknown(path: Path) -> AsyncIterator[Shop]:
    """Open a shop whose sale R-1 has ended cancelled, because Pockyt knew none."""
    async with hurried(path) as shop:
        await _lose(shop, "sale-5xx-unheard", "query-5xx")
        shop.plan()
        assert (await shop.post(CANCEL, {})).status == 202
        async with asyncio.timeout(20):
            while (await shop.post(CANCEL, {})).status != 200:
                await asyncio.sleep(0.05)
        yield shop


def _begin_late(shop: Shop) -> str:
    """Have Pockyt receive the start of the sale only now; return its number."""
    made = SaleRequest(
        merchant_no=MERCHANT_NO,
        store_no=STORE_NO,
        amount="13.00",
        currency="USD",
        settle_currency="USD",
        reference="R-1",
    )
    return shop.sandbox.book.open(made, now_seconds=time.time()).transaction_no


async def test_a_payment_is_told_after_pockyt_knew_of_no_sale_and_nobody_is_told_two_truths(
    tmp_path: Path,
) -> None:
    async with _ended_unknown(tmp_path / "ledger.db") as shop:
        number = _begin_late(shop)
        shop.sandbox.pay(number)
        await shop.serving.notify(
            {"transactionNo": number, "reference": "R-1", "status": "success"}
        )
        assert (await shop.post(CANCEL, {})).status != 200
        assert (await _settled(shop, number))["state"] == "refused"
        assert _code(await shop.post(CANCEL, {})) == (409, "already-paid")


async def test_a_sale_that_pockyt_started_after_all_is_cancelled_by_its_number(
    tmp_path: Path,
) -> None:
    async with _ended_unknown(tmp_path / "ledger.db") as shop:
        number = _begin_late(shop)
        await shop.serving.notify({"transactionNo": number, "reference": "R-1", "status": "init"})
        assert (await _settled(shop, number))["state"] == "confirmed"
        (sale,) = shop.sandbox.book
        assert shop.sandbox.book.truth(sale) == "cancelled"


async def test_a_payment_of_which_pockyt_knows_nothing_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with _ended_unknown(path) as shop:
        told = {"transactionNo": "297553638301777999", "reference": "R-1", "status": "success"}
        await shop.serving.notify(told)
        assert (await _settled(shop, told["transactionNo"]))["state"] == "unresolved"
        again = await shop.post(CANCEL, {})
        assert (again.status, again.number) == (202, told["transactionNo"])
    assert verify(f"sqlite:///{path}").transactions == 1


async def test_a_wish_that_comes_after_the_notification_is_its_transactions(shop: Shop) -> None:
    await _lose(shop, "sale-5xx-unheard", "query-5xx")
    shop.plan()
    told = {"transactionNo": "297553638301777999", "reference": "R-1", "status": "success"}
    await shop.serving.notify(told)
    again = await shop.post(CANCEL, {})
    assert (again.status, again.number) == (202, told["transactionNo"])
    assert await _entries(shop, Kind.CANCEL_REQUEST) == ["", told["transactionNo"]]


async def test_a_cancelled_sale_is_not_started_by_a_late_repeat(shop: Shop) -> None:
    await _lose(shop, "sale-5xx-unheard", "query-5xx")
    assert (await shop.post(CANCEL, {})).status == 202
    shop.plan()
    told = await shop.post(SALES, order(reference="R-1"))
    assert _code(told) == (409, "sale-cancelled")
    # The customer may have paid: it is not known yet.
    assert "was asked for" in str(told.body["detail"])
    assert len(shop.sandbox.book) == 0


async def test_a_reference_that_was_never_recorded_is_not_found(shop: Shop) -> None:
    assert _code(await shop.post(CANCEL, {})) == (404, "no-sale")
    assert _code(await shop.post(f"{SALES}/R-1/cancel", {})) == (404, "no-transaction")
    await _lose(shop, "sale-5xx", "query-5xx")
    other = shop.serving.key(store_no=OTHER_STORE_NO)
    assert _code(await shop.post(CANCEL, {}, key=other)) == (404, "no-sale")
    assert _code(await shop.post(f"{CANCEL}?force=1", {})) == (400, "unknown-parameter")


async def test_a_reference_of_two_stores_needs_a_key_of_the_store(shop: Shop) -> None:
    whole = shop.serving.key(store_no=None)
    for store_no in (STORE_NO, OTHER_STORE_NO):
        # The sandbox takes a reference once; whether there is a second sale is not its business.
        await shop.post(SALES, order(reference="R-1", storeNo=store_no), key=whole)
        shop.plan("sale-5xx", "query-5xx")
    told = await shop.post(CANCEL, {}, key=whole)
    assert _code(told) == (409, "ambiguous-reference")
    assert told.body["storeNos"] == sorted([STORE_NO, OTHER_STORE_NO])


@pytest.mark.parametrize("reference", ["a/b?c#d%e", "{7}", "/a//b", "a%2Fb;c=d", "\\'\"<|>^`~"])
async def test_a_reference_with_odd_characters_is_found(shop: Shop, reference: str) -> None:
    shop.plan("sale-5xx", "query-5xx")
    await shop.post(SALES, order(reference=reference))
    shop.plan()
    told = await shop.post(f"/v1/sales/{quote(reference, safe='')}/cancel", {})
    assert (told.status, told.body["reference"]) == (200, reference)


async def test_a_reference_with_slashes_is_found_behind_a_proxy_that_decodes_them(
    shop: Shop,
) -> None:
    shop.plan("sale-5xx", "query-5xx")
    reference = "INV/2026/cancel/7"
    await shop.post(SALES, order(reference=reference))
    shop.plan()
    told = await shop.post(f"/v1/sales/{reference}/cancel", {})
    assert (told.status, told.body["reference"]) == (200, reference)


async def test_a_sale_without_a_number_is_listed_in_its_store_while_its_cancel_is_open(
    shop: Shop,
) -> None:
    async def listed(key: str) -> list[object]:
        status, body = await shop.serving.get("/v1/sales", key)
        assert status == 200
        assert isinstance(body, dict)
        return [(one["reference"], one["amount"], one["transactionNo"]) for one in body["data"]]

    await _lose(shop, "sale-5xx", "query-5xx")
    # Pockyt still has the time to answer.
    assert await listed(shop.key) == []
    assert (await shop.post(CANCEL, {})).status == 202
    assert await listed(shop.key) == [("R-1", "13.00", None)]
    assert await listed(shop.serving.key(Role.LEDGER)) == [("R-1", "13.00", None)]
    assert await listed(shop.serving.key(store_no=OTHER_STORE_NO)) == []
    shop.plan()
    async with asyncio.timeout(15):
        while (await shop.post(CANCEL, {})).status != 200:
            await asyncio.sleep(0.1)
    assert await listed(shop.key) == []


async def _named(shop: Shop, key: str, reference: str = "R-1") -> list[dict[str, object]]:
    """Return the sales of a reference, as a key sees them."""
    status, body = await shop.serving.get(f"/v1/sales?reference={reference}", key)
    assert status == 200
    assert isinstance(body, dict)
    found: list[dict[str, object]] = body["data"]
    return found


async def test_a_sale_is_found_by_its_reference_before_it_is_listed(shop: Shop) -> None:
    await _lose(shop, "sale-5xx-unheard", "query-5xx")
    assert await _open_sales(shop, shop.key) == []
    (found,) = await _named(shop, shop.key)
    assert (found["transactionNo"], found["status"]) == (None, "unknown")
    assert (await shop.post(CANCEL, {})).status == 202
    assert await _open_sales(shop, shop.key) == ["R-1"]


async def test_a_sale_that_ended_without_a_number_is_found_by_its_reference_with_its_end(
    tmp_path: Path,
) -> None:
    async with _ended_unknown(tmp_path / "ledger.db") as shop:
        reader = shop.serving.key(Role.LEDGER, merchant_no=None, store_no=None)
        for key in (shop.key, reader, admin(shop)):
            assert await _open_sales(shop, key) == []
            (found,) = await _named(shop, key)
            assert (found["transactionNo"], found["status"]) == (None, "cancelled")
            cancel = found["cancel"]
            assert isinstance(cancel, dict)
            assert (cancel["state"], cancel["evidence"]) == ("confirmed", "query")
            assert cancel["resolvedAt"] > cancel["requestedAt"]
        assert await _named(shop, shop.serving.key(store_no=OTHER_STORE_NO)) == []
        assert await _named(shop, shop.key, "R-2") == []


async def test_what_was_asked_and_answered_about_a_sale_without_a_number_names_the_sale(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    async with _ended_unknown(path) as shop:
        store = Scope(merchant_no=MERCHANT_NO, store_no=STORE_NO)
        every = await shop.serving.ledger.read_entries(after=0, limit=500, scope=Scope())
        asked = [x for x in every if x.entry.fact.kind in (Kind.QUERY, Kind.ANSWER)]
        assert asked
        named = {(x.entry.fact.reference, x.entry.fact.store_no) for x in asked}
        assert named == {("R-1", STORE_NO)}
        # So those of its store are found.
        assert await shop.serving.ledger.read_entries(after=0, limit=500, scope=store) == every
    verify(f"sqlite:///{path}")


async def test_a_sale_is_found_by_its_reference_while_it_is_open_and_once_it_is_started(
    shop: Shop,
) -> None:
    started = await shop.start(reference="R-2")
    (found,) = await _named(shop, shop.key, "R-2")
    assert (found["transactionNo"], found["status"]) == (started.number, "created")
    await _lose(shop, "sale-5xx", "query-5xx")
    (found,) = await _named(shop, shop.key)
    # Pockyt may still answer, so that it is not among the open ones yet.
    assert (found["transactionNo"], found["status"], found["cancel"]) == (None, "unknown", None)
    assert await _open_sales(shop, shop.key) == []


async def test_a_sale_that_pockyt_refused_is_found_by_its_reference_the_newest_first(
    shop: Shop,
) -> None:
    for amount in ("13.00", "14.00"):
        refused = order(reference="R-1", amount=amount, vendor="no_such_wallet")
        assert _code(await shop.post(SALES, refused)) == (422, "pockyt-refused")
    await shop.start(reference="R-1", amount="15.00")
    told = [(one["amount"], one["status"]) for one in await _named(shop, admin(shop))]
    assert told == [("15.00", "created"), ("14.00", "failed"), ("13.00", "failed")]


async def _open_sales(shop: Shop, key: str) -> list[object]:
    status, body = await shop.serving.get("/v1/sales", key)
    assert status == 200
    assert isinstance(body, dict)
    return [one["reference"] for one in body["data"]]
