"""The stand-in's book and desk: what Pockyt's documentation says, as a state machine."""

import dataclasses
import json
from decimal import Decimal
from pathlib import Path

import pytest

from listener.pockyt import signature
from listener.pockyt.client import (
    Answer,
    Call,
    Credentials,
    PockytCalls,
    PockytRefusedError,
)
from listener.pockyt.signature import Token
from listener.sandbox import desk as desks
from listener.sandbox.book import (
    FAILING_BARCODE,
    NUMBER_DIGITS,
    PENDING_BARCODE,
    REFUNDS_MAX,
    TIMEOUT_MINUTES_MAX,
    Book,
    RefundShows,
    RefusalError,
    Sale,
    SaleRequest,
    read_amount,
)
from listener.sandbox.desk import Desk, DeskAnswer, Follow
from listener.sandbox.fields import is_url

NOW = 1_792_000_000.0
TOKEN = Token("5cbfb079f15b150122261c8537086d77a")
CREDENTIALS = Credentials(merchant_no="200043", store_no="303660", token=TOKEN)
ORDER = SaleRequest(
    merchant_no="200043",
    store_no="303660",
    reference="r-1",
    amount="13",
    currency="USD",
    settle_currency="USD",
)


def refunded(answer: Answer) -> list[str]:
    """Return the amounts of the refunds that an answer lists."""
    return [part["refundAmount"] for part in json.loads(answer.fields.get("refundInfo", "[]"))]


class Shop(PockytCalls):
    """The client plugged into a desk: the whole of Pockyt without a socket."""

    def __init__(self, *, refund_shows: RefundShows = "success", sales_max: int = 100) -> None:
        self.book = Book(seed=7, refund_shows=refund_shows, sales_max=sales_max)
        self.desk = Desk(
            self.book, merchants={"200043": TOKEN, "200044": TOKEN}, checkout_url="http://p/"
        )
        self.now_seconds = NOW
        self.outcome: DeskAnswer | None = None

    @property
    def follows(self) -> list[tuple[Follow, str]]:
        assert self.outcome is not None
        return [(follow, self.book.shown(sale)) for follow, sale in self.outcome.follows]

    async def exchange(self, call: Call, body: bytes, *, request_id: str) -> bytes:
        self.outcome = self.desk.answer(
            call, json.loads(body), now_seconds=self.now_seconds, request_id=request_id
        )
        return self.outcome.body

    async def opened(self, reference: str = "r-1", *, amount: str = "13") -> Answer:
        return await self.add(
            CREDENTIALS,
            amount=amount,
            currency="USD",
            settle_currency="USD",
            reference=reference,
        )

    def sale(self, answer: Answer) -> Sale:
        sale = self.book.get(answer.transaction_no or "")
        assert sale is not None
        return sale


async def test_add_opens_a_sale_as_documented() -> None:
    shop = Shop()
    answer = await shop.opened()
    assert (answer.word, answer.amount, answer.reference) == ("init", "13.00", "r-1")
    assert len(answer.transaction_no or "") == NUMBER_DIGITS
    assert answer.fields["createTime"] == "2026-10-15 01:46:40"
    assert "paymentTime" not in answer.fields
    assert shop.book.truth(shop.sale(answer)) == "created"
    assert shop.follows == []


async def test_the_same_seed_gives_the_same_numbers() -> None:
    assert (await Shop().opened()).transaction_no == (await Shop().opened()).transaction_no


async def test_a_qrcode_sale_is_pending_and_can_be_shown() -> None:
    shop = Shop()
    for need_qrcode in (True, False):
        answer = await shop.create_trans_qrcode(
            CREDENTIALS,
            amount="1.5",
            currency="PHP",
            settle_currency="USD",
            reference=f"r-{need_qrcode}",
            vendor="alipay",
            ipn_url="http://127.0.0.1/notify/200043",
            need_qrcode=need_qrcode,
        )
        assert answer.word is None
        assert answer.deep_link == f"http://p/{answer.transaction_no}"
        assert answer.qrcode_url == (answer.deep_link if need_qrcode else None)
        assert answer.fields["timeout"] == "120"
        assert shop.book.truth(shop.sale(answer)) == "pending"


@pytest.mark.parametrize(
    ("barcode", "word", "truth", "follows"),
    [
        ("286498530672949108", "success", "paid", [(Follow.NOTIFY, "success")]),
        (PENDING_BARCODE, "pending", "pending", []),
        (FAILING_BARCODE, "failed", "failed", [(Follow.NOTIFY, "failed")]),
    ],
)
async def test_prepay_pays_waits_or_fails_by_the_code(
    barcode: str, word: str, truth: str, follows: list[tuple[Follow, str]]
) -> None:
    shop = Shop()
    opened = await shop.opened()
    answer = await shop.prepay(
        CREDENTIALS, transaction_no=opened.transaction_no, payment_barcode=barcode
    )
    assert answer.word == word
    assert ("paymentTime" in answer.fields) is (word == "success")
    assert shop.book.truth(shop.sale(opened)) == truth
    assert shop.follows == follows


async def test_cancelling_an_unpaid_sale_closes_it_and_the_wallet_is_to_be_told() -> None:
    shop = Shop()
    opened = await shop.opened(amount="0.01")
    answer = await shop.cancel(CREDENTIALS, reference="r-1")
    assert shop.follows == [(Follow.ABANDON, "closed")]
    assert (answer.word, answer.amount) == ("closed", "0.01")
    assert shop.outcome is not None
    assert b'"amount": 0.01,' in shop.outcome.body
    assert b'"ret_msg": "cancel success "' in shop.outcome.body
    assert shop.book.truth(shop.sale(opened)) == "cancelled"
    again = await shop.cancel(CREDENTIALS, reference="r-1")
    assert again.word == "closed"
    assert shop.follows == []
    with pytest.raises(PockytRefusedError, match="000040"):
        await shop.prepay(CREDENTIALS, reference="r-1", payment_barcode="28")


@pytest.mark.parametrize(
    ("refund_shows", "word", "refunds", "follows"),
    [
        ("success", "success", ["13.00"], []),
        ("closed", "closed", [], [(Follow.NOTIFY, "closed")]),
    ],
)
async def test_cancelling_a_paid_sale_refunds_it_and_a_switch_says_what_is_shown(
    refund_shows: RefundShows,
    word: str,
    refunds: list[str],
    follows: list[tuple[Follow, str]],
) -> None:
    shop = Shop(refund_shows=refund_shows)
    opened = await shop.opened()
    await shop.prepay(CREDENTIALS, reference="r-1", payment_barcode="28")
    assert (await shop.cancel(CREDENTIALS, reference="r-1")).word == "closed"
    assert shop.follows == follows
    shown = await shop.tran_query(CREDENTIALS, reference="r-1")
    assert (shown.word, refunded(shown)) == (word, refunds)
    assert shop.book.truth(shop.sale(opened)) == "refunded"
    assert (await shop.cancel(CREDENTIALS, reference="r-1")).word == "closed"
    assert shop.follows == []
    assert shop.sale(opened).refunded == Decimal("13.00")


async def test_a_failed_or_otherwise_refunded_sale_cannot_be_cancelled() -> None:
    shop = Shop()
    await shop.opened("failed")
    await shop.prepay(CREDENTIALS, reference="failed", payment_barcode=FAILING_BARCODE)
    await shop.opened("refunded")
    await shop.prepay(CREDENTIALS, reference="refunded", payment_barcode="28")
    await refund(shop, "refunded", "13")
    for reference in ("failed", "refunded"):
        with pytest.raises(PockytRefusedError, match="000040"):
            await shop.cancel(CREDENTIALS, reference=reference)


async def refund(shop: Shop, reference: str, amount: str, *, currency: str = "USD") -> Answer:
    return await shop.refund(
        CREDENTIALS,
        refund_amount=amount,
        currency=currency,
        settle_currency="USD",
        reference=reference,
        refund_reference=f"refund-{amount}",
    )


async def test_a_part_can_be_refunded_and_asked_about_by_its_own_number() -> None:
    shop = Shop()
    opened = await shop.opened()
    with pytest.raises(PockytRefusedError, match="000040"):
        await refund(shop, "r-1", "3.5")
    await shop.prepay(CREDENTIALS, reference="r-1", payment_barcode="28")
    answer = await refund(shop, "r-1", "3.5")
    assert (answer.word, answer.fields["refundAmount"]) == ("success", "3.50")
    assert shop.book.truth(shop.sale(opened)) == "paid"
    asked = await shop.tran_query(CREDENTIALS, transaction_no=answer.refund_transaction_no)
    assert (asked.amount, asked.fields["transactionType"]) == ("3.50", "refund")
    with pytest.raises(PockytRefusedError, match="000040"):
        await refund(shop, "r-1", "9.51")
    with pytest.raises(PockytRefusedError, match="000022"):
        await refund(shop, "r-1", "1", currency="GBP")
    assert (await shop.cancel(CREDENTIALS, reference="r-1")).word == "closed"
    shown = await shop.tran_query(CREDENTIALS, reference="r-1")
    assert refunded(shown) == ["3.50", "9.50"]
    said = (await shop.tran_query(CREDENTIALS, reference="r-1")).fields["refundInfo"]
    first = json.loads(said)[0]
    assert first["refundTransactionId"] == answer.refund_transaction_no
    assert first["refundReference"] == "refund-3.5"
    assert (first["currency"], first["settleCurrency"]) == ("USD", "USD")
    foreign = dataclasses.replace(CREDENTIALS, merchant_no="200044")
    with pytest.raises(PockytRefusedError, match="000021"):
        await shop.tran_query(foreign, transaction_no=answer.refund_transaction_no)


def test_the_number_of_refunds_of_a_sale_is_limited() -> None:
    book = Book()
    opened = book.open(dataclasses.replace(ORDER, amount="1000"), now_seconds=NOW)
    book.pay(opened, now_seconds=NOW)
    for _ in range(REFUNDS_MAX):
        sale = book.get(opened.transaction_no)
        assert sale is not None
        book.refund(sale, "1")
    sale = book.get(opened.transaction_no)
    assert sale is not None
    with pytest.raises(RefusalError, match="000040"):
        book.refund(sale, "1")


async def test_a_sale_closes_when_its_time_is_up_and_not_before() -> None:
    shop = Shop()
    await shop.opened()
    shop.now_seconds = NOW + 120 * 60 - 1
    assert (await shop.tran_query(CREDENTIALS, reference="r-1")).word == "init"
    shop.now_seconds += 1
    assert (await shop.tran_query(CREDENTIALS, reference="r-1")).word == "closed"
    assert shop.follows == [(Follow.NOTIFY, "closed")]
    shop.now_seconds += 1
    await shop.tran_query(CREDENTIALS, reference="r-1")
    assert shop.follows == []


def test_a_payment_lands_late_on_a_closed_sale_only() -> None:
    book = Book()
    sale = book.open(ORDER, now_seconds=NOW)
    assert book.pay_late(sale, now_seconds=NOW) is None
    book.cancel(sale)
    paid = book.pay_late(sale, now_seconds=NOW)
    assert paid is not None
    assert book.truth(paid) == "paid"
    assert Book().pay_late(sale, now_seconds=NOW) is None


@pytest.mark.parametrize("call", list(Call))
async def test_a_bad_signature_or_merchant_is_a_data_error(call: Call) -> None:
    shop = Shop()
    await shop.opened()
    for fields in (
        {"merchantNo": "200043", "reference": "r-1", "verifySign": "0" * 32},
        {"merchantNo": "1", "reference": "r-1", "verifySign": "0" * 32},
        {},
    ):
        outcome = shop.desk.answer(call, fields, now_seconds=NOW)
        assert json.loads(outcome.body) == {
            "ret_code": "000000",
            "ret_msg": "data error : verifySign",
        }
        assert outcome.sale is None


async def test_a_repeated_request_gets_the_first_answer_and_nothing_happens_again() -> None:
    shop = Shop()
    await shop.opened()
    first = await shop.tran_query(CREDENTIALS, reference="r-1", request_id="q")
    await shop.cancel(CREDENTIALS, reference="r-1", request_id="c")
    assert shop.follows == [(Follow.ABANDON, "closed")]
    assert (await shop.cancel(CREDENTIALS, reference="r-1", request_id="c")).word == "closed"
    assert shop.follows == []
    assert await shop.tran_query(CREDENTIALS, reference="r-1", request_id="q") == first
    assert (await shop.tran_query(CREDENTIALS, reference="r-1")).word == "closed"


async def test_the_number_of_answers_stored_for_repeats_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(desks, "REPEATS_KEPT_MAX", 2)
    shop = Shop()
    await shop.opened()
    for request_id in ("a", "b", "c"):
        await shop.tran_query(CREDENTIALS, reference="r-1", request_id=request_id)
    await shop.cancel(CREDENTIALS, reference="r-1", request_id="d")
    words = {
        request_id: (
            await shop.tran_query(CREDENTIALS, reference="r-1", request_id=request_id)
        ).word
        for request_id in ("c", "a")
    }
    assert words == {"c": "init", "a": "closed"}


def signed(**fields: str) -> dict[str, str]:
    fields = {"merchantNo": "200043", "storeNo": "303660"} | fields
    return fields | {signature.FIELD: signature.sign(fields, TOKEN)}


ADD = {"amount": "1", "currency": "USD", "settleCurrency": "USD", "reference": "r-2"}
CREATE = ADD | {"vendor": "alipay", "ipnUrl": "https://pos.example.com/n"}


@pytest.mark.parametrize(
    ("call", "fields", "code"),
    [
        (Call.ADD, ADD, "000100"),
        (Call.ADD, ADD | {"storeNo": ""}, "000020"),
        (Call.ADD, ADD | {"amount": ""}, "000020"),
        (Call.ADD, ADD | {"amount": "0.00"}, "000023"),
        (Call.ADD, ADD | {"amount": "1.001"}, "000023"),
        (Call.ADD, ADD | {"amount": "9" * 13}, "000023"),
        (Call.ADD, ADD | {"currency": "EUR"}, "000023"),
        (Call.ADD, ADD | {"currency": "CNY"}, "000023"),
        (Call.CREATE_TRANS_QRCODE, CREATE | {"currency": "CNY"}, "000100"),
        (Call.ADD, ADD | {"settleCurrency": "PHP"}, "000023"),
        (Call.ADD, ADD | {"reference": "r-1"}, "000023"),
        (Call.ADD, ADD | {"reference": "r" * 257}, "000023"),
        (Call.ADD, ADD | {"reference": "r" * 256}, "000100"),
        (Call.ADD, ADD | {"timeout": "0"}, "000023"),
        (Call.ADD, ADD | {"timeout": "x"}, "000023"),
        (Call.ADD, ADD | {"timeout": str(TIMEOUT_MINUTES_MAX)}, "000100"),
        (Call.ADD, ADD | {"timeout": str(TIMEOUT_MINUTES_MAX + 1)}, "000023"),
        (Call.ADD, ADD | {"ipnUrl": "ftp://x"}, "000023"),
        (Call.CREATE_TRANS_QRCODE, CREATE, "000100"),
        (Call.CREATE_TRANS_QRCODE, CREATE | {"vendor": "cash"}, "000023"),
        (Call.CREATE_TRANS_QRCODE, CREATE | {"ipnUrl": ""}, "000020"),
        (Call.CREATE_TRANS_QRCODE, CREATE | {"ipnUrl": "http://x/" + "y" * 2_048}, "000023"),
        (Call.PREPAY, {"reference": "r-1"}, "000020"),
        (Call.CANCEL, {}, "000020"),
        (Call.CANCEL, {"reference": "nobody"}, "000021"),
        (Call.CANCEL, {"transactionNo": "1" * 18, "reference": "r-1"}, "000022"),
        (Call.REFUND, {"reference": "r-1"}, "000020"),
    ],
)
async def test_calls_are_refused_with_pockyts_codes(
    call: Call, fields: dict[str, str], code: str
) -> None:
    shop = Shop()
    await shop.opened()
    assert shop.desk.answer(call, signed(**fields), now_seconds=NOW).ret_code == code


async def test_another_merchant_cannot_see_a_sale() -> None:
    shop = Shop()
    opened = await shop.opened()
    foreign = dataclasses.replace(CREDENTIALS, merchant_no="200044")
    with pytest.raises(PockytRefusedError, match="000021"):
        await shop.tran_query(foreign, transaction_no=opened.transaction_no)


async def test_finished_sales_make_room_and_open_ones_do_not() -> None:
    shop = Shop(sales_max=2)
    first = await shop.opened("a")
    await shop.prepay(CREDENTIALS, reference="a", payment_barcode="28")
    await refund(shop, "a", "1")
    await shop.opened("b")
    assert len(shop.book) == 2
    await shop.opened("c")
    assert len(shop.book) == 2
    assert shop.book.get(first.transaction_no or "") is None
    with pytest.raises(PockytRefusedError, match="000000"):
        await shop.opened("d")
    assert [sale.order.reference for sale in shop.book] == ["b", "c"]


def test_amounts_and_urls_are_read_strictly() -> None:
    assert str(read_amount("13")) == "13.00"
    with pytest.raises(RefusalError):
        read_amount("1e3")
    assert is_url("https://pos.example.com/notify")
    assert not is_url("http://[")
    assert not is_url("http://host:0/")


def test_the_published_samples_verify_at_the_desk() -> None:
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))
    query = next(v for v in vectors if "tran-query" in v["source"])
    outcome = Shop().desk.answer(
        Call.TRAN_QUERY,
        query["params"] | {"verifySign": query["verifySign"]},
        now_seconds=NOW,
    )
    assert outcome.ret_code == "000021"
