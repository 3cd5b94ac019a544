"""Pockyt in the same process: what a simulation plugs in where HTTP would be."""

import pytest

from listener.pockyt.client import (
    Answer,
    Credentials,
    PockytRefusedError,
    PockytUnavailableError,
)
from listener.pockyt.signature import Token
from listener.sandbox.book import Book, RefundShows, RefusalError, Sale
from listener.sandbox.desk import Desk, Follow
from listener.sandbox.faults import Planned, Script
from listener.sandbox.front import Front
from listener.sandbox.steps import SandboxStep
from tests.support.direct import DirectPockyt

NOW = 1_792_000_000.0
TOKEN = Token("a token")
CREDENTIALS = Credentials(merchant_no="200043", store_no="303660", token=TOKEN)


class World:
    """A front without a socket or a clock, and what it was told to do."""

    def __init__(
        self, *faults: str, notify_on_cancel: bool = True, refund_shows: RefundShows = "success"
    ) -> None:
        self.now_seconds = NOW
        self.follows: list[tuple[Follow, str, bool]] = []
        self.steps: list[str] = []
        self.book = Book(refund_shows=refund_shows)
        self.front = Front(
            book=self.book,
            desk=Desk(self.book, merchants={"200043": TOKEN}),
            script=Script([Planned.parse(fault) for fault in faults]),
            now_seconds=lambda: self.now_seconds,
            on_follow=self.follow,
            notify_on_cancel=notify_on_cancel,
            on_step=lambda name, _: self.steps.append(name),
        )
        self.pockyt = DirectPockyt(self.front)

    def follow(self, follow: Follow, sale: Sale, relay: bool) -> None:
        self.follows.append((follow, self.book.shown(sale), relay))

    async def opened(self) -> Answer:
        return await self.pockyt.add(
            CREDENTIALS, amount="13", currency="USD", settle_currency="USD", reference="r"
        )

    @property
    def truth(self) -> list[str]:
        return [self.book.truth(sale) for sale in self.book]


@pytest.mark.parametrize(
    ("fault", "reason", "truth"),
    [
        ("cancel-timeout", "timeout", "cancelled"),
        ("cancel-timeout-unheard", "timeout", "created"),
        ("cancel-5xx", "status", "cancelled"),
        ("cancel-5xx-unheard", "status", "created"),
        ("cancel-html", "unreadable", "cancelled"),
    ],
)
async def test_a_fault_acts_as_it_does_over_http(fault: str, reason: str, truth: str) -> None:
    world = World(f"{fault}@1")
    await world.opened()
    with pytest.raises(PockytUnavailableError) as raised:
        await world.pockyt.cancel(CREDENTIALS, reference="r")
    assert raised.value.reason == reason
    assert raised.value.sent
    assert world.truth == [truth]
    assert (await world.pockyt.cancel(CREDENTIALS, reference="r")).word == "closed"
    assert world.follows == [(Follow.ABANDON, "closed", True)]


async def test_two_faults_at_once_are_one_failure() -> None:
    world = World("cancel-timeout", "cancel-5xx", "cancel-html")
    await world.opened()
    with pytest.raises(PockytUnavailableError) as raised:
        await world.pockyt.cancel(CREDENTIALS, reference="r")
    assert raised.value.reason == "timeout"


@pytest.mark.parametrize(
    ("faults", "notify_on_cancel", "relay"),
    [([], True, True), ([], False, False), (["cancel-not-notified"], True, False)],
)
async def test_it_is_told_whether_a_cancel_is_to_be_relayed(
    faults: list[str], notify_on_cancel: bool, relay: bool
) -> None:
    world = World(*faults, notify_on_cancel=notify_on_cancel)
    await world.opened()
    await world.pockyt.cancel(CREDENTIALS, reference="r")
    assert world.follows == [(Follow.ABANDON, "closed", relay)]


@pytest.mark.parametrize("notify_on_cancel", [True, False])
async def test_a_sale_whose_time_is_up_is_notified_where_cancels_are(
    notify_on_cancel: bool,
) -> None:
    world = World(notify_on_cancel=notify_on_cancel)
    sale = await world.opened()
    world.now_seconds += 7_200
    with pytest.raises(RefusalError, match="000040"):
        world.front.pay(sale.transaction_no or "")
    assert world.follows == [(Follow.NOTIFY, "closed", True)] * notify_on_cancel
    assert SandboxStep.EXPIRED in world.steps


@pytest.mark.parametrize(
    ("refund_shows", "notify_on_cancel", "words"),
    [
        ("success", True, ["success"]),
        ("closed", True, ["success", "closed"]),
        ("closed", False, ["success"]),
    ],
)
async def test_a_refund_by_cancel_is_notified_where_its_word_changes(
    refund_shows: RefundShows, notify_on_cancel: bool, words: list[str]
) -> None:
    world = World(
        "cancel-paid-meanwhile", notify_on_cancel=notify_on_cancel, refund_shows=refund_shows
    )
    await world.opened()
    await world.pockyt.cancel(CREDENTIALS, reference="r")
    assert [word for _, word, _ in world.follows] == words
    assert world.truth == ["refunded"]
    # Nothing is left to pay, and cancelling it again changes nothing.
    await world.pockyt.cancel(CREDENTIALS, reference="r")
    assert len(world.follows) == len(words)


async def test_a_payment_that_the_wallet_had_taken_lands_late_and_once() -> None:
    world = World()
    await world.opened()
    await world.pockyt.cancel(CREDENTIALS, reference="r")
    [sale] = world.book
    world.front.pay_late(sale)
    world.front.pay_late(sale)
    assert world.truth == ["paid"]
    assert world.follows[1:] == [(Follow.NOTIFY, "success", True)]
    assert (await world.pockyt.tran_query(CREDENTIALS, reference="r")).word == "success"


async def test_refusals_come_through_typed() -> None:
    with pytest.raises(PockytRefusedError, match="000021"):
        await World().pockyt.tran_query(CREDENTIALS, reference="nobody")
    with pytest.raises(RefusalError, match="000021"):
        World().front.pay("1")


async def test_a_query_is_asked_again_after_a_failure() -> None:
    world = World("query-5xx@1")
    await world.opened()
    assert (await world.pockyt.tran_query(CREDENTIALS, reference="r")).word == "init"
