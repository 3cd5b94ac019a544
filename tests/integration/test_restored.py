"""Acks belong to the epoch in which they were made, and a start acknowledges nothing."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from listener.keys import Role
from tests.support.service import STREAM, Serving, serving
from tests.support.tills import acked, place, till

TILL = f"{STREAM}/T-42"
EVENTS = "/v1/pos/events"


async def sell(service: Serving, *numbers: int) -> None:
    for number in numbers:
        assert await service.notify({"transactionNo": str(number)}) == (200, "success")


async def ack(service: Serving, key: str, offset: int) -> None:
    body = {"stream": STREAM, "epoch": service.ledger.epoch, "offset": offset}
    async with service.client.post(
        f"{service.url}/v1/pos/acks", json=body, headers={"Authorization": f"Bearer {key}"}
    ) as answer:
        assert answer.status == 204


async def poll(service: Serving, key: str, query: str = "") -> tuple[int, dict[str, Any]]:
    status, page = await service.get(f"{EVENTS}{query}", key)
    assert isinstance(page, dict)
    return status, page


@asynccontextmanager
async def restored(path: Path) -> AsyncIterator[Serving]:
    """Serve a ledger's file as the copy of a backup is served: under an epoch of its own."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE ledger SET is_copy = 1")
        db.commit()
    async with serving(path) as service:
        yield service


async def test_acked_is_a_resync_after_a_restore_until_the_till_knows_the_new_epoch(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    async with serving(path) as service:
        key = service.key(terminal="T-42")
        await sell(service, 1, 2)
        await ack(service, key, 2)
        old = service.ledger.epoch
    async with restored(path) as service:
        assert service.ledger.epoch != old
        await sell(service, 3)
        # Cut off before it has read the snapshot, it is told again.
        for _ in range(2):
            async with till(service.url, key) as one:
                (ready,) = (await one.join())["streams"]
                assert (ready["recovered"], ready["after"]) == (False, 3)
                resync = await one.hear("resync")
                assert (resync["reason"], resync["head"]) == ("epoch_changed", 3)
                await one.nothing_more()
        async with till(service.url, key) as one:
            await one.join()
            await one.hear("resync")
            await sell(service, 4)
            assert await one.offsets(1) == [4]
            await one.ack(STREAM, 4)
            await acked(service.ledger, terminal=TILL, stream=STREAM, offset=4)
        async with till(service.url, key) as one:
            (ready,) = (await one.join())["streams"]
            assert (ready["recovered"], ready["after"]) == (True, 4)


async def test_a_poll_without_a_position_is_410_after_a_restore(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with serving(path) as service:
        key = service.key(terminal="T-42")
        await sell(service, 1)
        assert (await poll(service, key, "?after=latest"))[0] == 200
    async with restored(path) as service:
        for query in ("", "?after=acked"):
            status, gone = await poll(service, key, query)
            assert (status, gone["code"], gone["reason"]) == (410, "position-lost", "epoch_changed")
            assert gone["retry"] is True
        # With the head of the answer it goes on, and has a start in the new epoch from then on.
        status, _ = await poll(service, key, f"?after={gone['epoch']}:{gone['head']}")
        assert status == 200
        await sell(service, 2)
        status, page = await poll(service, key)
        assert [event["offset"] for event in page["events"]] == [2]


async def test_an_ack_of_the_old_epoch_still_shows_that_a_cancellation_was_seen(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    async with serving(path) as service:
        key = service.key(terminal="T-42")
        await sell(service, 1, 2)
        await ack(service, key, 1)
    async with restored(path) as service:
        # A start in the new epoch takes nothing back, nor does it add anything.
        await poll(service, key, f"?after={service.ledger.epoch}:2")
        unacked = await service.ledger.read_unacked(before_ms=2**52, limit=9)
        assert [one.offset for one in unacked] == [2]
        await ack(service, key, 2)
        assert await service.ledger.read_unacked(before_ms=2**52, limit=9) == []


async def test_a_start_acknowledges_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger.db") as service:
        await sell(service, 1, 2)
        board = service.key(Role.LEDGER, merchant_no=None, store_no=None)
        # A new till's first poll at the newest; one that follows and never acknowledges.
        assert (await poll(service, service.key(terminal="T-1"), "?after=latest"))[0] == 200
        async with till(service.url, service.key(terminal="T-2")) as one:
            await one.join({"stream": STREAM, "after": "latest"})
        async with till(service.url, service.key(terminal="T-3")) as one:
            await one.join({"stream": STREAM, "after": "earliest"})
            await one.offsets(2)
        _, told = await service.get("/v1/terminals", board)
        assert isinstance(told, dict)
        assert [one["offset"] for one in told["unacknowledged"]] == [1, 2]
        assert [(row["terminal"], row["ackedOffset"], row["ackedAt"], row["lag"]) for row in
                told["data"]] == [("T-1", None, None, 0), ("T-2", None, None, 0),
                                  ("T-3", None, None, 2)]  # fmt: skip
        # The start is what acked means, so that nothing is lost before the first ack.
        assert await place(service.ledger, terminal=f"{STREAM}/T-1", stream=STREAM) == 2
        # An ack below a till's start is one nevertheless, and what is acknowledged from then on.
        await ack(service, service.key(terminal="T-1"), 1)
        unacked = await service.ledger.read_unacked(before_ms=2**52, limit=9)
        assert [one.offset for one in unacked] == [2]
        assert await place(service.ledger, terminal=f"{STREAM}/T-1", stream=STREAM) == 1


async def test_a_stream_of_a_store_that_is_not_configured_cannot_be_followed(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "ledger.db") as service:
        merchant = service.key(store_no=None)
        admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
        gone = service.key(store_no="999999")
        nobody = service.key(merchant_no="999999", store_no=None)
        for key, name in (
            (merchant, "200043/x1"),
            (admin, "200043/x1"),
            (admin, "999999/1"),
            (gone, "200043/999999"),
            (nobody, "999999/-"),
        ):
            status, problem = await poll(service, key, f"?stream={name}")
            assert (status, problem["code"]) == (403, "stream-not-allowed")
            async with till(service.url, key) as one:
                await one.hear("hello")
                await one.say(type="connect", streams=[{"stream": name}])
                assert await one.code() == 4004
        for key, name in ((merchant, "200043/-"), (admin, "200043/-"), (admin, "*")):
            assert (await poll(service, key, f"?stream={name}"))[0] == 200
        assert [one.stream for one in await service.ledger.acks()] == ["200043/-"]
