"""Run the real service for a test: a fresh ledger, a free port, keys made by another process."""

from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import aiohttp

from listener.clock import now_ms
from listener.keys import Key, Role, mint
from listener.lifecycle import Clock, Limits
from listener.pockyt import signature
from listener.pockyt.signature import Token
from listener.settings import Settings
from listener.storage import KeyDesk, open_keys
from listener.storage.sqlite.ledger import SqliteLedger
from listener.web.app import Service, running
from listener.web.context import LEDGER, SETTINGS
from listener.web.till.sessions import SessionTiming

T = TypeVar("T")

MERCHANT_NO = "200043"
STORE_NO = "303660"
OTHER_STORE_NO = "300014"
STREAM = f"{MERCHANT_NO}/{STORE_NO}"
TOKEN_TEXT = "5cbfb079f15b150122261c8537086d77a"
TOKEN = Token(TOKEN_TEXT)
FORM = "application/x-www-form-urlencoded"
FIELDS: Mapping[str, str] = {
    "transactionNo": "297553638301777927",
    "status": "closed",
    "amount": "13.00",
    "currency": "USD",
    "settleCurrency": "USD",
    "reference": "test20200101307",
    "time": "20261123181112",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A service under test, and a client without a key."""

    service: Service
    path: Path
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.service.url

    @property
    def ledger(self) -> SqliteLedger:
        found = self.service.app[LEDGER]
        assert isinstance(found, SqliteLedger)
        return found

    def key(
        self,
        role: Role = Role.POS,
        *,
        merchant_no: str | None = MERCHANT_NO,
        store_no: str | None = STORE_NO,
        terminal: str | None = None,
        may_refund: bool = False,
    ) -> str:
        """Make a key in the ledger's file, as ``listener keys create`` does; return its text."""
        return self.keyed(
            role,
            merchant_no=merchant_no,
            store_no=store_no,
            terminal=terminal,
            may_refund=may_refund,
        )[1]

    def keyed(
        self,
        role: Role = Role.POS,
        *,
        merchant_no: str | None = MERCHANT_NO,
        store_no: str | None = STORE_NO,
        terminal: str | None = None,
        may_refund: bool = False,
    ) -> tuple[Key, str]:
        """Make a key; return it as it is stored, and its text."""
        made, text = mint(
            role=role,
            now_ms=now_ms(),
            merchant_no=merchant_no,
            store_no=store_no,
            terminal=terminal,
            may_refund=may_refund,
        )
        self._beside(lambda stored: stored.add(made))
        return made, text

    def revoke(self, key: Key) -> None:
        """Revoke a key, as another process would."""
        assert self._beside(lambda stored: stored.revoke(key.id, at_ms=now_ms()))

    def _beside(self, work: Callable[[KeyDesk], T]) -> T:
        """Use the keys as another program would, outside of this event loop."""

        def working() -> T:
            with open_keys(self.service.app[SETTINGS].database, create=False) as stored:
                return work(stored)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(working).result()

    async def get(self, path: str, key: str | None = None) -> tuple[int, object]:
        """GET a path of the API; return the status and the JSON."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self.client.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def notify(
        self,
        changes: Mapping[str, str] | None = None,
        *,
        path: str = f"/notify/{MERCHANT_NO}/{STORE_NO}",
        token: Token = TOKEN,
    ) -> tuple[int, str]:
        """Send a signed notification; return the status and the text of the answer."""
        body = signed({**FIELDS, **(changes or {})}, token=token)
        headers = {"Content-Type": FORM}
        async with self.client.post(self.url + path, data=body, headers=headers) as answer:
            return answer.status, await answer.text()


def signed(fields: Mapping[str, str], *, token: Token = TOKEN) -> bytes:
    """Sign fields and write them as a form."""
    return urlencode({**fields, signature.FIELD: signature.sign(fields, token)}).encode()


def settings(path: Path, **changes: object) -> Settings:
    """Make settings for a ledger's file: the sample merchant with two stores."""
    table: dict[str, object] = {
        "port": 0,
        "database": f"sqlite:///{path}",
        "pockyt": {"url": "http://127.0.0.1:9", "timeout_seconds": 1.0},
        "merchants": {MERCHANT_NO: {"tokens": [TOKEN_TEXT], "stores": [STORE_NO, OTHER_STORE_NO]}},
    }
    return Settings.model_validate(table | changes)


@asynccontextmanager
async def serving(
    path: Path,
    *,
    timing: SessionTiming | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
    **changes: object,
) -> AsyncIterator[Serving]:
    """Serve the ledger at a path; ``changes`` are settings."""
    async with (
        running(settings(path, **changes), timing=timing, limits=limits, clock=clock) as service,
        aiohttp.ClientSession() as client,
    ):
        yield Serving(service=service, path=path, client=client)
