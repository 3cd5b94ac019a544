"""`tail` against the service, both as programs of their own."""

import json
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from listener.commands.keys import make_key
from listener.keys import Key, Role
from listener.pockyt import signature
from listener.pockyt.signature import Token
from listener.settings import load
from tests.support.commands import Started, before_a_person, here, run, started, write_settings

STORE_NO = "303660"
# Each test is of a merchant of its own: whatever has the same signature is the same message.
TOKENS = {f"2001{number:02}": f"5cbfb079f15b150122261c8537086d7{number:02}" for number in range(40)}
MORE = "".join(
    f'[merchants.{number}]\ntokens = ["{token}"]\nstores = ["{STORE_NO}"]\n'
    for number, token in TOKENS.items()
)


@dataclass(frozen=True)
class Service:
    """A service that runs as a program, and a merchant of it."""

    url: str
    config: Path
    program: Started
    merchant_no: str

    @property
    def stream(self) -> str:
        return f"{self.merchant_no}/{STORE_NO}"

    def admin_key(self) -> tuple[Key, str]:
        return make_key(load(self.config, {}), role=Role.ADMIN)

    def pos_key(self, *, terminal: str | None = None) -> str:
        return make_key(
            load(self.config, {}),
            role=Role.POS,
            merchant_no=self.merchant_no,
            store_no=STORE_NO,
            terminal=terminal,
        )[1]

    def notify(self, number: int, **fields: str) -> None:
        sent = {"transactionNo": f"{number}", "status": "closed", "amount": "1.00"}
        sent |= {"currency": "USD"} | fields
        sent["verifySign"] = signature.sign(sent, Token(TOKENS[self.merchant_no]))
        request = urllib.request.Request(
            f"{self.url}/notify/{self.stream}", urlencode(sent).encode()
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.read() == b"success"


def serve(config: Path, *, port: int = 0) -> Generator[Service, None, None]:
    with started("serve", "--config", config, env={"LISTENER_PORT": str(port)}) as program:
        line = program.until(program.err, " serving ")
        url = line.partition(" url=")[2].partition(" ")[0]
        yield Service(url, config, program, merchant_no=next(iter(TOKENS)))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Service]]:
    """Serve all merchants; give them one after the other."""
    for one in serve(write_settings(tmp_path_factory.mktemp("service"), more=MORE)):
        yield (replace(one, merchant_no=number) for number in TOKENS)


@pytest.fixture
def service(services: Iterator[Service]) -> Service:
    return next(services)


def numbers(program: Started, count: int) -> list[str]:
    """Wait for so many events; return their transactions."""
    lines = [json.loads(program.until(program.out, "specversion")) for _ in range(count)]
    return [line["data"]["transactionNo"] for line in lines]


def test_a_till_goes_on_where_it_was(service: Service) -> None:
    arguments = ("tail", "--url", service.url.replace("http", "ws"), "--json")
    env = {"POS_KEY": service.pos_key(terminal="T-42")}
    with started(*arguments, env=env) as till:
        till.until(till.err, "live, over websocket")
        url = f"{service.url}/notify/{service.stream}"
        sent = run(
            "trigger",
            "--url",
            url,
            "transactionNo=1",
            env={"POCKYT_TOKEN": TOKENS[service.merchant_no]},
        )
        assert (sent.status, sent.out) == (0, "success\n")
        event = json.loads(till.until(till.out, "specversion"))
        assert event["type"] == "transaction.cancelled"
        assert event["data"]["transactionNo"] == "1"
        assert event["data"]["terminal"] is None
        assert event["time"].endswith("Z")
        assert len(event["time"]) == len("2026-11-23T10:11:12.345Z")
        assert till.stop(signal.SIGINT) == 130
        read_up_to = till.until(till.err, "was read up to")
        assert read_up_to.startswith(f"{service.stream} was read up to ")
    service.notify(2)
    with started(*arguments, env=env) as till:
        assert numbers(till, 1) == ["2"]
    position = read_up_to.rpartition(" ")[2]
    after = ("--stream", service.stream, "--after", position)
    with started(*arguments, *after, env={"POS_KEY": service.pos_key()}) as looking:
        assert numbers(looking, 1) == ["2"]


@pytest.mark.parametrize("options", ["", "--stream {stream}", "--no-ack"])
def test_everything_comes_from_the_earliest_on(service: Service, options: str) -> None:
    for number in (1, 2, 3):
        service.notify(number)
    chosen = options.format(stream=service.stream).split()
    arguments = ("tail", "--url", service.url, "--key", service.pos_key(), "--json")
    with started(*arguments, "--after", "earliest", *chosen) as looking:
        assert numbers(looking, 3) == ["1", "2", "3"]
    with started(*arguments, "--after", "latest") as looking:
        looking.until(looking.err, "live, over websocket")
        service.notify(4)
        assert numbers(looking, 1) == ["4"]


def test_an_admin_follows_every_stream_without_a_complaint(service: Service) -> None:
    _, key = service.admin_key()
    with started("tail", "--url", service.url, "--key", key) as looking:
        looking.until(looking.err, "live, over websocket")
        service.notify(1, reference="r\x1b[2J", amount="0.01", currency="USD")
        line = looking.until(looking.out, service.stream)
        assert "cancelled" in line
        assert "0.01 USD" in line
        assert "r\\x1b[2J" in line
        service.notify(2, status="success")
        assert "paid" in looking.until(looking.out, service.stream)
        assert looking.stop(signal.SIGINT) == 130
        assert [line for line in looking.left(looking.err) if "*" not in line] == []


def test_a_position_of_another_ledger_brings_every_transaction_as_it_stands(
    service: Service,
) -> None:
    service.notify(1)
    service.notify(2)
    arguments = ("tail", "--url", service.url, "--key", service.pos_key(), "--json")
    with started(*arguments, "--stream", service.stream, "--after", "another:1") as looking:
        looking.until(looking.err, "the position cannot be resumed (epoch_changed)")
        lines = [json.loads(looking.until(looking.out, "specversion")) for _ in range(2)]
        assert looking.stop(signal.SIGINT) == 130
    with started(*arguments[:-1], "--stream", service.stream, "--after", "another:1") as looking:
        assert "cancelled" in looking.until(looking.out, "(resync, none)")
    assert {line["type"] for line in lines} == {"transaction.snapshot"}
    assert {line["data"]["transactionNo"] for line in lines} == {"1", "2"}


def test_a_revoked_key_ends_it_with_one_line(service: Service) -> None:
    made, key = service.admin_key()
    with started("tail", "--url", service.url, "--key", key) as looking:
        looking.until(looking.err, "live, over websocket")
        run("keys", "revoke", "--config", service.config, made.id)
        looking.until(looking.err, "listener: the listener refused (4010): the key was revoked")
        assert looking.process.wait(10) == 1


def test_a_key_that_is_not_known_ends_it_with_one_line(service: Service) -> None:
    done = run("tail", "--url", service.url, "--key", "lk_x_y")
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("listener: the listener refused (4001)")
    assert "lk_x_y" not in done.err


def test_it_says_when_it_is_not_live_and_comes_back(tmp_path: Path) -> None:
    config = write_settings(tmp_path, more=MORE)
    serving = serve(config)
    first = next(serving)
    with started("tail", "--url", first.url, "--key", first.pos_key(), "--json") as looking:
        looking.until(looking.err, "live, over websocket")
        first.program.process.kill()
        assert "the listener's last word is " in looking.until(looking.err, "not live: ")
        serving.close()
        for second in serve(config, port=int(first.url.rpartition(":")[2])):
            looking.until(looking.err, "live, over websocket")
            second.notify(7)
            assert numbers(looking, 1) == ["7"]


def test_it_says_within_a_second_why_it_is_not_live() -> None:
    began = time.monotonic()
    with started("tail", "--url", "ws://127.0.0.1:1", "--key", "k") as looking:
        line = looking.until(looking.err, "not live: 127.0.0.1:1 cannot be reached")
        # The start of the program included.
        assert time.monotonic() - began < 5
        assert line.endswith("it is tried on and on")
        assert looking.stop(signal.SIGINT) == 130


def test_a_page_in_the_listeners_place_is_named_and_steers_no_terminal() -> None:
    page = "HTTP/1.1 403 No\r\nServer: e\x9b31m\u202e\r\nContent-Length: 0\r\n\r\n"
    with wall(page.encode()) as url, started("tail", "--url", url, "--key", "k") as looking:
        line = looking.until(looking.err, "not live: ")
        assert "answers 403, not by the listener" in line
        assert line.isprintable()


@contextmanager
def wall(answer: bytes) -> Iterator[str]:
    """Answer every connection with the same bytes; give its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve_all() -> None:
            with suppress(OSError):
                while True:
                    one, _ = listening.accept()
                    with one:
                        one.recv(65536)
                        one.sendall(answer)

        thread = threading.Thread(target=serve_all)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


EVIL = "a\x1b]0;x\x07\x9b31m\u202eb\u2028c\x7fd\u200b"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_nothing_of_a_signed_field_steers_the_terminal(
    service: Service, options: tuple[str, ...]
) -> None:
    service.notify(1, reference=EVIL)
    arguments = ("tail", "--url", service.url, "--key", service.pos_key(), "--after", "earliest")
    with started(*arguments, *options) as looking:
        line = looking.until(looking.out, "303660")
        assert line.isprintable()
        assert "\\u202e" in line
        assert looking.stop(signal.SIGINT) == 130
    if options:
        assert json.loads(line)["data"]["reference"] == EVIL


def test_a_line_carries_date_and_zone(service: Service) -> None:
    service.notify(1)
    arguments = ("tail", "--url", service.url, "--key", service.pos_key(), "--after", "earliest")
    with started(*arguments) as looking:
        line = looking.until(looking.out, "cancelled")
    day, clock = line.split()[:2]
    told = datetime.fromisoformat(f"{day}T{clock}")
    assert abs(datetime.now(UTC) - told) < timedelta(minutes=2)


def test_a_reader_that_goes_away_ends_it_quietly(service: Service) -> None:
    service.notify(1)
    arguments = ("tail", "--url", service.url, "--key", service.pos_key(), "--after", "earliest")
    with started(*arguments, reads=False) as looking:
        assert looking.process.stdout is not None
        assert "cancelled" in looking.process.stdout.readline()
        looking.process.stdout.close()
        service.notify(2)
        looking.process.wait(10)
        assert not any("Traceback" in line for line in looking.left(looking.err))


def test_without_acks_nothing_is_acknowledged(service: Service) -> None:
    key = service.pos_key(terminal="T-9")
    arguments = ("tail", "--url", service.url, "--key", key, "--json")
    with started(*arguments, "--no-ack") as looking:
        looking.until(looking.err, "live, over websocket")
        service.notify(1)
        service.notify(2)
        assert numbers(looking, 2) == ["1", "2"]
        assert looking.stop(signal.SIGINT) == 130
    # All of it comes again: neither what was printed nor the look itself counts as handled.
    with started(*arguments) as till:
        assert numbers(till, 2) == ["1", "2"]


def test_blanks_around_a_key_do_not_count(service: Service) -> None:
    env = {"POS_KEY": f"\ufeff {service.pos_key()}\r\n"}
    with started("tail", "--url", service.url, env=env) as looking:
        looking.until(looking.err, "live, over websocket")


def test_a_person_sees_lines_in_colour(service: Service) -> None:
    service.notify(1)
    seen = before_a_person(
        *("tail", "--url", service.url, "--key", service.pos_key(), "--after", "earliest"),
        until="cancelled",
    )
    assert "\x1b[" in seen


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--url", "ftp://x"], "begins with http://, https://, ws:// or wss://"),
        (["--url", "ws://x/?key=1"], "must have no query and no password"),
        (["--url", "ws://x", "--after", "e:1"], "--after with a position needs --stream"),
        (["--url", "ws://x", "--after", "now"], "write <epoch>:<offset>, acked, latest"),
        (["--url", "ws://x", "--after", ":1"], "write <epoch>:<offset>, acked, latest"),
        (["--url", "ws://x", "--key", " \n"], "the key is empty"),
        (["--url", "ws://x", "--key", "lk_a\nb"], "inside the key is a blank"),
        (["--url", "ws://x", "--key", "lk_\u00e9"], "inside the key is a blank or a letter"),
    ],
)
def test_a_wrong_option_is_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    done = here(capsys, "tail", "--key", "k", *options)
    assert done.status == 2
    assert "lk_" not in done.complaint
    assert complaint in done.complaint
