"""The stream without a websocket: long-poll and acks by POST, with the same guarantees."""

import asyncio
import json
import socket
import sqlite3
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from listener.hub import hub as hub_module
from listener.keys import Role
from listener.pos.lenient import NUMBER_MAX
from listener.storage.sqlite import connection as storage_connection
from listener.web.context import HUB, SESSIONS, SHARES
from listener.web.shapes.parameters import EVENTS_PAGE, EVENTS_WAIT_SECONDS_MAX, PAGE_MAX
from tests.support.service import MERCHANT_NO, OTHER_STORE_NO, STREAM, Serving, serving
from tests.support.tills import DEADLINE_SECONDS, place, till

OTHER_STREAM = f"{MERCHANT_NO}/{OTHER_STORE_NO}"
TILL = f"{STREAM}/T-42"
EVENTS = "/v1/pos/events"
OTHER_EPOCH = "0123456789abcdef"

Json = dict[str, Any]


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def sell(service: Serving, *numbers: int) -> None:
    """Record one notification of each transaction number."""
    for number in numbers:
        assert await service.notify({"transactionNo": str(number)}) == (200, "success")


async def poll(service: Serving, key: str, query: str = "") -> Json:
    """Ask for a page, and take the answer apart."""
    status, page = await service.get(EVENTS + query, key)
    assert status == 200, page
    assert isinstance(page, dict)
    return page


async def asked(service: Serving, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask as an admin over a connection of one's own."""
    key = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    url = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(head.encode())
    return reader, writer


async def refused(service: Serving, key: str | None, query: str) -> Json:
    """Ask for what is not given; return the problem."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with service.client.get(service.url + EVENTS + query, headers=headers) as answer:
        assert answer.content_type == "application/problem+json"
        problem: Json = await answer.json(content_type=None)
        assert problem["status"] == answer.status
        return problem


async def ack(service: Serving, key: str, body: object) -> tuple[int, Json]:
    """POST an ack, as JSON or as it is; return the status and the problem."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"}
    url = service.url + "/v1/pos/acks"
    async with service.client.post(url, data=data, headers=headers) as answer:
        text = await answer.text()
        assert answer.status == 204 or answer.content_type == "application/problem+json"
        return answer.status, json.loads(text or "{}")


def offsets(page: Json) -> list[int]:
    return [event["offset"] for event in page["events"]]


async def test_a_page_holds_the_events_past_a_position(service: Serving) -> None:
    await sell(service, 1, 2, 3)
    epoch, key = service.ledger.epoch, service.key()
    page = await poll(service, key, f"?stream={STREAM}&after={epoch}:1")
    events = page.pop("events")
    assert page == {"stream": STREAM, "epoch": epoch, "head": 3, "next": 3}
    assert [sorted(event) for event in events] == [["event", "offset", "stream"]] * 2
    assert [(event["stream"], event["offset"]) for event in events] == [(STREAM, 2), (STREAM, 3)]
    assert events[0]["event"]["id"] == f"{epoch}-2"


async def test_it_tells_what_the_websocket_tells_byte_for_byte(service: Serving) -> None:
    await sell(service, 1)
    key = service.key()
    headers = {"Authorization": f"Bearer {key}"}
    async with service.client.get(
        f"{service.url}{EVENTS}?after=earliest", headers=headers
    ) as answer:
        text = await answer.read()
    async with till(service.url, key) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        frame = await one.ws.recv(decode=False)
    assert b'"offset":1,"event":' in frame
    assert frame.partition(b',"event":')[2] in text


async def test_pages_follow_on_each_other_without_a_hole(service: Serving) -> None:
    await sell(service, *range(7))
    epoch, key, after, heard = service.ledger.epoch, service.key(), 0, []
    for _ in range(4):
        page = await poll(service, key, f"?after={epoch}:{after}&limit=3")
        assert page["head"] == 7
        heard += offsets(page)
        after = page["next"]
    assert heard == [1, 2, 3, 4, 5, 6, 7]
    assert after == 7


@pytest.mark.parametrize(("after", "expected"), [("earliest", [1, 2]), ("latest", []), (None, [])])
async def test_a_till_begins_where_it_asks(
    service: Serving, after: str | None, expected: list[int]
) -> None:
    await sell(service, 1, 2)
    query = f"?after={after}" if after else ""
    assert offsets(await poll(service, service.key(), query)) == expected


async def test_the_first_page_stores_its_start_so_that_nothing_is_lost(service: Serving) -> None:
    key = service.key(terminal="T-42")
    await sell(service, 1, 2)
    assert (await poll(service, key))["next"] == 2
    assert await place(service.ledger, terminal=TILL, stream=STREAM) == 2
    await sell(service, 3)
    assert offsets(await poll(service, key)) == [3]
    # Not acknowledged, so told again; and by the websocket as well.
    assert offsets(await poll(service, key)) == [3]
    body = {"stream": STREAM, "epoch": service.ledger.epoch, "offset": 3}
    assert await ack(service, key, body) == (204, {})
    assert offsets(await poll(service, key)) == []
    async with till(service.url, key) as one:
        assert (await one.join())["streams"][0]["after"] == 3


async def test_a_wait_ends_as_soon_as_something_happens(service: Serving) -> None:
    key, loop = service.key(), asyncio.get_running_loop()
    began = loop.time()
    query = f"?after=latest&wait={EVENTS_WAIT_SECONDS_MAX}"
    waiting = asyncio.create_task(poll(service, key, query))
    await waits(service)
    await sell(service, 1)
    page = await waiting
    assert (offsets(page), page["head"], page["next"]) == ([1], 1, 1)
    assert loop.time() - began < DEADLINE_SECONDS


async def waits(service: Serving, *, count: int = 1) -> None:
    """Wait until so many wait for an event."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while service.service.app[HUB].waiting < count:
            await asyncio.sleep(0.005)


async def test_a_wait_in_which_nothing_happens_ends_with_an_empty_page(service: Serving) -> None:
    began = asyncio.get_running_loop().time()
    await sell(service, 1)
    page = await poll(service, service.key(), "?after=latest&wait=1")
    assert (page["events"], page["head"], page["next"]) == ([], 1, 1)
    assert asyncio.get_running_loop().time() - began >= 1.0


async def test_events_already_there_are_answered_without_waiting(service: Serving) -> None:
    await sell(service, 1)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert offsets(await poll(service, service.key(), "?after=earliest&wait=60")) == [1]


async def test_a_restart_ends_every_wait(tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger.db") as service:
        key = service.key()
        waiting = asyncio.create_task(poll(service, key, "?after=latest&wait=60"))
        await waits(service)
        service.service.app[SESSIONS].is_draining = True
        # Who comes now is not kept waiting at all.
        assert (await poll(service, key, "?after=latest&wait=60"))["events"] == []
        await service.service.app[HUB].close()
        assert (await waiting)["events"] == []


async def test_a_key_that_is_revoked_meanwhile_gets_no_events(service: Serving) -> None:
    key, text = service.keyed()
    waiting = asyncio.create_task(refused(service, text, "?after=latest&wait=60"))
    await waits(service)
    service.revoke(key)
    await sell(service, 1)
    assert (await waiting)["status"] == 401


async def test_a_revocation_ends_a_wait_at_once_and_others_are_told_that_nothing_came(
    service: Serving,
) -> None:
    key, text = service.keyed()
    waiting = asyncio.create_task(refused(service, text, "?after=latest&wait=60"))
    other = asyncio.create_task(poll(service, service.key(), "?after=latest&wait=60"))
    await waits(service, count=2)
    service.revoke(key)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await waiting)["status"] == 401
        assert (await other)["events"] == []


@pytest.mark.parametrize("path", [f"{EVENTS}?stream={STREAM}&wait=25", "/v1/entries?wait=25"])
@pytest.mark.parametrize("how", ["closed", "reset", "half-closed"])
async def test_a_wait_ends_when_its_client_goes(service: Serving, path: str, how: str) -> None:
    reader, writer = await asked(service, path)
    shares = service.service.app[SHARES]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not shares.waits:
            await asyncio.sleep(0.01)
        if how == "half-closed":
            writer.write_eof()
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        elif how == "reset":
            line = writer.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        while shares.waits:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "path", [f"{EVENTS}?stream={STREAM}&after=earliest&wait=25", "/v1/entries?wait=25"]
)
async def test_a_client_that_has_stopped_sending_is_told_what_is_there(
    service: Serving, path: str
) -> None:
    await sell(service, 1, 2)
    reader, writer = await asked(service, path)
    writer.write_eof()
    async with asyncio.timeout(DEADLINE_SECONDS):
        told = await reader.read()
    writer.close()
    assert told.startswith(b"HTTP/1.1 200 ")
    assert [b'"transactionNo":"%d"' % number in told for number in (1, 2)] == [True, True]


async def test_the_number_of_waits_is_limited_and_the_others_come_again(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WAITERS_MAX", 1)
    key = service.key()
    waiting = asyncio.create_task(poll(service, key, "?after=latest&wait=60"))
    await waits(service)
    assert (await refused(service, key, "?after=latest&wait=60"))["status"] == 503
    await sell(service, 1)
    assert offsets(await waiting) == [1]


# Positions that cannot be resumed.


@pytest.mark.parametrize(
    ("epoch", "offset", "reason"),
    [
        (OTHER_EPOCH, 1, "epoch_changed"),
        (None, 3, "offset_ahead"),
        (None, NUMBER_MAX, "offset_ahead"),
    ],
)
async def test_a_lost_position_is_410_with_the_members_of_resync(
    service: Serving, epoch: str | None, offset: int, reason: str
) -> None:
    await sell(service, 1, 2)
    key = service.key()
    query = f"?stream={STREAM}&after={epoch or service.ledger.epoch}:{offset}"
    problem = await refused(service, key, query)
    assert problem["status"] == 410
    assert {name: problem[name] for name in ("stream", "reason", "epoch", "head", "snapshot")} == {
        "stream": STREAM,
        "reason": reason,
        "epoch": service.ledger.epoch,
        "head": 2,
        "snapshot": f"/v1/transactions?merchantNo={MERCHANT_NO}&storeNo=303660",
    }
    status, page = await service.get(problem["snapshot"], key)
    assert status == 200
    assert isinstance(page, dict)
    assert len(page["data"]) == 2


# What is refused.


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?colour=blue", 400, "unknown-parameter"),
        ("?after=yesterday", 400, "bad-parameter"),
        ("?after=1", 400, "bad-parameter"),
        ("?after=:1", 400, "bad-parameter"),
        ("?after=abc:-1", 400, "bad-parameter"),
        ("?after=abc:1.5", 400, "bad-parameter"),
        (f"?after=abc:{NUMBER_MAX + 1}", 400, "bad-parameter"),
        ("?after=abc:%D9%A1", 400, "bad-parameter"),
        ("?wait=-1", 400, "bad-parameter"),
        ("?wait=1.5", 400, "bad-parameter"),
        ("?wait=%D9%A1", 400, "bad-parameter"),
        (f"?wait={EVENTS_WAIT_SECONDS_MAX + 1}", 400, "bad-parameter"),
        ("?wait=99999999999", 400, "bad-parameter"),
        ("?limit=0", 400, "bad-parameter"),
        (f"?limit={PAGE_MAX + 1}", 400, "bad-parameter"),
        ("?limit=1&limit=2", 400, "bad-parameter"),
        (f"?stream={STREAM}&stream={STREAM}", 400, "bad-parameter"),
        (f"?stream={OTHER_STREAM}", 403, "stream-not-allowed"),
        ("?stream=*", 403, "stream-not-allowed"),
    ],
)
async def test_an_impossible_question_is_refused(
    service: Serving, query: str, status: int, code: str
) -> None:
    problem = await refused(service, service.key(), query)
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]


@pytest.mark.parametrize("name", ["x", "a/b/c", "a/", "/b", "a/b c", "a" * 100 + "/" + "b" * 30])
async def test_an_invalid_stream_is_refused_even_to_an_admin(service: Serving, name: str) -> None:
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    problem = await refused(service, admin, f"?stream={quote(name)}")
    assert (problem["status"], problem["code"]) == (400, "bad-parameter")
    assert problem["detail"] == "stream must be <merchantNo>/<storeNo>, or * with an admin key"


async def test_limits_are_taken_at_their_edges(service: Serving) -> None:
    key = service.key()
    await asyncio.gather(*(service.notify({"transactionNo": str(n)}) for n in range(501)))
    assert len(offsets(await poll(service, key, "?after=earliest&limit=500"))) == PAGE_MAX
    assert len(offsets(await poll(service, key, "?after=earliest&limit=1"))) == 1
    assert len(offsets(await poll(service, key, "?after=earliest"))) == EVENTS_PAGE
    assert offsets(await poll(service, key, "?after=earliest&wait=60&limit=2")) == [1, 2]


async def test_only_till_and_admin_keys_read_and_only_till_keys_acknowledge(
    service: Serving,
) -> None:
    await sell(service, 1)
    ledger = service.key(Role.LEDGER, merchant_no=None, store_no=None)
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    assert (await refused(service, None, ""))["status"] == 401
    assert (await refused(service, "lk_wrong_key", ""))["status"] == 401
    assert (await refused(service, ledger, ""))["status"] == 403
    page = await poll(service, admin, "?after=earliest")
    assert (page["stream"], offsets(page)) == ("*", [1])
    assert offsets(await poll(service, admin, f"?stream={STREAM}&after=earliest")) == [1]
    body = {"stream": STREAM, "epoch": service.ledger.epoch, "offset": 1}
    assert (await ack(service, admin, body))[0] == 403
    assert (await ack(service, ledger, body))[0] == 403
    assert await service.ledger.acks() == []


async def test_a_key_of_several_streams_has_to_name_one(service: Serving) -> None:
    key = service.key(store_no=None)
    problem = await refused(service, key, "")
    assert (problem["status"], problem["code"]) == (400, "stream-missing")
    assert problem["streams"] == [STREAM, OTHER_STREAM, f"{MERCHANT_NO}/-"]
    assert OTHER_STREAM in problem["detail"]
    assert (await poll(service, key, f"?stream={OTHER_STREAM}"))["events"] == []


# Acks.


async def test_an_ack_is_cumulative_and_outlives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with serving(path) as service:
        key = service.key(terminal="T-42")
        await sell(service, 1, 2, 3)
        body = {"stream": STREAM, "epoch": service.ledger.epoch, "offset": 2}
        assert await ack(service, key, body) == (204, {})
        assert await ack(service, key, {**body, "offset": 1, "mood": "good"}) == (204, {})
    async with serving(path) as service:
        assert offsets(await poll(service, key)) == [3]


@pytest.mark.parametrize("body", [b"no json", b"\xff"])
async def test_an_ack_that_is_not_json_is_refused(service: Serving, body: bytes) -> None:
    status, problem = await ack(service, service.key(), body)
    assert (status, problem["code"]) == (400, "bad-body")


@pytest.mark.parametrize(
    ("body", "members"),
    [
        (b"", ["stream", "epoch", "offset"]),
        # As PHP writes what has no members.
        (b"[]", ["stream", "epoch", "offset"]),
        (b"[1]", [""]),
        ({"stream": STREAM, "offset": 1}, ["epoch"]),
        ({"stream": STREAM, "epoch": "x", "offset": -1}, ["offset"]),
        ({"stream": STREAM, "epoch": "x", "offset": "1"}, ["offset"]),
        ({"stream": STREAM, "epoch": "", "offset": 1}, ["epoch"]),
        ({"stream": "no stream", "epoch": "x", "offset": 1}, ["stream"]),
    ],
)
async def test_an_ack_whose_members_are_wrong_is_refused_and_they_are_named(
    service: Serving, body: object, members: list[str]
) -> None:
    status, problem = await ack(service, service.key(), body)
    assert (status, problem["code"]) == (422, "bad-member")
    assert [error["member"] for error in problem["errors"]] == members


async def test_an_impossible_ack_is_refused_and_nothing_is_stored(service: Serving) -> None:
    key, epoch = service.key(terminal="T-42"), service.ledger.epoch
    await sell(service, 1)
    status, problem = await ack(service, key, {"stream": STREAM, "epoch": epoch, "offset": 2})
    assert (status, problem["code"]) == (400, "ack-ahead")
    other = {"stream": STREAM, "epoch": OTHER_EPOCH, "offset": 1}
    status, problem = await ack(service, key, other)
    assert (status, problem["reason"], problem["head"]) == (410, "epoch_changed", 1)
    foreign = {"stream": OTHER_STREAM, "epoch": epoch, "offset": 0}
    assert (await ack(service, key, foreign))[0] == 403
    large = {"stream": STREAM, "epoch": epoch, "offset": 1, "pad": "x" * 65_536}
    assert (await ack(service, key, large))[0] == 413
    assert await service.ledger.acks() == []


async def test_an_ack_that_cannot_be_stored_is_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_connection, "BUSY_SECONDS", 0.05)
    async with serving(tmp_path / "ledger.db") as service:
        key = service.key()
        body = {"stream": STREAM, "epoch": service.ledger.epoch, "offset": 0}
        with closing(sqlite3.connect(service.path)) as db:
            db.execute("BEGIN IMMEDIATE")
            assert (await ack(service, key, body))[0] == 503
        assert (await ack(service, key, body))[0] == 204
