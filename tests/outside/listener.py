"""The listener from outside: a process, its API, and tills that go and come."""

import asyncio
import json
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from websockets.exceptions import ConnectionClosed, WebSocketException

from listener.clock import now_ms
from listener.keys import Role, mint
from listener.sandbox.servers import SAMPLE_OLD_TOKEN, SAMPLE_TOKEN
from listener.storage import open_keys
from tests.support.ports import free_port
from tests.support.service import MERCHANT_NO, OTHER_STORE_NO, STORE_NO
from tests.support.stored import url_of
from tests.support.tills import till

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 20.0
ANSWER_SECONDS: Final = 15.0
PAGE: Final = 500
STAY_SECONDS: Final = (0.5, 8.0)
AWAY_SECONDS: Final = (0.0, 2.0)
SETTINGS: Final = """\
port = {port}
database = "{database}"
public_url = "http://127.0.0.1:{port}"
confirm = "{confirm}"
[pockyt]
url = "{pockyt_url}"
timeout_seconds = 1.0
[merchants.{merchant_no}]
tokens = ["{token}", "{old_token}"]
stores = ["{store_no}", "{other_store_no}"]
"""

# What the API and the stream say, as it is.
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of the API; status None where nobody answered."""

    status: int | None
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that the API says. Transactions are by number, events by stream and in order."""

    transactions: dict[str, Json]
    entries: list[Json]
    # Sales without a number, by reference.
    sales: dict[str, Json]
    events: dict[str, list[Json]]


class Listener:
    """A listener as a process; ``down`` says when it was not there (Unix ms)."""

    def __init__(
        self, directory: Path, *, pockyt_url: str, confirm: str, client: aiohttp.ClientSession
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.down: list[tuple[int, int]] = []
        self.counts: Counter[str] = Counter()
        self._config = directory / "listener.toml"
        self._log = directory / "listener.log"
        self._client = client
        self._process: Process | None = None
        self._fell_ms: int | None = None
        database = url_of(directory / "ledger.db")
        self._config.write_text(
            SETTINGS.format(
                port=port,
                database=database,
                confirm=confirm,
                pockyt_url=pockyt_url,
                merchant_no=MERCHANT_NO,
                token=SAMPLE_TOKEN,
                old_token=SAMPLE_OLD_TOKEN,
                store_no=STORE_NO,
                other_store_no=OTHER_STORE_NO,
            )
        )
        self.admin = _key(database, Role.ADMIN)
        # A key has a share of wishes: the tills of a store have one each.
        self.keys = {
            store: [
                _key(database, Role.POS, store_no=store, terminal=f"T-{store}-{n}")
                for n in range(3)
            ]
            for store in (STORE_NO, OTHER_STORE_NO)
        }

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "listener", "serve", "--config", self._config),
                cwd=self._config.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=log,
            )
        async with asyncio.timeout(START_SECONDS):
            while (await self.call("GET", "/healthz")).status != 200:
                assert self._process.returncode is None, self._log.read_text()
                await asyncio.sleep(0.05)
        if self._fell_ms is not None:
            self.down.append((self._fell_ms, now_ms()))

    async def kill(self) -> None:
        """Kill it without a warning."""
        self._fell_ms = now_ms()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def verify(self) -> list[str]:
        """Run `listener verify`; return what it says of damage."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "listener", "verify", "--config", self._config),
            cwd=self._config.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return [] if process.returncode == 0 else [f"listener verify: {said.decode()}"]

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Call the API as an admin, or with another key; an answer of nobody has no status."""
        headers = {"Authorization": f"Bearer {key or self.admin}"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._client.request(method, self.url + path, json=body, headers=headers) as answer,
            ):
                said = await answer.json(content_type=None) if path != "/healthz" else {}
                self.counts[f"answers {answer.status}"] += method == "POST"
                return Answer(status=answer.status, body=said)
        except (aiohttp.ClientError, OSError, ValueError):
            return Answer(status=None, body={})

    async def ask(self, number: str) -> Answer:
        """Press "ask Pockyt now", as an operator."""
        return await self.call("POST", f"/v1/transactions/{number}/ask")

    async def read(self, references: Iterable[str]) -> Found:
        """Read all that the API says, from end to end; sales without a number by reference."""
        transactions: dict[str, Json] = {}
        cursor = ""
        while True:
            page = await self._get(f"/v1/transactions?limit={PAGE}{cursor}")
            transactions |= {one["transactionNo"]: one for one in page["data"]}
            if page["nextCursor"] is None:
                break
            cursor = f"&cursor={page['nextCursor']}"
        entries: list[Json] = []
        while page := (await self._get(f"/v1/entries?after={len(entries)}&limit={PAGE}"))["data"]:
            entries += page
        numbered = {one["reference"] for one in transactions.values()}
        sales: dict[str, Json] = {}
        for reference in sorted(set(references) - numbered):
            for one in (await self._get(f"/v1/sales?reference={reference}"))["data"]:
                sales[reference] = one
        streams = [f"{MERCHANT_NO}/{store}" for store in (STORE_NO, OTHER_STORE_NO, "-")]
        return Found(
            transactions=transactions,
            entries=entries,
            sales=sales,
            events={stream: await self._events(stream) for stream in streams},
        )

    async def _events(self, stream: str) -> list[Json]:
        epoch = (await self._get("/v1/ledger"))["epoch"]
        events: list[Json] = []
        while True:
            page = await self._get(f"/v1/pos/events?stream={stream}&after={epoch}:{len(events)}")
            events += page["events"]
            if not page["events"]:
                return events

    async def _get(self, path: str) -> Json:
        answer = await self.call("GET", path)
        assert answer.status == 200, f"{path}: {answer}"
        return answer.body


class Till:
    """A till on a real socket, which goes and comes; ``heard`` is what it was told, by offset."""

    def __init__(self, listener: Listener, *, store_no: str) -> None:
        self.stream = f"{MERCHANT_NO}/{store_no}"
        self.heard: dict[int, Json] = {}
        self.wrong: list[str] = []
        self._listener = listener
        self._key = listener.keys[store_no][0]
        self._epoch: str | None = None
        self._last = 0
        self._acked = 0

    async def follow(self, seed: int) -> None:
        """Come, stay a while and go, for ever."""
        dice = random.Random(f"till {seed} {self.stream}")
        while True:
            stays = dice.uniform(*STAY_SECONDS)
            try:
                async with asyncio.timeout(stays):
                    await self._stay(dice)
            except (TimeoutError, OSError, ConnectionClosed, WebSocketException):
                await asyncio.sleep(dice.uniform(*AWAY_SECONDS))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                self.wrong.append(f"{self.stream}: the till has ended: {error!r}")
                return

    async def _stay(self, dice: random.Random) -> None:
        after: object = "earliest"
        if self._epoch is not None:
            own = {"epoch": self._epoch, "offset": self._last}
            after = dice.choice([own, own, "acked"]) if self._acked else own
        async with till(self._listener.url, self._key) as one:
            ready = await one.join({"stream": self.stream, "after": after})
            (place,) = ready["streams"]
            self._begin(place, after)
            while True:
                # Nothing comes for long: the till waits until it goes.
                text = await one.ws.recv()
                frame = json.loads(text)
                if frame["type"] == "ping":
                    await one.say(type="pong", t=frame["t"])
                elif frame["type"] == "event":
                    self._hear(frame)
                    if dice.random() < 0.5:
                        self._acked = frame["offset"]
                        await one.ack(self.stream, frame["offset"])
                else:
                    self.wrong.append(f"{self.stream}: an unexpected frame: {frame}")

    def _begin(self, place: Json, after: object) -> None:
        self._epoch = self._epoch or place["epoch"]
        if place["epoch"] != self._epoch or not place["recovered"]:
            self.wrong.append(f"{self.stream}: not recovered after a kill: {place}")
        if place["after"] > self._last:
            self.wrong.append(f"{self.stream}: {after} begins at {place}, but {self._last} is read")
        self._last = place["after"]

    def _hear(self, frame: Json) -> None:
        offset, event = frame["offset"], frame["event"]
        if offset != self._last + 1:
            self.wrong.append(f"{self.stream}: event {offset} after {self._last}")
        self._last = offset
        if self.heard.setdefault(offset, event) != event:
            self.wrong.append(f"{self.stream}: event {offset} is another one the second time")


def _key(
    database: str, role: Role, *, store_no: str | None = None, terminal: str | None = None
) -> str:
    made, text = mint(
        role=role,
        now_ms=now_ms(),
        merchant_no=MERCHANT_NO if role is Role.POS else None,
        store_no=store_no,
        terminal=terminal,
        may_refund=role is Role.POS,
    )
    with open_keys(database, create=True) as stored:
        stored.add(made)
    return text
