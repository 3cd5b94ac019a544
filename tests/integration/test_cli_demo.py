"""`demo`: the tutorial's six steps for real, and a failure told where one does not happen."""

import json
import re
import signal
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from listener.commands import tutorial
from listener.commands.demo import PORT
from listener.commands.keys import make_key
from listener.commands.tutorial import StepLog, TutorialError, play
from listener.keys import Role
from listener.sandbox.faults import Planned
from listener.sandbox.servers import SAMPLE_MERCHANT_NO, SAMPLE_TOKEN, Sandbox, SandboxSettings
from listener.settings import Settings
from listener.web.app import running
from tests.support.commands import here, run, started
from tests.support.ports import free_port

SECONDS_MAX = 10


def call(url: str, key: str, body: Mapping[str, str] | None = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.loads(answer.read())
    return found


def test_once_plays_the_six_steps_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run("demo", "--once", env={"TMPDIR": str(tmp_path)})
    assert time.monotonic() - began < SECONDS_MAX
    assert (done.status, done.err) == (0, "")
    steps = re.findall(r"^ +(\d) \+(\d+\.\d{3}) s (.+)$", done.out, re.MULTILINE)
    assert [step for step, _, _ in steps] == ["1", "2", "3", "4", "5", "6"]
    times = [float(at) for _, at, _ in steps]
    assert times == sorted(times)
    assert "the till shows cancelled" in steps[5][2]
    assert re.search(r"^Done in .+; the ledger holds \d+ entries of it\.$", done.out, re.MULTILINE)
    assert [*tmp_path.iterdir()] == []


def test_without_once_it_serves_on_with_keys_for_a_person() -> None:
    port = free_port()
    with started("demo", "--port", str(port)) as program:
        dashboard = program.until(program.out, "Dashboard").split()[-1]
        admin = program.until(program.out, "its key").split()[-1]
        till_page = program.until(program.out, "Till ").split()[-1]
        till = program.until(program.out, "its key").split()[-1]
        assert dashboard == f"http://127.0.0.1:{port}/"
        for page in (dashboard, till_page):
            with urllib.request.urlopen(page, timeout=10) as answer:
                assert answer.status == 200
        assert call(f"{dashboard}v1/ledger", admin)["epoch"]
        sale = {
            "reference": "by-hand",
            "amount": "1.50",
            "currency": "USD",
            "settleCurrency": "USD",
            "storeNo": tutorial.STORE_NO,
            "terminal": "T-1",
        }
        number = call(f"{dashboard}v1/transactions", till, sale)["transactionNo"]
        told = program.until(program.out, f"{number}")
        assert "created" in told
        assert "1.50 USD" in told
        assert program.stop(signal.SIGINT) == 0
        assert program.left(program.err) == []


def test_a_reader_that_leaves_early_ends_it() -> None:
    with started("demo", "--port", str(free_port()), reads=False) as program:
        out = program.process.stdout
        assert out is not None
        lines = iter(out.readline, "")
        dashboard = next(line for line in lines if "Dashboard" in line).split()[-1]
        next(lines)
        next(lines)
        till = next(lines).split()[-1]
        next(line for line in lines if "Ctrl-C" in line)
        out.close()
        sale = {
            "reference": "r",
            "amount": "1.50",
            "currency": "USD",
            "settleCurrency": "USD",
            "storeNo": tutorial.STORE_NO,
            "terminal": "T-1",
        }
        call(f"{dashboard}v1/transactions", till, sale)
        assert program.process.wait(SECONDS_MAX) in (0, 1)
        assert program.left(program.err) == []


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = here(capsys, "demo", "--once", "--port", str(port))
    assert done.status == 1
    assert done.complaint == f"port {port}: Address already in use"


def test_the_usual_port_gives_way_where_it_is_taken() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", PORT))
            taken.listen()
        except OSError:
            pass  # Somebody else has it, which is as good.
        with started("demo") as program:
            dashboard = program.until(program.out, "Dashboard").split()[-1]
            assert f":{PORT}/" not in dashboard
            program.until(program.out, "Ctrl-C")
            assert program.stop() == 0


@asynccontextmanager
async def stage(
    directory: Path, seen: StepLog, *, pockyt_url: str | None = None, **options: object
) -> AsyncIterator[tuple[str, str]]:
    """Run the demo's parts with a sandbox of our choice; give the URL and a till's key."""
    sandbox_settings = SandboxSettings(**options)  # type: ignore[arg-type]  # Options of a test.
    async with Sandbox.start(sandbox_settings, on_step=seen) as sandbox:
        settings = Settings.model_validate(
            {
                "port": 0,
                "database": f"sqlite:///{directory}/ledger.db",
                "pockyt": {"url": pockyt_url or sandbox.url, "timeout_seconds": 1.0},
                "merchants": {
                    SAMPLE_MERCHANT_NO: {"tokens": [SAMPLE_TOKEN], "stores": [tutorial.STORE_NO]}
                },
            }
        )
        _, key = make_key(
            settings,
            role=Role.POS,
            merchant_no=SAMPLE_MERCHANT_NO,
            store_no=tutorial.STORE_NO,
            terminal=tutorial.TILL,
        )
        async with running(settings) as service:
            yield service.url, key


def say_nothing(_step: int, _at: float, _text: str) -> None:
    """Ignore a step."""


async def test_a_notification_that_never_comes_is_step_six_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tutorial, "STEP_SECONDS", 1.0)
    seen, steps = StepLog(), []
    async with stage(tmp_path, seen) as (url, key):
        with pytest.raises(TutorialError, match="step 6: the till is told: not within 1 s"):
            await play(url, key=key, seen=seen, say=lambda step, _at, _text: steps.append(step))
    assert steps == [1, 2, 3, 4, 5]


async def test_a_pockyt_that_is_away_is_step_one_failing(tmp_path: Path) -> None:
    seen = StepLog()
    away = f"http://127.0.0.1:{free_port()}"
    async with stage(tmp_path, seen, pockyt_url=away) as (url, key):
        with pytest.raises(TutorialError, match="POST /v1/transactions was answered 5"):
            await play(url, key=key, seen=seen, say=say_nothing)


async def test_a_sale_that_is_paid_meanwhile_fails_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tutorial, "STEP_SECONDS", 1.0)
    seen = StepLog()
    planned = (Planned.parse("cancel-paid-meanwhile"),)
    async with stage(tmp_path, seen, faults=planned) as (url, key):
        # Refunded, so that the wallet has nothing to abandon.
        with pytest.raises(TutorialError, match="step 4: the wallet server is told"):
            await play(url, key=key, seen=seen, say=say_nothing)


async def test_a_key_that_is_not_known_fails_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tutorial, "STEP_SECONDS", 1.0)
    seen = StepLog()
    async with stage(tmp_path, seen) as (url, _):
        with pytest.raises(TutorialError, match="step 0: a till follows its store"):
            await play(url, key="lk_x_y", seen=seen, say=say_nothing)


async def test_a_listener_that_is_away_fails_the_tutorial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tutorial, "STEP_SECONDS", 0.3)
    with pytest.raises(TutorialError, match="step 0"):
        url = f"http://127.0.0.1:{free_port()}"
        await play(url, key="k", seen=StepLog(), say=say_nothing)


@asynccontextmanager
async def untrue(seen: StepLog, *answers: Mapping[str, object] | None) -> AsyncIterator[str]:
    """Run a listener that says what it is told to of a transaction; None: it hangs up."""
    told = iter(answers)
    steps: list[tuple[str, dict[str, str]]] = [
        ("called", {"call": "tran-query"}),
        ("called", {"call": "cancel"}),
        ("wallet.told", {}),
        ("wallet.cancelled", {}),
        ("wallet.called-back", {}),
        ("notification.answered", {"acknowledged": "yes", "status": "closed"}),
        ("till.told", {"type": "transaction.cancelled"}),
    ]

    async def stream(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=["pos.v1"])
        await ws.prepare(request)
        await ws.send_json({"type": "hello", "protocol": "pos.v1", "session": "s"})
        await ws.receive()
        await ws.send_json({"type": "ready", "streams": []})
        async for _ in ws:
            pass
        return ws

    async def sell(_request: web.Request) -> web.Response:
        seen("called", {"call": "add", "transactionNo": "1"})
        return web.json_response({"transactionNo": "1"}, status=201)

    async def cancel(_request: web.Request) -> web.Response:
        for name, detail in steps:
            seen(name, detail | {"transactionNo": "1"})
        return web.json_response({})

    async def show(request: web.Request) -> web.Response:
        # A client tries a GET again on a new connection.
        answer = next(told, None)
        if answer is None and request.transport is not None:
            request.transport.abort()
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/v1/pos/stream", stream)
    app.router.add_post("/v1/transactions", sell)
    app.router.add_post("/v1/transactions/1/cancel", cancel)
    app.router.add_get("/v1/transactions/1", show)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ([{"status": "paid"}], "the new transaction is paid"),
        ([None], "the listener does not answer"),
        (
            [{"status": "created"}, {"status": "cancelled", "entries": [{"kind": "answer"}]}],
            "the ledger says cancelled, from answer",
        ),
        (
            [{"status": "created"}, {"status": "paid", "entries": [{"kind": "notification"}]}],
            "the ledger says paid, from notification",
        ),
        ([{"status": "created"}, {"status": "cancelled", "entries": None}], "from $"),
    ],
)
async def test_a_ledger_that_says_otherwise_fails_the_tutorial(
    answers: list[Mapping[str, object] | None], complaint: str
) -> None:
    seen = StepLog()
    async with untrue(seen, *answers) as url:
        with pytest.raises(TutorialError, match=complaint):
            await play(url, key="k", seen=seen, say=say_nothing)
