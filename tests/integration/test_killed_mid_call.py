"""A listener that is killed, or paused, in the middle of a call to Pockyt, and a till that repeats.

Pockyt stops the listener itself: when a call has come, before or after doing it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web

from listener.keys import Role, mint
from listener.pockyt.calls import Call
from listener.pockyt.client import REQUEST_ID_HEADER
from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.storage import open_keys, verify
from tests.support import backends
from tests.support.commands import Started, started
from tests.support.ports import free_port
from tests.support.shop import order

CODE: Final = {"paymentBarcode": "2812345678901234"}
SETTINGS: Final = """
port = {port}
database = "{database}"
public_url = "https://pos.example.com"
pockyt = {{ url = "{pockyt}", timeout_seconds = 2.0 }}
[merchants.200043]
tokens = ["5cbfb079f15b150122261c8537086d77a"]
stores = ["303660"]
"""
PATIENCE_SECONDS: Final = 30.0


@dataclass(slots=True, kw_only=True)
class Stop:
    """What stops a listener: a signal, at a call, before or after Pockyt has done it."""

    call: Call
    is_done: bool
    pid: int
    number: signal.Signals = signal.SIGKILL


@dataclass(slots=True, kw_only=True)
class Gate:
    """Stands before the sandbox: lists the calls, with their ids, and stops a listener at one."""

    sandbox: Sandbox
    url: str = ""
    stop: Stop | None = None
    calls: list[tuple[Call, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        call, body = Call(request.path), await request.read()
        self.calls.append((call, request.headers[REQUEST_ID_HEADER]))
        stop = self.stop if self.stop is not None and self.stop.call is call else None
        if stop is not None:
            self.stop = None
            if not stop.is_done:
                os.kill(stop.pid, stop.number)
                return web.Response(status=503)
        headers = {name: request.headers[name] for name in (REQUEST_ID_HEADER, "Content-Type")}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.sandbox.url + call, data=body, headers=headers) as done,
        ):
            said = await done.read()
        if stop is not None:
            os.kill(stop.pid, stop.number)
        return web.Response(body=said, content_type="application/json")

    def is_waiting(self) -> bool:
        """Return whether the call at which a listener is to be stopped has not come yet."""
        return self.stop is not None

    def sent(self, call: Call) -> list[str]:
        """Return the request ids of the calls of one kind."""
        return [request_id for one, request_id in self.calls if one is call]


@dataclass(slots=True, kw_only=True)
class Node:
    """A real listener; ``begin`` starts it, again if it was killed."""

    config: Path
    port: int
    running: Started
    stack: AsyncExitStack

    @property
    def pid(self) -> int:
        return self.running.process._process.pid or 0  # type: ignore[union-attr]  # it is forked

    async def begin(self) -> None:
        self.running = self.stack.enter_context(started("serve", "--config", self.config))
        await asyncio.to_thread(self.running.until, self.running.err, " serving ")


@dataclass(slots=True, kw_only=True)
class Place:
    """Pockyt, one listener or two on a ledger, and a till."""

    gate: Gate
    nodes: list[Node]
    key: str
    session: aiohttp.ClientSession
    is_shared: bool

    async def post(
        self, node: Node, path: str, body: object, *, idem: str
    ) -> tuple[int, dict[str, object]]:
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": idem}
        url = f"http://127.0.0.1:{node.port}{path}"
        async with self.session.post(url, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def status_of(self, node: Node, number: str) -> str:
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"http://127.0.0.1:{node.port}/v1/transactions/{number}"
        async with self.session.get(url, headers=headers) as answer:
            return str((await answer.json())["status"])

    async def start(self, **changes: object) -> str:
        status, sale = await self.post(
            self.nodes[0], "/v1/transactions", order(**changes), idem="started"
        )
        assert status == 201
        self.gate.calls.clear()
        return str(sale["transactionNo"])

    async def stopped(
        self, path: str, body: object, stop: Stop, *, resumes: bool = False
    ) -> tuple[int, dict[str, object]]:
        """Send a request, in which the listener is stopped; repeat it until it is answered."""
        first, self.gate.stop = self.nodes[0], stop
        sent = asyncio.create_task(self.post(first, path, body, idem="k"))
        if stop.number is signal.SIGKILL:
            with pytest.raises(aiohttp.ClientError):
                await sent
            await asyncio.to_thread(first.running.process.wait, PATIENCE_SECONDS)
            if not self.is_shared:
                await first.begin()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.gate.is_waiting():
                await asyncio.sleep(0.05)
            while True:
                told = await self.post(self.nodes[-1], path, body, idem="k")
                if told[0] not in (409, 503):
                    break
                await asyncio.sleep(0.1)
        if resumes:
            os.kill(stop.pid, signal.SIGCONT)
            await asyncio.wait_for(sent, PATIENCE_SECONDS)
        return told


@pytest.fixture(name="url", params=backends.NAMES)
def _url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with backends.backend(request.param, tmp_path) as made:
        yield made.url


@pytest.fixture(name="place")
async def _place(url: str, tmp_path: Path) -> AsyncIterator[Place]:
    is_shared = url.startswith("postgresql")
    async with (
        Sandbox.start(SandboxSettings()) as sandbox,
        _gate(sandbox) as gate,
        aiohttp.ClientSession() as session,
        AsyncExitStack() as stack,
    ):
        nodes = []
        for name in ("one", "other")[: 1 + is_shared]:
            port = free_port()
            config = tmp_path / f"{name}.toml"
            config.write_text(SETTINGS.format(port=port, database=url, pockyt=gate.url))
            config.chmod(0o600)
            node = Node(config=config, port=port, running=None, stack=stack)  # type: ignore[arg-type]
            await node.begin()
            nodes.append(node)
        key = await asyncio.to_thread(_made, url)
        yield Place(gate=gate, nodes=nodes, key=key, session=session, is_shared=is_shared)
        for node in nodes:
            node.running.process.kill()
            await asyncio.to_thread(node.running.process.wait, PATIENCE_SECONDS)
    # Whatever has happened, it adds up.
    await asyncio.to_thread(verify, url)


@asynccontextmanager
async def _gate(sandbox: Sandbox) -> AsyncIterator[Gate]:
    gate = Gate(sandbox=sandbox)
    app = web.Application()
    app.router.add_post("/{path:.*}", gate.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gate.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield gate
    finally:
        await runner.cleanup()


def _made(url: str) -> str:
    key, text = mint(
        role=Role.POS,
        now_ms=0,
        merchant_no="200043",
        store_no="303660",
        terminal=None,
        may_refund=True,
    )

    def add() -> None:
        with open_keys(url, create=False) as stored:
            stored.add(key)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(add).result()
    return text


async def test_a_listener_that_is_killed_after_prepay_was_done_sends_no_other(
    place: Place,
) -> None:
    number = await place.start()
    stop = Stop(call=Call.PREPAY, is_done=True, pid=place.nodes[0].pid)
    status, told = await place.stopped(f"/v1/transactions/{number}/pay", CODE, stop)
    assert (status, told["status"]) == (200, "paid")
    assert [call for call, _ in place.gate.calls][:2] == [Call.PREPAY, Call.TRAN_QUERY]
    assert len(place.gate.sent(Call.PREPAY)) == 1


async def test_a_listener_that_is_killed_before_prepay_was_done_asks_and_sends_it_again(
    place: Place,
) -> None:
    number = await place.start()
    stop = Stop(call=Call.PREPAY, is_done=False, pid=place.nodes[0].pid)
    status, told = await place.stopped(f"/v1/transactions/{number}/pay", CODE, stop)
    assert (status, told["status"]) == (200, "paid")
    assert [call for call, _ in place.gate.calls] == [Call.PREPAY, Call.TRAN_QUERY, Call.PREPAY]
    # So that Pockyt itself repeats its first answer.
    assert len(set(place.gate.sent(Call.PREPAY))) == 1


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_a_listener_that_is_paused_in_prepay_and_resumes_sends_no_other(
    place: Place,
) -> None:
    number = await place.start()
    pid = place.nodes[0].pid
    stop = Stop(call=Call.PREPAY, is_done=True, pid=pid, number=signal.SIGSTOP)
    path = f"/v1/transactions/{number}/pay"
    status, told = await place.stopped(path, CODE, stop, resumes=True)
    assert (status, told["status"]) == (200, "paid")
    assert len(place.gate.sent(Call.PREPAY)) == 1
    assert await place.status_of(place.nodes[0], number) == "paid"


@pytest.mark.parametrize(
    ("url", "vendor", "is_done"),
    [
        ("sqlite", None, True),
        ("sqlite", None, False),
        ("sqlite", "alipay", True),
        ("sqlite", "alipay", False),
        # The same code: what differs is who repeats it.
        ("postgresql", None, False),
    ],
    indirect=["url"],
)
async def test_a_listener_that_is_killed_in_a_start_starts_one_sale(
    place: Place, vendor: str | None, is_done: bool
) -> None:
    call = Call.ADD if vendor is None else Call.CREATE_TRANS_QRCODE
    stop = Stop(call=call, is_done=is_done, pid=place.nodes[0].pid)
    status, _ = await place.stopped("/v1/transactions", order(vendor=vendor), stop)
    assert status == 201
    expected = [call, Call.TRAN_QUERY] if is_done else [call, Call.TRAN_QUERY, call]
    assert [one for one, _ in place.gate.calls] == expected
    assert len(set(place.gate.sent(call))) == 1


async def _killed_in_a_cancel(place: Place, *, is_paid: bool, is_done: bool) -> tuple[str, int]:
    """Cancel a sale, and be killed in /cancel; return its number, and what the repeat was told."""
    number = await place.start(vendor="alipay")
    if is_paid:
        place.gate.sandbox.pay(number)
    stop = Stop(call=Call.CANCEL, is_done=is_done, pid=place.nodes[0].pid)
    path = f"/v1/transactions/{number}/cancel"
    status, _ = await place.stopped(path, {"refundIfPaid": is_paid}, stop)
    return number, status


@pytest.mark.parametrize(
    ("url", "is_paid"),
    [("sqlite", False), ("sqlite", True), ("postgresql", True)],
    indirect=["url"],
)
async def test_a_listener_that_is_killed_in_a_cancel_sends_no_other(
    place: Place, is_paid: bool
) -> None:
    number, status = await _killed_in_a_cancel(place, is_paid=is_paid, is_done=True)
    assert status in (200, 202)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await place.status_of(place.nodes[-1], number) not in ("cancelled", "refunded"):
            await asyncio.sleep(0.1)
    assert len(place.gate.sent(Call.CANCEL)) == 1


@pytest.mark.parametrize(
    ("url", "is_paid"), [("sqlite", False), ("sqlite", True)], indirect=["url"]
)
async def test_a_cancel_that_may_have_been_sent_before_a_kill_is_only_asked_about(
    place: Place, is_paid: bool
) -> None:
    _, status = await _killed_in_a_cancel(place, is_paid=is_paid, is_done=False)
    assert status == 202
    async with asyncio.timeout(PATIENCE_SECONDS):
        # One before the cancel, and two of the schedule.
        while len(place.gate.sent(Call.TRAN_QUERY)) < 3:
            await asyncio.sleep(0.1)
    assert len(place.gate.sent(Call.CANCEL)) == 1
