"""Every limit of pos.v1 at its edge, and what a till may not say."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from listener.pos.frames import FRAME_BYTES_MAX, STREAMS_MAX, STREAMS_OF_ANY_KEY_MAX
from listener.web.context import METRICS
from listener.web.till import sessions as sessions_module
from listener.web.till import socket as stream_module
from listener.web.till.sessions import SessionTiming
from tests.support.service import MERCHANT_NO, OTHER_STORE_NO, STREAM, TOKEN_TEXT, Serving, serving
from tests.support.tills import gone, till

OTHER_STREAM = f"{MERCHANT_NO}/{OTHER_STORE_NO}"
# Patient, so that only what is meant to end a connection does.
PATIENT = SessionTiming(tick_seconds=0.02, close_seconds=0.3)


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db", timing=PATIENT) as running:
        yield running


def padded(size: int) -> str:
    """Write a connect frame of so many bytes."""
    frame = json.dumps({"type": "connect", "pad": ""})
    return frame.replace('"pad": ""', f'"pad": "{"x" * (size - len(frame))}"')


async def code_after(service: Serving, text: str | bytes) -> int | None:
    """Send a frame right after the ready; return the code of the close."""
    async with till(service.url, service.key()) as one:
        await one.join()
        await one.ws.send(text)
        return await one.code()


async def test_a_frame_of_exactly_the_limit_is_taken(service: Serving) -> None:
    async with till(service.url, service.key()) as one:
        await one.hear("hello")
        await one.ws.send(padded(FRAME_BYTES_MAX))
        await one.hear("ready")


@pytest.mark.parametrize("size", [FRAME_BYTES_MAX + 1, 1024 * 1024])
async def test_a_frame_past_the_limit_is_too_big(service: Serving, size: int) -> None:
    async with till(service.url, service.key()) as one:
        await one.join()
        with suppress(ConnectionClosed):
            await one.ws.send(padded(size))
        assert await one.code() == 1009
    await gone(service.service.app)
    assert b'listener_pos_closes_total{code="1009"} 1.0' in service.service.app[METRICS].text()


async def test_a_frame_in_pieces_past_the_limit_is_too_big(service: Serving) -> None:
    async with till(service.url, service.key()) as one:
        await one.join()
        await one.ws.send([padded(FRAME_BYTES_MAX), " "])
        assert await one.code() == 1009


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"type":7}',
        '{"type":"ack"}',
        '{"type":"ack","stream":"200043/303660","offset":-1}',
        '{"type":"ack","stream":"200043/303660","offset":1.5}',
        '{"type":"ack","stream":"200043/303660","offset":"1"}',
        '{"type":"ack","stream":"no stream","offset":1}',
        '{"type":"pong"',
        b"\x00",
    ],
)
async def test_a_malformed_frame_closes_with_4002(service: Serving, text: str | bytes) -> None:
    assert await code_after(service, text) == 4002


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"type":"ack","stream":"1/2","offset":-1}', "frame ack: offset: must be greater than"),
        (
            '{"type":"connect","id":[]}',
            "frame connect: id: must be a whole number",
        ),
        ('{"type":"connect","streams":["1/2"]}', "frame connect: streams.0: must be a JSON object"),
        (
            '{"type":"connect","streams":[{"stream":"1"}]}',
            "frame connect: streams.0.stream: must be <",
        ),
        (
            '{"type":"connect","streams":[{"stream":"1/2"},{"stream":"1/2"}]}',
            "frame connect: streams: name each stream once",
        ),
        (
            '{"type":"connect","streams":[{"stream":"1/2","after":"now"}]}',
            "frame connect: streams.0.after: must be {epoch, offset}, acked, latest or earliest",
        ),
        ('{"type":"ack","stream":"1/2","offset":"1"}', "frame ack: offset: must be a whole number"),
        (
            '{"type":"connect","streams":[{"stream":"1/2","after":{"epoch":"e"}}]}',
            "frame connect: streams.0.after.offset: is missing",
        ),
        (f'{{"type":"connect","{"secret" * 30}":1,"streams":7}}', "frame connect: streams: must"),
        ("[]", "a frame is not an object"),
    ],
)
async def test_the_close_says_what_is_wrong_with_a_frame_and_quotes_nothing(
    service: Serving, text: str, why: str
) -> None:
    async with till(service.url, service.key()) as one:
        await one.join()
        await one.ws.send(text)
        code, reason = await one.close()
    assert code == 4002
    assert reason.startswith(why)
    assert "secret" not in reason


@pytest.mark.parametrize("count", [STREAMS_MAX, STREAMS_MAX + 1])
async def test_a_till_of_more_streams_than_it_may_name_comes_back_to_all(
    tmp_path: Path, count: int
) -> None:
    # One stream is that of no store.
    stores = [str(number) for number in range(count - 1)]
    merchants = {MERCHANT_NO: {"tokens": [TOKEN_TEXT], "stores": stores}}
    async with serving(tmp_path / "ledger.db", merchants=merchants) as service:
        key = service.key(store_no=None)
        async with till(service.url, key) as one:
            await one.hear("hello")
            await one.say(type="connect")
            ready = await one.hear("ready")
        assert len(ready["streams"]) == count
        places = [
            {"stream": each["stream"], "after": {"epoch": each["epoch"], "offset": 0}}
            for each in ready["streams"]
        ]
        async with till(service.url, key) as again:
            ready = await again.join(*places[:STREAMS_MAX], others=True)
            assert len(ready["streams"]) == count
        await gone(service.service.app)


async def test_a_till_may_acknowledge_every_event_that_it_was_sent(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "FRAMES_AT_ONCE_MAX", 10)
    monkeypatch.setattr(stream_module, "FRAMES_PER_SECOND", 0)
    for number in range(1, 31):
        await service.notify({"transactionNo": str(number)})
    async with till(service.url, service.key()) as one:
        await one.join({"stream": STREAM, "after": {"epoch": service.ledger.epoch, "offset": 10}})
        await one.offsets(20)
        for offset in range(11, 31):
            await one.ack(STREAM, offset)
        await one.nothing_more()
        # What acknowledges nothing new counts, as any other frame does.
        for _ in range(9):
            await one.ack(STREAM, 30)
        assert await one.code() == 4101


@pytest.mark.parametrize("count", [STREAMS_MAX, STREAMS_MAX + 1])
async def test_a_connect_names_a_limited_number_of_streams(tmp_path: Path, count: int) -> None:
    stores = [str(number) for number in range(count)]
    merchants = {MERCHANT_NO: {"tokens": [TOKEN_TEXT], "stores": stores}}
    async with serving(tmp_path / "ledger.db", merchants=merchants) as service:
        async with till(service.url, service.key(store_no=None)) as one:
            await one.hear("hello")
            names = [f"{MERCHANT_NO}/{number}" for number in stores]
            await one.say(type="connect", streams=[{"stream": name} for name in names])
            if count > STREAMS_MAX:
                assert await one.code() == 4002
                return
            assert len((await one.hear("ready"))["streams"]) == count
        await gone(service.service.app)


@pytest.mark.parametrize("count", [STREAMS_OF_ANY_KEY_MAX, STREAMS_OF_ANY_KEY_MAX + 1])
async def test_a_key_of_few_streams_may_not_name_many(service: Serving, count: int) -> None:
    async with till(service.url, service.key()) as one:
        await one.hear("hello")
        names = [f"{MERCHANT_NO}/{number}" for number in range(count)]
        await one.say(type="connect", streams=[{"stream": name} for name in names])
        # So many it may name; only that they are not its own.
        assert await one.code() == (4004 if count == STREAMS_OF_ANY_KEY_MAX else 4002)


async def test_a_stream_is_named_once(service: Serving) -> None:
    async with till(service.url, service.key()) as one:
        await one.hear("hello")
        await one.say(type="connect", streams=[{"stream": STREAM}, {"stream": STREAM}])
        assert await one.code() == 4002


async def test_more_frames_than_a_till_may_send_close_with_4101(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "FRAMES_AT_ONCE_MAX", 10)
    monkeypatch.setattr(stream_module, "FRAMES_PER_SECOND", 0)
    async with till(service.url, service.key()) as one:
        await one.join()
        # The connect was the first of ten; unknown ones and the websocket's own count as well.
        for _ in range(7):
            await one.say(type="dance")
        await (await one.ws.ping())
        await one.nothing_more()
        await one.say(type="dance")
        assert await one.code() == 4101


async def test_frames_are_earned_back_with_time(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "FRAMES_AT_ONCE_MAX", 3)
    monkeypatch.setattr(stream_module, "FRAMES_PER_SECOND", 100)
    async with till(service.url, service.key()) as one:
        await one.join()
        for _ in range(20):
            await one.nothing_more()
            await asyncio.sleep(0.02)


async def test_the_connections_of_a_key_are_limited(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "SESSIONS_PER_KEY_MAX", 2)
    text = service.key()
    async with till(service.url, text) as one, till(service.url, text) as two:
        await one.join()
        await two.join()
        async with till(service.url, text) as three:
            await three.hear("hello")
            await three.say(type="connect")
            assert await three.code() == 4102
        async with till(service.url, service.key()) as other:
            await other.join()
        await two.ws.close()
        async with till(service.url, text) as four:
            await four.join()


async def test_the_connections_of_the_listener_are_limited(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 1)
    async with till(service.url) as one:
        await one.hear("hello")
        # Whoever has not even connected counts as well.
        async with till(service.url, service.key()) as two:
            await two.hear("hello")
            assert await two.code() == 4102
    await gone(service.service.app)
    async with till(service.url, service.key()) as three:
        await three.join()


# Secrets.


async def test_no_key_is_ever_logged_or_told(
    service: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, text = service.keyed(terminal="T-42")
    secret = text.split("_", 2)[2]
    told: list[object] = []
    for frame in (
        {"type": "connect", "key": text, "id": ["no id"]},
        {"type": "connect", "key": text, "streams": [{"stream": OTHER_STREAM}]},
        {"type": "connect", "key": f"{text}x"},
        {"type": "connect", "key": [text]},
    ):
        async with till(service.url) as one:
            await one.say(**frame)
            await one.code()
            told.append(one.ws.close_reason)
    async with till(service.url) as one:
        told += [await one.join(key=text)]
        service.revoke(key)
        assert await one.code() == 4010
    async with service.client.get(f"{service.url}/v1/pos/stream?key={text}") as answer:
        told.append(await answer.text())
    assert secret not in repr(told)
    for record in caplog.records:
        # The library at the till's end writes its own headers into its own log.
        if not record.name.startswith("websockets"):
            assert secret not in f"{record.getMessage()} {record.__dict__}"
    assert any(record.getMessage() == "pos_closed" for record in caplog.records)
