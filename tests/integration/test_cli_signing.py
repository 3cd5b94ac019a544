"""`sign` and `trigger`: what they write and send, and how they refuse."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from listener.commands import signing
from listener.pockyt import signature
from listener.pockyt.signature import Token
from tests.support.commands import before_a_person, here, run
from tests.support.ports import free_port

TOKEN = "5cbfb079f15b150122261c8537086d77a"
# Those signed without their empty values are for `verify`: `sign` signs what it is given.
VECTORS = [
    vector
    for vector in json.loads((Path(__file__).parents[1] / "unit" / "vectors.json").read_text())
    if "" not in vector["params"].values()
]
SEVEN = {"transactionNo", "status", "amount", "currency", "settleCurrency", "reference", "time"}


class Merchant(ThreadingHTTPServer):
    """A notify URL that keeps what it was sent and answers what it was told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/notify/200043"
        self.bodies: list[str] = []
        self.types: list[str | None] = []
        self.answer: tuple[int, bytes] = (200, b"success")
        self.pause = threading.Event()
        self.pause.set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a sender that has gone away."""

    @property
    def fields(self) -> dict[str, str]:
        (body,) = self.bodies
        return dict(parse_qsl(body, keep_blank_values=True, strict_parsing=True))


class Taking(BaseHTTPRequestHandler):
    server: Merchant

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.bodies.append(self.rfile.read(length).decode())
        self.server.types.append(self.headers["Content-Type"])
        self.server.pause.wait(10)
        status, body = self.server.answer
        if status == 0:
            return  # Hangs up.
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Do not log."""


@pytest.fixture
def merchant() -> Iterator[Merchant]:
    with Merchant() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.pause.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["verifySign"][:8])
def test_sign_prints_the_verify_sign_of_each_published_message(
    capsys: pytest.CaptureFixture[str], vector: dict[str, dict[str, object]]
) -> None:
    pairs = [f"{name}={_text(v)}" for name, v in vector["params"].items() if v is not None]
    done = here(capsys, "sign", "--token", str(vector["token"]), *pairs)
    assert done.status == 0
    assert done.out.strip() == str(vector["verifySign"])
    assert done.err == ""


def _text(value: object) -> str:
    """Write a value as Pockyt signs it: nested ones as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def test_a_token_may_come_from_the_environment() -> None:
    done = run("sign", "a=1", env={"POCKYT_TOKEN": TOKEN})
    assert done.out == signature.sign({"a": "1"}, Token(TOKEN)) + "\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--token", TOKEN], "there is nothing to sign"),
        (["--token", " ", "a=1"], "a token is empty"),
        (["a=1"], "Missing option '--token'"),
        (["--token", TOKEN, "a=1", "secret"], "number 2 is not written field=value"),
        (["--token", TOKEN, "=1"], "number 1 is not written field=value"),
        (["--token", TOKEN, "a=1", "a=2"], "a is given twice"),
        (["--token", TOKEN, "a=\udcff"], "number 1 is not UTF-8"),
    ],
)
def test_sign_refuses_what_it_cannot_sign(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.delenv("POCKYT_TOKEN", raising=False)
    done = here(capsys, "sign", *arguments)
    assert done.status == 2
    assert complaint in done.complaint
    assert "listener sign --help" in done.complaint
    assert "secret" not in done.err
    assert TOKEN not in done.err


def test_trigger_sends_a_signed_payment_notification_as_a_form(
    capsys: pytest.CaptureFixture[str], merchant: Merchant
) -> None:
    done = here(capsys, "trigger", "--url", merchant.url, "--token", TOKEN)
    assert done.status == 0
    assert done.out == "success\n"
    fields = merchant.fields
    assert set(fields) == SEVEN | {"verifySign"}
    assert fields["status"] == "closed"
    assert signature.verify(fields, [Token(TOKEN)])
    assert merchant.types == ["application/x-www-form-urlencoded"]
    assert f"sent closed for transaction {fields['transactionNo']}" in done.err
    assert TOKEN not in done.err


def test_trigger_makes_up_a_fresh_transaction_each_time(
    capsys: pytest.CaptureFixture[str], merchant: Merchant
) -> None:
    for _ in range(2):
        here(capsys, "trigger", "--url", merchant.url, "--token", TOKEN)
    numbers = {dict(parse_qsl(body))["transactionNo"] for body in merchant.bodies}
    assert len(numbers) == 2
    assert all(len(number) == 18 and number.isdecimal() for number in numbers)


def test_a_given_field_wins_over_a_made_up_one(
    capsys: pytest.CaptureFixture[str], merchant: Merchant
) -> None:
    here(
        capsys,
        *("trigger", "--url", merchant.url, "--token", TOKEN),
        *("amount=0.01", "status=success", "note=schön & gut", "vendorId="),
    )
    fields = merchant.fields
    assert (fields["amount"], fields["status"]) == ("0.01", "success")
    assert (fields["note"], fields["vendorId"]) == ("schön & gut", "")
    assert signature.verify(fields, [Token(TOKEN)])


@pytest.mark.parametrize("options", [(), ("--bare",)])
def test_a_status_that_is_given_twice_is_refused_and_nothing_is_sent(
    capsys: pytest.CaptureFixture[str], merchant: Merchant, options: tuple[str, ...]
) -> None:
    done = here(
        capsys,
        *("trigger", "--url", merchant.url, "--token", TOKEN, *options),
        *("--status", "success", "status=closed"),
    )
    assert done.status == 2
    assert done.complaint.startswith("the status is given twice: by --status, and as status=…")
    assert merchant.bodies == []


def test_bare_sends_nothing_made_up(capsys: pytest.CaptureFixture[str], merchant: Merchant) -> None:
    done = here(
        capsys, "trigger", "--url", merchant.url, "--token", TOKEN, "--bare", "autoDebitNo=7"
    )
    assert set(merchant.fields) == {"autoDebitNo", "verifySign"}
    assert "sent - for transaction -" in done.err


def test_a_given_signature_is_sent_as_it_is(
    capsys: pytest.CaptureFixture[str], merchant: Merchant
) -> None:
    merchant.answer = (401, b'{"title":"not signed"}')
    done = here(
        capsys, "trigger", "--url", merchant.url, "--token", TOKEN, "--json", "verifySign=0"
    )
    assert merchant.fields["verifySign"] == "0"
    assert done.status == 1
    told = json.loads(done.out)
    assert (told["httpStatus"], told["taken"]) == (401, False)
    assert told["answer"] == '{"title":"not signed"}'
    assert "verifySign" not in told["sent"]
    assert done.complaint == "the answer was HTTP 401, not success"


def test_json_shows_what_was_sent(capsys: pytest.CaptureFixture[str], merchant: Merchant) -> None:
    done = here(capsys, "trigger", "--url", merchant.url, "--token", TOKEN, "--json")
    told = json.loads(done.out)
    assert (done.status, done.err) == (0, "")
    assert told["taken"] is True
    assert set(told["sent"]) == SEVEN


@pytest.mark.parametrize("answer", [(200, b"success\n"), (200, b""), (202, b"success")])
def test_only_the_word_success_under_200_is_success(
    capsys: pytest.CaptureFixture[str], merchant: Merchant, answer: tuple[int, bytes]
) -> None:
    merchant.answer = answer
    done = here(capsys, "trigger", "--url", merchant.url, "--token", TOKEN)
    assert done.status == 1


def test_an_endless_answer_is_cut(capsys: pytest.CaptureFixture[str], merchant: Merchant) -> None:
    merchant.answer = (200, b"x" * (signing.ANSWER_BYTES_MAX * 3))
    done = here(capsys, "trigger", "--url", merchant.url, "--token", TOKEN)
    assert done.status == 1
    assert len(done.out) == signing.ANSWER_BYTES_MAX + 1


def test_no_answer_in_time_is_one_line(
    capsys: pytest.CaptureFixture[str], merchant: Merchant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "ANSWER_SECONDS", 0.2)
    merchant.pause.clear()
    done = here(capsys, "trigger", "--url", merchant.url, "--token", TOKEN)
    assert (done.status, done.err) == (1, "listener: no answer within 0.2 s\n")


def test_a_merchant_that_hangs_up_is_one_line(
    capsys: pytest.CaptureFixture[str], merchant: Merchant
) -> None:
    merchant.answer = (0, b"")
    done = here(capsys, "trigger", "--url", merchant.url, "--token", TOKEN)
    assert done.status == 1
    assert done.complaint.startswith("no answer: ")


def test_a_merchant_that_does_not_listen_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    done = here(capsys, "trigger", "--url", f"http://127.0.0.1:{port}/", "--token", TOKEN)
    assert done.status == 1
    assert "no answer: Cannot connect" in done.complaint


def test_an_invalid_url_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    done = here(capsys, "trigger", "--url", "ftp://x/", "--token", TOKEN)
    assert (done.status, "--url" in done.complaint) == (2, True)


def test_bare_without_fields_has_nothing_to_send(capsys: pytest.CaptureFixture[str]) -> None:
    done = here(capsys, "trigger", "--url", "http://x/", "--token", TOKEN, "--bare")
    assert "there is nothing to send" in done.complaint


def test_nothing_that_came_from_outside_commands_the_terminal(merchant: Merchant) -> None:
    merchant.answer = (200, b"no\x1b[2J")
    number = "transactionNo=1\x1b[2J"
    text = before_a_person("trigger", "--url", merchant.url, "--token", TOKEN, number, status=1)
    assert "\x1b" not in text
    assert "no\\x1b[2J" in text
