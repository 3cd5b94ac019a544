"""The task that looks after all tills: one that is broken is no concern of the others."""

import asyncio
import logging
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from websockets.frames import Opcode

from listener.keys import Key
from listener.pos.codes import CloseCode
from listener.web.context import HUB, KEYS, SESSIONS
from listener.web.guard import answering
from listener.web.till import pulse
from listener.web.till import sessions as sessions_module
from listener.web.till.connection import BUFFER_BYTES_MAX, TillConnection
from listener.web.till.sessions import Session, SessionTiming
from tests.support.service import STREAM, Serving, serving
from tests.support.tills import DEADLINE_SECONDS, BareTill, till, upgrade_head

PATIENT = SessionTiming(tick_seconds=0.02, close_seconds=0.3)
PINGING = SessionTiming(tick_seconds=0.02, close_seconds=0.3, ping_seconds=0.05)


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db", timing=PATIENT) as running:
        yield running


def address(service: Serving) -> tuple[str, int]:
    parts = urlsplit(service.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():
            await asyncio.sleep(0.005)


async def test_the_oldest_connection_without_a_connect_makes_room(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "PENDING_MAX", 2)
    key = service.key()
    async with till(service.url, key) as joined, till(service.url) as oldest:
        await joined.join()
        await oldest.hear("hello")
        async with till(service.url) as second, till(service.url, key) as third:
            await second.hear("hello")
            await third.hear("hello")
            assert await oldest.code() == 4103
            await third.say(type="connect")
            await third.hear("ready")
            await joined.nothing_more()


async def test_a_connection_whose_connect_has_come_waits_for_us_and_makes_no_room(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "PENDING_MAX", 2)
    key, keys = service.key(), service.service.app[KEYS]
    find_key, is_read = keys.find_key, asyncio.Event()

    async def found_late(key_id: str) -> Key | None:
        await is_read.wait()
        return await find_key(key_id)

    monkeypatch.setattr(keys, "find_key", found_late)
    async with till(service.url, key) as first, till(service.url) as second:
        await first.say(type="connect")
        await until(lambda: len(service.service.app[SESSIONS].connections) == 2)
        await second.hear("hello")
        async with till(service.url) as third:
            await third.hear("hello")
            is_read.set()
            await first.hear("hello")
            await first.hear("ready")


async def test_a_till_that_came_while_the_process_was_paused_is_asked_to_come_back(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "PAUSE_SECONDS_MIN", 0.6)
    key = service.key(terminal="T-42")
    async with till(service.url, key) as before:
        await before.join()
        # It may have given up by now, and be followed from elsewhere: it must replace nobody.
        with socket.create_connection(address(service)) as sock:
            sock.sendall(upgrade_head(service.url, key))
            time.sleep(1.0)  # noqa: ASYNC251 - that is the pause
            sock.setblocking(False)
            assert CloseCode.COME_BACK.to_bytes(2) in await BareTill(sock).read()
        await before.nothing_more()
    await asyncio.sleep(pulse.BACKLOG_SECONDS)
    async with till(service.url, key) as back:
        await back.join()


async def test_of_two_connections_the_later_stays_although_the_earlier_is_let_in_after_it(
    service: Serving,
) -> None:
    # As where the database was slow to tell of the first one's key.
    sessions = service.service.app[SESSIONS]
    key, _ = service.keyed(terminal="T-42")
    async with lines(service, 2) as transports:
        earlier, later = (
            TillConnection(transport, connection_id=name, close_seconds=1.0)
            for name, transport in zip(("earlier", "later"), transports, strict=True)
        )
        for connection in (later, earlier):
            sessions.add(Session(connection=connection, key=key, heard_at=0.0, ping_at=0.0))
        assert (earlier.code, later.code) == (CloseCode.REPLACED, None)
        for connection in (earlier, later):
            connection.end()
            sessions.remove(connection)


@asynccontextmanager
async def lines(service: Serving, number: int) -> AsyncIterator[list[asyncio.WriteTransport]]:
    """Connect to the service so often, and say nothing."""
    writers = [(await asyncio.open_connection(*address(service)))[1] for _ in range(number)]
    yield [writer.transport for writer in writers]
    for writer in writers:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def test_strangers_who_are_closed_fill_no_log(
    service: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(20):
        async with till(service.url) as one:
            await one.ws.send("x")
            assert await one.code() == 4002
    lines = [record for record in caplog.records if record.getMessage() == "pos_closed"]
    assert 1 <= len(lines) <= 3


async def test_keys_that_cannot_be_read_for_a_while_end_nothing(
    service: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = service.keyed()
    async with till(service.url, text) as one:
        await one.join()
        with closing(sqlite3.connect(service.path)) as db:
            db.execute("ALTER TABLE keys RENAME TO hidden")
            db.execute("UPDATE ledger SET keys_version = keys_version + 1")
            db.commit()
            await until(lambda: "keys_unread" in caplog.text)
            await one.nothing_more()
            db.execute("ALTER TABLE hidden RENAME TO keys")
        service.revoke(key)
        assert await one.code() == 4010


async def test_watching_goes_on_whatever_the_keys_raise(
    service: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> int:
        raise sqlite3.ProgrammingError

    key, text = service.keyed()
    async with till(service.url, text) as one:
        await one.join()
        with monkeypatch.context() as patched:
            patched.setattr(service.ledger, "keys_version", fail)
            await until(lambda: "keys_unread" in caplog.text)
        service.revoke(key)
        assert await one.code() == 4010


async def test_a_till_that_cannot_be_watched_is_sent_back_and_the_others_are_pinged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ping = Session.ping
    async with serving(tmp_path / "ledger.db", timing=PINGING) as service:
        bad, text = service.keyed()

        def failing(session: Session, t_ms: int) -> None:
            if session.key.id == bad.id:
                raise RuntimeError("no ping")
            ping(session, t_ms)

        monkeypatch.setattr(Session, "ping", failing)
        async with till(service.url, text) as one, till(service.url, service.key()) as other:
            await one.join()
            await other.join()
            assert await one.code() == 1011
            for _ in range(3):
                assert (await other.frame())["type"] == "ping"
        assert "session_failed" in caplog.text


async def test_a_till_whose_events_cannot_be_written_is_sent_back(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = TillConnection.offer
    async with till(service.url, service.key()) as one, till(service.url, service.key()) as other:
        bad = (await one.frame())["session"]

        def failing(connection: TillConnection, frames: bytes) -> bool:
            if connection.id == bad:
                raise RuntimeError("no socket")
            return offer(connection, frames)

        monkeypatch.setattr(TillConnection, "offer", failing)
        await one.say(type="connect")
        await one.hear("ready")
        await other.join()
        assert await service.notify() == (200, "success")
        assert await other.offsets(1) == [1]
        # Not left on a socket on which nothing will ever come.
        assert await one.code() == 1011


async def test_the_number_of_tills_remembered_is_limited(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "SEEN_MAX", 2)
    sessions = service.service.app[SESSIONS]
    for terminal in ("T-1", "T-2", "T-3"):
        async with till(service.url, service.key(terminal=terminal)) as one:
            await one.join()
        await until(lambda: sessions.count == 0)
    assert set(sessions.seen()) == {f"{STREAM}/T-2", f"{STREAM}/T-3"}


async def test_a_till_that_closes_without_reading_on_is_cut_off_in_the_end(
    service: Serving,
) -> None:
    bare = await BareTill.follow(service.url, service.key())
    with closing(bare.sock):
        long = "c" * 4_000
        for number in range(150):
            changes = {"transactionNo": str(number), "currency": long}
            assert await service.notify(changes) == (200, "success")
        (connection,) = service.service.app[SESSIONS].connections
        await bare.send((1000).to_bytes(2, "big"), opcode=Opcode.CLOSE)
        await until(lambda: service.service.app[SESSIONS].count == 0)
        assert service.service.app[HUB].followers == 0
        # Cut off: what has come of the events is far less than there were.
        assert connection.buffered
        await until(lambda: not connection.buffered)
        assert len(await bare.read()) < 150 * len(long)


async def test_a_socket_holds_no_more_than_its_bound_and_one_write(service: Serving) -> None:
    bare = await BareTill.follow(service.url, service.key())
    with closing(bare.sock):
        (connection,) = service.service.app[SESSIONS].connections
        for number in range(300):
            changes = {"transactionNo": str(number), "currency": "c" * 4_000}
            assert await service.notify(changes) == (200, "success")
            assert connection.buffered < BUFFER_BYTES_MAX + 8_000
        assert not connection.has_room()


async def test_an_exception_in_a_handler_never_gets_out(
    caplog: pytest.LogCaptureFixture, service: Serving
) -> None:
    async def fails(request: web.Request) -> web.Response:
        raise RuntimeError(f"secret of {request.path}")

    app = web.Application()
    app.router.add_get("/", answering(fails))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with service.client.get(f"http://{host}:{port}/") as answer:
        assert (answer.status, answer.content_type) == (500, "application/problem+json")
        assert "secret" not in await answer.text()
    assert "request_failed" in caplog.text
    await runner.cleanup()
