"""The routes behind the buttons of a till, over HTTP, with the sandbox as Pockyt."""

import asyncio
import hashlib
import json
from pathlib import Path

import orjson
import pytest

from listener.keys import Role
from listener.lifecycle import Limits
from listener.sandbox.book import FAILING_BARCODE, PENDING_BARCODE
from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.web.api.idempotency import REPLAYED
from listener.web.shapes.bodies import SHAPES, plain_body
from tests.support.service import OTHER_STORE_NO, STORE_NO
from tests.support.shop import Shop, Told, admin, beside, open_shop, order
from tests.support.stored import behind

SALES = "/v1/transactions"
LOST = (502, "outcome-unknown")


def _code(told: Told) -> tuple[int, object]:
    return told.status, told.body.get("code")


async def test_a_sale_is_started_at_pockyt_and_bound_to_its_number(shop: Shop) -> None:
    told = await shop.post(SALES, order(reference="R-bound"))
    assert told.status == 201
    sale = shop.sandbox.book.get(told.number)
    assert sale is not None
    assert sale.order.reference == "R-bound"
    expected = {
        "reference": "R-bound",
        "amount": "13.00",
        "currency": "USD",
        "storeNo": STORE_NO,
        "terminal": "T-42",
        "status": "created",
        "qrcodeUrl": None,
        "deepLink": None,
    }
    assert expected.items() <= told.body.items()
    assert await shop.kinds(told.number) == ["sale", "answer"]


async def test_a_sale_with_a_vendor_has_a_code_and_names_our_notify_url(shop: Shop) -> None:
    told = await shop.start(vendor="alipay")
    assert str(told.body["qrcodeUrl"]).endswith(told.number)
    assert str(told.body["deepLink"]).endswith(told.number)
    assert told.body["status"] == "created"
    sale = shop.sandbox.book.get(told.number)
    assert sale is not None
    assert sale.order.ipn_url == f"{shop.serving.url}/notify/200043/{STORE_NO}"


async def test_a_vendor_needs_a_public_url(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "ledger.db", public_url=None) as shop:
        told = await shop.post(SALES, order(vendor="alipay"))
        assert _code(told) == (422, "no-public-url")
        assert (await shop.post(SALES, order())).status == 201


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"amount": 13}, (422, "bad-member")),
        ({"amount": "13.001"}, (422, "bad-member")),
        ({"amount": "0.00"}, (422, "bad-member")),
        ({"amount": "-1"}, (422, "bad-member")),
        ({"currency": "usd"}, (422, "bad-member")),
        ({"reference": "a&b"}, (422, "bad-member")),
        ({"reference": ""}, (422, "bad-member")),
        ({"reference": "x" * 65}, (422, "bad-member")),
        ({"refrence": "misspelt"}, (422, "bad-member")),
        ({"storeNo": "999"}, (403, "wrong-store")),
        ({"terminal": "T-43"}, (403, "wrong-terminal")),
        ({"terminal": "T/42"}, (422, "bad-member")),
        ({"terminal": "x" * 65}, (422, "bad-member")),
        ({"vendor": "no_such_wallet"}, (422, "pockyt-refused")),
    ],
)
async def test_a_sale_that_cannot_be_made_is_refused_in_words(
    shop: Shop, changes: dict[str, object], expected: tuple[int, str]
) -> None:
    told = await shop.post(SALES, order(**changes))
    assert _code(told) == expected
    assert told.headers["Content-Type"] == "application/problem+json"
    assert len(shop.sandbox.book) == 0


@pytest.mark.parametrize("terminal", ["Kasse 1", "Füßen", "收银台", "x" * 64])
async def test_a_till_names_itself_as_its_key_does(shop: Shop, terminal: str) -> None:
    key = shop.serving.key(terminal=terminal)
    told = await shop.post(SALES, order(terminal=terminal), key=key)
    assert told.status == 201
    assert told.body["terminal"] == terminal


async def test_without_a_terminal_the_keys_own_is_used(shop: Shop) -> None:
    assert (await shop.start(terminal=None)).body["terminal"] == "T-42"
    told = await shop.post(SALES, order(terminal=None), key=shop.serving.key())
    assert _code(told) == (422, "bad-member")


async def test_a_wrong_member_is_named_and_its_value_is_not_repeated(shop: Shop) -> None:
    told = await shop.post(SALES, order(amount="13.001", currency=7))
    assert told.body["errors"] == [
        {"member": "amount", "detail": SHAPES["amount"]},
        {"member": "currency", "detail": "must be text"},
    ]
    assert "13.001" not in str(told.body)


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        ({"reference": "a b"}, "reference must be 1 to 64 visible ASCII characters"),
        ({"reference": "a&b"}, "reference must be 1 to 64 visible ASCII characters"),
        ({"amount": "1,00"}, "amount must be a number as text"),
        ({"currency": "usd"}, "currency must be three capital letters"),
        ({"settleCurrency": "$"}, "settleCurrency must be three capital letters"),
        ({"storeNo": "a/b"}, "storeNo must be 1 to 64 of the characters"),
        ({"terminal": "T/42"}, "terminal must be 1 to 64 printable characters"),
        ({"vendor": "Ali Pay"}, "vendor must be 1 to 32 of the characters"),
    ],
)
async def test_a_text_of_a_wrong_shape_is_refused_with_a_sentence_and_no_pattern(
    shop: Shop, changes: dict[str, object], starts: str
) -> None:
    told = await shop.post(SALES, order(**changes))
    assert _code(told) == (422, "bad-member")
    detail = str(told.body["detail"])
    assert detail.startswith(starts)
    assert "pattern" not in detail


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"amount":"13.00",}', "trailing comma at line 1 column 19"),
        (b"{'amount':'13.00'}", "key must be a string at line 1 column 2"),
        (b'{\n"amount":13,00}', "at line 2 column 13"),
        (b"amount=13.00", "expected value at line 1 column 1"),
        ('{"amount":"hidden"'.encode("utf-16"), "in UTF-8: expected value"),
    ],
)
async def test_what_is_wrong_with_the_json_of_a_body_is_told(
    shop: Shop, raw: bytes, why: str
) -> None:
    told = await shop.post(SALES, raw=raw)
    assert (told.status, told.body["code"]) == (400, "bad-body")
    assert why in str(told.body["detail"])
    assert "hidden" not in str(told.body["detail"])


@pytest.mark.parametrize("raw", [b"{", b"\xff", b"[]", b'"text"', b"nul"])
async def test_a_body_that_is_not_a_json_object_is_refused(shop: Shop, raw: bytes) -> None:
    told = await shop.post(SALES, raw=raw)
    assert told.status in (400, 422)
    assert told.body["code"] in ("bad-body", "bad-member")


async def test_a_body_past_the_limit_is_refused(shop: Shop) -> None:
    told = await shop.post(SALES, raw=b" " * 70_000)
    assert _code(told) == (413, "too-large")


async def test_a_store_that_is_not_configured_is_refused(shop: Shop) -> None:
    key = shop.serving.key(store_no=None)
    told = await shop.post(SALES, order(storeNo="999"), key=key)
    assert _code(told) == (422, "unknown-store")
    assert (await shop.post(SALES, order(storeNo=OTHER_STORE_NO), key=key)).status == 201


async def test_a_key_of_a_merchant_that_is_gone_cannot_sell(shop: Shop) -> None:
    key = shop.serving.key(merchant_no="999999", store_no=None)
    assert _code(await shop.post(SALES, order(), key=key)) == (422, "unknown-merchant")


async def test_only_a_till_sells_and_only_an_admin_decides(shop: Shop) -> None:
    started = await shop.start()
    path = f"{SALES}/{started.number}"
    boss = admin(shop)
    for action in ("", "/pay", "/cancel"):
        told = await shop.post(path + action if action else SALES, {}, key=boss)
        assert _code(told) == (403, "wrong-role"), action
    for action in ("/ask", "/decide"):
        assert _code(await shop.post(path + action, {})) == (403, "wrong-role")


async def test_a_till_of_another_store_finds_nothing(shop: Shop) -> None:
    started = await shop.start()
    other = shop.serving.key(store_no=OTHER_STORE_NO)
    for action, body in (("pay", {"paymentBarcode": "1"}), ("cancel", {})):
        told = await shop.post(f"{SALES}/{started.number}/{action}", body, key=other)
        assert _code(told) == (404, "no-transaction")
    assert await shop.kinds(started.number) == ["sale", "answer"]


async def test_a_reference_is_used_once(shop: Shop) -> None:
    first = await shop.start(reference="R-once")
    told = await shop.post(SALES, order(reference="R-once"))
    assert _code(told) == (409, "reference-taken")
    assert told.body["transactionNo"] == first.number


async def test_the_same_idempotency_key_starts_one_sale_also_after_a_restart(
    tmp_path: Path,
) -> None:
    path, body = tmp_path / "ledger.db", order()
    async with Sandbox.start(SandboxSettings()) as pockyt:
        async with beside(pockyt, path) as served:
            key = served.key(terminal="T-42")
            shop = Shop(sandbox=pockyt, serving=served, key=key)
            first = await shop.post(SALES, body, idempotency_key="press-1")
            again = await shop.post(SALES, body, idempotency_key="press-1")
        async with beside(pockyt, path) as served:
            shop = Shop(sandbox=pockyt, serving=served, key=key)
            later = await shop.post(SALES, body, idempotency_key="press-1")
            other = await shop.post(SALES, order(), idempotency_key="press-1")
    assert first.status == 201
    assert again.status == later.status == 201
    assert first.body == again.body == later.body
    assert "Idempotent-Replayed" not in first.headers
    assert later.headers["Idempotent-Replayed"] == "true"
    assert _code(other) == (422, "idempotency-key-reused")
    assert len(pockyt.book) == 1


async def test_the_same_idempotency_key_is_for_the_same_request_however_it_is_written(
    shop: Shop,
) -> None:
    body = order()
    first = await shop.post(SALES, body, idempotency_key="press-1")
    shuffled = {"vendor": None, **dict(reversed(body.items()))}
    for raw in (
        json.dumps(shuffled, indent=2).encode(),
        b"\xef\xbb\xbf" + json.dumps(body).encode() + b"\r\n",
        json.dumps(body).replace("USD", "\\u0055SD").encode(),
    ):
        again = await shop.post(SALES, raw=raw, idempotency_key="press-1")
        assert (again.status, again.body) == (201, first.body)
        assert again.headers["Idempotent-Replayed"] == "true"
    number = first.number
    other = await shop.post(f"{SALES}/{number}/cancel", {}, idempotency_key="press-1")
    assert _code(other) == (422, "idempotency-key-reused")


async def test_an_idempotency_key_belongs_to_the_key_that_used_it(shop: Shop) -> None:
    other = shop.serving.key()
    one = await shop.post(SALES, order(), idempotency_key="press-1")
    two = await shop.post(SALES, order(), idempotency_key="press-1", key=other)
    assert one.status == two.status == 201
    assert one.number != two.number


@pytest.mark.parametrize("name", ["", "x" * 256, "a b"])
async def test_an_unusable_idempotency_key_is_refused(shop: Shop, name: str) -> None:
    told = await shop.post(SALES, order(), idempotency_key=name)
    assert _code(told) == (400, "bad-idempotency-key")


async def test_an_idempotency_key_is_given_once(shop: Shop) -> None:
    headers = [
        ("Authorization", f"Bearer {shop.key}"),
        *[("Idempotency-Key", name) for name in ("a", "b")],
    ]
    url = f"{shop.serving.url}{SALES}"
    async with shop.serving.client.post(url, json=order(), headers=headers) as told:
        assert told.status == 400
        assert (await told.json(content_type=None))["code"] == "bad-idempotency-key"


async def test_a_refusal_is_remembered_as_well(shop: Shop) -> None:
    body = order(vendor="no_such_wallet")
    first = await shop.post(SALES, body, idempotency_key="press-1")
    again = await shop.post(SALES, body, idempotency_key="press-1")
    assert _code(first) == (422, "pockyt-refused")
    assert first.body["retCode"] == "000023"
    assert again.body == first.body
    assert again.headers["Content-Type"] == "application/problem+json"


async def test_a_request_that_is_under_way_is_not_done_twice(shop: Shop) -> None:
    shop.plan("sale-timeout@1")
    body = order()
    first = asyncio.create_task(shop.post(SALES, body, idempotency_key="press-1"))
    while len(shop.sandbox.book) == 0:
        await asyncio.sleep(0.01)
    second = await shop.post(SALES, body, idempotency_key="press-1")
    assert _code(second) == (409, "under-way")
    assert second.headers["Retry-After"] == "1"
    assert second.body["retry"] is True
    # The answer was lost; the sale is found by its reference.
    assert (await first).status == 201
    assert len(shop.sandbox.book) == 1


async def test_a_sale_whose_outcome_is_unknown_is_taken_up_by_the_same_request(shop: Shop) -> None:
    shop.plan("sale-5xx", "query-5xx")
    body = order()
    lost = await shop.post(SALES, body, idempotency_key="press-1")
    assert _code(lost) == LOST
    assert len(shop.sandbox.book) == 1
    assert _code(await shop.post(SALES, body, idempotency_key="press-1")) == LOST
    shop.plan()
    found = await shop.post(SALES, body, idempotency_key="press-1")
    assert found.status == 201
    assert found.body["status"] == "created"
    assert len(shop.sandbox.book) == 1


async def test_a_sale_whose_outcome_is_unknown_is_not_taken_for_another(shop: Shop) -> None:
    shop.plan("sale-5xx", "query-5xx")
    assert _code(await shop.post(SALES, order(reference="R-lost"))) == LOST
    shop.plan()
    told = await shop.post(SALES, order(reference="R-lost", amount="14.00"))
    assert _code(told) == (409, "reference-taken")
    assert len(shop.sandbox.book) == 1


async def test_a_sale_that_pockyt_never_heard_of_is_started_by_the_same_request(shop: Shop) -> None:
    shop.plan("sale-5xx-unheard")
    body = order()
    # Pockyt knows nothing of it, but may yet hear of it: nobody can tell.
    assert _code(await shop.post(SALES, body)) == LOST
    shop.plan()
    assert (await shop.post(SALES, body)).status == 201
    assert len(shop.sandbox.book) == 1


async def test_an_answered_start_that_was_not_remembered_is_answered_again_with_its_code(
    shop: Shop,
) -> None:
    body = order(vendor="alipay")
    first = await shop.post(SALES, body)
    # The claim of a listener that was killed before it could keep its answer.
    key, secret = shop.serving.keyed(terminal="T-42")
    text = f"POST {SALES}\n".encode() + plain_body(orjson.dumps(body))
    digest = hashlib.sha256(text).hexdigest()
    await shop.serving.ledger.remember(key_id=key.id, idempotency_key="left", request=digest)
    again = await shop.post(SALES, body, key=secret, idempotency_key="left")
    assert again.status == 201
    assert again.body == first.body


async def test_an_unreachable_pockyt_is_reported_and_the_sale_can_be_tried_again(
    tmp_path: Path,
) -> None:
    dead = {"url": "http://127.0.0.1:9", "timeout_seconds": 1.0}
    path, body = tmp_path / "ledger.db", order()
    async with Sandbox.start(SandboxSettings()) as pockyt:
        async with beside(pockyt, path, pockyt=dead) as served:
            key = served.key(terminal="T-42")
            told = await Shop(sandbox=pockyt, serving=served, key=key).post(SALES, body)
            assert _code(told) == (502, "pockyt-unavailable")
        async with beside(pockyt, path) as served:
            again = await Shop(sandbox=pockyt, serving=served, key=key).post(SALES, body)
            assert again.status == 201


async def test_a_customers_code_pays(shop: Shop) -> None:
    started = await shop.start()
    path = f"{SALES}/{started.number}/pay"
    told = await shop.post(path, {"paymentBarcode": "284957205723"})
    assert told.status == 200
    assert told.body["status"] == "paid"
    again = await shop.post(path, {"paymentBarcode": "284957205723"})
    assert _code(again) == (409, "already-paid")
    assert again.body["transactionStatus"] == "paid"
    # The customer's code is nobody's business.
    assert "284957205723" not in str(await shop.detail(started.number))


@pytest.mark.parametrize("code", ["284957205723\r\n", " 284957205723\r", "\t284957205723 "])
async def test_what_a_scanner_adds_to_a_code_is_no_part_of_it(shop: Shop, code: str) -> None:
    started = await shop.start()
    told = await shop.post(f"{SALES}/{started.number}/pay", {"paymentBarcode": code, "vendor": ""})
    assert (told.status, told.body["status"]) == (200, "paid")


@pytest.mark.parametrize("code", ["", "\r\n", "2849 57205723", "2849\r\n57205723", "2&3"])
async def test_what_is_no_code_is_refused(shop: Shop, code: str) -> None:
    started = await shop.start()
    told = await shop.post(f"{SALES}/{started.number}/pay", {"paymentBarcode": code})
    assert _code(told) == (422, "bad-member")
    assert told.body["detail"] == f"paymentBarcode {SHAPES['paymentBarcode']}"


async def test_an_empty_vendor_is_none(shop: Shop) -> None:
    told = await shop.post(SALES, order(vendor=""))
    assert (told.status, told.body["qrcodeUrl"]) == (201, None)
    assert _code(await shop.post(SALES, order(vendor=" "))) == (422, "bad-member")


async def test_a_code_that_the_wallet_leaves_open_or_refuses_is_reported(shop: Shop) -> None:
    started = await shop.start()
    path = f"{SALES}/{started.number}/pay"
    told = await shop.post(path, {"paymentBarcode": PENDING_BARCODE, "vendor": "alipay"})
    assert told.status == 202
    assert told.body["status"] == "pending"
    # The customer may still pay by the first code, so another one is not sent.
    told = await shop.post(path, {"paymentBarcode": FAILING_BARCODE})
    assert (told.status, told.body["status"]) == (202, "pending")
    started = await shop.start(reference="R-2")
    path = f"{SALES}/{started.number}/pay"
    told = await shop.post(path, {"paymentBarcode": FAILING_BARCODE})
    assert told.status == 200
    assert told.body["status"] == "failed"
    assert _code(await shop.post(path, {"paymentBarcode": "1"})) == (409, "not-open")


async def test_a_cancel_of_a_failed_sale_is_settled_and_the_sale_stays_failed(shop: Shop) -> None:
    started = await shop.start()
    one = f"{SALES}/{started.number}"
    assert (await shop.post(f"{one}/pay", {"paymentBarcode": FAILING_BARCODE})).status == 200
    told = await shop.post(f"{one}/cancel", {})
    cancel = told.body["cancel"]
    assert isinstance(cancel, dict)
    assert (told.status, told.body["status"], cancel["state"]) == (200, "failed", "confirmed")


async def test_a_repeat_of_a_payment_whose_answer_was_not_remembered_is_answered_alike(
    shop: Shop,
) -> None:
    started = await shop.start()
    path, code = f"{SALES}/{started.number}/pay", {"paymentBarcode": "284957205723"}
    first = await shop.post(path, code, idempotency_key="k")
    # As after a kill just before the answer was remembered.
    with behind(shop.serving.path) as db:
        db.execute("UPDATE answers SET status = NULL, body = NULL")
    again = await shop.post(path, code, idempotency_key="k")
    assert (first.status, again.status, again.body["status"]) == (200, 200, "paid")
    assert REPLAYED not in again.headers


async def test_a_payment_whose_answer_is_lost_is_found_by_asking(shop: Shop) -> None:
    started = await shop.start()
    shop.plan("pay-5xx")
    told = await shop.post(f"{SALES}/{started.number}/pay", {"paymentBarcode": "284957205723"})
    assert told.status == 200
    assert told.body["status"] == "paid"


async def test_a_payment_that_pockyt_did_not_hear_of_is_open(shop: Shop) -> None:
    started = await shop.start()
    shop.plan("pay-5xx-unheard")
    told = await shop.post(f"{SALES}/{started.number}/pay", {"paymentBarcode": "284957205723"})
    assert told.status == 202
    assert told.body["status"] == "created"


async def test_a_payment_that_pockyt_refuses_is_reported_in_its_words(shop: Shop) -> None:
    started = await shop.start()
    # Closed at Pockyt behind our back, and nobody was told.
    shop.plan("notification-lost")
    sale = shop.sandbox.book.get(started.number)
    assert sale is not None
    shop.sandbox.book.cancel(sale)
    told = await shop.post(f"{SALES}/{started.number}/pay", {"paymentBarcode": "284957205723"})
    assert _code(told) == (422, "pockyt-refused")
    assert told.body["retCode"] == "000040"
    assert (await shop.detail(started.number))["status"] == "cancelled"


async def test_a_sale_that_is_being_cancelled_cannot_be_paid_here(shop: Shop) -> None:
    started = await shop.start()
    shop.plan("query-5xx")
    cancelled = await shop.post(f"{SALES}/{started.number}/cancel")
    assert cancelled.status == 202
    told = await shop.post(f"{SALES}/{started.number}/pay", {"paymentBarcode": "1"})
    assert _code(told) == (409, "being-cancelled")


async def test_a_cancel_is_settled_while_the_cashier_waits(shop: Shop) -> None:
    started = await shop.start()
    told = await shop.post(f"{SALES}/{started.number}/cancel", {})
    assert told.status == 200
    assert told.body["status"] == "cancelled"
    cancel = told.body["cancel"]
    assert isinstance(cancel, dict)
    assert cancel["state"] == "confirmed"
    kinds = await shop.kinds(started.number)
    # Asked before and after; the notification may come in between.
    assert kinds[:5] == ["sale", "answer", "cancel_request", "query", "answer"]
    assert kinds.count("query") == 2


async def test_a_cancel_of_what_is_paid_is_refused_and_nothing_is_refunded(shop: Shop) -> None:
    started = await shop.start(vendor="alipay")
    shop.sandbox.pay(started.number)
    told = await shop.post(f"{SALES}/{started.number}/cancel", {})
    assert _code(told) == (409, "already-paid")
    transaction = told.body["transaction"]
    assert isinstance(transaction, dict)
    assert transaction["status"] == "paid"
    assert transaction["cancel"]["state"] == "refused"
    sale = shop.sandbox.book.get(started.number)
    assert sale is not None
    assert shop.sandbox.book.truth(sale) == "paid"


async def test_money_goes_back_only_for_a_key_that_may_refund(shop: Shop) -> None:
    started = await shop.start(vendor="alipay")
    shop.sandbox.pay(started.number)
    path, body = f"{SALES}/{started.number}/cancel", {"refundIfPaid": True}
    assert _code(await shop.post(path, body)) == (403, "may-not-refund")
    told = await shop.post(path, body, key=shop.serving.key(may_refund=True))
    assert told.status == 200
    assert told.body["status"] == "refunded"
    cancel = told.body["cancel"]
    assert isinstance(cancel, dict)
    assert cancel["state"] == "refunded"


async def test_a_sale_believed_paid_is_not_cancelled_although_pockyt_says_open(
    shop: Shop,
) -> None:
    started = await shop.start(reference="R-1")
    paid = {"transactionNo": started.number, "reference": "R-1", "status": "success"}
    assert await shop.serving.notify(paid) == (200, "success")
    told = await shop.post(f"{SALES}/{started.number}/cancel", {})
    assert (told.status, told.body["status"]) == (202, "paid")
    assert await _calls(shop, started.number) == ["add", "tran-query"]


async def test_a_refunded_sale_is_not_refunded_again_although_pockyt_says_paid(
    shop: Shop,
) -> None:
    started = await shop.start(vendor="alipay", reference="R-1")
    shop.plan("notification-lost")
    shop.sandbox.pay(started.number)
    refunded = {"transactionNo": started.number, "reference": "R-1", "status": "refunded"}
    assert await shop.serving.notify(refunded) == (200, "success")
    refunding = shop.serving.key(may_refund=True)
    path = f"{SALES}/{started.number}"
    told = await shop.post(f"{path}/cancel", {"refundIfPaid": True}, key=refunding)
    # What is refunded by a signature alone is asked about, and here Pockyt contradicts it.
    assert (told.status, told.body["status"]) == (202, "conflict")
    # Whether the money went back is for a person: the cashier's wish is done at most once.
    told = await shop.post(f"{path}/ask", key=admin(shop))
    assert (told.status, told.body["status"]) == (200, "conflict")
    assert "cancel" not in await _calls(shop, started.number)


async def _calls(shop: Shop, number: str) -> list[str]:
    """Return the calls to Pockyt about a transaction, in order."""
    entries = (await shop.detail(number))["entries"]
    assert isinstance(entries, list)
    return [entry["fields"]["call"] for entry in entries if "call" in entry["fields"]]


async def test_a_cancel_that_pockyt_does_not_answer_is_chased_until_it_is(shop: Shop) -> None:
    started = await shop.start()
    shop.plan("query-5xx")
    told = await shop.post(f"{SALES}/{started.number}/cancel", idempotency_key="press-1")
    assert told.status == 202
    assert told.body["status"] == "created"
    shop.plan()
    async with asyncio.timeout(10):
        while (await shop.detail(started.number))["status"] != "cancelled":
            await asyncio.sleep(0.05)
    again = await shop.post(f"{SALES}/{started.number}/cancel", idempotency_key="press-1")
    assert again.status == 202
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await shop.post(f"{SALES}/{started.number}/cancel")).status == 200


async def test_a_cancel_that_is_repeated_on_a_paid_sale_makes_one_entry(shop: Shop) -> None:
    started = await shop.start(vendor="alipay")
    shop.sandbox.pay(started.number)
    path = f"{SALES}/{started.number}/cancel"
    assert _code(await shop.post(path, {})) == (409, "already-paid")
    await shop.sandbox.idle()
    before = await shop.detail(started.number)
    for _ in range(5):
        assert _code(await shop.post(path, {})) == (409, "already-paid")
    assert await shop.detail(started.number) == before


async def test_a_cancel_that_is_repeated_when_it_is_settled_makes_no_entry(shop: Shop) -> None:
    started = await shop.start()
    path = f"{SALES}/{started.number}/cancel"
    assert (await shop.post(path, {})).status == 200
    await shop.sandbox.idle()
    before = await shop.kinds(started.number)
    key = shop.serving.key(may_refund=True)
    for body in ({}, {"refundIfPaid": True}):
        told = await shop.post(path, body, key=key)
        assert (told.status, told.body["status"]) == (200, "cancelled")
    assert await shop.kinds(started.number) == before


async def test_a_cancel_that_is_repeated_while_it_is_chased_is_the_same_wish(shop: Shop) -> None:
    started = await shop.start()
    shop.plan("query-5xx")
    path = f"{SALES}/{started.number}/cancel"
    told = await asyncio.gather(*(shop.post(path, {}) for _ in range(5)))
    assert {one.status for one in told} == {202}
    assert (await shop.post(path, {})).status == 202
    kinds = await shop.kinds(started.number)
    assert kinds.count("cancel_request") == 1


async def test_a_key_that_asks_too_much_is_told_to_come_again(tmp_path: Path) -> None:
    limits = Limits(wishes_burst=2, wishes_per_second=0.001)
    async with open_shop(tmp_path / "ledger.db", limits=limits) as shop:
        started = await shop.start()
        path = f"{SALES}/{started.number}/cancel"
        assert (await shop.post(path, {})).status == 200
        told = await shop.post(path, {}, idempotency_key="press-1")
        assert _code(told) == (429, "too-many-wishes")
        assert told.headers["Retry-After"] == "1"
        # Another key of the store is not kept waiting, and the answer is not remembered.
        other = shop.serving.key()
        assert (await shop.post(path, {}, key=other, idempotency_key="press-1")).status == 200


async def test_a_refund_that_is_wanted_after_a_plain_cancel_is_another_wish(shop: Shop) -> None:
    started = await shop.start(vendor="alipay")
    shop.sandbox.pay(started.number)
    path = f"{SALES}/{started.number}/cancel"
    assert _code(await shop.post(path, {})) == (409, "already-paid")
    key = shop.serving.key(may_refund=True)
    for _ in range(2):
        told = await shop.post(path, {"refundIfPaid": True}, key=key)
        assert (told.status, told.body["status"]) == (200, "refunded")
    assert (await _calls(shop, started.number)).count("cancel") == 1


async def test_an_admin_asks_pockyt_now(shop: Shop) -> None:
    started = await shop.start(vendor="alipay")
    shop.plan("notification-lost")
    shop.sandbox.pay(started.number)
    told = await shop.post(f"{SALES}/{started.number}/ask", key=admin(shop))
    assert told.status == 200
    assert told.body["status"] == "paid"
    shop.plan("query-html")
    told = await shop.post(f"{SALES}/{started.number}/ask", key=admin(shop))
    assert _code(told) == (502, "pockyt-unavailable")


async def test_an_admin_asks_about_what_pockyt_does_not_know(shop: Shop) -> None:
    await shop.serving.notify()
    number = "297553638301777927"
    told = await shop.post(f"{SALES}/{number}/ask", key=admin(shop))
    assert _code(told) == (422, "pockyt-refused")
    assert told.body["retCode"] == "000021"


async def test_an_operator_decides_with_a_name_and_a_reason(shop: Shop) -> None:
    started = await shop.start()
    path, boss = f"{SALES}/{started.number}/decide", admin(shop)
    body = {"status": "paid", "name": "Kim Lee", "reason": "The bank shows it."}
    told = await shop.post(path, body, key=boss)
    assert told.status == 200
    assert told.body["status"] == "paid"
    entries = (await shop.detail(started.number))["entries"]
    assert isinstance(entries, list)
    assert entries[-1]["kind"] == "decision"
    # The name is what he says of himself; the key is which one he had.
    its_key = boss.split("_")[1]
    assert entries[-1]["fields"] == {**body, "key": its_key}
    for wrong in ({"status": "pending"}, {"name": " "}, {"reason": ""}):
        refused = await shop.post(path, body | wrong, key=boss)
        assert _code(refused) == (422, "bad-member")
        assert "pattern" not in str(refused.body)
        # A status is worded as the API has it, not as Python has.
        assert "Status." not in str(refused.body)


async def test_of_two_operators_who_decide_at_once_the_second_is_told(shop: Shop) -> None:
    started = await shop.start()
    path, boss = f"{SALES}/{started.number}/decide", admin(shop)
    seen = {"name": "Kim Lee", "reason": "Seen.", "stateVersion": started.body["stateVersion"]}
    words = ("paid", "cancelled")
    both = await asyncio.gather(
        *(shop.post(path, seen | {"status": word}, key=boss) for word in words)
    )
    assert sorted(told.status for told in both) == [200, 409]
    first, second = sorted(both, key=lambda told: told.status)
    assert _code(second) == (409, "changed-meanwhile")
    assert second.body["transactionStatus"] == first.body["status"]
    entries = (await shop.detail(started.number))["entries"]
    assert isinstance(entries, list)
    (decided,) = (entry for entry in entries if entry["kind"] == "decision")
    # A notification that comes while he decides is not overruled, but joined.
    assert decided["asOf"] == decided["seq"] - 1
    # Having read the story, he may overrule it.
    version = first.body["stateVersion"]
    assert isinstance(version, int)
    again = seen | {"status": "failed", "stateVersion": float(version)}
    assert (await shop.post(path, again, key=boss)).body["status"] == "failed"


async def test_a_number_that_two_merchants_share_needs_the_merchant(tmp_path: Path) -> None:
    table = {
        "200043": {"tokens": ["5cbfb079f15b150122261c8537086d77a"], "stores": [STORE_NO]},
        "200044": {"tokens": ["5cbfb079f15b150122261c8537086d77a"]},
    }
    async with open_shop(tmp_path / "ledger.db", merchants=table) as shop:
        await shop.serving.notify()
        await shop.serving.notify({"note": "another"}, path="/notify/200044")
        boss, path = admin(shop), f"{SALES}/297553638301777927/decide"
        body = {"status": "paid", "name": "Kim Lee", "reason": "Seen."}
        told = await shop.post(path, body, key=boss)
        assert _code(told) == (409, "ambiguous-number")
        assert told.body["merchantNos"] == ["200043", "200044"]
        told = await shop.post(f"{path}?merchantNo=200044", body, key=boss)
        assert told.status == 200
        assert told.body["merchantNo"] == "200044"


async def test_unknown_query_parameters_are_refused(shop: Shop) -> None:
    assert _code(await shop.post(f"{SALES}?dry=1", order())) == (400, "unknown-parameter")
    key = shop.serving.key(Role.POS)
    told = await shop.post(f"{SALES}/1/cancel?force=1", {}, key=key)
    assert _code(told) == (400, "unknown-parameter")
