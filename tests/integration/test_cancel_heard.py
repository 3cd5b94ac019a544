"""A sale is cancelled by its reference, and a notification brings its number; each back-end."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from listener.errors import OutcomeUnknownError
from listener.ledger.model import Cancel, CancelState, Fact, Status, Transaction, fields_text
from listener.ledger.results import RecordedSale
from listener.ledger.schedule import ASK_SECONDS
from listener.ledger.scope import EVERYWHERE
from listener.lifecycle import Lifecycle, orders
from listener.lifecycle.chaser import TURN
from listener.pockyt.answer import PockytRefusedError
from listener.pockyt.calls import Call, PockytCalls
from listener.storage import AnyLedger, rebuild
from tests.support import told
from tests.support.backends import Backend
from tests.support.contents import content_of
from tests.support.living import living
from tests.support.service import OTHER_STORE_NO
from tests.support.stored import STREAM, Clock, bound, numbered, sold

FAILED: dict[str, object] = {"ret_code": "000000", "ret_msg": "system error"}
NONE = {"ret_code": "000021", "ret_msg": "no such record"}
SALE = {"amount": "13.00", "currency": "USD", "reference": "r7", "transactionType": "payment"}


class Scripted(PockytCalls):
    """A Pockyt that answers each call about a number, or a reference, as it is told to."""

    def __init__(self) -> None:
        self.answers: dict[tuple[Call, str], dict[str, object]] = {}
        self.calls: list[tuple[Call, str]] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    def say(self, call: Call, about: str, **result: str) -> None:
        self.answers[call, about] = {"ret_code": "000100", "result": {**SALE, **result}}

    async def exchange(self, call: Call, body: bytes, **_request_id: str) -> bytes:
        sent = json.loads(body)
        about = sent.get("transactionNo") or sent["reference"]
        self.calls.append((call, about))
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return json.dumps(self.answers.get((call, about), NONE)).encode()


@dataclass(slots=True, kw_only=True)
class Till:
    """A ledger, what chases in it, and a Pockyt that follows a script."""

    ledger: AnyLedger
    life: Lifecycle
    pockyt: Scripted
    clock: Clock
    seqs: list[int] = field(default_factory=list)

    async def record(self, fact: Fact) -> None:
        self.seqs.append((await self.ledger.record(fact)).seq)

    async def cancel_unknown(self) -> None:
        """Record a sale of which Pockyt has said nothing, and a wish to cancel it."""
        await self.record(sold("r7"))
        wish = replace(told.cancel_request(), transaction_no="", sale_seq=self.seqs[0])
        await self.record(wish)
        await self.pass_seconds(30)

    async def cancel_in_silence(self) -> int:
        """Record a sale and a wish to cancel it; return when (Unix ms). Pockyt has only failed."""
        self.pockyt.answers[Call.TRAN_QUERY, "r7"] = FAILED
        await self.record(sold("r7"))
        await self.record(replace(told.cancel_request(), transaction_no="", sale_seq=self.seqs[0]))
        return self.clock.at_ms

    async def types(self) -> list[str]:
        """Return what the tills were told."""
        events = await self.ledger.read_events(STREAM, after=0, limit=99)
        return [json.loads(event.body)["type"].split(".")[1] for event in events]

    async def pass_seconds(self, seconds: int) -> None:
        """Let time pass, then do all that is due."""
        self.clock.at_ms += seconds * 1_000
        await self.life.chaser.chase()

    async def sale(self) -> RecordedSale:
        (found,) = await self.ledger.read_sales(
            merchant_no=told.MERCHANT, reference="r7", store_no=None
        )
        return found

    async def transaction(self) -> Transaction:
        (found,) = await self.ledger.read_transaction("7", merchant_no=told.MERCHANT)
        return found

    async def cancel_state(self) -> CancelState | None:
        cancel = (await self.transaction()).cancel
        return cancel.state if cancel else None


@pytest.fixture(name="till")
async def _till(place: Backend, tmp_path: Path) -> AsyncIterator[Till]:
    pockyt = Scripted()
    async with living(place, pockyt, tmp_path) as one:
        assert await one.ledger.claim_turn(TURN)
        yield Till(ledger=one.ledger, life=one.life, pockyt=pockyt, clock=one.clock)
    # It adds up again when it is worked out anew.
    before = await content_of(place.url)
    await asyncio.to_thread(rebuild, place.url, confirm="suspicious")
    assert await content_of(place.url) == before


async def _ended(till: Till) -> None:
    await till.cancel_unknown()
    cancel = (await till.sale()).state.cancel
    assert cancel is not None
    assert cancel.state is CancelState.CONFIRMED


async def test_a_payment_is_asked_about_by_its_number_although_pockyt_finds_no_reference(
    till: Till,
) -> None:
    await _ended(till)
    till.pockyt.say(Call.TRAN_QUERY, "7", transactionNo="7", status="success")
    await till.record(numbered(7))
    await till.pass_seconds(0)
    assert await till.cancel_state() is CancelState.REFUSED
    assert (await till.sale()).transaction_no == "7"
    assert Call.CANCEL not in [call for call, _ in till.pockyt.calls]


async def test_a_sale_that_is_open_after_all_is_cancelled_by_its_number(till: Till) -> None:
    await _ended(till)
    till.pockyt.say(Call.TRAN_QUERY, "7", transactionNo="7", status="init")
    till.pockyt.say(Call.CANCEL, "7", transactionNo="7", status="closed")
    await till.record(numbered(7, "init"))
    await till.pass_seconds(0)
    assert await till.cancel_state() is CancelState.CONFIRMED
    assert till.pockyt.calls.count((Call.CANCEL, "7")) == 1


async def test_a_payment_of_which_pockyt_knows_nothing_is_raised_within_a_minute(
    till: Till,
) -> None:
    await _ended(till)
    await till.record(numbered(7))
    await till.pass_seconds(0)
    assert await till.cancel_state() is CancelState.REQUESTED
    await till.pass_seconds(59)
    assert await till.cancel_state() is CancelState.UNRESOLVED
    again = await till.life.cancel_sale(await till.sale())
    assert isinstance(again, Transaction)
    assert again.is_being_cancelled


async def test_an_end_that_was_recorded_beside_a_payment_is_told_to_nobody(till: Till) -> None:
    await till.record(sold("r7"))
    await till.record(numbered(7))
    wish = replace(told.cancel_request(), transaction_no="", sale_seq=till.seqs[0])
    await till.record(wish)
    till.clock.at_ms += 30_000
    # The listener was killed just after.
    unknown = fields_text({"error": "refused", "retCode": "000021"})
    nothing = replace(told.query(None, as_of=1, reference="r7"), transaction_no="", fields=unknown)
    await till.record(replace(nothing, sale_seq=till.seqs[0]))
    sale = await till.sale()
    assert not sale.state.is_being_cancelled
    after = await till.life.cancel_sale(sale)
    assert isinstance(after, Transaction)
    assert after.is_being_cancelled


async def test_a_held_notification_carries_the_wish_over_once_pockyt_has_confirmed_it(
    till: Till,
) -> None:
    await _ended(till)
    await till.record(replace(numbered(7), suspect="ambiguous"))
    await till.pass_seconds(0)
    # It may be cut from another's: it binds nothing, and Pockyt still knows of no such sale.
    assert await till.cancel_state() is None
    till.pockyt.say(Call.TRAN_QUERY, "7", transactionNo="7", status="success")
    await till.pass_seconds(3)
    assert (await till.transaction()).status is Status.PAID
    assert await till.cancel_state() is CancelState.REFUSED


async def test_a_wish_that_finds_its_transaction_closed_is_told_as_its_end(till: Till) -> None:
    till.pockyt.say(Call.TRAN_QUERY, "r7", transactionNo="7", status="closed")
    await till.cancel_unknown()
    assert await till.cancel_state() is CancelState.CONFIRMED
    events = await till.ledger.read_events(STREAM, after=0, limit=9)
    types = [json.loads(event.body)["type"] for event in events]
    assert types == ["transaction.cancelled", "transaction.cancelled"]


async def test_a_wish_keeps_its_time_when_its_number_is_found(till: Till) -> None:
    wished_ms = await till.cancel_in_silence()
    await till.pass_seconds(22)
    till.pockyt.say(Call.TRAN_QUERY, "r7", transactionNo="7", status="init")
    till.pockyt.answers[Call.TRAN_QUERY, "7"] = FAILED
    await till.pass_seconds(10)
    cancel = (await till.transaction()).cancel
    assert cancel == Cancel(state=CancelState.REQUESTED, requested_at_ms=wished_ms)
    assert await till.types() == ["created", "cancelling"]
    ask = (await till.transaction()).ask
    assert ask is not None
    assert ask.since_ms == wished_ms
    await till.pass_seconds(60 - 22 - 10)
    cancel = (await till.transaction()).cancel
    assert cancel == Cancel(state=CancelState.UNRESOLVED, requested_at_ms=wished_ms)
    assert await till.types() == ["created", "cancelling", "unresolved"]


async def test_a_wish_that_was_raised_before_its_number_is_found_is_raised_with_it(
    till: Till,
) -> None:
    wished_ms = await till.cancel_in_silence()
    await till.pass_seconds(60)
    # Without a number there is no event: GET /v1/sales says it.
    (listed,) = await till.ledger.read_open_sales(
        scope=EVERYWHERE, now_ms=till.clock.at_ms, limit=9
    )
    assert listed.state.cancel == Cancel(state=CancelState.UNRESOLVED, requested_at_ms=wished_ms)
    assert await till.types() == []
    till.pockyt.say(Call.TRAN_QUERY, "r7", transactionNo="7", status="init")
    till.pockyt.answers[Call.TRAN_QUERY, "7"] = FAILED
    await till.pass_seconds(60)
    await till.pass_seconds(0)
    cancel = (await till.transaction()).cancel
    assert cancel == Cancel(state=CancelState.UNRESOLVED, requested_at_ms=wished_ms)
    assert await till.types() == ["created", "cancelling", "unresolved"]


async def test_a_wish_that_had_ended_gets_a_new_minute_when_a_notification_opens_it(
    till: Till,
) -> None:
    await _ended(till)
    await till.pass_seconds(100)
    await till.record(numbered(7))
    await till.pass_seconds(0)
    cancel = (await till.transaction()).cancel
    assert cancel == Cancel(state=CancelState.REQUESTED, requested_at_ms=told.START_MS)
    await till.pass_seconds(59)
    assert await till.types() == ["paid", "cancelling", "unresolved"]


async def test_a_number_that_comes_after_48_hours_is_asked_about_a_limited_number_of_times(
    till: Till,
) -> None:
    await till.cancel_in_silence()
    await till.pass_seconds(48 * 3_600 + 60)
    await till.record(numbered(7, "init"))
    till.pockyt.answers[Call.TRAN_QUERY, "7"] = FAILED
    await till.pass_seconds(0)
    assert till.pockyt.calls.count((Call.TRAN_QUERY, "7")) == 1
    for _ in range(24):
        await till.pass_seconds(3_600)
    assert till.pockyt.calls.count((Call.TRAN_QUERY, "7")) == len(ASK_SECONDS)
    ask = (await till.transaction()).ask
    assert ask is not None
    assert (ask.due_at_ms, ask.is_raised) == (None, True)


async def test_cancel_is_not_sent_by_the_reference_once_a_notification_has_come(
    till: Till,
) -> None:
    till.pockyt.say(Call.TRAN_QUERY, "r7", status="init")
    till.pockyt.say(Call.TRAN_QUERY, "7", transactionNo="7", status="success")
    till.pockyt.meanwhile = lambda: till.record(numbered(7))
    await till.cancel_unknown()
    # It is paid, and /cancel would give the money back.
    assert Call.CANCEL not in [call for call, _ in till.pockyt.calls]
    assert await till.cancel_state() is CancelState.REFUSED


async def test_a_sale_is_looked_for_when_a_notification_names_it_without_a_number(
    till: Till,
) -> None:
    await till.record(sold("r7"))
    till.pockyt.say(Call.TRAN_QUERY, "r7", transactionNo="7", status="success")
    consent = replace(numbered("", "", mark="consent"), reference="r7", says=None)
    await till.record(consent)
    await till.pass_seconds(0)
    assert till.pockyt.calls == []
    await till.record(replace(numbered(""), reference="r7"))
    await till.pass_seconds(0)
    assert (await till.transaction()).status is Status.PAID
    assert (await till.sale()).transaction_no == "7"


async def test_a_number_that_another_store_may_have_meant_takes_nothing_over(till: Till) -> None:
    await till.record(sold("r7", store_no=OTHER_STORE_NO))
    till.seqs.clear()
    await till.cancel_unknown()
    await till.record(numbered(7))
    await till.pass_seconds(0)
    assert await till.cancel_state() is None


@pytest.mark.parametrize("word", ["init", "closed"])
@pytest.mark.parametrize("has_number", [False, True])
async def test_an_answer_without_a_number_may_be_about_another_stores_sale(
    till: Till, word: str, *, has_number: bool
) -> None:
    await till.record(sold("r7", store_no=OTHER_STORE_NO))
    if has_number:
        number = bound("r7", 7, sale_seq=till.seqs[0])
        await till.record(replace(number, store_no=OTHER_STORE_NO))
    till.seqs.clear()
    till.pockyt.say(Call.TRAN_QUERY, "r7", status=word)
    await till.cancel_unknown()
    await _is_not_cancelled(till)


async def test_cancel_is_not_sent_by_the_reference_once_the_number_is_bound(till: Till) -> None:
    # Pockyt answers by the reference without a number, and from before the payment.
    till.pockyt.say(Call.TRAN_QUERY, "r7", status="init")
    till.pockyt.say(Call.TRAN_QUERY, "7", transactionNo="7", status="success")

    async def meanwhile() -> None:
        await till.record(replace(numbered(7), suspect="ambiguous"))
        await till.life.ask(await till.transaction())

    till.pockyt.meanwhile = meanwhile
    await till.cancel_unknown()
    assert (await till.sale()).transaction_no == "7"
    # It is paid, and /cancel would give the money back.
    assert Call.CANCEL not in [call for call, _ in till.pockyt.calls]


async def _is_not_cancelled(till: Till) -> None:
    """Check that the wish to cancel waits on, and that nothing was sent for it."""
    sales = await till.ledger.read_sales(
        merchant_no=told.MERCHANT, reference="r7", store_no=told.STORE
    )
    assert [sale.state.is_being_cancelled for sale in sales] == [True]
    assert Call.CANCEL not in [call for call, _ in till.pockyt.calls]


async def _refused(till: Till) -> RecordedSale:
    """Start a sale that Pockyt refuses."""
    till.pockyt.answers[Call.ADD, "r7"] = {"ret_code": "000023", "ret_msg": "bad value"}
    with pytest.raises(PockytRefusedError):
        await till.life.start_sale(orders.order_of(sold("r7")))
    return await till.sale()


async def test_a_code_that_pockyt_does_not_document_refuses_no_sale(till: Till) -> None:
    till.pockyt.answers[Call.ADD, "r7"] = {"ret_code": "000099", "ret_msg": "pending review"}
    with pytest.raises(OutcomeUnknownError):
        await till.life.start_sale(orders.order_of(sold("r7")))
    assert till.pockyt.calls == [(Call.ADD, "r7"), (Call.TRAN_QUERY, "r7")]
    assert not (await till.sale()).state.is_refused
    till.pockyt.say(Call.TRAN_QUERY, "r7", transactionNo="7", status="success")
    await till.pass_seconds(30)
    assert (await till.transaction()).status is Status.PAID


@pytest.mark.parametrize("wishes_first", [False, True])
async def test_a_refused_sale_that_is_paid_all_the_same_is_not_called_cancelled(
    till: Till, wishes_first: bool
) -> None:
    sale = await _refused(till)
    if wishes_first:
        assert await till.life.cancel_sale(sale) == await till.sale()
    await till.record(numbered(7))
    till.pockyt.say(Call.TRAN_QUERY, "7", transactionNo="7", status="success")
    before = await till.sale()
    after = await till.life.cancel_sale(sale)
    assert isinstance(after, Transaction)
    assert (after.status, after.cancel and after.cancel.state) == (
        Status.PAID,
        CancelState.REFUSED,
    )
    assert Call.CANCEL not in [call for call, _ in till.pockyt.calls]
    # The wish is the transaction's alone.
    assert await till.sale() == before


async def test_a_sale_that_ended_beside_a_held_payment_is_asked_about_by_its_number(
    till: Till,
) -> None:
    await till.record(sold("r7"))
    await till.record(replace(numbered(7), suspect="ambiguous"))
    till.clock.at_ms += 30_000
    till.pockyt.say(Call.TRAN_QUERY, "7", transactionNo="7", status="success")
    # Pockyt knows of no such reference, which ends the wish at the sale.
    after = await till.life.cancel_sale(await till.sale())
    assert isinstance(after, Transaction)
    assert after.cancel is not None
    assert after.cancel.state is CancelState.REFUSED


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ("init", "failed", "7"),
        ("failed", "init", "8"),
        ("success", "init", "7"),
        ("closed", "success", "8"),
    ],
)
async def test_of_two_numbers_of_a_reference_the_wish_goes_to_the_one_that_matters(
    till: Till, first: str, second: str, taken: str
) -> None:
    await _ended(till)
    for number, word in (("7", first), ("8", second)):
        till.pockyt.say(Call.TRAN_QUERY, number, transactionNo=number, status=word)
        await till.record(replace(numbered(number, word), reference="r7"))
    await till.pass_seconds(0)
    assert (await till.sale()).transaction_no == taken
