"""`sandbox`: a stand-in Pockyt in a process of its own, and how it is told what to do."""

import json
import signal
import socket

import aiohttp
import pytest

from listener.pockyt.client import Credentials, PockytClient, PockytRefusedError
from listener.pockyt.signature import Token
from listener.sandbox.servers import SAMPLE_TOKEN
from tests.support.commands import DEADLINE_SECONDS, Started, here, started
from tests.support.ports import free_port

SAMPLE = Credentials(merchant_no="200043", store_no="303660", token=Token(SAMPLE_TOKEN))


def step(program: Started, name: str) -> dict[str, str]:
    """Wait for a step, and return its detail."""
    told = json.loads(program.until(program.out, f'"step":"{name}"'))
    detail: dict[str, str] = told["detail"]
    return detail


async def sell(url: str, credentials: Credentials = SAMPLE, *, then_cancel: bool = True) -> str:
    """Start a sale, cancel it, and return its number."""
    async with aiohttp.ClientSession() as session:
        pockyt = PockytClient(url, session=session)
        added = await pockyt.add(
            credentials, amount="13", currency="USD", settle_currency="USD", reference="r1"
        )
        assert added.transaction_no
        if then_cancel:
            await pockyt.cancel(credentials, transaction_no=added.transaction_no)
        return added.transaction_no


async def test_a_cancel_goes_through_the_wallet_to_the_notify_url() -> None:
    port = free_port()
    notify_url = f"http://127.0.0.1:{port}/notify/{{merchantNo}}/{{storeNo}}"
    options = ("--port", "0", "--notify-url", notify_url, "--json")
    with started("sandbox", *options) as program:
        begun = step(program, "started")
        assert begun["merchants"] == "200043"
        number = await sell(begun["url"])
        assert step(program, "wallet.told") == {"transactionNo": number}
        sent = step(program, "notification.sent")
        assert sent["url"] == f"http://127.0.0.1:{port}/notify/200043/303660"
        assert sent["status"] == "closed"
        assert program.stop() == 0


async def test_every_option_reaches_the_sandbox() -> None:
    port = free_port()
    options = [
        *("--port", f"{port}", "--wallet-port", "0", "--host", "127.0.0.1"),
        *("--merchant", "1:one", "--merchant", "2:two:2", "--old-token", "2:old"),
        *("--public-url", f"http://localhost:{port}/", "--time-scale", "1000"),
        *("--no-notify-on-cancel", "--refund-shows", "closed"),
        *("--fault", "cancel-not-notified@9", "--fault", "wallet-slow@1"),
    ]
    numbers = []
    for seed in ("7", "7", "8"):
        with started("sandbox", *options, "--seed", seed, "--json") as program:
            begun = step(program, "started")
            assert (begun["url"], begun["merchants"]) == (f"http://localhost:{port}", "1,2")
            two = Credentials(merchant_no="2", store_no="9", token=Token("two:2"))
            numbers.append(await sell(begun["url"], two))
            with pytest.raises(PockytRefusedError):
                await sell(begun["url"], SAMPLE)
            # The slow wallet takes two minutes, which pass in an eighth of a second.
            step(program, "fault")
            step(program, "wallet.called-back")
            assert program.stop(signal.SIGINT) == 0
            assert not [line for line in program.left(program.out) if "notification" in line]
    assert numbers[0] == numbers[1] != numbers[2]


async def test_a_seed_that_is_not_named_is_another_one_each_time_and_is_printed() -> None:
    seeds = []
    for _ in range(2):
        with started("sandbox", "--port", "0", "--json") as program:
            seeds.append(step(program, "started")["seed"])
    assert seeds[0] != seeds[1]
    assert all(seed.isdecimal() for seed in seeds)


@pytest.mark.parametrize("word", ["success", "closed"])
async def test_the_word_of_a_refunded_sale_can_be_chosen(word: str) -> None:
    with started("sandbox", "--port", "0", "--refund-shows", word, "--json") as program:
        url = step(program, "started")["url"]
        number = await sell(url, then_cancel=False)
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/sandbox/pay/{number}") as paid:
                assert paid.status == 200
            pockyt = PockytClient(url, session=session)
            await pockyt.cancel(SAMPLE, transaction_no=number)
            assert (await pockyt.tran_query(SAMPLE, transaction_no=number)).word == word
        assert program.stop() == 0


async def test_steps_are_lines_of_text_where_no_json_was_asked() -> None:
    with started("sandbox", "--port", "0", "--fault", "wallet-refusing") as program:
        begun = program.until(program.out, " started ")
        url = begun.partition("url=")[2].partition(" ")[0]
        number = await sell(url)
        struck = program.until(program.out, " fault ")
        assert f"transactionNo={number}" in struck
        assert struck.endswith("fault=wallet-refusing")
        assert program.stop() == 0


async def test_a_sandbox_ends_when_nobody_reads_its_steps() -> None:
    with started("sandbox", "--port", "0", "--json", reads=False) as program:
        assert program.process.stdout is not None
        url = json.loads(program.process.stdout.readline())["detail"]["url"]
        program.process.stdout.close()
        await sell(url, then_cancel=False)
        assert program.process.wait(DEADLINE_SECONDS) == 0
        assert program.left(program.err) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "65536"], "65536 is not in the range"),
        (["--port", "x"], "'x' is not a valid integer"),
        (["--merchant", "200043"], "write it merchantNo:token"),
        (["--merchant", "2 3:secret"], "write it merchantNo:token"),
        (["--merchant", "1:secret", "--merchant", "1:other"], "1 is given twice"),
        (["--old-token", "1: "], "write it merchantNo:token"),
        (["--notify-url", "pos.example.com"], "it must begin with http:// or https://"),
        (["--public-url", "x"], "it must begin with http:// or https://"),
        (["--fault", "typo"], "no such fault: 'typo'; there are notification-lost"),
        (["--fault", "wallet-slow"] * 101, "there are more than 100"),
        (["--time-scale", "0"], "it must be above 0 and at most 100000"),
        (["--time-scale", "nan"], "it must be above 0 and at most 100000"),
        (["--time-scale", "100001"], "it must be above 0 and at most 100000"),
        (["--refund-shows", "x"], "is not one of 'success', 'closed'"),
        (["--unknown"], "No such option"),
    ],
)
def test_a_wrong_option_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    done = here(capsys, "sandbox", *arguments)
    assert done.status == 2
    assert complaint in done.complaint
    assert "secret" not in done.err


@pytest.mark.parametrize("option", ["--port", "--wallet-port"])
def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = here(capsys, "sandbox", "--port", "0", option, port)
    assert done.status == 1
    assert "Address already in use" in done.complaint
    assert port in done.complaint
