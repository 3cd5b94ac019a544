"""The ledger query over HTTP: transactions, entries, the head and the terminals."""

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from msgspec import structs

from listener.hub import hub as hub_module
from listener.keys import Role, authenticate
from listener.ledger.model import Fact, Kind, Status, fields_text
from listener.ledger.results import ReadEntry
from listener.ledger.scope import Scope
from listener.lifecycle import Clock
from listener.storage import ranges
from listener.storage.sqlite import connection as connection_module
from listener.storage.sqlite import readable as readable_module
from listener.web import shares as shares_module
from listener.web.api import queries as queries_module
from listener.web.api.queries import EPOCH_HEADER, HEAD_HEADER
from listener.web.context import HUB
from tests.support.service import (
    FIELDS,
    MERCHANT_NO,
    OTHER_STORE_NO,
    STORE_NO,
    STREAM,
    Serving,
    serving,
)
from tests.support.tills import place

OTHER_MERCHANT_NO = "200044"
TOKENS = ["5cbfb079f15b150122261c8537086d77a"]
MERCHANTS = {
    MERCHANT_NO: {"tokens": TOKENS, "stores": [STORE_NO, OTHER_STORE_NO]},
    OTHER_MERCHANT_NO: {"tokens": TOKENS, "stores": ["900001", OTHER_STORE_NO]},
}
START_MS = 1_792_000_000_000


class Time:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.at_ms = START_MS

    def now_ms(self) -> int:
        return self.at_ms


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def service(tmp_path: Path, time: Time) -> AsyncIterator[Serving]:
    clock = Clock(now_ms=time.now_ms)
    path = tmp_path / "ledger.db"
    async with serving(path, clock=clock, merchants=MERCHANTS, confirm="off") as found:
        yield found


def fact(
    number: str,
    *,
    word: str = "success",
    says: Status = Status.PAID,
    merchant_no: str = MERCHANT_NO,
    store_no: str | None = STORE_NO,
    reference: str | None = None,
    terminal: str | None = None,
) -> Fact:
    return Fact(
        kind=Kind.NOTIFICATION,
        merchant_no=merchant_no,
        store_no=store_no,
        transaction_no=number,
        reference=reference or f"ref-{number}",
        terminal=terminal,
        provider_status=word,
        says=says,
        amount="13.00",
        currency="USD",
        fingerprint=f"{number} {word}",
        fields=fields_text({"status": word}),
    )


def members(answer: object) -> dict[str, object]:
    assert isinstance(answer, dict)
    return answer


def listed(answer: object, name: str = "transactionNo") -> list[object]:
    data = members(answer)["data"]
    assert isinstance(data, list)
    return [row[name] for row in data]


async def page(service: Serving, query: str, key: str) -> list[object]:
    status, answer = await service.get(f"/v1/transactions{query}", key)
    assert status == 200, answer
    return listed(answer)


async def refusal(service: Serving, path: str, key: str | None) -> tuple[int, str, str]:
    """Return the status, the code and the detail of a problem."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with service.client.get(service.url + path, headers=headers) as answer:
        assert answer.content_type == "application/problem+json"
        body = await answer.json(content_type=None)
        assert body["status"] == answer.status
        return answer.status, body["code"], body["detail"]


def ledger_key(
    service: Serving, merchant_no: str | None = None, store_no: str | None = None
) -> str:
    return service.key(Role.LEDGER, merchant_no=merchant_no, store_no=store_no)


async def test_a_notification_is_in_the_query_as_it_was_signed(service: Serving) -> None:
    assert await service.notify({"amount": "0.01"}) == (200, "success")
    status, answer = await service.get("/v1/transactions?reference=test20200101307", service.key())
    assert status == 200
    assert members(answer)["nextCursor"] is None
    assert listed(answer) == ["297553638301777927"]
    assert listed(answer, "amount") == ["0.01"]
    assert listed(answer, "status") == ["cancelled"]
    assert listed(answer, "createdAt") == ["2026-10-14T17:46:40.000Z"]


async def test_transactions_come_newest_first_also_within_a_millisecond(
    service: Serving, time: Time
) -> None:
    for number in ("1", "2", "3"):
        await service.ledger.record(fact(number))
    time.at_ms += 1
    await service.ledger.record(fact("4"))
    # A later word on an old transaction does not move it.
    await service.ledger.record(fact("1", word="refunded", says=Status.REFUNDED))
    assert await page(service, "", ledger_key(service)) == ["4", "3", "2", "1"]


async def test_a_cursor_leads_through_all_pages_while_new_transactions_come(
    service: Serving, time: Time
) -> None:
    key = ledger_key(service)
    for number in range(7):
        await service.ledger.record(fact(str(number)))
    seen: list[object] = []
    cursor, turns = "", 0
    while True:
        status, answer = await service.get(f"/v1/transactions?limit=3{cursor}", key)
        assert status == 200
        seen += listed(answer)
        turns += 1
        time.at_ms += 1
        await service.ledger.record(fact(f"new-{turns}"))
        following = members(answer)["nextCursor"]
        if following is None:
            break
        cursor = f"&cursor={following}"
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]
    assert turns == 3


async def test_the_last_page_has_no_cursor_where_it_is_just_full(service: Serving) -> None:
    for number in range(4):
        await service.ledger.record(fact(str(number)))
    status, answer = await service.get("/v1/transactions?limit=4", ledger_key(service))
    assert (status, len(listed(answer))) == (200, 4)
    assert members(answer)["nextCursor"] is None


async def test_a_cursor_that_was_changed_or_is_of_other_filters_is_refused(
    service: Serving,
) -> None:
    key = ledger_key(service)
    for number in range(3):
        await service.ledger.record(fact(str(number)))
    _, answer = await service.get("/v1/transactions?limit=1", key)
    cursor = str(members(answer)["nextCursor"])
    assert await page(service, f"?limit=2&cursor={cursor}", key) == ["1", "0"]
    bad = [
        "x",
        "é",
        "=" * 32,
        cursor[:-1],
        cursor + "A",
        cursor + "====",
        ("B" if cursor[0] == "A" else "A") + cursor[1:],
        cursor[:-1] + ("B" if cursor[-1] == "A" else "A"),
        cursor[:15] + ("B" if cursor[15] == "A" else "A") + cursor[16:],
    ]
    for text in bad:
        path = f"/v1/transactions?cursor={quote(text)}"
        status, code, detail = await refusal(service, path, key)
        assert (status, code) == (400, "bad-cursor"), text
        assert "begin again" in detail
    path = f"/v1/transactions?status=paid&cursor={cursor}"
    assert (await refusal(service, path, key))[:2] == (400, "bad-cursor")


async def test_each_filter_leaves_what_it_names(service: Serving, time: Time) -> None:
    key = ledger_key(service)
    await service.ledger.record(fact("1", terminal="T-1"))
    time.at_ms += 1000
    await service.ledger.record(fact("2", store_no=OTHER_STORE_NO, terminal="T-2"))
    time.at_ms += 1000
    await service.ledger.record(fact("3", store_no=None, word="closed", says=Status.CANCELLED))
    time.at_ms += 1000
    await service.ledger.record(fact("4", merchant_no=OTHER_MERCHANT_NO, store_no=OTHER_STORE_NO))
    expected = {
        f"merchantNo={MERCHANT_NO}": ["3", "2", "1"],
        f"merchantNo={OTHER_MERCHANT_NO}": ["4"],
        "merchantNo=1": [],
        f"merchantNo={MERCHANT_NO}&storeNo={STORE_NO}": ["1"],
        f"merchantNo={MERCHANT_NO}&storeNo=-": ["3"],
        # Only one merchant has this store, so it need not be named.
        f"storeNo={STORE_NO}": ["1"],
        "terminal=T-2": ["2"],
        "status=cancelled": ["3"],
        "status=paid": ["4", "2", "1"],
        "status=conflict": [],
        "reference=ref-2": ["2"],
        "reference=ref": [],
        "contains=ref": ["4", "3", "2", "1"],
        "contains=EF-3": ["3"],
        "contains=4": ["4"],
        # Neither is a wildcard.
        "contains=%25": [],
        "contains=ref_2": [],
        f"contains=ref&merchantNo={OTHER_MERCHANT_NO}": ["4"],
        "since=2026-10-14T17:46:41.000Z": ["4", "3", "2"],
        "since=2026-10-14T17:46:41.001Z": ["4", "3"],
        "until=2026-10-14T17:46:41.000Z": ["1"],
        "until=2026-10-14T17:46:41.001Z": ["2", "1"],
        "since=2026-10-15T01:46:41%2B08:00&until=2026-10-14T17:46:42Z": ["2"],
        "status=paid&terminal=T-1": ["1"],
    }
    for query, numbers in expected.items():
        assert await page(service, f"?{query}", key) == numbers, query


async def test_cancels_are_found_by_how_far_they_have_come_and_what_is_held_by_that(
    service: Serving, time: Time
) -> None:
    key = ledger_key(service)
    # The first cancel was answered, the second raised; the third came just now.
    for number in ("1", "2", "3", "4"):
        time.at_ms += 1000
        await service.ledger.record(fact(number, word="init", says=Status.CREATED))
    for number in ("1", "2", "3"):
        wish = Fact(kind=Kind.CANCEL_REQUEST, merchant_no=MERCHANT_NO, transaction_no=number)
        await service.ledger.record(wish)
    await service.ledger.record(
        Fact(
            kind=Kind.QUERY,
            merchant_no=MERCHANT_NO,
            transaction_no="1",
            reference="ref-1",
            provider_status="closed",
            says=Status.CANCELLED,
            amount="13.00",
            currency="USD",
            as_of=7,
        )
    )
    alarm = fields_text({"alarm": "unresolved"})
    await service.ledger.record(
        Fact(kind=Kind.ALARM, merchant_no=MERCHANT_NO, transaction_no="2", fields=alarm)
    )
    await service.ledger.record(structs.replace(fact("2"), suspect="refund_notice"))
    expected = {
        "cancelState=confirmed": ["1"],
        "cancelState=unresolved": ["2"],
        "cancelState=requested": ["3"],
        "cancelState=refused": [],
        "cancelState=refunded": [],
        "held=true": ["2"],
        "held=True": ["2"],
        "held=false": ["4", "3", "1"],
        "held=true&cancelState=unresolved&status=created": ["2"],
        "held=true&cancelState=requested": [],
        f"merchantNo={MERCHANT_NO}&storeNo={STORE_NO}&cancelState=requested": ["3"],
        f"merchantNo={OTHER_MERCHANT_NO}&held=true": [],
        "cancelState=unresolved&since=2026-10-14T17:46:43Z": [],
        "cancelState=&held=": ["4", "3", "2", "1"],
    }
    for query, numbers in expected.items():
        assert await page(service, f"?{query}", key) == numbers, query
    # What the filter names is what the answer says.
    _, answer = await service.get("/v1/transactions?cancelState=unresolved&held=true", key)
    (cancel,), (held,) = listed(answer, "cancel"), listed(answer, "held")
    assert (members(cancel)["state"], held) == ("unresolved", True)


async def test_a_cursor_is_of_its_filters_and_one_without_the_later_ones_is_good_for_both_versions(
    service: Serving,
) -> None:
    key = ledger_key(service)
    for number in range(3):
        await service.ledger.record(fact(str(number)))
    _, answer = await service.get("/v1/transactions?held=false&limit=1", key)
    cursor = members(answer)["nextCursor"]
    assert await page(service, f"?held=false&cursor={cursor}", key) == ["1", "0"]
    for filters in ("", "held=true&", "held=false&cancelState=refused&"):
        path = f"/v1/transactions?{filters}cursor={cursor}"
        assert (await refusal(service, path, key))[:2] == (400, "bad-cursor")
    # As 0.2.0 sealed it, whose nodes may serve the next page.
    _, answer = await service.get("/v1/transactions?status=paid&limit=1", key)
    packed = base64.urlsafe_b64decode(str(members(answer)["nextCursor"]))
    filters = (
        '{"merchant_no":null,"store_no":null,"terminal":null,"status":"paid","reference":null,'
        '"contains":null,"since":null,"until":null}'
    )
    bound = f"{service.ledger.epoch}\nTransactionsQuery\n{filters}\n".encode() + packed[16:]
    assert hmac.digest(service.ledger.secret, bound, hashlib.sha256)[:16] == packed[:16]


async def test_a_store_that_several_merchants_may_have_needs_its_merchant(
    service: Serving,
) -> None:
    key = ledger_key(service)
    for store_no in (OTHER_STORE_NO, "nobodys"):
        path = f"/v1/transactions?storeNo={store_no}"
        status, code, detail = await refusal(service, path, key)
        assert (status, code) == (400, "bad-parameter")
        assert detail.endswith(f"{MERCHANT_NO} or {OTHER_MERCHANT_NO}")
    # A key of one merchant says which.
    assert await page(service, f"?storeNo={OTHER_STORE_NO}", ledger_key(service, MERCHANT_NO)) == []


@pytest.mark.parametrize(
    ("query", "code", "names"),
    [
        ("limit=0", "bad-parameter", "limit must be at least 1"),
        ("limit=501", "bad-parameter", "limit must be at most 500"),
        ("limit=all", "bad-parameter", "limit must be a whole number in digits"),
        ("limit=1&limit=2", "bad-parameter", "limit must be given once"),
        ("status=canceled", "bad-parameter", "'cancelled'"),
        ("cancelState=open", "bad-parameter", "cancelState must be one of 'requested'"),
        ("cancelState=UNRESOLVED", "bad-parameter", "'refunded' or 'unresolved'"),
        ("cancelstate=refused", "unknown-parameter", "status, cancelState, held, reference"),
        ("held=yes", "bad-parameter", "held must be true or false"),
        ("held=1", "bad-parameter", "held must be true or false"),
        ("held=true&held=false", "bad-parameter", "held must be given once"),
        ("since=yesterday", "bad-parameter", "since must be a time such as"),
        ("since=x&until=y", "bad-parameter", "until must be a time such as"),
        ("reference=", "bad-parameter", "reference must not be empty"),
        ("terminal=", "bad-parameter", "terminal must not be empty"),
        ("contains=", "bad-parameter", "contains must not be empty"),
        ("storeNo=", "bad-parameter", "storeNo must be of the characters"),
        ("merchantNo=", "bad-parameter", "merchantNo must be of the characters"),
        ("status=&status=paid", "bad-parameter", "status must be given once"),
        ("since=2026-13-01", "bad-parameter", "since must be a time such as"),
        ("since=2026-11-01Z", "bad-parameter", "or a day such as"),
        ("offset=", "unknown-parameter", '"offset"'),
        ("merchantNo=a/b", "bad-parameter", "merchantNo must be of the characters"),
        (
            "status=paid&offset=3",
            "unknown-parameter",
            '"offset"; known here are merchantNo, storeNo',
        ),
        ("Limit=3&a%0Ab=1", "unknown-parameter", r'"Limit", "a\n'),
    ],
)
async def test_an_invalid_query_is_refused_with_what_to_do(
    service: Serving, query: str, code: str, names: str
) -> None:
    status, found, detail = await refusal(service, f"/v1/transactions?{query}", service.key())
    assert (status, found) == (400, code)
    assert names in detail
    assert "\n" not in detail


@pytest.mark.parametrize(
    "path",
    [
        "/v1/transactions?status=&since=&until=&limit=&cursor=",
        f"/v1/transactions/{FIELDS['transactionNo']}?after=&limit=",
        "/v1/entries?after=&wait=&limit=",
        "/v1/terminals?limit=&cursor=",
        f"/v1/pos/events?stream={STREAM}&after=&wait=&limit=",
        "/v1/pos/events?stream=",
    ],
)
async def test_an_empty_parameter_is_an_absent_one(service: Serving, path: str) -> None:
    await service.notify()
    key = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    plain = re.sub(r"\w+=(&|$)", "", path).rstrip("?&")
    assert plain != path
    status, told = await service.get(path, key)
    assert status == 200
    assert told == (await service.get(plain, key))[1]


async def test_a_day_is_its_beginning_in_utc(service: Serving, time: Time) -> None:
    key = service.key()
    midnight = datetime.fromtimestamp(START_MS / 1000, UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    for transaction_no, after_ms in (("1001", -1), ("1002", 0)):
        time.at_ms = int(midnight.timestamp() * 1000) + after_ms
        await service.notify({"transactionNo": transaction_no})
    day, next_day = midnight.date(), midnight.date() + timedelta(days=1)
    assert await page(service, f"?since={day}", key) == ["1002"]
    assert await page(service, f"?until={day}", key) == ["1001"]
    assert await page(service, f"?since={day}&until={next_day}", key) == ["1002"]
    assert await page(service, f"?since={next_day}", key) == []


async def test_routes_without_parameters_refuse_any(service: Serving) -> None:
    for path in ("/v1/ledger?x=1", "/v1/ledger?limit=1"):
        status, code, detail = await refusal(service, path, ledger_key(service))
        assert (status, code) == (400, "unknown-parameter")
        assert detail.endswith("; there are none here")


async def test_limits_are_taken_at_their_edges(service: Serving) -> None:
    key = ledger_key(service)
    for path in (
        "/v1/transactions?limit=1",
        "/v1/transactions?limit=500",
        "/v1/entries?limit=1",
        "/v1/entries?limit=500&after=9007199254740991",
    ):
        status, _ = await service.get(path, key)
        assert status == 200, path
    for path in ("/v1/entries?limit=501", "/v1/entries?wait=31", "/v1/entries?after=-1"):
        assert (await refusal(service, path, key))[0] == 400, path


async def test_a_key_sees_its_scope_and_the_rest_is_not_there(service: Serving) -> None:
    await service.ledger.record(fact("1"))
    await service.ledger.record(fact("2", store_no=OTHER_STORE_NO))
    await service.ledger.record(fact("3", store_no=None))
    await service.ledger.record(fact("4", merchant_no=OTHER_MERCHANT_NO, store_no=STORE_NO))
    seen = {
        service.key(): ["1"],
        service.key(terminal="T-1"): ["1"],
        service.key(store_no=None): ["3", "2", "1"],
        service.key(store_no="-"): ["3"],
        ledger_key(service): ["4", "3", "2", "1"],
        ledger_key(service, MERCHANT_NO): ["3", "2", "1"],
        ledger_key(service, MERCHANT_NO, OTHER_STORE_NO): ["2"],
        service.key(Role.ADMIN, merchant_no=OTHER_MERCHANT_NO, store_no=None): ["4"],
        service.key(Role.ADMIN, merchant_no=None, store_no=None): ["4", "3", "2", "1"],
    }
    for key, numbers in seen.items():
        assert await page(service, "", key) == numbers
        for number in ("1", "2", "3", "4"):
            status, _ = await service.get(f"/v1/transactions/{number}", key)
            assert status == (200 if number in numbers else 404), (numbers, number)


async def test_a_filter_never_widens_a_scope(service: Serving) -> None:
    await service.ledger.record(fact("1"))
    await service.ledger.record(fact("2", store_no=OTHER_STORE_NO))
    await service.ledger.record(fact("4", merchant_no=OTHER_MERCHANT_NO))
    key = service.key()
    for query in (f"storeNo={OTHER_STORE_NO}", f"merchantNo={OTHER_MERCHANT_NO}", "storeNo=-"):
        assert await page(service, f"?{query}", key) == []
    assert await page(service, f"?merchantNo={MERCHANT_NO}&storeNo={STORE_NO}", key) == ["1"]
    path = f"/v1/transactions/4?merchantNo={OTHER_MERCHANT_NO}"
    assert (await refusal(service, path, key))[:2] == (404, "no-transaction")


async def test_one_transaction_comes_with_its_entries_and_their_deliveries(
    service: Serving, time: Time
) -> None:
    for _ in range(8):
        assert await service.notify() == (200, "success")
        time.at_ms += 1000
    await service.notify({"status": "refunded"})
    key = service.key()
    status, answer = await service.get("/v1/transactions/297553638301777927", key)
    assert status == 200
    story = members(answer)
    assert (story["status"], story["stateVersion"]) == ("refunded", 2)
    entries = story["entries"]
    assert isinstance(entries, list)
    assert [entry["seq"] for entry in entries] == [1, 2]
    assert entries[0]["deliveries"] == {
        "count": 8,
        "first": "2026-10-14T17:46:40.000Z",
        "last": "2026-10-14T17:46:47.000Z",
    }
    assert entries[1]["deliveries"]["count"] == 1
    assert "verifySign" not in entries[0]["fields"]
    assert entries[0]["fields"]["reference"] == "test20200101307"


async def test_a_number_that_two_merchants_share_asks_which(service: Serving) -> None:
    await service.ledger.record(fact("7"))
    await service.ledger.record(fact("7", merchant_no=OTHER_MERCHANT_NO))
    key = ledger_key(service)
    headers = {"Authorization": f"Bearer {key}"}
    async with service.client.get(f"{service.url}/v1/transactions/7", headers=headers) as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"]) == (409, "ambiguous-number")
    assert "?merchantNo=" in problem["detail"]
    assert problem["merchantNos"] == [MERCHANT_NO, OTHER_MERCHANT_NO]
    for merchant_no in problem["merchantNos"]:
        path = f"/v1/transactions/7?merchantNo={merchant_no}"
        status, found = await service.get(path, key)
        assert (status, members(found)["merchantNo"]) == (200, merchant_no)
    # Whose key sees only one of them is not asked.
    status, found = await service.get("/v1/transactions/7", service.key())
    assert (status, members(found)["merchantNo"]) == (200, MERCHANT_NO)


async def test_a_number_that_is_not_there_is_404_whatever_it_looks_like(service: Serving) -> None:
    for number in ("0", "%00", "%2F", "{7}", "%F0%9F%92%B3", "'--", "9" * 500):
        status, code, _ = await refusal(service, f"/v1/transactions/{number}", service.key())
        assert (status, code) == (404, "no-transaction"), number


async def test_entries_come_in_order_past_a_seq(service: Serving) -> None:
    key = ledger_key(service)
    for number in range(5):
        await service.ledger.record(fact(str(number)))
    status, answer = await service.get("/v1/entries?after=1&limit=2", key)
    assert status == 200
    log = members(answer)
    assert (log["epoch"], log["head"]) == (service.ledger.epoch, 5)
    assert listed(answer, "seq") == [2, 3]
    _, answer = await service.get("/v1/entries?after=5", key)
    assert (members(answer)["head"], listed(answer)) == (5, [])
    _, answer = await service.get("/v1/entries", key)
    assert listed(answer, "seq") == [1, 2, 3, 4, 5]


async def test_entries_outside_of_the_scope_are_left_out(service: Serving) -> None:
    await service.ledger.record(fact("1"))
    await service.ledger.record(fact("2", store_no=OTHER_STORE_NO))
    await service.ledger.record(fact("3", store_no=None))
    await service.ledger.record(fact("4", merchant_no=OTHER_MERCHANT_NO))
    for key, seqs in {
        ledger_key(service, MERCHANT_NO): [1, 2, 3],
        ledger_key(service, MERCHANT_NO, OTHER_STORE_NO): [2],
        ledger_key(service, MERCHANT_NO, "-"): [3],
        ledger_key(service, OTHER_MERCHANT_NO): [4],
    }.items():
        _, answer = await service.get("/v1/entries", key)
        assert listed(answer, "seq") == seqs
        assert members(answer)["head"] == 4


@pytest.mark.parametrize(
    ("accept", "is_lines"),
    [
        ("application/x-ndjson", True),
        ("Application/X-NDJSON; charset=utf-8", True),
        ("application/json, application/x-ndjson", True),
        ("application/json;q=0.5, application/x-ndjson;q=0.9", True),
        ("application/json, application/x-ndjson;q=0.5", False),
        ("application/x-ndjson;q=0", False),
        ("application/x-ndjson;q=much", False),
        ("application/json", False),
        ("*/*", False),
        ("text/html", False),
        ("", False),
    ],
)
async def test_entries_are_one_a_line_where_that_is_wanted(
    service: Serving, accept: str, is_lines: bool
) -> None:
    await service.ledger.record(fact("1"))
    await service.ledger.record(fact("2"))
    headers = {"Authorization": f"Bearer {ledger_key(service)}", "Accept": accept}
    async with service.client.get(f"{service.url}/v1/entries", headers=headers) as answer:
        body = await answer.read()
    assert answer.status == 200
    if not is_lines:
        assert answer.content_type == "application/json"
        assert len(orjson.loads(body)["data"]) == 2
        return
    assert answer.content_type == "application/x-ndjson"
    assert body.endswith(b"\n")
    assert [orjson.loads(line)["seq"] for line in body.splitlines()] == [1, 2]
    assert answer.headers[EPOCH_HEADER] == service.ledger.epoch
    assert answer.headers[HEAD_HEADER] == "2"


async def test_a_waiting_request_gets_the_next_entry_at_once(service: Serving) -> None:
    key = ledger_key(service)
    await service.ledger.record(fact("1"))
    waiting = asyncio.create_task(service.get("/v1/entries?after=1&wait=30", key))
    async with asyncio.timeout(5):
        # Another answer comes only after the waiting request has been taken up.
        await service.get("/v1/ledger", key)
        assert not waiting.done()
        await service.ledger.record(fact("2"))
        status, answer = await waiting
    assert status == 200
    assert (listed(answer, "seq"), members(answer)["head"]) == ([2], 2)


async def test_a_waiting_request_gets_an_entry_that_makes_no_event(service: Serving) -> None:
    key = ledger_key(service)
    waiting = asyncio.create_task(service.get("/v1/entries?wait=30", key))
    async with asyncio.timeout(5):
        await service.get("/v1/ledger", key)
        await service.ledger.record(Fact(kind=Kind.NOTIFICATION, merchant_no=MERCHANT_NO))
        status, answer = await waiting
    assert (status, listed(answer, "kind")) == (200, ["notification"])


async def test_a_waiting_request_reads_each_entry_once(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ledger_key(service, MERCHANT_NO, OTHER_STORE_NO)
    read, asked = service.ledger.read_entries, list[int]()

    async def listening(*, after: int, limit: int, scope: Scope) -> list[ReadEntry]:
        asked.append(after)
        return await read(after=after, limit=limit, scope=scope)

    monkeypatch.setattr(service.ledger, "read_entries", listening)
    await service.ledger.record(fact("1"))
    waiting = asyncio.create_task(service.get("/v1/entries?wait=30", key))
    async with asyncio.timeout(5):
        while not asked:
            await asyncio.sleep(0.01)
        await service.ledger.record(fact("2"))
        while len(asked) < 2:
            await asyncio.sleep(0.01)
        await service.ledger.record(fact("3", store_no=OTHER_STORE_NO))
        _, answer = await waiting
    assert listed(answer, "seq") == [3]
    assert asked[:2] == [0, 1]


@pytest.mark.parametrize("comes", [True, False], ids=["an entry comes", "nothing comes"])
async def test_a_key_that_is_revoked_while_it_waits_gets_no_entries(
    service: Serving, comes: bool
) -> None:
    made, key = service.keyed(Role.LEDGER)
    waiting = asyncio.create_task(refusal(service, "/v1/entries?wait=30", key))
    async with asyncio.timeout(5):
        while not service.service.app[HUB].waiting:
            await asyncio.sleep(0.01)
        service.revoke(made)
        if comes:
            await service.ledger.record(fact("1"))
        assert (await waiting)[0] == 401


async def test_the_number_of_waits_for_entries_is_limited(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WAITERS_MAX", 1)
    key = ledger_key(service)
    waiting = asyncio.create_task(service.get("/v1/entries?wait=30", key))
    async with asyncio.timeout(5):
        while not service.service.app[HUB].waiting:
            await asyncio.sleep(0.01)
        assert (await service.get("/v1/entries?wait=30", key))[0] == 503
        # Who does not have to wait is served.
        await service.ledger.record(fact("1"))
        assert (await waiting)[0] == 200


async def test_a_wait_that_ends_in_vain_is_an_empty_page(service: Serving) -> None:
    before = asyncio.get_running_loop().time()
    status, answer = await service.get("/v1/entries?wait=1", ledger_key(service))
    assert (status, listed(answer)) == (200, [])
    assert asyncio.get_running_loop().time() - before >= 1


async def test_a_stop_ends_every_wait(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as client:
        async with serving(tmp_path / "ledger.db") as service:
            key = ledger_key(service)
            headers = {"Authorization": f"Bearer {key}"}
            url = f"{service.url}/v1/entries?wait=30"
            asking = asyncio.create_task(_read(client, url, headers))
            await service.get("/v1/ledger", key)
            began = asyncio.get_running_loop().time()
        assert (await asking)["data"] == []
    assert asyncio.get_running_loop().time() - began < 5


async def _read(
    client: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> dict[str, object]:
    async with client.get(url, headers=headers) as answer:
        return members(await answer.json())


async def test_the_head_is_that_of_the_newest_entry(service: Serving) -> None:
    await service.notify()
    await service.notify()
    await service.notify({"transactionNo": "2"})
    key = ledger_key(service)
    status, answer = await service.get("/v1/ledger", key)
    _, log = await service.get("/v1/entries", key)
    assert status == 200
    assert answer == {
        "epoch": service.ledger.epoch,
        "seq": 2,
        "hash": listed(log, "hash")[-1],
        "counts": {"entries": 2, "transactions": 2, "events": 2, "deliveries": 3, "repeats": 1},
    }


async def test_the_log_is_for_ledger_and_admin_keys(service: Serving) -> None:
    for path in ("/v1/entries", "/v1/ledger", "/v1/terminals"):
        status, code, detail = await refusal(service, path, service.key())
        assert (status, code) == (403, "wrong-role")
        assert "ledger or admin" in detail
        for role in (Role.LEDGER, Role.ADMIN):
            status, _ = await service.get(path, service.key(role))
            assert status == 200


async def test_without_a_valid_key_nothing_is_answered(service: Serving) -> None:
    made, revoked = service.keyed()
    service.revoke(made)
    paths = ("/v1/transactions", "/v1/transactions/1", "/v1/entries", "/v1/ledger", "/v1/terminals")
    for path in paths:
        for key in (None, "lk_no_such", revoked):
            status, code, _ = await refusal(service, path, key)
            assert (status, code) == (401, "unauthorized")
    async with service.client.get(f"{service.url}/v1/ledger") as answer:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_terminals_tell_who_is_online_and_how_far_each_has_come(
    service: Serving, time: Time
) -> None:
    for number in ("1", "2", "3"):
        await service.ledger.record(fact(number, word="closed", says=Status.CANCELLED))
    name = f"{STREAM}/T-42"
    await service.ledger.ack(terminal=name, stream=STREAM, offset=1)
    await service.ledger.ack(terminal="key:abc", stream=STREAM, offset=2)
    await service.ledger.ack(terminal="key:x", stream=f"{OTHER_MERCHANT_NO}/900001", offset=0)
    time.at_ms += 60_001
    key = ledger_key(service, MERCHANT_NO)
    status, answer = await service.get("/v1/terminals", key)
    assert status == 200
    found = members(answer)
    assert found["data"] == [
        {
            "name": name,
            "merchantNo": MERCHANT_NO,
            "storeNo": STORE_NO,
            "terminal": "T-42",
            "stream": STREAM,
            "online": False,
            "lastSeenAt": "2026-10-14T17:46:40.000Z",
            "ackedOffset": 1,
            "ackedAt": "2026-10-14T17:46:40.000Z",
            "head": 3,
            "lag": 2,
            "unacknowledgedCancellations": 1,
        },
        {
            "name": "key:abc",
            "merchantNo": None,
            "storeNo": None,
            "terminal": None,
            "stream": STREAM,
            "online": False,
            "lastSeenAt": "2026-10-14T17:46:40.000Z",
            "ackedOffset": 2,
            "ackedAt": "2026-10-14T17:46:40.000Z",
            "head": 3,
            "lag": 1,
            "unacknowledgedCancellations": 1,
        },
    ]
    assert found["unacknowledged"] == [
        {
            "stream": STREAM,
            "offset": 3,
            "transactionNo": "3",
            "reference": "ref-3",
            "amount": "13.00",
            "currency": "USD",
            "recordedAt": "2026-10-14T17:46:40.000Z",
            "late": True,
        }
    ]
    assert found["nextCursor"] is None
    _, other = await service.get("/v1/terminals", ledger_key(service, OTHER_MERCHANT_NO))
    assert listed(other, "name") == ["key:x"]
    assert members(other)["unacknowledged"] == []
    _, other = await service.get("/v1/terminals", ledger_key(service, MERCHANT_NO, OTHER_STORE_NO))
    assert (listed(other), members(other)["unacknowledged"]) == ([], [])
    _, every = await service.get("/v1/terminals", ledger_key(service))
    assert listed(every, "name") == [name, "key:abc", "key:x"]


async def test_who_is_connected_is_online_until_it_goes(service: Serving) -> None:
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    till = {"Authorization": f"Bearer {service.key(terminal='T-42')}"}
    board = {"Authorization": f"Bearer {admin}"}
    url = f"{service.url}/v1/pos/stream"
    async with (
        service.client.ws_connect(url, headers=till) as first,
        service.client.ws_connect(url, headers=board) as second,
    ):
        for ws in (first, second):
            await ws.send_json({"type": "connect"})
            while (await ws.receive_json())["type"] != "ready":
                pass
        _, answer = await service.get("/v1/terminals", admin)
        data = members(answer)["data"]
        assert isinstance(data, list)
        assert [(row["terminal"], row["stream"], row["online"]) for row in data] == [
            ("T-42", STREAM, True),
            (None, None, True),
        ]
        assert data[1]["name"].startswith("key:")
        assert data[1]["lag"] is None
        # A key of one merchant does not see who else is connected.
        _, scoped = await service.get("/v1/terminals", ledger_key(service, MERCHANT_NO))
        assert listed(scoped, "terminal") == ["T-42"]
    async with asyncio.timeout(5):
        while True:
            _, answer = await service.get("/v1/terminals", admin)
            if listed(answer, "online") == [False]:
                break
    assert listed(answer, "terminal") == ["T-42"]


async def test_a_terminal_of_a_whole_merchant_follows_every_store_under_its_name(
    service: Serving,
) -> None:
    till = {"Authorization": f"Bearer {service.key(store_no=None, terminal='Desk')}"}
    url = f"{service.url}/v1/pos/stream"
    async with service.client.ws_connect(url, headers=till) as ws, asyncio.timeout(5):
        await ws.send_json({"type": "connect"})
        while (await ws.receive_json())["type"] != "ready":
            pass
        await service.ledger.record(fact("1", store_no=OTHER_STORE_NO))
        while (event := await ws.receive_json())["type"] != "event":
            pass
        stream = f"{MERCHANT_NO}/{OTHER_STORE_NO}"
        assert (event["stream"], event["offset"]) == (stream, 1)
        await ws.send_json({"type": "ack", "stream": stream, "offset": 1})
        name = f"{MERCHANT_NO}/-/Desk"
        while await place(service.ledger, terminal=name, stream=stream) != 1:
            await asyncio.sleep(0.01)
    _, answer = await service.get("/v1/terminals", ledger_key(service, MERCHANT_NO))
    assert set(listed(answer, "name")) == {name}
    assert set(listed(answer, "storeNo")) == {None}
    assert set(listed(answer, "terminal")) == {"Desk"}


async def test_answers_may_not_be_read_by_their_address_alone(service: Serving) -> None:
    await service.ledger.record(fact("1"))
    async with service.client.get(f"{service.url}/v1/transactions?key={service.key()}") as answer:
        assert answer.status == 401


async def test_a_whole_merchants_transactions_come_newest_first_over_all_of_its_stores(
    service: Serving, time: Time
) -> None:
    stores = [STORE_NO, OTHER_STORE_NO, None, STORE_NO, None, OTHER_STORE_NO, STORE_NO]
    for number, store_no in enumerate(stores):
        time.at_ms += number % 2
        await service.ledger.record(fact(str(number), store_no=store_no))
        await service.ledger.record(
            fact(f"other{number}", merchant_no=OTHER_MERCHANT_NO, store_no="900001")
        )
    key = ledger_key(service, MERCHANT_NO)
    found: list[object] = []
    cursor = ""
    while True:
        _, answer = await service.get(f"/v1/transactions?limit=2{cursor}", key)
        found += listed(answer)
        if members(answer)["nextCursor"] is None:
            break
        cursor = f"&cursor={members(answer)['nextCursor']}"
    assert found == [str(number) for number in reversed(range(7))]
    assert await page(service, "?status=paid&limit=3", key) == ["6", "5", "4"]
    assert await page(service, "?status=paid&storeNo=-", key) == ["4", "2"]


async def test_terminals_come_in_pages_the_silent_ones_in_their_place(service: Serving) -> None:
    names = [f"{STREAM}/T-{number}" for number in range(5)]
    for name in names:
        for stream in (STREAM, f"{MERCHANT_NO}/{OTHER_STORE_NO}"):
            await service.ledger.start(terminal=name, offsets={stream: 0})
    admins = [service.key(Role.ADMIN, merchant_no=None, store_no=None) for _ in range(3)]
    url = f"{service.url}/v1/pos/stream"
    async with AsyncExitStack() as stack:
        for admin in admins:
            headers = {"Authorization": f"Bearer {admin}"}
            ws = await stack.enter_async_context(service.client.ws_connect(url, headers=headers))
            await ws.send_json({"type": "connect"})
            while (await ws.receive_json())["type"] != "ready":
                pass
        found: list[tuple[object, object]] = []
        sizes, cursor = [], ""
        while True:
            status, answer = await service.get(f"/v1/terminals?limit=4{cursor}", admins[0])
            assert status == 200, answer
            found += zip(listed(answer, "name"), listed(answer, "stream"), strict=True)
            sizes.append(len(listed(answer, "name")))
            if members(answer)["nextCursor"] is None:
                break
            cursor = f"&cursor={members(answer)['nextCursor']}"
    assert sizes == [4, 4, 4, 1]
    streams = sorted((STREAM, f"{MERCHANT_NO}/{OTHER_STORE_NO}"))
    assert found[:10] == [(name, stream) for name in names for stream in streams]
    assert [stream for _, stream in found[10:]] == [None, None, None]
    assert len(set(found)) == 13
    # A cursor of one route is of no use on another.
    text = f"/v1/transactions{cursor.replace('&', '?')}"
    assert (await refusal(service, text, admins[0]))[1] in ("bad-cursor", "bad-parameter")


async def test_a_scoped_key_sees_the_counts_of_its_scope(service: Serving) -> None:
    for number, store_no in (("1", STORE_NO), ("2", STORE_NO), ("3", OTHER_STORE_NO), ("4", None)):
        await service.ledger.record(fact(number, store_no=store_no))
    await service.ledger.record(fact("1"))
    await service.ledger.record(fact("9", merchant_no=OTHER_MERCHANT_NO, store_no="900001"))
    told = {}
    for name, scope in (
        ("all", ()),
        ("merchant", (MERCHANT_NO,)),
        ("store", (MERCHANT_NO, STORE_NO)),
        ("no store", (MERCHANT_NO, "-")),
        ("other", (OTHER_MERCHANT_NO,)),
        ("nobody", ("777",)),
    ):
        _, answer = await service.get("/v1/ledger", ledger_key(service, *scope))
        told[name] = members(answer)["counts"]
        assert members(answer)["seq"] == 5

    def counts(entries: int, repeats: int = 0) -> dict[str, int]:
        return {
            "entries": entries,
            "transactions": entries,
            "events": entries,
            "deliveries": entries + repeats,
            "repeats": repeats,
        }

    assert told == {
        "all": counts(5, 1),
        "merchant": counts(4, 1),
        "store": counts(2, 1),
        "no store": counts(1),
        "other": counts(1),
        "nobody": counts(0),
    }


async def test_counts_and_entries_go_through_the_ledger_range_by_range(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "RANGE_ENTRIES", 2)
    for number in range(1, 8):
        mine = number in (1, 6, 7)
        await service.ledger.record(
            fact(str(number), store_no=STORE_NO if mine else OTHER_STORE_NO)
        )
    key = ledger_key(service, MERCHANT_NO, STORE_NO)
    _, answer = await service.get("/v1/ledger", key)
    counts = members(answer)["counts"]
    assert isinstance(counts, dict)
    assert counts["entries"] == 3
    for query, expected in (
        ("", [1, 6, 7]),
        ("?limit=1", [1]),
        ("?after=1&limit=1", [6]),
        ("?after=1&limit=2", [6, 7]),
        ("?after=6", [7]),
        ("?after=7", []),
    ):
        _, answer = await service.get(f"/v1/entries{query}", key)
        assert listed(answer, "seq") == expected


async def test_a_search_that_takes_too_long_is_broken_off(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "STEPS_BETWEEN_LOOKS", 1)
    await service.ledger.record(fact("1"))
    key = ledger_key(service)
    with monkeypatch.context() as patched:
        patched.setattr(readable_module, "SEARCH_SECONDS", -1.0)
        status, code, detail = await refusal(service, "/v1/transactions", key)
        assert (status, code) == (400, "search-too-long")
        assert "name a store" in detail
    # The connection is as good as before.
    assert await page(service, "", key) == ["1"]


async def test_a_till_comes_in_and_reads_while_searches_hold_their_connections(
    service: Serving,
) -> None:
    await service.ledger.record(fact("1"))
    made, key = service.keyed()
    searchers = service.ledger._searchers
    async with AsyncExitStack() as stack:
        for _ in searchers.all:
            await stack.enter_async_context(searchers.one())
        async with asyncio.timeout(5):
            assert (await service.get("/v1/transactions/1", key))[0] == 200
            assert (await service.get("/v1/pos/events?after=earliest", key))[0] == 200
            assert await authenticate(key, service.ledger) == made
            service.revoke(made)
            assert await authenticate(key, service.ledger) is None


async def test_one_key_cannot_take_every_request_and_another_is_answered(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares_module, "REQUESTS_AT_ONCE_MAX", 3)
    monkeypatch.setattr(shares_module, "REQUESTS_PER_SECOND", 0)
    key = ledger_key(service)
    for _ in range(3):
        assert (await service.get("/v1/ledger", key))[0] == 200
    status, code, _ = await refusal(service, "/v1/ledger", key)
    assert (status, code) == (429, "too-many")
    assert (await service.get("/v1/ledger", ledger_key(service)))[0] == 200
    # Pockyt is never told to wait for a key's share.
    assert await service.notify() == (200, "success")


async def test_the_waits_of_a_key_for_entries_are_limited(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries_module, "ENTRY_WAITS_MAX", 1)
    key = ledger_key(service)
    waiting = asyncio.create_task(service.get("/v1/entries?wait=30", key))
    hub = service.service.app[HUB]
    async with asyncio.timeout(5):
        while not hub.waiting:
            await asyncio.sleep(0.005)
    status, code, _ = await refusal(service, "/v1/entries?wait=1", key)
    assert (status, code) == (429, "too-many")
    await service.ledger.record(fact("1"))
    assert listed((await waiting)[1], "seq") == [1]


async def test_a_cursor_is_sealed_with_what_only_the_ledger_knows(tmp_path: Path) -> None:
    path = tmp_path / "sealed.db"
    async with serving(path, merchants=MERCHANTS) as service:
        for number in ("1", "2"):
            await service.ledger.record(fact(number))
        key = ledger_key(service)
        _, answer = await service.get("/v1/transactions?limit=1", key)
        cursor = str(members(answer)["nextCursor"])
        secret = service.ledger.secret
        assert len(secret) == 32
        assert service.ledger.epoch not in secret.hex()
    # The same after a restart.
    async with serving(path, merchants=MERCHANTS) as service:
        assert service.ledger.secret == secret
        assert await page(service, f"?limit=1&cursor={cursor}", key) == ["1"]
    async with serving(tmp_path / "other.db", merchants=MERCHANTS) as other:
        assert other.ledger.secret != secret


async def test_a_clock_set_back_hides_no_cancellation(service: Serving, time: Time) -> None:
    await service.ledger.record(fact("1", word="closed", says=Status.CANCELLED))
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    time.at_ms += 60_001
    # The machine's clock is decades away from the listener's; it is not asked.
    _, answer = await service.get("/v1/terminals", admin)
    unacknowledged = members(answer)["unacknowledged"]
    assert isinstance(unacknowledged, list)
    assert [one["late"] for one in unacknowledged] == [True]
    headers = {"Authorization": f"Bearer {admin}"}
    async with service.client.get(f"{service.url}/metrics", headers=headers) as told:
        assert "listener_unacknowledged_cancellations 1.0" in await told.text()
