"""Where a till begins: its position, its last ack, the newest, the first; and what cannot be."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from listener.keys import Role
from listener.storage.sqlite.opening import connect
from tests.support.service import MERCHANT_NO, OTHER_STORE_NO, STREAM, Serving, serving
from tests.support.stored import bare
from tests.support.tills import Frame, acked, place, till

NO_STREAM = f"{MERCHANT_NO}/-"
TILL = f"{STREAM}/T-42"
OTHER_EPOCH = "0123456789abcdef"


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    """Serve a ledger in which the store's stream has three events."""
    async with serving(tmp_path / "ledger.db") as running:
        await sell(running, 1, 2, 3)
        yield running


async def sell(service: Serving, *numbers: int) -> None:
    """Record one notification of each transaction number."""
    for number in numbers:
        assert await service.notify({"transactionNo": str(number)}) == (200, "success")


def position(service: Serving, offset: int, *, epoch: str | None = None) -> Frame:
    return {"epoch": epoch or service.ledger.epoch, "offset": offset}


@pytest.mark.parametrize(
    ("after", "begin"), [(0, 0), (1, 1), (3, 3), ("latest", 3), ("earliest", 0), ("acked", 3)]
)
async def test_a_till_begins_where_it_asks(service: Serving, after: int | str, begin: int) -> None:
    wanted = after if isinstance(after, str) else position(service, after)
    async with till(service.url, service.key()) as one:
        ready = await one.join({"stream": STREAM, "after": wanted})
        assert ready["streams"] == [
            {
                "stream": STREAM,
                "epoch": service.ledger.epoch,
                "head": 3,
                "after": begin,
                "recovered": True,
            }
        ]
        assert await one.offsets(3 - begin) == list(range(begin + 1, 4))
        await one.nothing_more()


async def test_without_a_position_a_till_goes_on_after_its_last_ack(service: Serving) -> None:
    key = service.key(terminal="T-42")
    async with till(service.url, key) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        assert await one.offsets(3) == [1, 2, 3]
        await one.ack(STREAM, 2)
        await acked(service.ledger, terminal=TILL, stream=STREAM, offset=2)
    for after in ({}, {"after": "acked"}):
        async with till(service.url, key) as one:
            ready = await one.join({"stream": STREAM, **after})
            assert ready["streams"][0]["after"] == 2
            assert await one.offsets(1) == [3]


async def test_a_new_till_begins_at_the_newest_and_loses_nothing_before_its_first_ack(
    service: Serving,
) -> None:
    key = service.key(terminal="T-42")
    async with till(service.url, key) as one:
        assert (await one.join())["streams"][0]["after"] == 3
    # Its start is its ack from the first ready on.
    assert await place(service.ledger, terminal=TILL, stream=STREAM) == 3
    await sell(service, 4, 5)
    async with till(service.url, key) as one:
        assert (await one.join())["streams"][0]["after"] == 3
        assert await one.offsets(2) == [4, 5]
    # A later start is no ack.
    async with till(service.url, key) as one:
        await one.join({"stream": STREAM, "after": "latest"})
    assert await place(service.ledger, terminal=TILL, stream=STREAM) == 3


async def test_the_first_starts_of_a_till_are_stored_together_or_not_at_all(
    service: Serving,
) -> None:
    text = service.key(store_no=None, terminal="T-42")
    subscriber = f"{MERCHANT_NO}/-/T-42"
    # The last of three streams cannot be stored.
    refusal = (
        "CREATE TRIGGER refuse BEFORE INSERT ON acks WHEN new.stream LIKE '%/-'"
        " BEGIN SELECT RAISE (ABORT, 'no'); END"
    )
    with closing(bare(service.path)) as db:
        db.execute(refusal)
    async with till(service.url, text) as one:
        await one.hear("hello")
        await one.say(type="connect", others=True)
        assert await one.code() == 1011
    assert await service.ledger.acks() == []
    with closing(bare(service.path)) as db:
        db.execute("DROP TRIGGER refuse")
    async with till(service.url, text) as one:
        starts = (await one.join(others=True))["streams"]
    assert [each["after"] for each in starts] == [each["head"] for each in starts]
    assert await place(service.ledger, terminal=subscriber, stream=STREAM) == 3


async def test_a_stream_that_is_new_to_a_till_that_has_come_before_begins_at_its_first_event(
    service: Serving,
) -> None:
    text = service.key(store_no=None, terminal="T-42")
    async with till(service.url, text) as one:
        await one.join({"stream": f"{MERCHANT_NO}/-", "after": "latest"})
    async with till(service.url, text) as one:
        ready = await one.join(others=True)
        begins = {each["stream"]: each["after"] for each in ready["streams"]}
        assert begins[STREAM] == 0
        assert await one.offsets(3) == [1, 2, 3]
    # What it has not named does not come without it.
    async with till(service.url, text) as one:
        ready = await one.join({"stream": f"{MERCHANT_NO}/-"})
        assert len(ready["streams"]) == 1


async def test_an_admins_start_is_not_an_ack(service: Serving) -> None:
    key = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    async with till(service.url, key) as one:
        await one.join({"stream": STREAM, "after": "earliest"}, {"stream": "*"})
        await one.offsets(3)
    assert await service.ledger.acks() == []


async def test_acks_and_positions_outlive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with serving(path) as service:
        key = service.key(terminal="T-42")
        await sell(service, 1, 2, 3)
        epoch = service.ledger.epoch
        async with till(service.url, key) as one:
            await one.join({"stream": STREAM, "after": "earliest"})
            await one.offsets(3)
            await one.ack(STREAM, 1)
            await acked(service.ledger, terminal=TILL, stream=STREAM, offset=1)
    async with serving(path) as service:
        assert service.ledger.epoch == epoch
        async with till(service.url, key) as one:
            assert (await one.join())["streams"][0]["after"] == 1
            assert await one.offsets(2) == [2, 3]
        async with till(service.url, key) as one:
            await one.join({"stream": STREAM, "after": position(service, 2)})
            assert await one.offsets(1) == [3]


@pytest.mark.parametrize(
    ("epoch", "offset", "reason"),
    [
        (OTHER_EPOCH, 1, "epoch_changed"),
        (OTHER_EPOCH, 9, "epoch_changed"),
        (None, 4, "offset_ahead"),
        (None, 2**53 - 1, "offset_ahead"),
    ],
)
async def test_a_position_that_cannot_be_resumed_gets_a_resync_and_no_part_of_a_replay(
    service: Serving, epoch: str | None, offset: int, reason: str
) -> None:
    async with till(service.url, service.key()) as one:
        ready = await one.join({"stream": STREAM, "after": position(service, offset, epoch=epoch)})
        assert ready["streams"][0]["recovered"] is False
        assert (ready["streams"][0]["after"], ready["streams"][0]["head"]) == (3, 3)
        assert await one.frame() == {
            "type": "resync",
            "stream": STREAM,
            "reason": reason,
            "epoch": service.ledger.epoch,
            "head": 3,
            "snapshot": f"/v1/transactions?merchantNo={MERCHANT_NO}&storeNo=303660",
        }
        await one.nothing_more()
        await sell(service, 4)
        assert await one.offsets(1) == [4]


async def test_one_lost_position_does_not_touch_the_other_streams(service: Serving) -> None:
    async with till(service.url, service.key(store_no=None)) as one:
        ready = await one.join(
            {"stream": NO_STREAM, "after": position(service, 5)},
            {"stream": STREAM, "after": position(service, 1)},
        )
        assert [stream["recovered"] for stream in ready["streams"]] == [False, True]
        assert (await one.hear("resync"))["stream"] == NO_STREAM
        assert await one.offsets(2) == [2, 3]


@pytest.mark.parametrize(
    ("stream", "stores"),
    [
        (STREAM, ["303660", "303660", "303660"]),
        (NO_STREAM, [None]),
        (f"{MERCHANT_NO}/{OTHER_STORE_NO}", []),
        ("*", [None, "303660", "303660", "303660"]),
    ],
)
async def test_the_snapshot_holds_the_transactions_of_the_stream(
    service: Serving, stream: str, stores: list[str | None]
) -> None:
    path = f"/notify/{MERCHANT_NO}"
    assert await service.notify({"transactionNo": "9"}, path=path) == (200, "success")
    key = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    async with till(service.url, key) as one:
        await one.join({"stream": stream, "after": position(service, 1, epoch=OTHER_EPOCH)})
        resync = await one.hear("resync")
    status, page = await service.get(resync["snapshot"], key)
    assert status == 200
    data = orjson.loads(orjson.dumps(page))["data"]
    assert [transaction["storeNo"] for transaction in data] == stores


async def test_a_restored_backup_is_another_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with serving(path) as service:
        await sell(service, 1, 2)
        key, epoch = service.key(terminal="T-42"), service.ledger.epoch
        async with till(service.url, key) as one:
            await one.join()
    with closing(connect(path, create=False)) as db:
        db.execute("UPDATE ledger SET is_copy = 1")
    async with serving(path) as service:
        async with till(service.url, key) as one:
            await one.join({"stream": STREAM, "after": {"epoch": epoch, "offset": 2}})
            resync = await one.hear("resync")
        assert resync["reason"] == "epoch_changed"
        assert resync["epoch"] == service.ledger.epoch != epoch


async def test_a_stream_in_which_nothing_ever_happened_can_be_followed(service: Serving) -> None:
    async with till(service.url, service.key(store_no=None)) as one:
        await one.join({"stream": NO_STREAM, "after": "earliest"})
        path = f"/notify/{MERCHANT_NO}"
        assert await service.notify({"transactionNo": "9"}, path=path) == (200, "success")
        assert await one.offsets(1) == [1]
