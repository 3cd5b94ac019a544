"""A shop for a test: the sandbox, the real service beside it, and a till that speaks HTTP."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import orjson
from aiohttp import ClientResponse

from listener.keys import Role
from listener.lifecycle import Clock, Limits
from listener.sandbox.faults import Planned
from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.sandbox.tasks import SandboxClock
from tests.support.ports import free_port
from tests.support.service import STORE_NO, Serving, serving

_REFERENCES = count(1)


STARTS_MAX = 3
HURRY = 30.0


@dataclass(frozen=True, slots=True)
class Told:
    """An answer of the API."""

    status: int
    body: dict[str, object]
    headers: Mapping[str, str]

    @property
    def number(self) -> str:
        return str(self.body["transactionNo"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """A sandbox, a listener, and the key of a till."""

    sandbox: Sandbox
    serving: Serving
    key: str

    def plan(self, *faults: str) -> None:
        """Plan faults instead of all others."""
        self.sandbox.script.replace([Planned.parse(fault) for fault in faults])

    async def post(
        self,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        raw: bytes | None = None,
    ) -> Told:
        """POST to the API, with the till's key unless another is given."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        data = raw if raw is not None else None if body is None else orjson.dumps(body)
        async with self.serving.client.post(
            self.serving.url + path, data=data, headers=headers
        ) as answer:
            return await _told(answer)

    async def start(self, *, vendor: str | None = None, **changes: object) -> Told:
        """Start a sale that must succeed: again if a busy machine was too slow."""
        body = order(vendor=vendor, **changes)
        told = await self.post("/v1/transactions", body)
        for _ in range(STARTS_MAX - 1):
            if told.status != 502:
                break
            told = await self.post("/v1/transactions", body)
        assert told.status == 201, told
        return told

    async def detail(self, number: str) -> dict[str, object]:
        """Read a transaction with its entries."""
        status, body = await self.serving.get(f"/v1/transactions/{number}", self.key)
        assert status == 200
        assert isinstance(body, dict)
        return body

    async def kinds(self, number: str) -> list[str]:
        """Return the kinds of a transaction's entries, in order."""
        entries = (await self.detail(number))["entries"]
        assert isinstance(entries, list)
        return [str(entry["kind"]) for entry in entries]


def order(**changes: object) -> dict[str, object]:
    """Return the body that starts a sale; None is left out."""
    body: dict[str, object] = {
        "reference": f"R-{next(_REFERENCES)}",
        "amount": "13.00",
        "currency": "USD",
        "settleCurrency": "USD",
        "storeNo": STORE_NO,
        "terminal": "T-42",
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


@asynccontextmanager
async def open_shop(
    path: Path,
    *faults: str,
    sandbox: SandboxSettings | None = None,
    limits: Limits | None = None,
    **changes: object,
) -> AsyncIterator[Shop]:
    """Open a shop; ``changes`` are settings of the service."""
    async with (
        Sandbox.start(sandbox or SandboxSettings()) as pockyt,
        beside(pockyt, path, limits=limits, clock=None, **changes) as served,
    ):
        shop = Shop(sandbox=pockyt, serving=served, key=served.key(terminal="T-42"))
        shop.plan(*faults)
        yield shop


@asynccontextmanager
async def beside(
    sandbox: Sandbox,
    path: Path,
    *,
    limits: Limits | None = None,
    clock: Clock | None = None,
    **changes: object,
) -> AsyncIterator[Serving]:
    """Serve a ledger beside a running sandbox; Pockyt gets the service's own URL."""
    port = free_port()
    settings: dict[str, object] = {
        "port": port,
        "public_url": f"http://127.0.0.1:{port}",
        "pockyt": {"url": sandbox.url, "timeout_seconds": 1.0},
    }
    changed = settings | changes
    async with serving(path, timing=None, limits=limits, clock=clock, **changed) as served:
        yield served


@asynccontextmanager
async def hurried(path: Path, *faults: str) -> AsyncIterator[Shop]:
    """Open a shop in which HURRY seconds pass in each real one."""
    passing = SandboxClock(time_scale=HURRY)
    clock = Clock(now_ms=lambda: int(passing.now_seconds() * 1_000), sleep=passing.sleep)
    async with (
        Sandbox.start(SandboxSettings(time_scale=HURRY)) as sandbox,
        beside(sandbox, path, clock=clock) as served,
    ):
        shop = Shop(sandbox=sandbox, serving=served, key=served.key(terminal="T-42"))
        shop.plan(*faults)
        yield shop


def admin(shop: Shop) -> str:
    """Make an admin's key."""
    return shop.serving.key(Role.ADMIN, merchant_no=None, store_no=None)


async def _told(answer: ClientResponse) -> Told:
    body = await answer.json(content_type=None)
    return Told(answer.status, body if isinstance(body, dict) else {}, answer.headers)
