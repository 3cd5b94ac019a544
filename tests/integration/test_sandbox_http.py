"""The sandbox over real sockets: the tutorial, every fault seen to act, and its limits."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode

import aiohttp
import pytest
from aiohttp import web

from listener.pockyt import signature
from listener.pockyt.client import (
    Answer,
    Credentials,
    PockytClient,
    PockytRefusedError,
    PockytUnavailableError,
)
from listener.pockyt.signature import Token
from listener.pockyt.texts import json_fields
from listener.sandbox import notifier, pockyt
from listener.sandbox.faults import Fault, Place, Planned
from listener.sandbox.servers import (
    SAMPLE_OLD_TOKEN,
    SAMPLE_TOKEN,
    Sandbox,
    SandboxSettings,
)
from listener.sandbox.steps import SandboxStep
from tests.support.needs import lacking
from tests.support.ports import free_port

TOKEN = Token(SAMPLE_TOKEN)
CREDENTIALS = Credentials(merchant_no="200043", store_no="303660", token=TOKEN)
DEADLINE_SECONDS = 10
# Two hours of attempts pass in a fifth of a second.
TIME_SCALE = 36_000.0


class Merchant:
    """A notify URL that acknowledges, unless told to answer something else."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[tuple[int, str]] = []
        self.bodies: list[bytes] = []
        self.types: list[str] = []
        self.steps: list[tuple[str, Mapping[str, str]]] = []
        self._news = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        self.types.append(request.content_type)
        status, text = self.answers.pop(0) if self.answers else (200, "success")
        return web.Response(status=status, text=text)

    @property
    def said(self) -> list[dict[str, str]]:
        return [
            json_fields(body) if body.startswith(b"{") else dict(parse_qsl(body.decode(), True))
            for body in self.bodies
        ]

    @property
    def words(self) -> list[str]:
        return [fields["status"] for fields in self.said]

    def step(self, name: str, detail: Mapping[str, str]) -> None:
        self.steps.append((name, detail))
        self._news.set()

    async def stepped(self, name: str) -> None:
        """Wait until a step was taken."""
        while not self.count(name):
            self._news.clear()
            await self._news.wait()

    def count(self, name: str) -> int:
        return len([step for step, _ in self.steps if step == name])


@asynccontextmanager
async def serving(
    *faults: str, time_scale: float = TIME_SCALE, **settings: object
) -> AsyncIterator[tuple[Sandbox, PockytClient, Merchant]]:
    """Run a merchant, a sandbox with faults, and a client."""
    merchant = Merchant()
    app = web.Application()
    app.router.add_post("/notify/{merchantNo}/{storeNo}", merchant.take)
    app.router.add_post("/notify", merchant.take)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    merchant.url = f"http://127.0.0.1:{runner.addresses[0][1]}/notify"
    wanted = {
        "notify_url": merchant.url + "/{merchantNo}/{storeNo}",
        "time_scale": time_scale,
        "faults": tuple([Planned.parse(fault) for fault in faults]),
    } | settings
    try:
        async with (
            asyncio.timeout(DEADLINE_SECONDS),
            Sandbox.start(
                SandboxSettings(**wanted),  # type: ignore[arg-type]  # one test, one option
                on_step=merchant.step,
            ) as sandbox,
            aiohttp.ClientSession() as session,
        ):
            yield sandbox, PockytClient(sandbox.url, session=session, timeout_seconds=5), merchant
    finally:
        await runner.cleanup()


async def opened(client: PockytClient, reference: str = "r-1", *, minutes: int = 1_440) -> Answer:
    # A whole day, so that compressed time does not close the sale under a test.
    return await client.add(
        CREDENTIALS,
        amount="13",
        currency="USD",
        settle_currency="USD",
        reference=reference,
        timeout_minutes=minutes,
    )


def truth(sandbox: Sandbox, answer: Answer) -> str:
    sale = sandbox.book.get(answer.transaction_no or "")
    assert sale is not None
    return sandbox.book.truth(sale)


async def test_the_tutorial_from_the_cancel_to_the_relayed_status() -> None:
    async with serving(time_scale=1) as (sandbox, client, merchant):
        sale = await opened(client)
        answer = await client.cancel(CREDENTIALS, transaction_no=sale.transaction_no)
        await sandbox.idle()
        assert (answer.word, answer.amount) == ("closed", "13.0")
        assert truth(sandbox, sale) == "cancelled"
        assert [name for name, _ in merchant.steps] == [
            SandboxStep.CALLED,
            SandboxStep.CALLED,
            SandboxStep.WALLET_TOLD,
            SandboxStep.WALLET_CANCELLED,
            SandboxStep.WALLET_CALLED_BACK,
            SandboxStep.NOTIFICATION_SENT,
            SandboxStep.NOTIFICATION_ANSWERED,
        ]
        assert merchant.words == ["closed"]
        assert merchant.types == ["application/x-www-form-urlencoded"]
        assert signature.verify(merchant.said[0], [TOKEN])
        assert sandbox.wallet_url != sandbox.url
        assert merchant.steps[5][1]["url"].endswith("/notify/200043/303660")


async def test_a_payment_is_notified_to_the_sales_own_url() -> None:
    async with serving(notify_url=None, time_scale=1) as (sandbox, client, merchant):
        sale = await client.create_trans_qrcode(
            CREDENTIALS,
            amount="13",
            currency="USD",
            settle_currency="USD",
            reference="r-1",
            vendor="alipay",
            ipn_url=merchant.url,
        )
        assert sale.qrcode_url is not None
        async with aiohttp.ClientSession() as browser:
            async with browser.get(sale.qrcode_url) as page:
                assert "13.00 USD" in await page.text()
            pay = f"{sandbox.url}/sandbox/pay/{sale.transaction_no}"
            async with browser.post(pay, headers={"Accept": "text/html"}) as page:
                assert page.url.path.startswith("/sandbox/checkout/")
                assert "<b>success</b>" in await page.text()
            async with browser.post(pay) as refused:
                assert refused.status == 409
        await sandbox.idle()
        assert merchant.words == ["success"]
        assert (await client.tran_query(CREDENTIALS, reference="r-1")).word == "success"


async def test_a_sale_without_any_url_is_notified_to_nobody() -> None:
    async with serving(notify_url=None) as (sandbox, client, merchant):
        sale = await opened(client)
        sandbox.pay(sale.transaction_no or "")
        assert merchant.count(SandboxStep.NOTIFICATION_DROPPED) == 1


async def test_the_control_routes_tell_the_truth_and_plan_faults() -> None:
    async with serving(time_scale=1) as (sandbox, client, _), aiohttp.ClientSession() as session:
        sale = await opened(client, "<r>")
        async with session.post(f"{sandbox.url}/sandbox/pay/{sale.transaction_no}") as paid:
            assert (await paid.json())["truth"] == "paid"
        async with session.get(f"{sandbox.url}/sandbox/sales") as sales:
            [told] = (await sales.json())["data"]
        assert (told["status"], told["shownStatus"], told["refunded"]) == (
            "success",
            "success",
            "0.00",
        )
        async with session.get(f"{sandbox.url}/sandbox/checkout/{sale.transaction_no}") as page:
            assert "&lt;r&gt;" in await page.text()
        for path in ("checkout", "pay"):
            method = "GET" if path == "checkout" else "POST"
            async with session.request(method, f"{sandbox.url}/sandbox/{path}/1") as missing:
                assert missing.status == 404
        faults = f"{sandbox.url}/sandbox/faults"
        async with session.post(faults, json={"faults": ["query-html@1"]}) as planned:
            told = await planned.json()
        assert told["faults"] == ["query-html@1"]
        assert told["names"] == list(Fault)
        with pytest.raises(PockytUnavailableError):
            await client.tran_query(CREDENTIALS, reference="<r>")
        async with session.get(faults) as planned:
            assert (await planned.json())["struck"] == {"query-html": 1}
        for wrong in ("{", "[]", "{}", '{"faults": 1}', '{"faults": ["nothing"]}'):
            async with session.post(faults, data=wrong) as planned:
                assert planned.status == 400


async def test_forms_and_older_paths_are_understood() -> None:
    async with serving(time_scale=1) as (sandbox, client, _), aiohttp.ClientSession() as session:
        await opened(client)
        fields = {
            "merchantNo": "200043",
            "storeNo": "303660",
            "reference": "r-1",
            "paymentBarcode": "28",
            "vendor": "",
        }
        fields["verifySign"] = signature.sign(fields, TOKEN)
        async with session.post(
            f"{sandbox.url}/app-instore/v3/pay",
            data=urlencode(fields),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ) as response:
            answer = await response.json()
        assert answer["result"]["transactionStatus"] == "success"
        for body in (b"{", b"\xff", b"a=1&" * 101, b""):
            async with session.post(f"{sandbox.url}/app-instore/v3/add", data=body) as response:
                assert (await response.json())["ret_msg"] == "data error : verifySign"
        async with session.post(
            f"{sandbox.url}/app-instore/v3/add", data=b"x" * (64 * 1024 + 1)
        ) as response:
            assert response.status == 413


async def test_a_refusal_reaches_the_client_typed() -> None:
    async with serving() as (_, client, _), aiohttp.ClientSession():
        with pytest.raises(PockytRefusedError, match="000021"):
            await client.tran_query(CREDENTIALS, reference="nobody")
        stranger = Credentials(merchant_no="200043", store_no="1", token=Token("wrong"))
        with pytest.raises(PockytRefusedError, match="verifySign"):
            await client.tran_query(stranger, reference="nobody")


async def test_a_refund_goes_through_and_is_seen_by_a_query() -> None:
    async with serving() as (sandbox, client, _):
        sale = await opened(client)
        sandbox.pay(sale.transaction_no or "")
        await client.refund(
            CREDENTIALS,
            refund_amount="13.00",
            currency="USD",
            settle_currency="USD",
            reference="r-1",
        )
        assert truth(sandbox, sale) == "refunded"
        asked = await client.tran_query(CREDENTIALS, reference="r-1")
        assert (asked.word, json.loads(asked.fields["refundInfo"])[0]["refundAmount"]) == (
            "success",
            "13.00",
        )


async def test_it_is_sent_again_until_the_answer_is_the_word_success() -> None:
    async with serving() as (sandbox, client, merchant):
        merchant.answers = [(500, "success"), (200, ""), (200, "ok"), (200, " success\n")]
        sale = await opened(client)
        sandbox.pay(sale.transaction_no or "")
        await sandbox.idle()
        assert len(merchant.bodies) == 4
        assert len(set(merchant.bodies)) == 1


async def test_after_eight_attempts_it_is_never_sent_again() -> None:
    async with serving() as (sandbox, client, merchant):
        merchant.answers = [(503, "")] * 20
        sale = await opened(client)
        sandbox.pay(sale.transaction_no or "")
        await sandbox.idle()
        assert len(merchant.bodies) == 8
        assert merchant.count(SandboxStep.NOTIFICATION_GIVEN_UP) == 1
        assert sum(notifier.PAUSES_SECONDS) == 7_200


async def test_a_merchant_that_cannot_be_reached_is_tried_eight_times() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    async with serving(notify_url=url) as (sandbox, client, merchant):
        sandbox.pay((await opened(client)).transaction_no or "")
        await sandbox.idle()
        assert merchant.count(SandboxStep.NOTIFICATION_SENT) == 8


@pytest.mark.parametrize(
    ("fault", "bodies", "verify"),
    [
        ("notification-lost", 0, []),
        ("notification-late", 1, [True]),
        ("notification-repeated", 3, [True] * 3),
        ("notification-wrong-token", 1, [False]),
        ("notification-old-token", 1, [False]),
        ("notification-wrong-amount", 1, [True]),
        ("notification-wrong-currency", 1, [True]),
        ("notification-as-json", 1, [True]),
        ("notification-empty-fields", 1, [True]),
        ("notification-truncated", 2, [False, True]),
        ("notification-hung-after", 2, [True, True]),
    ],
)
async def test_a_notification_goes_wrong_as_planned(
    fault: str, bodies: int, verify: list[bool]
) -> None:
    async with serving(fault) as (sandbox, client, merchant):
        if verify[:1] == [False] and len(verify) > 1:
            merchant.answers = [(401, "")]
        sandbox.pay((await opened(client)).transaction_no or "")
        await sandbox.idle()
        assert len(merchant.bodies) == bodies
        assert [signature.verify(said, [TOKEN]) for said in merchant.said] == verify
        assert merchant.count(SandboxStep.FAULT) == 1
        assert sandbox.script.struck == {fault: 1}
        if fault == "notification-old-token":
            assert signature.verify(merchant.said[0], [Token(SAMPLE_OLD_TOKEN)])
        if fault == "notification-as-json":
            assert merchant.types == ["application/json"]


async def test_a_late_notification_comes_after_its_time() -> None:
    async with serving("notification-late", time_scale=6_000) as (sandbox, client, merchant):
        began = asyncio.get_running_loop().time()
        sandbox.pay((await opened(client)).transaction_no or "")
        await sandbox.idle()
        assert asyncio.get_running_loop().time() - began >= notifier.LATE_SECONDS / 6_000
        assert len(merchant.bodies) == 1


async def test_a_reordered_notification_lets_the_next_one_pass() -> None:
    async with serving("notification-reordered@1", time_scale=1) as (sandbox, client, merchant):
        for reference in ("first", "second"):
            sandbox.pay((await opened(client, reference)).transaction_no or "")
        await sandbox.idle()
        assert [said["reference"] for said in merchant.said] == ["second", "first"]


async def test_a_reordered_notification_does_not_wait_for_ever() -> None:
    async with serving("notification-reordered") as (sandbox, client, merchant):
        sandbox.pay((await opened(client)).transaction_no or "")
        await sandbox.idle()
        assert len(merchant.bodies) == 1


async def test_a_sender_that_hangs_up_before_the_answer_sends_again() -> None:
    async with serving("notification-hung-before") as (sandbox, client, merchant):
        sandbox.pay((await opened(client)).transaction_no or "")
        await sandbox.idle()
        answered = [d for name, d in merchant.steps if name == SandboxStep.NOTIFICATION_ANSWERED]
        assert [d["httpStatus"] for d in answered] == ["none", "200"]
        assert len(merchant.bodies) in (1, 2)


async def test_a_sender_that_stalls_in_the_body_sends_again() -> None:
    async with serving("notification-stalled", time_scale=1_000) as (sandbox, client, merchant):
        sandbox.pay((await opened(client)).transaction_no or "")
        await sandbox.idle()
        answered = [d for name, d in merchant.steps if name == SandboxStep.NOTIFICATION_ANSWERED]
        assert [d["httpStatus"] for d in answered] == ["none", "200"]
        assert len(merchant.bodies) == 1


async def test_a_lost_and_hung_notification_may_go_to_nobody() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with serving("notification-hung-before", notify_url=url) as (sandbox, client, merchant):
        sandbox.pay((await opened(client)).transaction_no or "")
        await sandbox.idle()
        assert merchant.count(SandboxStep.NOTIFICATION_GIVEN_UP) == 1


@pytest.mark.parametrize(
    ("fault", "words", "shown", "told"),
    [
        ("wallet-slow", ["closed"], "cancelled", 1),
        ("wallet-down@1", ["closed"], "cancelled", 2),
        ("wallet-down", [], "cancelled", 3),
        ("wallet-refusing", [], "cancelled", 1),
        ("wallet-paid", ["success"], "paid", 1),
        ("cancel-not-notified", [], "cancelled", 1),
    ],
)
async def test_the_wallet_goes_wrong_as_planned(
    fault: str, words: list[str], shown: str, told: int
) -> None:
    async with serving(fault) as (sandbox, client, merchant):
        sale = await opened(client)
        assert (await client.cancel(CREDENTIALS, reference="r-1")).word == "closed"
        await sandbox.idle()
        assert merchant.words == words
        assert truth(sandbox, sale) == shown
        assert merchant.count(SandboxStep.WALLET_TOLD) == told
        gone = merchant.count(SandboxStep.WALLET_REFUSED) + merchant.count(
            SandboxStep.WALLET_UNREACHABLE
        )
        assert gone == (fault in ("wallet-down", "wallet-refusing", "wallet-paid"))


@pytest.mark.parametrize("notify_on_cancel", [True, False])
async def test_a_setting_decides_whether_a_cancel_is_notified(notify_on_cancel: bool) -> None:
    async with serving(notify_on_cancel=notify_on_cancel) as (sandbox, client, merchant):
        await opened(client)
        await client.cancel(CREDENTIALS, reference="r-1")
        await opened(client, "r-2", minutes=1)
        await merchant.stepped(SandboxStep.EXPIRED)
        await sandbox.idle()
        assert merchant.words == ["closed", "closed"] * notify_on_cancel
        assert merchant.count(SandboxStep.WALLET_CALLED_BACK) == 1


@pytest.mark.parametrize(
    ("refund_shows", "words"), [("success", ["success"]), ("closed", ["closed", "success"])]
)
async def test_a_payment_that_lands_during_the_cancel_is_refunded(
    refund_shows: str, words: list[str]
) -> None:
    async with serving("cancel-paid-meanwhile", refund_shows=refund_shows) as (
        sandbox,
        client,
        merchant,
    ):
        sale = await opened(client)
        assert (await client.cancel(CREDENTIALS, reference="r-1")).word == "closed"
        await sandbox.idle()
        assert truth(sandbox, sale) == "refunded"
        assert sorted(merchant.words) == words
        with pytest.raises(PockytRefusedError, match="000021"):
            await client.cancel(CREDENTIALS, reference="nobody")


@pytest.mark.parametrize(
    ("fault", "reason", "shown"),
    [
        ("cancel-timeout", "timeout", "cancelled"),
        ("cancel-timeout-unheard", "timeout", "created"),
        ("cancel-5xx", "status", "cancelled"),
        ("cancel-5xx-unheard", "status", "created"),
        ("cancel-html", "unreadable", "cancelled"),
        ("query-timeout", "timeout", "created"),
        ("query-5xx", "status", "created"),
        ("query-html", "unreadable", "created"),
        ("pay-timeout", "timeout", "paid"),
        ("pay-timeout-unheard", "timeout", "created"),
        ("pay-5xx", "status", "paid"),
        ("pay-5xx-unheard", "status", "created"),
        ("pay-html", "unreadable", "paid"),
    ],
)
async def test_a_call_goes_wrong_as_planned(fault: str, reason: str, shown: str) -> None:
    async with serving(fault, time_scale=1) as (sandbox, client, _):
        sale = await opened(client)
        async with aiohttp.ClientSession() as session:
            hasty = PockytClient(sandbox.url, session=session, timeout_seconds=0.3)
            with pytest.raises(PockytUnavailableError) as raised:
                await called(hasty, Fault(fault).place)
        assert (raised.value.reason, raised.value.sent) == (reason, True)
        assert truth(sandbox, sale) == shown


async def called(client: PockytClient, place: Place) -> None:
    if place is Place.CANCEL:
        await client.cancel(CREDENTIALS, reference="r-1")
    elif place is Place.PAY:
        await client.prepay(CREDENTIALS, reference="r-1", payment_barcode="28")
    elif place is Place.SALE:
        await opened(client)
    else:
        await client.tran_query(CREDENTIALS, reference="r-1")


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        ("sale-timeout@1", 1),
        ("sale-timeout-unheard@1", 0),
        ("sale-5xx@1", 1),
        ("sale-5xx-unheard@1", 0),
        ("sale-html@1", 1),
    ],
)
async def test_a_sale_of_unknown_outcome_can_be_asked_about(fault: str, kept: int) -> None:
    async with serving(fault, time_scale=1) as (sandbox, client, _):
        async with aiohttp.ClientSession() as session:
            hasty = PockytClient(sandbox.url, session=session, timeout_seconds=0.3)
            with pytest.raises(PockytUnavailableError):
                await called(hasty, Place.SALE)
        assert len(sandbox.book) == kept
        if kept:
            assert (await client.tran_query(CREDENTIALS, reference="r-1")).word == "init"


async def test_every_fault_is_seen_to_act_by_some_test() -> None:
    with open(__file__, encoding="utf-8") as this:  # noqa: ASYNC230, PTH123 - once, and short
        text = this.read()
    assert [fault for fault in Fault if f'"{fault}' not in text] == []


async def test_stopping_ends_what_hangs_and_what_waits() -> None:
    async with serving("cancel-timeout", time_scale=1) as (sandbox, client, merchant):
        merchant.answers = [(503, "")] * 20
        await opened(client)
        sandbox.pay((await opened(client, "r-2")).transaction_no or "")
        hanging = asyncio.create_task(client.cancel(CREDENTIALS, reference="r-1"))
        await merchant.stepped(SandboxStep.WALLET_CALLED_BACK)
        before = asyncio.all_tasks()
    with pytest.raises(PockytUnavailableError):
        await hanging
    assert [task for task in before if not task.done() and task is not asyncio.current_task()] == []


async def test_the_number_of_waiting_tasks_is_limited() -> None:
    async with serving(tasks_max=1, time_scale=1) as (sandbox, client, merchant):
        merchant.answers = [(503, "")] * 20
        for reference in ("r-1", "r-2"):
            sandbox.pay((await opened(client, reference)).transaction_no or "")
        assert merchant.count(SandboxStep.NOTIFICATION_DROPPED) == 1
        await opened(client, "r-3")
        await client.cancel(CREDENTIALS, reference="r-3")
        assert merchant.count(SandboxStep.WALLET_UNREACHABLE) == 1


async def test_a_wallet_with_too_much_to_do_says_so() -> None:
    # The one task is Pockyt's own, which tells the wallet; the wallet's finds no room.
    async with serving(tasks_max=1) as (sandbox, client, merchant):
        await opened(client)
        await client.cancel(CREDENTIALS, reference="r-1")
        await sandbox.idle()
        assert merchant.count(SandboxStep.WALLET_TOLD) == 3
        assert merchant.count(SandboxStep.WALLET_UNREACHABLE) == 1


async def test_the_oldest_cancellation_is_forgotten_where_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pockyt, "ABANDONING_MAX", 1)
    async with serving("wallet-slow@1", time_scale=1_000) as (sandbox, client, merchant):
        for reference in ("r-1", "r-2"):
            await opened(client, reference)
            await client.cancel(CREDENTIALS, reference=reference)
        await sandbox.idle()
        assert [said["reference"] for said in merchant.said] == ["r-2"]


async def test_a_cancellation_is_called_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_urlsafe", lambda: "known")
    async with serving() as (sandbox, client, merchant), aiohttp.ClientSession() as session:
        await opened(client)
        await client.cancel(CREDENTIALS, reference="r-1")
        await sandbox.idle()
        url = f"{sandbox.url}{pockyt.CALLBACK_PATH}known"
        async with session.post(url, json={"status": "cancelled"}) as response:
            assert response.status == 404
        await sandbox.idle()
        assert merchant.words == ["closed"]


async def test_only_who_was_given_the_key_can_call_back() -> None:
    async with serving() as (sandbox, _, _), aiohttp.ClientSession() as session:
        url = f"{sandbox.url}{pockyt.CALLBACK_PATH}guess"
        async with session.post(url, json={"status": "cancelled"}) as response:
            assert response.status == 404
        for body in ("{", "{}"):
            async with session.post(url, data=body) as response:
                assert response.status == 400
            async with session.post(f"{sandbox.wallet_url}/wallet/abandon", data=body) as response:
                assert response.status == 400


async def test_a_wallet_gives_up_a_callback_that_nobody_takes() -> None:
    nobody = f"http://127.0.0.1:{free_port()}/"
    async with serving() as (sandbox, _, merchant), aiohttp.ClientSession() as session:
        word = {"transactionNo": "1", "callbackUrl": nobody}
        async with session.post(f"{sandbox.wallet_url}/wallet/abandon", json=word) as response:
            assert response.status == 202
        await sandbox.idle()
        assert merchant.count(SandboxStep.WALLET_CANCELLED) == 1


async def test_a_taken_port_is_an_error_and_settings_show_no_token() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = SandboxSettings(port=taken.getsockname()[1])
        assert SAMPLE_TOKEN not in repr(settings)
        with pytest.raises(OSError, match="in use"):
            async with Sandbox.start(settings):
                raise AssertionError


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:")]
)
async def test_the_url_can_be_called_from_here(host: str, shown: str) -> None:
    try:
        async with Sandbox.start(SandboxSettings(host=host)) as sandbox:
            assert sandbox.url.startswith(shown)
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{sandbox.url}/sandbox/sales") as response,
            ):
                assert json.loads(await response.text()) == {"data": []}
    except OSError:
        if ":" not in host:
            raise
        lacking("this machine has no IPv6")
