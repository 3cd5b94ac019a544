"""A code is charged once, whatever became of the call: on each back-end, with a scripted Pockyt."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from listener.errors import NotOpenError
from listener.ledger.model import Status, Transaction
from listener.lifecycle import Lifecycle, Order
from listener.pockyt.answer import PockytRefusedError
from listener.pockyt.calls import Call, PockytCalls
from listener.storage import AnyLedger
from tests.support import told
from tests.support.backends import Backend
from tests.support.living import living
from tests.support.stored import Clock

CODE = "2812345678901234"
OTHER_CODE = "2899999999999999"
ORDER = Order(
    merchant_no=told.MERCHANT,
    store_no=told.STORE,
    terminal="T-42",
    reference="r7",
    amount="13.00",
    currency="USD",
    settle_currency="USD",
)
SALE = {"transactionNo": "7", "reference": "r7", "amount": "13.00", "currency": "USD"}


class Death(BaseException):
    """Stands for a kill: nothing after it is done."""


class _Watched(list[Call]):
    """The calls, each of which is told as it comes."""

    def __init__(self, tell: Callable[[Call], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, call: Call) -> None:
        super().append(call)
        self._tell(call)


@dataclass(slots=True)
class Scripted(PockytCalls):
    """A Pockyt whose sale has a ``word``; at a ``death`` the caller dies in a prepay."""

    word: str = "init"
    becomes: str = "success"
    death: str | None = None
    refuses: bool = False
    is_silent: bool = False
    amount: str = "13.00"
    prepaid: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    async def exchange(self, call: Call, body: bytes, *, request_id: str) -> bytes:
        del body
        self.calls.append(call)
        if call is Call.PREPAY:
            self.prepaid.append(request_id)
            if self.death != "before":
                self.word = self.word if self.refuses else self.becomes
            if self.death is not None:
                raise Death
            if self.refuses:
                return b'{"ret_code":"000040","ret_msg":"transaction status error"}'
        if self.is_silent:
            return b"<html>"
        result = {**SALE, "amount": self.amount, "status": self.word, "transactionType": "payment"}
        return json.dumps({"ret_code": "000100", "result": result}).encode()


@dataclass(slots=True, kw_only=True)
class Till:
    """A ledger, and the lifecycle of a process that may have died and been started again."""

    ledger: AnyLedger
    life: Lifecycle
    pockyt: Scripted
    clock: Clock
    sale: Transaction

    async def pay(self, code: str = CODE, *, is_repeat: bool = False) -> Transaction:
        return await self.life.pay(self.sale, payment_barcode=code, is_repeat=is_repeat)

    async def die(self, when: str, code: str = CODE) -> None:
        """Die in the middle of a prepay, before or after it took effect."""
        self.pockyt.death = when
        with pytest.raises(Death):
            await self.pay(code)
        self.pockyt.death = None
        self.pockyt.calls.clear()


@pytest.fixture(name="till")
async def _till(place: Backend, tmp_path: Path) -> AsyncIterator[Till]:
    pockyt = Scripted()
    async with living(place, pockyt, tmp_path) as one:
        sale = (await one.life.start_sale(ORDER)).transaction
        pockyt.calls.clear()
        yield Till(ledger=one.ledger, life=one.life, pockyt=pockyt, clock=one.clock, sale=sale)


async def test_a_charge_is_recorded_before_prepay_is_sent_and_without_the_code(till: Till) -> None:
    await till.die("before")
    lines = await till.ledger.read_transaction_entries(till.sale)
    last = lines[-1].entry.fact
    assert (last.field("next"), last.says) == ("prepay", None)
    assert not any(CODE in line.entry.fact.fields for line in lines)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("success", Status.PAID),
        ("pending", Status.CREATED),
        ("dealing", Status.CREATED),
        ("closed", Status.CANCELLED),
        ("failed", Status.FAILED),
    ],
)
@pytest.mark.parametrize("code", [CODE, OTHER_CODE], ids=["same", "other"])
async def test_after_a_death_the_answer_is_what_pockyt_says_and_nothing_is_charged(
    till: Till, word: str, status: Status, code: str
) -> None:
    till.pockyt.becomes = word
    await till.die("after")
    assert (await till.pay(code)).status is status
    assert till.pockyt.calls == [Call.TRAN_QUERY]


async def test_after_a_death_what_nobody_pays_is_charged_under_the_same_request_id(
    till: Till,
) -> None:
    await till.die("before")
    assert (await till.pay()).status is Status.PAID
    assert till.pockyt.calls == [Call.TRAN_QUERY, Call.PREPAY]
    first, again = till.pockyt.prepaid
    assert again == first


async def test_another_code_is_another_charge_and_pockyt_is_asked_before_it(till: Till) -> None:
    await till.die("before")
    assert (await till.pay(OTHER_CODE)).status is Status.PAID
    assert till.pockyt.calls == [Call.TRAN_QUERY, Call.PREPAY]
    first, other = till.pockyt.prepaid
    assert other != first


async def test_after_two_deaths_pockyt_is_asked_as_well(till: Till) -> None:
    await till.die("before")
    await till.die("after")
    assert (await till.pay()).status is Status.PAID
    assert till.pockyt.calls == [Call.TRAN_QUERY]
    assert len(set(till.pockyt.prepaid)) == 1


async def test_while_pockyt_says_nothing_after_a_death_nothing_is_charged(till: Till) -> None:
    await till.die("before")
    till.pockyt.is_silent = True
    assert (await till.pay()).status is Status.CREATED
    assert Call.PREPAY not in till.pockyt.calls


async def test_what_pockyt_says_of_another_sale_after_a_death_charges_nothing(till: Till) -> None:
    await till.die("before")
    till.pockyt.amount = "31.00"
    assert (await till.pay()).status is Status.CREATED
    assert till.pockyt.calls == [Call.TRAN_QUERY]


async def test_a_code_whose_payment_was_answered_is_refused_as_paid(till: Till) -> None:
    assert (await till.pay()).status is Status.PAID
    with pytest.raises(NotOpenError):
        await till.pay()


async def test_a_repeat_of_the_wish_gets_what_has_come_of_it(till: Till) -> None:
    assert (await till.pay()).status is Status.PAID
    till.pockyt.calls.clear()
    assert (await till.pay(is_repeat=True)).status is Status.PAID
    assert till.pockyt.calls == []
    with pytest.raises(NotOpenError):
        await till.pay(OTHER_CODE, is_repeat=True)


async def test_a_payment_that_was_heard_of_after_a_death_answers_the_same_wish_only(
    till: Till,
) -> None:
    await till.die("after")
    await till.life.ask(till.sale)
    till.pockyt.calls.clear()
    assert (await till.pay()).status is Status.PAID
    with pytest.raises(NotOpenError):
        await till.pay(OTHER_CODE)
    assert till.pockyt.calls == []


async def test_a_code_that_was_refused_may_be_charged_again_as_another_wish(till: Till) -> None:
    till.pockyt.refuses = True
    with pytest.raises(PockytRefusedError):
        await till.pay()
    till.pockyt.refuses = False
    till.pockyt.calls.clear()
    assert (await till.pay()).status is Status.PAID
    # Under the first id Pockyt would only repeat that it refuses.
    assert till.pockyt.calls == [Call.PREPAY]
    assert len(set(till.pockyt.prepaid)) == 2


async def test_a_code_that_is_pending_is_not_charged_twice(till: Till) -> None:
    till.pockyt.becomes = "pending"
    assert (await till.pay()).status is Status.PENDING
    till.pockyt.calls.clear()
    assert (await till.pay()).status is Status.PENDING
    assert till.pockyt.calls == [Call.TRAN_QUERY]


async def test_another_code_is_not_charged_while_a_customer_is_paying(till: Till) -> None:
    till.pockyt.becomes = "pending"
    assert (await till.pay()).status is Status.PENDING
    till.pockyt.calls.clear()
    assert (await till.pay(OTHER_CODE)).status is Status.PENDING
    assert till.pockyt.calls == [Call.TRAN_QUERY]
    # The first customer has declined in the wallet.
    till.pockyt.word, till.pockyt.becomes = "init", "success"
    assert (await till.pay(OTHER_CODE)).status is Status.PAID
    first, other = till.pockyt.prepaid
    assert other != first


async def test_a_repeat_that_is_refused_while_the_first_is_carried_out_is_open(till: Till) -> None:
    await till.die("before")

    def begins(call: Call) -> None:
        # What the dead process has sent arrives just after the query.
        if call is Call.PREPAY:
            till.pockyt.word = "dealing"

    till.pockyt.refuses = True
    till.pockyt.calls = _Watched(begins)
    assert (await till.pay()).status is Status.CREATED
    assert till.pockyt.calls == [Call.TRAN_QUERY, Call.PREPAY, Call.TRAN_QUERY]


async def test_a_repeat_that_is_refused_for_good_is_reported(till: Till) -> None:
    await till.die("before")
    till.pockyt.refuses = True
    with pytest.raises(PockytRefusedError):
        await till.pay()


async def test_a_charge_whose_process_died_is_asked_about_on_schedule(till: Till) -> None:
    await till.die("after")
    till.clock.at_ms += 20_000
    await till.life.chaser.chase()
    assert till.pockyt.calls == [Call.TRAN_QUERY]
    (after,) = await till.ledger.read_transaction("7", merchant_no=told.MERCHANT)
    assert after.status is Status.PAID


async def test_another_code_that_is_refused_leaves_the_one_in_doubt_on_schedule(till: Till) -> None:
    await till.die("before")
    till.pockyt.refuses = True
    with pytest.raises(PockytRefusedError):
        await till.pay(OTHER_CODE)
    till.pockyt.word = "success"
    till.clock.at_ms += 20_000
    await till.life.chaser.chase()
    (after,) = await till.ledger.read_transaction("7", merchant_no=told.MERCHANT)
    assert after.status is Status.PAID
