"""Bodies and parameters as other languages write them: nulls, doubles, a byte order mark."""

import orjson
import pytest

from tests.support.service import STREAM
from tests.support.shop import Shop, order


@pytest.mark.parametrize(
    "raw",
    [b"null", b" null\r\n", b"[]", b'{"refundIfPaid":null}', b"", b" \n", b"{}", b"\xef\xbb\xbf{}"],
)
async def test_a_body_that_says_nothing_counts_as_none(shop: Shop, raw: bytes) -> None:
    number = (await shop.start()).number
    told = await shop.post(f"/v1/transactions/{number}/cancel", raw=raw)
    assert (told.status, told.body["status"]) == (200, "cancelled")


async def test_a_member_that_is_null_is_absent(shop: Shop) -> None:
    told = await shop.post("/v1/transactions", {**order(), "vendor": None, "terminal": None})
    assert (told.status, told.body["terminal"]) == (201, "T-42")


@pytest.mark.parametrize("twice", ['"amount":"1.00"', '"vendor":null,"vendor":null'])
async def test_a_member_that_comes_twice_is_refused(shop: Shop, twice: str) -> None:
    body = orjson.dumps(order())
    told = await shop.post("/v1/transactions", raw=body[:-1] + f",{twice}}}".encode())
    assert (told.status, told.body["detail"]) == (400, "the body names a member twice")
    assert not len(shop.sandbox.book)


async def test_a_required_member_that_is_null_is_missing(shop: Shop) -> None:
    told = await shop.post("/v1/transactions", {**order(), "amount": None})
    assert told.body["errors"] == [{"member": "amount", "detail": "is missing"}]


@pytest.mark.parametrize("offset", ["1.0", "1E0", "10e-1", "1"])
async def test_an_ack_with_a_double_is_kept(shop: Shop, offset: str) -> None:
    await shop.start()
    epoch = shop.serving.ledger.epoch
    raw = f'\ufeff{{"stream":"{STREAM}","epoch":"{epoch}","offset":{offset},"note":null}}'
    assert (await shop.post("/v1/pos/acks", raw=raw.encode())).status == 204
    acked = await shop.serving.ledger.acked(terminal=f"{STREAM}/T-42", stream=STREAM)
    assert acked is not None


async def test_numbers_in_a_query_are_read_as_json_writes_them(shop: Shop) -> None:
    await shop.start()
    epoch = shop.serving.ledger.epoch
    for query in (f"after={epoch}:0.0", f"after={epoch}:0E0&limit=1.0&wait=0.0"):
        status, page = await shop.serving.get(f"/v1/pos/events?{query}", shop.key)
        assert status == 200
        assert isinstance(page, dict)
        assert len(page["events"]) == 1
    for query in (f"after={epoch}:0.5", "limit=1.5", "wait=-0.0"):
        assert (await shop.serving.get(f"/v1/pos/events?{query}", shop.key))[0] == 400
