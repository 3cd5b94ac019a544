"""The fast path: what it takes, what it leaves to aiohttp, and how its connections end."""

import asyncio
import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from aiohttp import web

from listener.ingest import Ingest
from listener.pockyt.notification import BODY_BYTES_MAX
from listener.storage import queue
from listener.storage.sqlite.opening import connect
from listener.web import connections, http_connection
from listener.web.acknowledgement import success
from listener.web.app import running
from listener.web.context import METRICS
from listener.web.fast_path import FORM_SECONDS, FastConnection
from listener.web.head import (
    HEAD_BYTES_MAX,
    HEADERS_MAX,
    RequestHead,
    notification_bytes,
    read_head,
)
from listener.web.http_connection import CUTS_MAX
from tests.support.deliveries import NOTIFY, entries
from tests.support.service import (
    FIELDS,
    FORM,
    MERCHANT_NO,
    STORE_NO,
    TOKEN_TEXT,
    Serving,
    serving,
    settings,
    signed,
)

WAIT_SECONDS = 5


def request(body: bytes | None = None, *more: str) -> bytes:
    body = signed(FIELDS) if body is None else body
    lines = [f"POST {NOTIFY} HTTP/1.1", "Host: x", f"Content-Type: {FORM}", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def head(*more: str) -> bytes:
    return request(b"", *more)


@pytest.fixture(name="taken")
def _taken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the fast path answered."""
    taken: list[bytes] = []

    def counted() -> bytes:
        taken.append(success())
        return taken[-1]

    monkeypatch.setattr("listener.web.fast_path.success", counted)
    return taken


@pytest.fixture(name="made")
def _made(monkeypatch: pytest.MonkeyPatch) -> list[FastConnection]:
    """The connections that came out of the lobby."""
    made: list[FastConnection] = []

    class Seen(FastConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(self)
            super().connection_made(transport)

    monkeypatch.setattr("listener.web.app.FastConnection", Seen)
    return made


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WAIT_SECONDS):
        told = await reader.readuntil(b"\r\n\r\n")
        length = told.partition(b"Content-Length: ")[2].partition(b"\r")[0]
        return told + await reader.readexactly(int(length))


async def opened(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


def counted(service: Serving, status: bytes) -> float:
    """Return how many notifications were answered with a status."""
    name, labels = "listener_notifications_total", {"status": status.decode()}
    return service.service.app[METRICS].registry.get_sample_value(name, labels) or 0.0


# What it takes.


@pytest.mark.parametrize("fast_path", [True, False])
async def test_the_setting_turns_it_off(
    tmp_path: Path, taken: list[bytes], fast_path: bool
) -> None:
    async with serving(tmp_path / "ledger.db", fast_path=fast_path) as service:
        assert (await service.notify())[0] == 200
        reader, writer = await opened(service.url)
        for _ in range(3):
            writer.write(request())
            assert (await answer_of(reader)).endswith(b"\r\n\r\nsuccess")
        writer.close()
        (entry,) = await entries(service)
        assert entry["deliveries"] == {**entry["deliveries"], "count": 4}  # type: ignore[dict-item]
    assert bool(taken) is fast_path


@pytest.mark.parametrize("fast_path", [True, False])
async def test_requests_in_one_segment_are_all_answered(tmp_path: Path, fast_path: bool) -> None:
    async with serving(tmp_path / "ledger.db", fast_path=fast_path) as service:
        reader, writer = await opened(service.url)
        # One whose body comes later, then more than aiohttp queues.
        first = request()
        writer.write(first[:-9])
        await asyncio.sleep(0.1)
        writer.write(first[-9:])
        assert (await answer_of(reader)).endswith(b"success")
        writer.write(request() * 70)
        for _ in range(70):
            assert (await answer_of(reader)).endswith(b"success")
        writer.close()


def parted(sent: bytes) -> tuple[bytes, bytes]:
    """Part a request as Java's clients send it: its head, then its form."""
    end = sent.index(b"\r\n\r\n") + 4
    return sent[:end], sent[end:]


def chunked_request() -> bytes:
    sent, form = parted(request())
    head_ = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", sent)
    return head_ + b"%x\r\n%b\r\n0\r\n\r\n" % (len(form), form)


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("tail", [b"\0", b" ", b"x", b"0\r\n\r\n", b"GET\r\n\r\n"], ids=repr)
@pytest.mark.parametrize("sent", [request() * 3, chunked_request()], ids=["three", "chunked"])
async def test_what_follows_a_notification_does_not_refuse_it(
    tmp_path: Path, fast_path: bool, tail: bytes, sent: bytes
) -> None:
    async with serving(tmp_path / "ledger.db", fast_path=fast_path) as service:
        for known_before in (False, True):
            reader, writer = await (known if known_before else opened)(service.url)
            writer.write(sent + tail)
            for _ in range(sent.count(b"POST ")):
                assert (await answer_of(reader)).endswith(b"\r\n\r\nsuccess")
            assert (await answer_of(reader)).startswith(b"HTTP/1.0 400 ")
            assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize(
    ("sent", "rest"),
    [
        (b"POST /notify/1\r\nContent-Length: 5\r\n\r\n12345", b""),
        (b"POST /notify/1\r\nContent-Length: 5\r\n\r\n123456", b"6"),
        (b"POST /notify/1\r\nContent-Length: 5\r\n\r\n1234", b""),
        (b"POST //notify/1\r\ncontent-LENGTH:\t5 \r\nHost: x\r\n\r\n12345GET", b"GET"),
        (
            b"POST /notify/1\r\n\r\nPOST /\r\nContent-Length: 1\r\n\r\n",
            b"POST /\r\nContent-Length: 1\r\n\r\n",
        ),
        (b"POST /notify/1\r\nContent-Length: 5, 5\r\n\r\n12345", b"12345"),
        (b"POST /notify/1\r\nX-Content-Length: 5\r\n\r\n12345", b"12345"),
        (b"POST /notify/1\r\nContent-Length: 5\r\n", b""),
        (b"POST /v1/transactions\r\nContent-Length: 5\r\n\r\n123456", b""),
        (b"\r\n\r\nPOST /notify/1\r\n\r\n", b""),
        (b"", b""),
    ],
)
def test_a_segment_is_cut_behind_a_notification(sent: bytes, rest: bytes) -> None:
    assert sent[notification_bytes(sent) :] == rest


@pytest.mark.parametrize("part", [b"\0\r\n\r\n", b"\r\n\r\n", b"POST /notify/\r\n\r\n"], ids=repr)
async def test_a_segment_is_not_cut_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    fed: list[bytes] = []
    receive = web.RequestHandler.data_received

    def counting(self: web.RequestHandler, data: bytes) -> None:
        fed.append(data)
        receive(self, data)

    monkeypatch.setattr(web.RequestHandler, "data_received", counting)
    async with serving(tmp_path / "ledger.db") as service:
        reader, writer = await known(service.url)
        writer.write(part * (connections.READ_BYTES_MAX // len(part)))
        writer.write_eof()
        async with asyncio.timeout(WAIT_SECONDS):
            await reader.read()
        writer.close()
    assert 1 <= len(fed) <= CUTS_MAX + 1


async def send_parts(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.02)


async def known(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and have one notification acknowledged; the next finds no lobby."""
    reader, writer = await opened(url)
    writer.write(request())
    assert (await answer_of(reader)).endswith(b"success")
    return reader, writer


async def test_a_form_may_come_after_its_head(tmp_path: Path, taken: list[bytes]) -> None:
    forged = signed(FIELDS).replace(b"13.00", b"12.00")
    async with serving(tmp_path / "ledger.db") as service:
        reader, writer = await known(service.url)
        for body, told in ((None, b"success"), (forged, b"signature"), (None, b"success")):
            sent = request(body)
            for parts in (parted(sent), (sent[:-9], sent[-9:])):
                await send_parts(writer, *parts)
                assert told in await answer_of(reader)
        writer.close()
    assert len(taken) == 5


@pytest.mark.parametrize("after", ["a third part", "too much", "half a head", "a late form"])
async def test_what_comes_in_other_parts_is_left_to_aiohttp(
    tmp_path: Path, taken: list[bytes], made: list[FastConnection], after: str
) -> None:
    head_, form = parted(request())
    answers = 1
    async with serving(tmp_path / "ledger.db") as service:
        reader, writer = await known(service.url)
        if after == "a third part":
            await send_parts(writer, head_, form[:9], form[9:])
        elif after == "too much":
            answers = 2
            await send_parts(writer, head_, form + request())
        elif after == "half a head":
            await send_parts(writer, head_[:2], head_[2:] + form)
        else:
            await send_parts(writer, head_)
            made[0].look(made[0].since + FORM_SECONDS)
            await send_parts(writer, form)
        writer.write(request())
        for _ in range(answers + 1):
            assert (await answer_of(reader)).endswith(b"success")
        writer.close()
    assert len(taken) == 1


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_sender_that_stops_after_the_head_is_told_at_once(
    tmp_path: Path, fast_path: bool
) -> None:
    async with serving(tmp_path / "ledger.db", fast_path=fast_path) as service:
        reader, writer = await known(service.url)
        await send_parts(writer, parted(request())[0])
        writer.write_eof()
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 400 ")
        assert await reader.read() == b""
        writer.close()


async def test_a_form_has_its_time(
    tmp_path: Path, taken: list[bytes], made: list[FastConnection]
) -> None:
    head_, form = parted(request())
    async with serving(tmp_path / "ledger.db") as service:
        reader, writer = await known(service.url)
        (connection,) = made
        sent_at = asyncio.get_running_loop().time()
        await send_parts(writer, head_)
        assert connection.since >= sent_at
        assert connection.look(connection.since + FORM_SECONDS * 0.99) is None
        # It is the sender's turn, as with aiohttp; so it may still be crowded out.
        assert (connection.is_idle, connection.is_late, connection.waits_for_peer) == (
            False,
            False,
            True,
        )
        await send_parts(writer, form)
        assert (await answer_of(reader)).endswith(b"success")
        assert connection.is_idle
        writer.close()
    assert len(taken) == 2


async def test_a_merchant_that_nobody_configured_is_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger.db") as service:
        reader, writer = await opened(service.url)
        writer.write(request().replace(NOTIFY.encode(), b"/notify/999"))
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 404 ")
        writer.close()


async def test_a_head_that_differs_in_each_request_is_taken_too(
    tmp_path: Path, taken: list[bytes]
) -> None:
    async with serving(tmp_path / "ledger.db") as service:
        reader, writer = await opened(service.url)
        for number in range(5):
            writer.write(request(None, f"X-Request-ID: {number:032x}"))
            await answer_of(reader)
        writer.close()
    assert len(taken) == 5


def padded(size: int) -> bytes:
    """Return a head of this many bytes."""
    return head("X-Pad: " + "x" * (size - len(head("X-Pad: "))))


@pytest.mark.parametrize(
    ("sent", "is_read"),
    [
        (head(), True),
        (padded(HEAD_BYTES_MAX), True),
        (head(*(f"X-{n}: 1" for n in range(HEADERS_MAX - 3))), True),
        (head(*(f"X-{n}: 1" for n in range(HEADERS_MAX - 2))), False),
        (head("Expect: 100-continue"), False),
        (head("Connection: close"), False),
        (head("Content-Encoding: identity"), False),
        (head("Content-Type: text/plain"), False),
        (head("Content-Length: 0"), False),
        (head().replace(b"/1.1", b"/1.0"), False),
        (head().replace(b"Host: x\r\n", b""), False),
        (head().replace(NOTIFY.encode(), b"/notify/%32"), False),
        (head().replace(b": 0", b": 65536"), True),
        (head().replace(b": 0", b": 65537"), False),
        (b"\r\n" + head(), False),
        (b"GET / HTTP/1.1", False),
    ],
)
async def test_only_a_plain_head_is_read(sent: bytes, is_read: bool) -> None:
    assert (read_head(sent) is not None) is is_read


async def test_a_head_says_for_whom_and_how_long() -> None:
    assert read_head(head()) == RequestHead(MERCHANT_NO, STORE_NO, False, 0, NOTIFY, None)
    forwarded = read_head(head("X-Forwarded-For: 192.0.2.7"))
    assert forwarded is not None
    assert forwarded.forwarded_for == "192.0.2.7"


async def test_a_message_captured_at_a_merchant_with_the_same_token_is_a_repeat(
    tmp_path: Path,
) -> None:
    table = {number: {"tokens": [TOKEN_TEXT]} for number in (MERCHANT_NO, "200044")}
    async with serving(tmp_path / "ledger.db", merchants=table) as service:
        assert (await service.notify(path=f"/notify/{MERCHANT_NO}"))[0] == 200
        assert (await service.notify(path="/notify/200044"))[0] == 200
        (entry,) = await entries(service)
        assert entry["merchantNo"] == MERCHANT_NO


async def test_a_longer_head_is_left_to_aiohttp(tmp_path: Path, taken: list[bytes]) -> None:
    room = HEAD_BYTES_MAX - len(request()) + len(signed(FIELDS)) - len("X-Pad: \r\n")
    async with serving(tmp_path / "ledger.db") as service:
        for size, count in ((room, 1), (room + 1, 1)):
            reader, writer = await opened(service.url)
            writer.write(request(None, "X-Pad: " + "x" * size))
            assert (await answer_of(reader)).endswith(b"success")
            writer.close()
            assert len(taken) == count


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"a=1", b"401"), (b"a=1&a=2", b"400"), (b"", b"401"), (signed(FIELDS)[:-1] + b"x", b"401")],
    ids=["unsigned", "a field twice", "nothing", "forged"],
)
async def test_a_refusal_is_no_request_of_aiohttp_and_is_counted_and_logged(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    taken: list[bytes],
    body: bytes,
    status: bytes,
) -> None:
    async with serving(tmp_path / "ledger.db") as service:
        before = counted(service, status)
        reader, writer = await opened(service.url)
        for _ in range(3):
            writer.write(request(body, "X-Forwarded-For: 192.0.2.7"))
            assert (await answer_of(reader)).startswith(b"HTTP/1.1 %b " % status)
        assert counted(service, status) == before + 3
        (line,) = [one for one in caplog.records if one.args == ("refused",)]
        fields = line.__dict__["fields"]
        assert (fields["path"], fields["sender"]) == (NOTIFY, "127.0.0.1")
        assert (fields["forwardedFor"], fields["merchantNo"]) == ("192.0.2.7", MERCHANT_NO)
        # The same connection goes on, and is still on the fast path.
        writer.write(request())
        assert (await answer_of(reader)).endswith(b"success")
        assert len(taken) == 1
        writer.close()


async def test_a_flood_of_refusals_is_read_at_a_limited_rate_and_a_known_sender_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: list[bytes]
) -> None:
    monkeypatch.setattr(connections, "REFUSALS_PER_SECOND", 20)
    async with serving(tmp_path / "ledger.db") as service:
        known, knowns = await opened(service.url)
        knowns.write(request())
        await answer_of(known)
        reader, writer = await opened(service.url)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(11):
            writer.write(request(b"a=1"))
            assert b" 401 " in await answer_of(reader)
        # The answer comes at once; ten times it was not yet the turn of the next.
        assert loop.time() - started > 0.45
        started = loop.time()
        for _ in range(100):
            knowns.write(request(b"a=1"))
            await answer_of(known)
        assert loop.time() - started < WAIT_SECONDS
        writer.write(request())
        assert (await answer_of(reader)).endswith(b"success")
        assert len(taken) == 2
        writer.close()
        knowns.close()


# How its connections end.


async def test_an_idle_connection_ends_in_its_time_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: list[bytes]
) -> None:
    monkeypatch.setattr(http_connection, "IDLE_SECONDS", 0.6)
    async with serving(tmp_path / "ledger.db") as service:
        loop = asyncio.get_running_loop()
        reader, writer = await opened(service.url)
        for _ in range(4):
            await asyncio.sleep(0.3)
            writer.write(request())
            await answer_of(reader)
        answered = loop.time()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await reader.read() == b""
        assert 0.5 < loop.time() - answered < WAIT_SECONDS
        writer.close()
    assert len(taken) == 4


async def test_a_connection_is_not_idle_between_a_head_and_its_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "IDLE_SECONDS", 0.6)
    head_, form = parted(request())
    async with serving(tmp_path / "ledger.db") as service:
        reader, writer = await known(service.url)
        await asyncio.sleep(0.3)
        writer.write(head_)
        await asyncio.sleep(0.4)
        writer.write(form)
        assert (await answer_of(reader)).endswith(b"success")
        writer.close()


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_queued_notification_is_answered_before_the_service_ends(
    tmp_path: Path, taken: list[bytes], fast_path: bool
) -> None:
    path = tmp_path / "ledger.db"
    stop = asyncio.Event()
    began = asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with running(settings(path, fast_path=fast_path)) as service:
            urls.append(service.url)
            began.set()
            await stop.wait()

    task = asyncio.create_task(serve())
    await began.wait()
    reader, writer = await opened(urls[0])
    other = connect(path, create=False)
    # As `keys create` does for a moment: the commit has to wait.
    other.execute("BEGIN IMMEDIATE")
    writer.write(request())
    await asyncio.sleep(0.1)
    stop.set()
    await asyncio.sleep(0.1)
    assert not taken
    other.execute("ROLLBACK")
    other.close()
    assert (await answer_of(reader)).endswith(b"success")
    async with asyncio.timeout(WAIT_SECONDS):
        assert await reader.read() == b""
        await task
    writer.close()
    assert len(taken) == fast_path


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_notification_that_the_ledger_cannot_take_is_tried_once_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: list[bytes], fast_path: bool
) -> None:
    monkeypatch.setattr("listener.storage.sqlite.connection.BUSY_SECONDS", 0.05)
    async with serving(tmp_path / "ledger.db", fast_path=fast_path) as service:
        failed = Mock(wraps=queue.fail)
        monkeypatch.setattr("listener.storage.sqlite.writer.fail", failed)
        other = connect(tmp_path / "ledger.db", create=False)
        other.execute("BEGIN IMMEDIATE")
        reader, writer = await opened(service.url)
        writer.write(request())
        told = await answer_of(reader)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in told
        assert b'"code":"ledger-unavailable"' in told
        assert failed.call_count == 1
        refused = 'listener_notifications_total{status="503"} 1.0'
        assert refused.encode() in service.service.app[METRICS].text()
        other.execute("ROLLBACK")
        other.close()
        # The same connection goes on.
        writer.write(request())
        assert (await answer_of(reader)).endswith(b"success")
        writer.close()
    assert len(taken) == fast_path


# The ordinary way.


def chunked(size: int) -> bytes:
    """Return a notification whose body has so many bytes, which its head does not say."""
    sent = request(b"x" * size, "Transfer-Encoding: chunked")
    length, body = b"Content-Length: %d\r\n" % size, b"x" * size
    return sent.replace(length, b"").replace(body, b"%x\r\n%b\r\n0\r\n\r\n" % (size, body))


async def test_bodies_that_came_behind_another_request_are_limited_and_read_to_their_end(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "ledger.db", fast_path=False) as service:
        other = connect(tmp_path / "ledger.db", create=False)
        other.execute("BEGIN IMMEDIATE")
        reader, writer = await opened(service.url)
        # One that has arrived, and one that is too large to be kept: reading is paused.
        writer.write(request() + chunked(BODY_BYTES_MAX + 1) + chunked(600_000))
        await asyncio.sleep(0.2)
        other.execute("ROLLBACK")
        other.close()
        assert (await answer_of(reader)).endswith(b"success")
        for _ in range(2):
            assert (await answer_of(reader)).startswith(b"HTTP/1.1 413 ")
        writer.write(request())
        assert (await answer_of(reader)).endswith(b"success")
        writer.close()


async def test_the_acknowledgement_is_what_aiohttp_writes(tmp_path: Path) -> None:
    kept = request()
    # aiohttp writes these two itself.
    older = request(None, "Connection: keep-alive").replace(b"/1.1\r", b"/1.0\r")
    closed = request(None, "Connection: close")
    told = []
    async with serving(tmp_path / "ledger.db", fast_path=False) as service:
        reader, writer = await opened(service.url)
        for sent in (kept, older, closed):
            writer.write(sent)
            told.append(re.sub(rb"\r\nDate: [^\r]+", b"", await answer_of(reader)))
        writer.close()
    one, of_older, last = told
    assert of_older == one.replace(b"/1.1", b"/1.0").replace(
        b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"
    )
    assert last == one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "is_routed"),
    [
        (NOTIFY, False),
        (f"/notify/{MERCHANT_NO}", False),
        (f"{NOTIFY}?a=1", False),
        (f"{NOTIFY}/", True),
        (NOTIFY.replace("notify", "notif%79"), True),
        (NOTIFY.replace(STORE_NO, f"%33{STORE_NO[1:]}"), True),
    ],
)
async def test_what_is_plainly_a_notification_is_not_routed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, is_routed: bool
) -> None:
    routed = []
    resolve = web.UrlDispatcher.resolve

    async def noted(router: web.UrlDispatcher, asked: web.Request) -> web.UrlMappingMatchInfo:
        routed.append(asked)
        return await resolve(router, asked)

    monkeypatch.setattr(web.UrlDispatcher, "resolve", noted)
    async with serving(tmp_path / "ledger.db", fast_path=False) as service:
        reader, writer = await opened(service.url)
        writer.write(request().replace(NOTIFY.encode(), path.encode()))
        assert (await answer_of(reader)).endswith(b"success")
        writer.close()
        assert bool(routed) is is_routed
        (entry,) = await entries(service)
        assert entry["storeNo"] == (STORE_NO if STORE_NO[1:] in path else None)


@pytest.mark.parametrize("path", [NOTIFY, f"{NOTIFY}/"])
async def test_a_failure_of_the_listener_is_logged_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async with serving(tmp_path / "ledger.db", fast_path=False) as service:
        monkeypatch.setattr(Ingest, "receive", fail)
        reader, writer = await opened(service.url)
        for _ in range(2):
            writer.write(request().replace(NOTIFY.encode(), path.encode()))
            assert (await answer_of(reader)).startswith(b"HTTP/1.1 500 ")
        writer.close()
    lines = [one for one in caplog.records if one.msg == "request_failed"]
    assert [one.__dict__["fields"]["route"] for one in lines] == [path, path]
