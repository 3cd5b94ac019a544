"""Several nodes on one PostgreSQL under load, each killed, paused and cut off again and again.

What is sent is sent as Pockyt and as tills do: again, to any node, until it is answered. In the end
nothing that was acknowledged is missing, nothing is double, no number is left out, each till that
hops from node to node was told each event once and in order, and each cashier's wish was one sale
and at most one /cancel at Pockyt.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.storage import verify
from tests.fault.lives import DEADLINE_SECONDS, Life, Nursery
from tests.fault.load import make_key
from tests.fault.nodes_load import Cashier, HoppingTill, Sender, Sent
from tests.support.ports import free_port
from tests.support.service import MERCHANT_NO, STORE_NO, STREAM, TOKEN_TEXT

SENDERS: Final = 24
CASHIERS: Final = 2
TILLS: Final = 2
ANSWER_SECONDS: Final = 8.0
SETTLE_SECONDS: Final = 120.0
# Between two faults; how long a node is paused, and how long one in so many is: past any lease.
QUIET_SECONDS: Final = (0.1, 0.6)
PAUSE_SECONDS: Final = (0.2, 1.5)
LONG_PAUSE_EVERY: Final = 12
LONG_PAUSE_SECONDS: Final = 7.0
SLOWEST: Final = "ms at p99 beside a paused node"
FAULTS: Final = ("kills", "kills", "pauses", "terminations", "terminations", "listen cuts")
SETTINGS: Final = """
port = {port}
public_url = "{public_url}"
database = "{url}"
[pockyt]
url = "{pockyt}"
timeout_seconds = 2.0
[merchants.{merchant_no}]
tokens = ["{token}"]
stores = ["{store_no}"]
"""
# The connections of every node; those that listen.
_TERMINATE: Final = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname ="
    " current_database() AND application_name LIKE 'pockyt-listener%' AND random() < 0.5"
)
_CUT_LISTEN: Final = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname ="
    " current_database() AND application_name LIKE '% bell'"
)


@dataclass(slots=True)
class Node:
    """One listener, over all its lives."""

    nursery: Nursery
    config: Path
    url: str
    is_paused: bool = False
    life: Life | None = None
    twists: Sequence[str] = ()

    async def start(self, client: aiohttp.ClientSession) -> None:
        """Start it, and wait until it answers; again where it cannot reach the database in time."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                self.life = await self.nursery.fork(self.config, twists=self.twists)
                self.life.begin()
                while not self.life.ended.done():
                    if await self._answers(client):
                        return
                    await asyncio.sleep(0.02)

    async def _answers(self, client: aiohttp.ClientSession) -> bool:
        try:
            async with client.get(f"{self.url}/healthz") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def kill(self) -> None:
        assert self.life
        assert await self.life.end() == -9

    async def stop(self) -> None:
        assert self.life
        assert await self.life.end(signal.SIGTERM) == 0

    async def pause(self, seconds: float) -> None:
        assert self.life
        self.is_paused = True
        self.life.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.life.send(signal.SIGCONT)
        self.is_paused = False


@dataclass(slots=True, kw_only=True)
class Site:
    """The nodes, what they share, and all that was done to them."""

    nodes: Sequence[Node]
    url: str
    pockyt: Sandbox
    client: aiohttp.ClientSession
    chance: random.Random
    cancels: Counter[str]
    sent: Sent = field(default_factory=Sent)
    counts: Counter[str] = field(default_factory=Counter)

    async def strike(self) -> None:
        """Do one thing that machines and networks do."""
        fault = self.chance.choice(FAULTS)
        self.counts[fault] += 1
        node = self.chance.choice(self.nodes)
        if fault == "kills":
            await node.kill()
            await node.start(self.client)
        elif fault == "pauses":
            is_long = not self.counts["pauses"] % LONG_PAUSE_EVERY
            await node.pause(LONG_PAUSE_SECONDS if is_long else self.chance.uniform(*PAUSE_SECONDS))
        else:
            statement = _TERMINATE if fault == "terminations" else _CUT_LISTEN
            self.counts["backends terminated"] += await self.query(statement)

    def sender(self) -> Sender:
        """Return somebody who sends notifications."""
        return Sender(self.nodes, self.client, self.chance, self.sent)

    async def query(self, statement: str) -> int:
        """Return the one number that a statement finds."""
        db = await asyncpg.connect(self.url)
        try:
            return int(await db.fetchval(statement))
        finally:
            await db.close()


async def run(
    nursery: Nursery, directory: Path, url: str, *, nodes: int, faults: int, seed: int
) -> Counter[str]:
    """Strike so often; return what was done, once all is found as it must be."""
    async with site_of(nursery, directory, url, nodes=nodes, seed=seed) as site:
        key = await asyncio.to_thread(make_key, url, terminal=None)
        tills = [HoppingTill(site.nodes, site.chance) for _ in range(TILLS)]
        keys = [await asyncio.to_thread(make_key, url, terminal=f"T-{n}") for n in range(TILLS)]
        senders = [site.sender() for _ in range(SENDERS)]
        cashiers = [Cashier(site.nodes, site.client, site.chance, key) for _ in range(CASHIERS)]
        following = [
            asyncio.create_task(till.hop(key)) for till, key in zip(tills, keys, strict=True)
        ]
        workers: list[Sender | Cashier] = [*senders, *cashiers]
        working = [asyncio.create_task(one.work()) for one in workers]
        try:
            began = time.monotonic()
            for _ in range(faults):
                await asyncio.sleep(site.chance.uniform(*QUIET_SECONDS))
                await site.strike()
                _raise_of([*working, *following])
            site.counts["seconds"] = round(time.monotonic() - began)
            for one in workers:
                one.is_over = True
            async with asyncio.timeout(SETTLE_SECONDS):
                await asyncio.gather(*working)
                await _told_all(site, tills, following)
        finally:
            for task in (*working, *following):
                task.cancel()
            await asyncio.gather(*working, *following, return_exceptions=True)
        for node in site.nodes:
            await node.stop()
        await _check(site, tills, cashiers)
        return _summed_up(site, tills, cashiers)


@asynccontextmanager
async def site_of(
    nursery: Nursery, directory: Path, url: str, *, nodes: int, seed: int
) -> AsyncIterator[Site]:
    """Start nodes on one database, beside one Pockyt."""
    cancels: Counter[str] = Counter()

    def heard(_name: str, detail: object) -> None:
        if isinstance(detail, dict) and detail.get("call") == "cancel":
            cancels[detail["transactionNo"]] += 1

    async with AsyncExitStack() as stack:
        pockyt = await stack.enter_async_context(Sandbox.start(SandboxSettings(), on_step=heard))
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        client = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        ports = [free_port() for _ in range(nodes)]
        made = []
        for port in ports:
            config = directory / f"{port}.toml"
            # Pockyt notifies the first, as it would a proxy.
            public_url = f"http://127.0.0.1:{ports[0]}"
            config.write_text(
                SETTINGS.format(
                    port=port,
                    public_url=public_url,
                    url=url,
                    pockyt=pockyt.url,
                    merchant_no=MERCHANT_NO,
                    token=TOKEN_TEXT,
                    store_no=STORE_NO,
                )
            )
            made.append(Node(nursery, config, f"http://127.0.0.1:{port}"))
        site = Site(
            nodes=made,
            url=url,
            pockyt=pockyt,
            client=client,
            chance=random.Random(seed),
            cancels=cancels,
        )
        for node in made:
            await node.start(client)
        yield site


async def _told_all(
    site: Site, tills: Sequence[HoppingTill], following: Sequence["asyncio.Task[None]"]
) -> None:
    """Wait until nothing is recorded any more, and each till was told all of it."""
    seen = -1
    while True:
        wanted = await site.query(f"SELECT count(*) FROM events WHERE stream = '{STREAM}'")
        if wanted == seen and all(len(till.told) >= wanted for till in tills):
            return
        seen = wanted
        _raise_of(following)
        await asyncio.sleep(0.5)


def _raise_of(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Raise what has ended a task that should go on."""
    for task in tasks:
        if task.done():
            task.result()
            raise AssertionError("a task ended before its time")


async def _check(site: Site, tills: Sequence[HoppingTill], cashiers: Sequence[Cashier]) -> None:
    """Check all that must hold when all is over."""
    site.counts["entries"] = (await asyncio.to_thread(verify, site.url)).entries
    db = await asyncpg.connect(site.url)
    try:
        recorded = Counter(
            (row[0], row[1])
            for row in await db.fetch(
                "SELECT transaction_no, fields::json->>'time' FROM entries"
                " WHERE kind = 'notification' AND reference LIKE 'r%'"
            )
        )
        told = await db.fetch(
            f"SELECT seq FROM events WHERE stream = '{STREAM}' ORDER BY \"offset\""
        )
        sales = Counter(
            row[0] for row in await db.fetch("SELECT reference FROM entries WHERE kind = 'sale'")
        )
        wishes = Counter(
            row[0]
            for row in await db.fetch(
                "SELECT transaction_no FROM entries WHERE kind = 'cancel_request'"
            )
        )
    finally:
        await db.close()
    lost = site.sent.acknowledged - recorded.keys()
    assert not lost, f"acknowledged, and lost: {len(lost)}"
    assert set(recorded.values()) <= {1}, "an entry is double"
    for till in tills:
        seqs = [int(one.rpartition("-")[2]) for one in till.told]
        # Since the tills were told all, the nodes may have gone on with a cancel in doubt.
        recorded_seqs = [row[0] for row in told[: len(seqs)]]
        assert seqs == recorded_seqs, _difference(seqs, recorded_seqs)
    at_pockyt = Counter(sale.order.reference for sale in site.pockyt.book)
    wanted = {reference for cashier in cashiers for reference in cashier.sold}
    assert wanted <= at_pockyt.keys()
    assert set(at_pockyt.values()) | set(sales.values()) <= {1}, "a sale is double"
    for number, count in site.cancels.items():
        assert count <= wishes[number], f"/cancel of {number} was sent {count} times"


def _difference(told: Sequence[int], recorded: Sequence[int]) -> str:
    """Say where what a till was told leaves what was recorded."""
    at = next(
        (n for n, both in enumerate(zip(told, recorded, strict=False)) if len({*both}) > 1), 0
    )
    return (
        "a till was told twice, not at all, or out of order:"
        f" {told[at : at + 5]} where {recorded[at : at + 5]} was recorded"
    )


def _summed_up(
    site: Site, tills: Sequence[HoppingTill], cashiers: Sequence[Cashier]
) -> Counter[str]:
    counts = site.counts
    counts["faults"] = sum(counts[name] for name in set(FAULTS))
    counts["acknowledged"] = len(site.sent.acknowledged)
    counts["sent again"] = site.sent.repeats
    counts["sales"] = sum(len(cashier.sold) for cashier in cashiers)
    counts["cancels"] = sum(cashier.cancelled for cashier in cashiers)
    counts["told"] = sum(len(till.told) for till in tills)
    counts["hops"] = sum(till.hops for till in tills)
    beside = sorted(site.sent.beside_a_pause)
    if beside:
        counts[SLOWEST] = round(beside[len(beside) * 99 // 100] * 1_000)
    return counts
