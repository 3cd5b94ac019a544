"""Play the Cancel API tutorial over HTTP and websockets, and see each of its steps happen.

Source: Pockyt, the "Cancel API" tutorial.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from listener.clock import now_ms
from listener.errors import ListenerError

if TYPE_CHECKING:
    import aiohttp

STEP_SECONDS: Final = 5.0
MOMENTS_MAX: Final = 1_000
ANSWER_CHARS_MAX: Final = 200
STORE_NO: Final = "303660"
TILL: Final = "T-42"

# The till's own steps, beside those of the sandbox.
_LIVE: Final = "till.live"
_TOLD: Final = "till.told"

# A step's number in the tutorial, when it happened (time.monotonic), and what happened.
Say = Callable[[int, float, str], None]


class TutorialError(ListenerError):
    """A step of the tutorial did not happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Something that happened, and when (time.monotonic)."""

    name: str
    detail: Mapping[str, str]
    at: float


class StepLog:
    """What happened on every side, newest last. Call it to log a step; wait for a step with it."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque(maxlen=MOMENTS_MAX)
        self._news = asyncio.Event()

    def __call__(self, name: str, detail: Mapping[str, str]) -> None:
        self._moments.append(Moment(name=name, detail=detail, at=time.monotonic()))
        self._news.set()

    async def wait(self, name: str, **detail: str) -> Moment:
        """Wait for a step with a name and these details, and return its first moment."""
        while True:
            for moment in self._moments:
                if moment.name == name and detail.items() <= moment.detail.items():
                    return moment
            self._news.clear()
            await self._news.wait()


async def play(url: str, *, key: str, seen: StepLog, say: Say) -> int:
    """Play the six steps at a listener's URL with a till's key.

    Returns:
        How many entries the ledger holds for the transaction.

    Raises:
        TutorialError: A step did not happen, or not in time.
    """
    import aiohttp

    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with (
            _till(url, key=key, seen=seen),
            aiohttp.ClientSession(url, headers=headers) as session,
        ):
            return await _play(session, seen=seen, say=say)
    except aiohttp.ClientError as error:
        raise TutorialError(f"the listener does not answer: {error}") from error


async def _play(session: "aiohttp.ClientSession", *, seen: StepLog, say: Say) -> int:
    async with _step("0: a till follows its store"):
        await seen.wait(_LIVE)
    async with _step("1: a sale is started"):
        number = await _start_sale(session)
        at = (await seen.wait("called", call="add", transactionNo=number)).at
        say(1, at, f"Till {TILL} starts a sale of 13.00 USD; Pockyt makes transaction {number}.")
    async with _step("2: it is not paid"):
        found = await _call(session, "GET", f"/v1/transactions/{number}")
        if found["status"] != "created":
            raise TutorialError(f"the new transaction is {found['status']}")
        say(2, time.monotonic(), "The customer cannot show a QR code, so nobody pays.")
    async with _step("3: it is cancelled"):
        await _call(session, "POST", f"/v1/transactions/{number}/cancel", {})
        await seen.wait("called", call="tran-query", transactionNo=number)
        at = (await seen.wait("called", call="cancel", transactionNo=number)).at
        say(3, at, "The cashier presses cancel; the listener asks tran-query, and calls /cancel.")
    async with _step("4: the wallet server is told"):
        at = (await seen.wait("wallet.told", transactionNo=number)).at
        say(4, at, "Pockyt tells the wallet server to abandon it.")
    async with _step("5: the wallet server cancels"):
        await seen.wait("wallet.cancelled", transactionNo=number)
        at = (await seen.wait("wallet.called-back", transactionNo=number)).at
        say(5, at, "The wallet server cancels it, and notifies Pockyt.")
    async with _step("6: the till is told"):
        relayed = await seen.wait(
            "notification.answered", transactionNo=number, acknowledged="yes", status="closed"
        )
        told = await seen.wait(_TOLD, transactionNo=number, type="transaction.cancelled")
        entries = await _check_ledger(session, number)
        text = (
            "Pockyt relays the status; it is recorded and answered, and the till shows cancelled."
        )
        say(6, max(relayed.at, told.at), text)
    return entries


async def _start_sale(session: "aiohttp.ClientSession") -> str:
    sale = {
        "reference": f"demo-{now_ms()}",
        "amount": "13.00",
        "currency": "USD",
        "settleCurrency": "USD",
        "storeNo": STORE_NO,
        "terminal": TILL,
    }
    return str((await _call(session, "POST", "/v1/transactions", sale))["transactionNo"])


async def _check_ledger(session: "aiohttp.ClientSession", number: str) -> int:
    """Check that the ledger agrees with the till's events; return its number of entries."""
    found = await _call(session, "GET", f"/v1/transactions/{number}")
    entries = found["entries"]
    kinds = [entry["kind"] for entry in entries] if isinstance(entries, list) else []
    if found["status"] != "cancelled" or "notification" not in kinds:
        raise TutorialError(f"the ledger says {found['status']}, from {', '.join(kinds)}")
    return len(kinds)


async def _call(
    session: "aiohttp.ClientSession", method: str, path: str, body: object = None
) -> dict[str, object]:
    """Call the listener's API as a till does."""
    async with session.request(method, path, json=body) as answer:
        if not answer.ok:
            text = (await answer.text())[:ANSWER_CHARS_MAX]
            raise TutorialError(f"{method} {path} was answered {answer.status}: {text}")
        found: dict[str, object] = await answer.json()
        return found


@asynccontextmanager
async def _step(name: str) -> AsyncIterator[None]:
    """Raise if a step takes longer than its time."""
    try:
        async with asyncio.timeout(STEP_SECONDS):
            yield
    except TimeoutError as error:
        raise TutorialError(f"step {name}: not within {STEP_SECONDS:g} s") from error


@asynccontextmanager
async def _till(url: str, *, key: str, seen: StepLog) -> AsyncIterator[None]:
    """Follow the listener as a till's program would, and log what it is told."""
    from listener.pos.client import Follower, FollowStatus

    def tell_status(status: FollowStatus) -> None:
        if status.state == "live":
            seen(_LIVE, {})

    async def follow() -> None:
        async with Follower(url, key=key, on_status=tell_status) as follower:
            async for event in follower:
                number = event.data.transaction_no
                seen(_TOLD, {"transactionNo": number, "type": event.type})

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError, ListenerError):
            await following
