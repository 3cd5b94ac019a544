"""One shop under load, over all the lives of its service: senders, a till, and what must hold.

A sender is like Pockyt: what was not answered with ``success`` is sent again, the same bytes.
"""

import asyncio
import random
import signal
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from listener.clock import now_ms
from listener.keys import Role, mint
from listener.pos.client import Follower, MemoryPositions, Timing
from listener.storage import open_keys, open_reader, verify
from listener.storage.checks import Verified
from tests.fault.lives import DEADLINE_SECONDS, Life, Nursery
from tests.support.ports import free_port
from tests.support.service import FIELDS, FORM, MERCHANT_NO, STORE_NO, STREAM, TOKEN_TEXT, signed
from tests.support.stored import url_of

ANSWER_SECONDS: Final = 15.0
# A till that is back within a tenth of a second, also where it is asked for 5 s of jitter.
QUICK: Final = Timing(
    connect_seconds=2.0,
    retry_first_seconds=1.0,
    retry_max_seconds=2.0,
    blocked_tries=1_000_000,
    chance=lambda: random.random() / 50,
)
SETTINGS: Final = """\
port = {port}
database = "{database}"
[pockyt]
url = "http://127.0.0.1:9"
[merchants.{merchant_no}]
tokens = ["{token}"]
stores = ["{store_no}"]
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a delivery was answered; the text only of what says 200."""

    status: int
    text: str = ""
    retry_after: str | None = None


SUCCESS: Final = Answer(200, "success")


@dataclass(slots=True)
class Outcome:
    """What was sent, what was acknowledged, what the till was told."""

    sent: int = 0
    acknowledged: set[str] = field(default_factory=set)
    # How often each answer came.
    answers: dict[Answer, int] = field(default_factory=dict)
    # The ids of the events, in the order in which the till handled them.
    told: list[str] = field(default_factory=list)
    kills: int = 0


@dataclass(slots=True, kw_only=True)
class Shop:
    """A ledger, its service's settings, those who send, and a till that follows all the while."""

    nursery: Nursery
    # The ledger as the setting names it, and its file where it is one on SQLite.
    database: str
    ledger: Path
    config: Path
    url: str
    client: aiohttp.ClientSession
    twists: Sequence[str] = ()
    # How much longer the references are than they need be.
    padding: int = 0
    outcome: Outcome = field(default_factory=Outcome)
    # What further tills were told, as in the outcome.
    tills: list[list[str]] = field(default_factory=list)
    _again: deque[str] = field(default_factory=deque)

    @asynccontextmanager
    async def life(self, *, is_begun: bool = True) -> AsyncIterator[Life]:
        """Run the service for as long as the block lasts; it is killed at the end."""
        life = await self.nursery.fork(self.config, twists=self.twists)
        try:
            if is_begun:
                life.begin()
                assert await self.answers(life), "the service did not start; see its log"
            yield life
        finally:
            await life.end()

    async def answers(self, life: Life) -> bool:
        """Wait until a service answers; False if it ended before."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not life.ended.done():
                try:
                    async with self.client.get(f"{self.url}/healthz") as answer:
                        if answer.status == 200:
                            return True
                except (aiohttp.ClientError, OSError):
                    await asyncio.sleep(0.003)
        return False

    async def send(self, *, count: int | None = None, pause_seconds: float = 0.0) -> None:
        """Send one notification after the other, until nobody answers, or so many were sent."""
        while count is None or count > 0:
            count = None if count is None else count - 1
            try:
                await self.send_one()
            except (aiohttp.ClientError, OSError):
                return
            if pause_seconds:
                await asyncio.sleep(pause_seconds)

    async def send_one(self) -> Answer:
        """Send a notification that is to be sent again, or a new one."""
        if self._again:
            number = self._again.popleft()
        else:
            self.outcome.sent += 1
            number = f"{self.outcome.sent:018d}"
        got = None
        try:
            got = await self.deliver(number)
        finally:
            if got == SUCCESS:
                self.outcome.acknowledged.add(number)
            else:
                self._again.append(number)
        self.outcome.answers[got] = self.outcome.answers.get(got, 0) + 1
        return got

    async def deliver(self, number: str) -> Answer:
        """Bring the notification of a number, always in the same bytes."""
        body = signed(
            {**FIELDS, "transactionNo": number, "reference": f"r{number}{'-' * self.padding}"}
        )
        async with self.client.post(
            f"{self.url}/notify/{MERCHANT_NO}", data=body, headers={"Content-Type": FORM}
        ) as answer:
            text = await answer.text() if answer.status == 200 else ""
            return Answer(answer.status, text, answer.headers.get("Retry-After"))

    async def settle(self) -> None:
        """Run one last service until everything is acknowledged and the tills are told; stop it."""
        async with self.life() as life:
            while self._again:
                assert await self.send_one() == SUCCESS
            wanted = verify(self.database).events
            async with asyncio.timeout(DEADLINE_SECONDS):
                while any(len(told) < wanted for told in (self.outcome.told, *self.tills)):
                    await asyncio.sleep(0.005)
            assert await life.end(signal.SIGTERM) == 0

    def check(self) -> Verified:
        """Check the ledger as it lies there: sound, nothing acknowledged missing, none double."""
        verified = verify(self.database)
        # Only read, so that it is the next service that has to put in order what a kill has left.
        with open_reader(self.database) as reader:
            recorded = [
                line.entry.fact.transaction_no for _, lines in reader.pages() for line in lines
            ]
        lost = self.outcome.acknowledged - set(recorded)
        assert not lost, f"acknowledged, and lost: {len(lost)}"
        assert len(recorded) == len(set(recorded)), "an entry is double"
        return verified

    def check_all(self) -> Verified:
        """Check the same, and that all that was sent is there and was told each till in order."""
        verified = self.check()
        assert len(self.outcome.acknowledged) == self.outcome.sent == verified.entries
        for till in (self.outcome.told, *self.tills):
            seqs = [int(told.rpartition("-")[2]) for told in till]
            # Every entry of these is of a new transaction, so each has its event.
            assert seqs == [*range(1, verified.entries + 1)], "an event is double or out of order"
        return verified


@asynccontextmanager
async def counter(
    nursery: Nursery, directory: Path, *, database: str | None = None, twists: Sequence[str] = ()
) -> AsyncIterator[Shop]:
    """Open a shop without a till, whose ledger does not exist yet; by default a file."""
    port = free_port()
    config, ledger = directory / "listener.toml", directory / "ledger.db"
    database = database or url_of(ledger)
    config.write_text(
        SETTINGS.format(
            port=port,
            database=database,
            merchant_no=MERCHANT_NO,
            store_no=STORE_NO,
            token=TOKEN_TEXT,
        )
    )
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        yield Shop(
            nursery=nursery,
            database=database,
            ledger=ledger,
            config=config,
            url=f"http://127.0.0.1:{port}",
            client=client,
            twists=twists,
        )


@asynccontextmanager
async def shop(
    nursery: Nursery, directory: Path, *, twists: Sequence[str] = ()
) -> AsyncIterator[Shop]:
    """Open a shop with a ledger, and a till that follows it from its beginning."""
    async with counter(nursery, directory, twists=twists) as one:
        key = make_key(one.database)
        async with till(one.url, key=key) as (follower, told):
            one.outcome.told = told
            # It is there before the first message, so that it must see every one.
            async with one.life(), asyncio.timeout(DEADLINE_SECONDS):
                while follower.status.state != "live":
                    await asyncio.sleep(0.005)
            yield one


@asynccontextmanager
async def till(url: str, *, key: str) -> AsyncIterator[tuple[Follower, list[str]]]:
    """Run a till that follows all the time; yield the ids of the events that it handled."""
    told: list[str] = []

    async def follow() -> None:
        async for event in follower:
            told.append(event.id)  # noqa: PERF401 - it never ends, and is looked at meanwhile

    async with Follower(
        url, key=key, streams=[STREAM], position=MemoryPositions(), timing=QUICK
    ) as follower:
        following = asyncio.create_task(follow())
        try:
            yield follower, told
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def make_key(database: str, *, terminal: str | None = "T-1") -> str:
    """Make the key of a till, and the ledger if need be, as ``listener keys create`` does."""
    made, text = mint(
        role=Role.POS,
        now_ms=now_ms(),
        merchant_no=MERCHANT_NO,
        store_no=STORE_NO,
        terminal=terminal,
        may_refund=False,
    )
    with open_keys(database, create=True) as stored:
        stored.add(made)
    return text
