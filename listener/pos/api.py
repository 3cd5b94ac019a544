"""The listener's HTTP routes as a POS client uses them: snapshots, long-poll and acks."""

import asyncio
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, SecretStr
from yarl import URL

from listener.pos.causes import (
    Cause,
    Outage,
    is_problem,
    of_answer,
    of_error,
    read_problem,
)
from listener.pos.codes import KEY_HEADER, Duty
from listener.pos.ended import Ended, ended_by_answer
from listener.pos.events import (
    AckBody,
    After,
    Event,
    EventData,
    EventsPage,
    Position,
    ResyncMembers,
)
from listener.pos.frames import PROTOCOL
from listener.pos.wire import after_text, encode

STREAM_PATH: Final = "/v1/pos/stream"
EVENTS_PATH: Final = "/v1/pos/events"
ACKS_PATH: Final = "/v1/pos/acks"
SNAPSHOT: Final = "transaction.snapshot"
FRAME_BYTES_MAX: Final = 1024 * 1024

# With more at a time, most would be refused and requested again.
SNAPSHOTS_AT_ONCE: Final = 4

# The longest page of events or transactions is far below this.
PAGE_BYTES_MAX: Final = 32 * 1024 * 1024

_PROBLEM_BYTES_MAX: Final = 64 * 1024
_GRACE_SECONDS: Final = 10.0
_SWITCHING: Final = 101
_OK: Final = 200
_NO_CONTENT: Final = 204
_GONE: Final = 410
_SCHEMES: Final = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


class ApiError(Exception):
    """The listener did not answer as expected; ``ended`` says what follows."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.outage.why)
        self.ended = ended


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPage:
    """The present transactions, as events of type SNAPSHOT, and the cursor of the next page."""

    events: list[Event]
    cursor: str | None


class _TransactionsPage(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    data: list[dict[str, object]]
    nextCursor: str | None = None  # noqa: N815  The name on the wire.


def base_url(url: str) -> URL:
    """Return the base of all paths, from the URL of the listener or its stream, in http or ws.

    Raises:
        ValueError: It is neither http nor ws, or has a query: a key never goes into a URL.
    """
    given = URL(url.strip())
    if given.scheme not in _SCHEMES or not given.host:
        raise ValueError("the listener's url begins with http://, https://, ws:// or wss://")
    if given.query_string or given.user or given.password:
        raise ValueError(
            "the listener's url must have no query and no password: the key is given separately"
        )
    path = given.path.removesuffix(STREAM_PATH).rstrip("/")
    return given.with_scheme(_SCHEMES[given.scheme]).with_path(path).with_fragment(None)


class Api:
    """Calls the listener with one key. Every method raises ApiError where it fails."""

    def __init__(self, base: URL, *, key: SecretStr) -> None:
        self._session = aiohttp.ClientSession(middlewares=(_refuse_pages,))
        self._base = base
        self._snapshots = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)
        self.key: Final = key
        self.host: Final = base.authority

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def upgrade(self, *, close_seconds: float) -> aiohttp.ClientWebSocketResponse:
        """Open the websocket; the caller limits the time."""
        try:
            return await self._session.ws_connect(
                self._url(STREAM_PATH),
                headers=self._headers,
                protocols=[PROTOCOL],
                timeout=aiohttp.ClientWSTimeout(ws_close=close_seconds),
                max_msg_size=FRAME_BYTES_MAX,
            )
        except ApiError:
            raise
        except aiohttp.WSServerHandshakeError as error:
            outage = Outage(
                cause=Cause.NOT_WEBSOCKET,
                why=f"{self.host} answers the upgrade to WebSocket wrongly: {error.message}",
            )
            raise ApiError(Ended(duty=Duty.BACK_OFF, outage=outage)) from error
        except Exception as error:
            raise self._unreached(error) from error

    async def page(
        self, stream: str | None, *, after: After | None, wait_seconds: int
    ) -> EventsPage | ResyncMembers:
        """Read on in a stream by long-poll; without a stream, in the only one of the key."""
        query = {"wait": str(wait_seconds)}
        if stream is not None:
            query["stream"] = stream
        if after is not None:
            query["after"] = after_text(after)
        url = self._url(EVENTS_PATH).with_query(query)
        answer = await self._call("GET", url, wait_seconds=wait_seconds, wanted={_OK, _GONE})
        try:
            value = orjson.loads(answer.body)
            # Only a 410 problem has a reason; a page never has one.
            model = ResyncMembers if "reason" in value else EventsPage
            return model.model_validate(value)
        except (ValueError, TypeError) as error:
            raise self._unreadable(answer) from error

    async def ack(self, stream: str, position: Position) -> None:
        """Acknowledge a stream up to a position."""
        body = AckBody(stream=stream, epoch=position.epoch, offset=position.offset)
        # A captive portal answers 200 to anything; only 204 means that the ack was stored.
        await self._call("POST", self._url(ACKS_PATH), body=encode(body), wanted={_NO_CONTENT})

    async def snapshot(self, resync: ResyncMembers, *, cursor: str | None) -> SnapshotPage:
        """Read one page of the transactions that replace a lost position."""
        if not resync.snapshot.startswith("/") or resync.snapshot.startswith("//"):
            # The key must not be sent to another host.
            outage = Outage(cause=Cause.REFUSED, why="the snapshot is not a path of the listener")
            raise ApiError(Ended(duty=Duty.BACK_OFF, outage=outage))
        url = self._url(resync.snapshot)
        if cursor is not None:
            url = url.update_query(cursor=cursor)
        async with self._snapshots:
            answer = await self._call("GET", url)
        try:
            page = _TransactionsPage.model_validate_json(answer.body)
            events = [_snapshot_event(row, epoch=resync.epoch) for row in page.data]
        except ValueError as error:
            raise self._unreadable(answer) from error
        return SnapshotPage(events=events, cursor=page.nextCursor)

    @property
    def _headers(self) -> dict[str, str]:
        key = self.key.get_secret_value()
        # The second wins if a proxy puts its own token into the first.
        return {"Authorization": f"Bearer {key}", KEY_HEADER: key}

    def _url(self, path: str) -> URL:
        return URL(str(self._base).rstrip("/") + path)

    async def _call(
        self,
        method: str,
        url: URL,
        *,
        body: bytes = b"",
        wait_seconds: int = 0,
        wanted: Set[int] = frozenset({_OK}),
    ) -> _Answer:
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        timeout = aiohttp.ClientTimeout(total=wait_seconds + _GRACE_SECONDS)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status not in wanted:
                    raise await _refusal(answer, host=self.host)
                text = await _read(answer, limit=PAGE_BYTES_MAX)
                return _Answer(status=answer.status, headers=answer.headers, body=text)
        except ApiError:
            raise
        # Whatever something in between answers in the listener's place, and however the client
        # library reports it: it is not the listener's verdict, and must not end the program.
        except Exception as error:
            raise self._unreached(error) from error

    def _unreadable(self, answer: _Answer) -> ApiError:
        outage = of_answer(answer.status, answer.headers, host=self.host)
        return ApiError(Ended(duty=Duty.BACK_OFF, outage=outage))

    def _unreached(self, error: Exception) -> ApiError:
        return ApiError(Ended(duty=Duty.BACK_OFF, outage=of_error(error, host=self.host)))


async def _refuse_pages(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Raise ApiError for an upgrade that was answered by a page; no redirect is followed."""
    answer = await handler(request)
    if "Upgrade" not in request.headers or answer.status == _SWITCHING:
        return answer
    try:
        raise await _refusal(answer, host=request.url.authority)
    finally:
        answer.close()


async def _refusal(answer: aiohttp.ClientResponse, *, host: str) -> ApiError:
    """Build the error for an unexpected answer."""
    body = await _read(answer, limit=_PROBLEM_BYTES_MAX) if is_problem(answer.headers) else b""
    problem = read_problem(answer.headers, body)
    outage = of_answer(answer.status, answer.headers, host=host, problem=problem)
    return ApiError(ended_by_answer(answer.status, outage, problem=problem))


async def _read(answer: aiohttp.ClientResponse, *, limit: int) -> bytes:
    """Read a body of at most ``limit`` bytes, after decompression.

    Raises:
        aiohttp.ClientPayloadError: It is longer, or not what its headers say.
    """
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > limit:
            raise aiohttp.ClientPayloadError("this is too long for a page of the listener")
    return bytes(body)


def _snapshot_event(row: dict[str, object], *, epoch: str) -> Event:
    """Build the event that a till would show for a transaction as it stands."""
    data = EventData.model_validate({"reason": "resync", **row})
    at = row.get("updatedAt")
    time = datetime.fromisoformat(at) if isinstance(at, str) else datetime.now(UTC)
    return Event(
        id=f"{epoch}-snapshot-{data.merchant_no}/{data.transaction_no}-{data.state_version}",
        type=SNAPSHOT,
        subject=data.transaction_no,
        time=time,
        data=data,
    )
