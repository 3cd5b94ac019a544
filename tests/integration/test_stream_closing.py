"""Every way in which a connection of pos.v1 ends, and every limit at its edge."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.frames import Opcode

from listener.keys import Role
from listener.storage.sqlite import connection as storage_connection
from listener.web.context import METRICS, SESSIONS
from listener.web.till import acks
from listener.web.till import socket as stream_module
from listener.web.till.sessions import SessionTiming
from tests.support.service import MERCHANT_NO, OTHER_STORE_NO, STREAM, Serving, serving
from tests.support.tills import BareTill, acked, gone, place, till

OTHER_STREAM = f"{MERCHANT_NO}/{OTHER_STORE_NO}"
QUICK = SessionTiming(
    connect_seconds=0.3,
    tick_seconds=0.02,
    close_seconds=0.3,
    dead_seconds=0.4,
    drain_seconds=1.0,
)
# Patient, so that only what is meant to end a connection does.
PATIENT = SessionTiming(tick_seconds=0.02, close_seconds=0.3)


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db", timing=PATIENT) as running:
        yield running


STALLING = SessionTiming(tick_seconds=0.02, close_seconds=0.3, stalled_seconds=1.2)


@pytest.fixture(name="stalling")
async def _stalling(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db", timing=STALLING) as running:
        yield running


@pytest.fixture(name="quick")
async def _quick(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db", timing=QUICK) as running:
        yield running


# Keys and scopes.


async def test_a_bad_key_closes_with_4001_wherever_it_is(service: Serving) -> None:
    good = service.key()
    for wrong in ("nonsense", good[:-1], f"{good}x", "lk__", "lk_ü_ü"):
        if wrong.isascii():
            async with till(service.url, wrong) as one:
                await one.hear("hello")
                await one.say(type="connect")
                assert await one.code() == 4001
        async with till(service.url) as one:
            await one.hear("hello")
            await one.say(type="connect", key=wrong)
            assert await one.code() == 4001


async def test_a_revoked_key_does_not_come_in(service: Serving) -> None:
    key, text = service.keyed()
    service.revoke(key)
    async with till(service.url, text) as one:
        await one.say(type="connect")
        assert await one.code() == 4001


async def test_a_late_connect_closes_with_4103_with_a_key_in_the_header_too(quick: Serving) -> None:
    for key in (None, quick.key()):
        async with till(quick.url, key) as one:
            await one.hear("hello")
            assert await one.code() == 4103


async def test_no_key_at_all_closes_with_4003(service: Serving) -> None:
    async with till(service.url, headers={"Authorization": "Basic eDp5"}) as one:
        await one.hear("hello")
        await one.say(type="connect")
        assert await one.code() == 4003


async def test_a_stream_outside_of_the_scope_closes_with_4004(service: Serving) -> None:
    pos, merchant = service.key(), service.key(store_no=None)
    for text, name in (
        (pos, OTHER_STREAM),
        (pos, f"{MERCHANT_NO}/-"),
        (pos, "*"),
        (merchant, "200044/303660"),
        (merchant, "*"),
    ):
        async with till(service.url, text) as one:
            await one.hear("hello")
            await one.say(type="connect", streams=[{"stream": STREAM}, {"stream": name}])
            code, reason = await one.close()
            assert (code, reason.partition(":")[0]) == (4004, "streams.1")


async def test_a_ledger_key_may_follow_nothing(service: Serving) -> None:
    async with till(service.url, service.key(Role.LEDGER)) as one:
        await one.hear("hello")
        await one.say(type="connect")
        assert await one.code() == 4004


async def test_a_newer_connection_of_a_terminal_replaces_the_older(service: Serving) -> None:
    text = service.key(terminal="T-42")
    async with till(service.url, text) as old, till(service.url, text) as new:
        await old.join()
        await new.join()
        assert await old.code() == 4009
        await service.notify()
        assert await new.offsets(1) == [1]
        # That the older one is gone must not make the newer one forgotten.
        async with till(service.url, text) as newest:
            await newest.join()
            assert await new.code() == 4009


async def test_keys_without_a_terminal_are_shared(service: Serving) -> None:
    text = service.key()
    async with till(service.url, text) as one, till(service.url, text) as other:
        await one.join()
        await other.join()
        await service.notify()
        assert await one.offsets(1) == await other.offsets(1) == [1]


async def test_a_revocation_by_another_process_acts_within_a_second(tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger.db") as service:
        key, text = service.keyed()
        async with till(service.url, text) as one, till(service.url, service.key()) as other:
            await one.join()
            await other.join()
            async with asyncio.timeout(1.0):
                service.revoke(key)
                assert await one.code() == 4010
            await other.nothing_more()


async def test_a_key_revoked_between_hello_and_connect_does_not_come_in(
    service: Serving,
) -> None:
    key, text = service.keyed()
    async with till(service.url, text) as one:
        await one.hear("hello")
        service.revoke(key)
        await one.say(type="connect")
        assert await one.code() == 4001


# Silence and stalls.


async def test_a_till_that_says_nothing_is_closed_with_4201(quick: Serving) -> None:
    async with till(quick.url, quick.key()) as one:
        await one.join()
        assert await one.code() == 4201
    await gone(quick.service.app)


async def test_a_stalled_till_is_told_4108_and_cut_off(stalling: Serving) -> None:
    bare = await BareTill.follow(stalling.url, stalling.key())
    with closing(bare.sock):
        talk = asyncio.create_task(keep_talking(bare))
        await flood(stalling)
        await gone(stalling.service.app)
        talk.cancel()
        # Nothing but a part of the events was ever taken, and the line is cut.
        assert b"4108" not in await bare.read()
    assert b'listener_pos_closes_total{code="4108"} 1.0' in stalling.service.app[METRICS].text()


async def test_a_slow_till_that_goes_on_reading_is_not_stalled(stalling: Serving) -> None:
    bare = await BareTill.follow(stalling.url, stalling.key())
    with closing(bare.sock):
        talk = asyncio.create_task(keep_talking(bare))
        flooded = asyncio.create_task(flood(stalling))
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + 3 * STALLING.stalled_seconds:
            await bare.some(16_384)
            await asyncio.sleep(0.02)
        await bare.read_until(b'"offset":400,', at_once=65_536)
        talk.cancel()
        await flooded


async def test_a_slow_till_is_not_stalled_while_the_system_sends_what_it_holds(
    stalling: Serving,
) -> None:
    bare = await BareTill.follow(stalling.url, stalling.key())
    with closing(bare.sock):
        talk = asyncio.create_task(keep_talking(bare))
        await flood(stalling)
        (connection,) = stalling.service.app[SESSIONS].connections
        # For as long as three stalls take, the listener itself can send nothing.
        waits = connection.buffered
        assert waits > 0
        for _ in range(int(3 * STALLING.stalled_seconds / 0.3)):
            await bare.some(4_096)
            await asyncio.sleep(0.3)
        assert connection.buffered == waits
        assert not connection.is_closing
        talk.cancel()


async def flood(service: Serving) -> None:
    """Record far more than a socket's buffers hold."""
    long = "c" * 4_000
    for start in range(0, 400, 50):
        sent = (
            service.notify({"transactionNo": str(number), "currency": long})
            for number in range(start, start + 50)
        )
        assert set(await asyncio.gather(*sent)) == {(200, "success")}


async def keep_talking(bare: BareTill) -> None:
    """Be heard, while nothing is read."""
    try:
        while True:
            await bare.say(type="pong", t=1)
            await asyncio.sleep(0.05)
    except ConnectionError:
        pass


# The listener's own end.


async def test_a_restart_is_announced_and_closes_with_1012(tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger.db", timing=QUICK) as service:
        url, key = service.url, service.key()
        async with till(url, key) as one, till(url) as silent:
            await one.join()
            await silent.hear("hello")
            drained = asyncio.create_task(service.service.app[SESSIONS].drain())
            for each in (one, silent):
                reconnect = await each.hear("reconnect")
                assert 0 <= reconnect["afterMs"] <= 1000 * QUICK.drain_seconds
                assert await each.code() == 1012
            await drained


async def test_the_tills_are_told_to_come_back_spread_over_the_drain_time(tmp_path: Path) -> None:
    timing = SessionTiming(drain_seconds=1_000.0)
    async with serving(tmp_path / "ledger.db", timing=timing) as service:
        url = service.url
        async with till(url) as one, till(url) as two, till(url) as three:
            waits = set()
            for each in (one, two, three):
                await each.hear("hello")
            drained = asyncio.create_task(service.service.app[SESSIONS].drain())
            for each in (one, two, three):
                waits.add((await each.hear("reconnect"))["afterMs"])
            await drained
    assert len(waits) == 3


async def test_a_stop_does_not_wait_for_a_till_that_does_not_answer(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with serving(tmp_path / "ledger.db", timing=QUICK) as service:
        bare = await BareTill.open(service.url, service.key())
        await bare.say(type="connect")
        await bare.read_until(b'"ready"')
        began = loop.time()
    with closing(bare.sock):
        assert loop.time() - began < QUICK.drain_seconds + 2
        assert (1012).to_bytes(2, "big") in await bare.read()


async def test_a_till_that_upgrades_just_before_a_restart_is_sent_away_too(tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger.db", timing=QUICK) as service:
        sessions = service.service.app[SESSIONS]
        bare = await BareTill.open(service.url, service.key())
        drained = asyncio.create_task(sessions.drain())
        with closing(bare.sock):
            assert (1012).to_bytes(2, "big") in await bare.read()
        await drained
        assert sessions.count == 0


async def test_a_ledger_that_cannot_be_read_closes_with_1011(service: Serving) -> None:
    text = service.key()
    with closing(sqlite3.connect(service.path)) as db:
        db.execute("ALTER TABLE acks RENAME TO hidden")
        async with till(service.url, text) as one:
            await one.hear("hello")
            await one.say(type="connect")
            assert await one.code() == 1011
        db.execute("ALTER TABLE hidden RENAME TO acks")
    async with till(service.url, text) as one:
        await one.join()


async def test_an_ack_that_cannot_be_stored_now_is_stored_later_and_the_till_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_connection, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(acks, "RETRY_SECONDS", 0.05)
    async with serving(tmp_path / "ledger.db", timing=PATIENT) as service:
        await service.notify()
        async with till(service.url, service.key(terminal="T-42")) as one:
            await one.join({"stream": STREAM, "after": "earliest"})
            await one.offsets(1)
            with closing(sqlite3.connect(service.path)) as db:
                db.execute("BEGIN IMMEDIATE")
                await one.ack(STREAM, 1)
                # Longer than the ledger waits for the lock.
                await asyncio.sleep(0.3)
                assert await place(service.ledger, terminal=f"{STREAM}/T-42", stream=STREAM) == 0
            await acked(service.ledger, terminal=f"{STREAM}/T-42", stream=STREAM, offset=1)
            await one.nothing_more()


async def test_an_ack_that_was_not_stored_ends_with_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_connection, "BUSY_SECONDS", 0.05)
    async with serving(tmp_path / "ledger.db", timing=PATIENT) as service:
        await service.notify()
        with closing(sqlite3.connect(service.path)) as db:
            async with till(service.url, service.key(terminal="T-42")) as one:
                await one.join({"stream": STREAM, "after": "earliest"})
                await one.offsets(1)
                db.execute("BEGIN IMMEDIATE")
                await one.ack(STREAM, 1)
            await gone(service.service.app)
            while any("Acks._store" in repr(task) for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)
        async with till(service.url, service.key(terminal="T-42")) as one:
            # The till says it again, for it is told again.
            assert (await one.join())["streams"][0]["after"] == 0
            assert await one.offsets(1) == [1]


async def test_a_fault_of_the_listener_closes_with_1011_and_is_logged(
    service: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(stream_module, "begin")
    async with till(service.url, service.key()) as one:
        await one.hear("hello")
        await one.say(type="connect")
        assert await one.code() == 1011
    assert "till_failed" in caplog.text


async def test_the_clients_own_code_is_answered(service: Serving) -> None:
    for code in (1000, 4201):
        async with till(service.url, service.key()) as one:
            await one.join()
            await one.ws.close(code=code)
            assert (one.ws.close_code, one.ws.protocol.close_rcvd is not None) == (code, True)
        await gone(service.service.app)
    # A close without a code.
    bare = await BareTill.open(service.url, service.key())
    with closing(bare.sock):
        await bare.send(b"", opcode=Opcode.CLOSE)
        assert (await bare.read()).endswith(b"\x88\x02" + (1000).to_bytes(2, "big"))


async def test_a_close_that_the_till_answers_ends_with_nothing_more(service: Serving) -> None:
    bare = await BareTill.open(service.url, service.key())
    with closing(bare.sock):
        await bare.send(b"[]")
        code = (4002).to_bytes(2, "big")
        await bare.read_until(code + b"a frame is not an object", at_once=1)
        await bare.send(code, opcode=Opcode.CLOSE)
        assert await bare.read() == b""


async def test_frames_sent_after_the_close_do_no_harm(service: Serving) -> None:
    bare = await BareTill.open(service.url, service.key())
    with closing(bare.sock):
        await bare.send(b"no json")
        for _ in range(50):
            await bare.say(type="connect")
        read = await bare.read()
    assert read.count(b"\x88") == 1
    assert (4002).to_bytes(2, "big") in read
    await gone(service.service.app)
