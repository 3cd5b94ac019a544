"""The key in a header of our own, where a proxy uses Authorization for itself."""

import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from listener.keys import Role
from listener.web.reference.catalogue import OPERATIONS
from tests.support.service import Serving, serving
from tests.support.tills import till

JWT = {"Authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzc28ifQ.c2ln"}


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def status_of(service: Serving, method: str, path: str, headers: Mapping[str, str]) -> int:
    url = service.url + path.format(transactionNo="1", reference="1")
    async with service.client.request(method, url, headers=headers) as answer:
        return answer.status


async def test_every_route_that_takes_a_key_takes_it_in_the_second_header(
    service: Serving,
) -> None:
    keys = {
        Role.POS: service.key(),
        Role.ADMIN: service.key(Role.ADMIN, merchant_no=None, store_no=None),
    }
    guarded = [operation for operation in OPERATIONS if operation.roles]
    assert len(guarded) > 10
    for operation in guarded:
        key = keys[Role.POS if Role.POS in operation.roles else Role.ADMIN]
        method, path = operation.method, operation.path
        for beside in ({}, JWT, {"Authorization": "Basic dTpw"}):
            headers = {**beside, "x-listener-key": f" {key} "}
            assert await status_of(service, method, path, headers) not in (401, 403), operation.id
            assert await status_of(service, method, path, beside) == 401


async def test_the_second_header_wins(service: Serving) -> None:
    good, empty = {"Authorization": f"Bearer {service.key()}"}, {"X-Listener-Key": " "}
    path = "/v1/transactions"
    assert await status_of(service, "GET", path, {**good, "X-Listener-Key": "lk_1_2"}) == 401
    assert await status_of(service, "GET", path, {**good, **empty}) == 200
    assert await status_of(service, "GET", path, {**JWT, **empty}) == 401


async def test_a_till_joins_with_it_and_a_key_in_connect_beats_it(service: Serving) -> None:
    key = service.key()
    async with till(service.url, headers={**JWT, "X-Listener-Key": key}) as one:
        await one.join()
    async with till(service.url, headers={"X-Listener-Key": "lk_1_2"}) as one:
        await one.join(key=key)


async def test_it_is_never_logged_or_told(
    service: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = service.key()
    told = []
    for text in (key, f"{key}x", f"{key}\u00e4", f"{key}\x01", key + "x" * 9_000):
        for path in ("/v1/transactions", "/v1/nothing", "/notify/1", "/metrics"):
            url = service.url + path
            try:
                async with service.client.get(url, headers={"X-Listener-Key": text}) as answer:
                    told += [await answer.text(), str(answer.headers)]
            except ValueError:
                # Of the client: it sends no control characters.
                continue
    assert len(told) >= 24
    assert key.split("_", 2)[2] not in "\n".join([*told, caplog.text])


async def test_a_byte_order_mark_before_a_key_is_no_part_of_it(service: Serving) -> None:
    key = f"\ufeff{service.key()}"
    for header, text in (("Authorization", f"Bearer {key}"), ("X-Listener-Key", key)):
        assert await status_of(service, "GET", "/v1/transactions", {header: text}) == 200
    async with till(service.url) as one:
        await one.join(key=f" {key}\n")
