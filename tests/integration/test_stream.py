"""The stream of pos.v1: upgrade, connect, ready, events, acks, pings, with another library."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from listener.keys import Role
from listener.web.context import HUB, METRICS, SESSIONS
from listener.web.till.sessions import SessionTiming
from tests.support.service import MERCHANT_NO, OTHER_STORE_NO, STORE_NO, STREAM, Serving, serving
from tests.support.tills import PATH, BareTill, acked, gone, place, till

OTHER_STREAM = f"{MERCHANT_NO}/{OTHER_STORE_NO}"
NO_STREAM = f"{MERCHANT_NO}/-"
TILL = f"{STREAM}/T-42"


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db", origins=["https://till.example.com"]) as running:
        yield running


async def sell(service: Serving, *numbers: int, store_no: str = STORE_NO) -> None:
    """Record one notification of each transaction number."""
    for number in numbers:
        path = f"/notify/{MERCHANT_NO}/{store_no}"
        answer = await service.notify({"transactionNo": str(number), "status": "paid"}, path=path)
        assert answer == (200, "success")


async def test_a_till_is_greeted_connects_and_gets_events(service: Serving) -> None:
    key = service.key(terminal="T-42")
    async with till(service.url, key) as one:
        assert one.ws.subprotocol == "pos.v1"
        hello = await one.frame()
        assert re.fullmatch("[0-9a-f]+", hello.pop("session"))
        assert hello == {
            "type": "hello",
            "protocol": "pos.v1",
            "pingSeconds": 20.0,
            "deadSeconds": 35.0,
            "reconnectJitterMs": 5000,
        }
        await one.say(type="connect", id=7)
        epoch = service.ledger.epoch
        stream = {"stream": STREAM, "epoch": epoch, "head": 0, "after": 0, "recovered": True}
        assert await one.frame() == {"type": "ready", "id": 7, "streams": [stream]}
        assert await service.notify() == (200, "success")
        told = await one.frame()
        event = told.pop("event")
        assert told == {"type": "event", "stream": STREAM, "offset": 1}
        assert event["id"] == f"{epoch}-1"
        assert (event["type"], event["subject"]) == ("transaction.cancelled", "297553638301777927")
        assert event["data"]["amount"] == "13.00"


async def test_an_event_is_sent_as_it_is_stored_byte_for_byte(service: Serving) -> None:
    async with till(service.url, service.key()) as one:
        await one.join()
        await service.notify()
        text = await one.ws.recv(decode=False)
    (stored,) = await service.ledger.read_events(STREAM, after=0, limit=9)
    assert text.endswith(b'"offset":1,"event":%b}' % stored.body)


async def test_a_key_may_come_in_the_connect_frame(service: Serving) -> None:
    async with till(service.url) as one:
        assert (await one.join(key=service.key()))["streams"][0]["stream"] == STREAM


async def test_a_client_that_names_no_subprotocol_gets_it_too(service: Serving) -> None:
    async with till(service.url, service.key(), subprotocols=None) as one:
        assert one.ws.subprotocol is None
        assert (await one.hear("hello"))["protocol"] == "pos.v1"


async def test_a_client_that_names_more_subprotocols_gets_ours(service: Serving) -> None:
    async with till(service.url, service.key(), subprotocols=("pos.v9", "pos.v1")) as one:
        assert one.ws.subprotocol == "pos.v1"


@pytest.mark.parametrize(
    ("named", "origin", "status"),
    [
        (("pos.v9",), None, 400),
        (("pos.v1",), "https://elsewhere.example.com", 403),
        (("pos.v1",), "null", 403),
        (("pos.v1",), "http://[", 403),
        # Another port is another origin.
        (("pos.v1",), "http://127.0.0.1:1", 403),
    ],
)
async def test_an_upgrade_is_refused(
    service: Serving, named: tuple[str, ...], origin: str | None, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with till(service.url, service.key(), subprotocols=named, origin=origin):
            pass
    response = refused.value.response
    assert response.status_code == status
    assert response.headers["Content-Type"].startswith("application/problem+json")


async def test_our_own_origin_and_those_of_the_setting_are_let_in(service: Serving) -> None:
    for origin in (service.url, "https://till.example.com", "HTTPS://Till.example.com"):
        async with till(service.url, service.key(), origin=origin) as one:
            await one.join()


@pytest.mark.parametrize("header", ["Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "Basic dTpw"])
async def test_the_key_in_connect_beats_what_a_proxy_put_into_the_header(
    service: Serving, header: str
) -> None:
    async with till(service.url, headers={"Authorization": header}) as one:
        await one.join(key=f" {service.key()}\n")


async def test_an_empty_key_in_connect_leaves_the_one_in_the_header(service: Serving) -> None:
    async with till(service.url, service.key()) as one:
        await one.join(key="")


async def test_frames_in_binary_behind_a_mark_and_with_doubles_are_read(service: Serving) -> None:
    await sell(service, 1)
    async with till(service.url, service.key(terminal="T-42")) as one:
        await one.hear("hello")
        await one.ws.send(
            b'{"type":"connect","id":1.0,"key":null,"streams":[{"stream":"%b","after":'
            b'{"epoch":"%b","offset":0.0}}]}' % (STREAM.encode(), service.ledger.epoch.encode())
        )
        assert (await one.hear("ready"))["id"] == 1
        assert await one.offsets(1) == [1]
        await one.ws.send('\ufeff{"type":"pong","t":1.79571183133E12}')
        await one.ws.send(f'{{"type":"ack","id":null,"stream":"{STREAM}","offset":1E0}}')
        await acked(service.ledger, terminal=TILL, stream=STREAM, offset=1)
        await one.nothing_more()


async def test_a_draining_listener_lets_nobody_in(service: Serving) -> None:
    service.service.app[SESSIONS].is_draining = True
    with pytest.raises(InvalidStatus) as refused:
        async with till(service.url, service.key()):
            pass
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["Retry-After"] == "1"


async def test_a_request_that_is_not_an_upgrade_is_refused(service: Serving) -> None:
    async with service.client.get(service.url + PATH) as answer:
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
    # What the library refuses is a problem as well.
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    async with service.client.get(service.url + PATH, headers=headers) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"


async def test_frames_are_not_compressed_even_if_asked_to(service: Serving) -> None:
    url = service.url + PATH
    async with aiohttp.ClientSession() as client, client.ws_connect(url, compress=15) as ws:
        assert ws.compress == 0


async def test_unknown_types_and_unknown_fields_are_ignored(service: Serving) -> None:
    async with till(service.url, service.key()) as one:
        await one.hear("hello")
        await one.say(type="dance", steps=3)
        await one.say(type="connect", colour="blue", streams=[{"stream": STREAM, "until": 9}])
        await one.hear("ready")
        await one.say(type="dance")
        await one.say(type="pong", t=1, mood="good")
        await one.nothing_more()


async def test_a_frame_before_connect_is_answered_by_an_error(service: Serving) -> None:
    async with till(service.url, service.key()) as one:
        await one.hear("hello")
        await one.say(type="ack", id=5, stream=STREAM, offset=0)
        refused = await one.hear("error")
        assert (refused["code"], refused["retryable"]) == ("not-connected", False)
        assert refused["id"] == 5
        await one.say(type="connect")
        await one.hear("ready")


async def test_a_frame_that_is_named_by_a_text_gets_it_back(service: Serving) -> None:
    async with till(service.url, service.key(terminal="T-42")) as one:
        await one.hear("hello")
        await one.say(type="connect", id="5f0c7a52-8d3e-4b7e-9b1c-2a4f6d8e0c11")
        assert (await one.hear("ready"))["id"] == "5f0c7a52-8d3e-4b7e-9b1c-2a4f6d8e0c11"
        await one.say(type="ack", id="a" * 64, stream=STREAM, offset=1)
        assert (await one.hear("error"))["id"] == "a" * 64


async def test_a_second_connect_is_an_error_and_changes_nothing(service: Serving) -> None:
    async with till(service.url, service.key()) as one:
        await one.join()
        await one.say(type="connect", id=7, streams=[{"stream": STREAM, "after": "earliest"}])
        refused = await one.hear("error")
        assert (refused["code"], refused["id"]) == ("already-connected", 7)
        await sell(service, 1)
        assert await one.offsets(1) == [1]


async def test_without_streams_those_of_the_scope_are_followed(service: Serving) -> None:
    for text, expected in (
        (service.key(), [STREAM]),
        (service.key(store_no=None), [STREAM, OTHER_STREAM, NO_STREAM]),
        (service.key(Role.ADMIN, merchant_no=None, store_no=None), ["*"]),
    ):
        async with till(service.url, text) as one:
            ready = await one.join()
            assert [stream["stream"] for stream in ready["streams"]] == expected
        async with till(service.url, text) as one:
            await one.hear("hello")
            await one.say(type="connect", streams=[])
            assert len((await one.hear("ready"))["streams"]) == len(expected)


async def test_each_stream_counts_its_own_and_the_stream_of_all_counts_all(
    service: Serving,
) -> None:
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    async with till(service.url, admin) as every, till(service.url, service.key()) as one:
        await every.join()
        await one.join()
        await sell(service, 1)
        await sell(service, 2, store_no=OTHER_STORE_NO)
        await sell(service, 3)
        assert await one.offsets(2) == [1, 2]
        told = [await every.hear("event") for _ in range(3)]
    assert [(frame["stream"], frame["offset"]) for frame in told] == [("*", n) for n in (1, 2, 3)]
    assert [frame["event"]["subject"] for frame in told] == ["1", "2", "3"]


async def test_an_admin_follows_a_store_as_well(service: Serving) -> None:
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    async with till(service.url, admin) as one:
        await one.join({"stream": STREAM}, {"stream": "*"})
        await sell(service, 1)
        heard = {(await one.hear("event"))["stream"] for _ in range(2)}
    assert heard == {STREAM, "*"}


async def test_a_ping_brings_the_heads_and_pongs_keep_a_till(tmp_path: Path) -> None:
    timing = SessionTiming(ping_seconds=0.05, tick_seconds=0.01, dead_seconds=0.5)
    async with serving(tmp_path / "ledger.db", timing=timing) as service:
        await sell(service, 1, 2)
        async with till(service.url, service.key()) as one:
            hello = await one.frame()
            assert (hello["pingSeconds"], hello["deadSeconds"]) == (0.05, 0.5)
            await one.say(type="connect")
            await one.hear("ready")
            began = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() < began + 1.0:
                ping = await one.frame()
                assert ping["type"] == "ping"
                assert ping["heads"] == {STREAM: 2}
                assert ping["t"] > 1_700_000_000_000
                await one.say(type="pong", t=ping["t"])


async def test_pings_of_the_websocket_itself_are_answered_but_keep_no_till(tmp_path: Path) -> None:
    timing = SessionTiming(tick_seconds=0.01, dead_seconds=0.3)
    async with (
        serving(tmp_path / "ledger.db", timing=timing) as service,
        till(service.url, service.key()) as one,
    ):
        await one.join()
        await (await one.ws.ping())
        # A library goes on with these by itself, whatever has become of the program behind it.
        pinging = asyncio.create_task(_keep_pinging(one.ws))
        assert await one.code() == 4201
        pinging.cancel()


async def _keep_pinging(ws: ClientConnection) -> None:
    while True:
        await ws.ping()
        # The answer to a question that nobody asked is let pass.
        await ws.pong(b"unasked")
        await asyncio.sleep(0.05)


async def test_an_ack_is_kept_and_a_lower_one_changes_nothing(service: Serving) -> None:
    await sell(service, 1, 2, 3)
    async with till(service.url, service.key(terminal="T-42")) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        assert await one.offsets(3) == [1, 2, 3]
        await one.ack(STREAM, 3)
        await acked(service.ledger, terminal=TILL, stream=STREAM, offset=3)
        await one.ack(STREAM, 2)
        await one.ack(STREAM, 0)
        await one.nothing_more()
    async with till(service.url, service.key(terminal="T-42")) as one:
        assert (await one.join())["streams"][0]["after"] == 3


async def test_acks_sent_right_before_the_end_are_kept(service: Serving) -> None:
    await sell(service, *range(1, 21))
    async with till(service.url, service.key(terminal="T-42")) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        for offset in range(1, 21):
            await one.ack(STREAM, offset)
    await acked(service.ledger, terminal=TILL, stream=STREAM, offset=20)


@pytest.mark.parametrize(
    ("stream", "offset", "code"),
    [(STREAM, 2, "ack-ahead"), (OTHER_STREAM, 0, "unknown-stream")],
)
async def test_an_impossible_ack_is_answered_by_an_error_and_the_till_stays(
    service: Serving, stream: str, offset: int, code: str
) -> None:
    await sell(service, 1)
    async with till(service.url, service.key(terminal="T-42")) as one:
        await one.join()
        await one.say(type="ack", id=5, stream=stream, offset=offset)
        refused = await one.hear("error")
        assert (refused["id"], refused["code"], refused["retryable"]) == (5, code, False)
        assert refused["message"]
        await one.nothing_more()
    assert await place(service.ledger, terminal=TILL, stream=STREAM) == 1


async def test_an_ack_may_name_its_epoch_and_counts_in_no_other(service: Serving) -> None:
    await sell(service, 1, 2)
    async with till(service.url, service.key(terminal="T-42")) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        await one.offsets(2)
        await one.say(type="ack", id=5, stream=STREAM, epoch="of-another-ledger", offset=2)
        refused = await one.hear("error")
        assert (refused["id"], refused["code"]) == (5, "epoch-changed")
        await one.say(type="ack", stream=STREAM, epoch=service.ledger.epoch, offset=1)
        await one.nothing_more()
    await acked(service.ledger, terminal=TILL, stream=STREAM, offset=1)


async def test_an_ack_after_the_ledger_has_a_new_epoch_stores_nothing(service: Serving) -> None:
    await sell(service, 1, 2)
    async with till(service.url, service.key(terminal="T-42")) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        await one.offsets(2)
        # As where another server was promoted: every till is sent away to begin again.
        service.service.app[SESSIONS].resync()
        await one.ack(STREAM, 2)
        assert await one.code() == 4200
    await gone(service.service.app)
    assert await place(service.ledger, terminal=TILL, stream=STREAM) == 0
    await service.ledger.ack(terminal=TILL, stream=STREAM, offset=2, epoch="of-another-ledger")
    assert await place(service.ledger, terminal=TILL, stream=STREAM) == 0


async def test_an_admin_does_not_acknowledge(service: Serving) -> None:
    await sell(service, 1)
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    async with till(service.url, admin) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        await one.offsets(1)
        await one.ack(STREAM, 1)
        assert (await one.hear("error"))["code"] == "wrong-role"
    assert await service.ledger.acks() == []


async def test_a_till_that_has_gone_leaves_nothing_behind(service: Serving) -> None:
    sessions, hub = service.service.app[SESSIONS], service.service.app[HUB]
    async with till(service.url, service.key()) as one, till(service.url) as silent:
        await one.join()
        await silent.hear("hello")
        assert (sessions.count, hub.followers) == (2, 1)
        assert sum(sessions.online().values()) == 1
    bare = await BareTill.open(service.url, service.key())
    await bare.say(type="connect")
    await bare.read_until(b'"ready"')
    assert (sessions.online(), hub.followers) != ({}, 0)
    bare.close()
    await gone(service.service.app)
    assert len(sessions.seen()) == 2


async def test_closes_are_counted_by_their_code(service: Serving) -> None:
    async with till(service.url, "lk_wrong_key") as one:
        await one.say(type="connect")
        assert await one.code() == 4001
    await gone(service.service.app)
    assert b'listener_pos_closes_total{code="4001"} 1.0' in service.service.app[METRICS].text()
