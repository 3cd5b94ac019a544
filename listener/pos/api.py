"""The listener's HTTP side as a POS client uses it: snapshots, long-poll and acks."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, SecretStr
from yarl import URL

from listener.pos.codes import Duty
from listener.pos.frames import (
    PROTOCOL,
    AckBody,
    After,
    Event,
    EventData,
    EventsPage,
    Position,
    ResyncMembers,
)
from listener.pos.tracking import Ended, ended_by_status
from listener.pos.wire import after_text, encode

STREAM_PATH: Final = "/v1/pos/stream"
EVENTS_PATH: Final = "/v1/pos/events"
ACKS_PATH: Final = "/v1/pos/acks"
SNAPSHOT: Final = "transaction.snapshot"
FRAME_BYTES_MAX: Final = 1024 * 1024

_GRACE_SECONDS: Final = 10.0
_GONE: Final = 410
_OK: Final = 200
_NO_CONTENT: Final = 204
_SCHEMES: Final = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


class ApiError(Exception):
    """The listener did not answer as asked; ``ended`` says what follows."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.detail)
        self.ended = ended


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPage:
    """Transactions as they stand now, as events of type SNAPSHOT, and the cursor to the next."""

    events: list[Event]
    cursor: str | None


class _TransactionsPage(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    data: list[dict[str, object]]
    nextCursor: str | None = None  # noqa: N815  The name on the wire.


def base_url(url: str) -> URL:
    """Take the listener's address, or that of its stream, in http or ws, as the base of all.

    Raises:
        ValueError: Neither http nor ws, or with a query: a key never goes into a URL.
    """
    given = URL(url)
    if given.scheme not in _SCHEMES or not given.host:
        raise ValueError("the listener's url begins with http://, https://, ws:// or wss://")
    if given.query_string or given.user or given.password:
        raise ValueError("the listener's url holds no query and no password: the key goes beside")
    path = given.path.removesuffix(STREAM_PATH).rstrip("/")
    return given.with_scheme(_SCHEMES[given.scheme]).with_path(path).with_fragment(None)


class Api:
    """Calls the listener with one key. Every method raises ApiError where it fails."""

    def __init__(self, session: aiohttp.ClientSession, *, base: URL, key: SecretStr) -> None:
        self._session = session
        self._base = base
        self._key = key

    async def upgrade(self, *, timeout_seconds: float) -> aiohttp.ClientWebSocketResponse:
        """Open the websocket.

        Raises:
            aiohttp.ClientError, OSError: There is no websocket to be had.
        """
        return await self._session.ws_connect(
            self._url(STREAM_PATH),
            headers=self._headers,
            protocols=[PROTOCOL],
            timeout=aiohttp.ClientWSTimeout(ws_close=timeout_seconds),
            max_msg_size=FRAME_BYTES_MAX,
        )

    async def page(
        self, stream: str | None, *, after: After | None, wait_seconds: int
    ) -> EventsPage | ResyncMembers:
        """Read on in a stream, by long-poll; without a stream in the only one of the key."""
        query = {"wait": str(wait_seconds)}
        if stream is not None:
            query["stream"] = stream
        if after is not None:
            query["after"] = after_text(after)
        url = self._url(EVENTS_PATH).with_query(query)
        body = await self._call("GET", url, wait_seconds=wait_seconds, also=_GONE)
        try:
            value = orjson.loads(body)
            # Only a 410 problem has a reason; a page never has.
            model = ResyncMembers if "reason" in value else EventsPage
            return model.model_validate(value)
        except (ValueError, TypeError) as error:
            raise ApiError(Ended(duty=Duty.BACK_OFF, detail="unreadable page")) from error

    async def ack(self, stream: str, position: Position) -> None:
        """Acknowledge a stream up to a position."""
        body = AckBody(stream=stream, epoch=position.epoch, offset=position.offset)
        await self._call("POST", self._url(ACKS_PATH), body=encode(body))

    async def snapshot(self, resync: ResyncMembers, *, cursor: str | None) -> SnapshotPage:
        """Read one page of the transactions that replace a position."""
        if not resync.snapshot.startswith("/") or resync.snapshot.startswith("//"):
            # The key is not taken to another host.
            raise ApiError(Ended(duty=Duty.BACK_OFF, detail="the snapshot is not a path"))
        url = self._url(resync.snapshot)
        if cursor is not None:
            url = url.update_query(cursor=cursor)
        body = await self._call("GET", url)
        try:
            page = _TransactionsPage.model_validate_json(body)
            events = [_snapshot_event(row, epoch=resync.epoch) for row in page.data]
        except ValueError as error:
            raise ApiError(Ended(duty=Duty.BACK_OFF, detail="unreadable snapshot")) from error
        return SnapshotPage(events=events, cursor=page.nextCursor)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key.get_secret_value()}"}

    def _url(self, path: str) -> URL:
        return URL(str(self._base).rstrip("/") + path)

    async def _call(
        self, method: str, url: URL, *, body: bytes = b"", wait_seconds: int = 0, also: int = _OK
    ) -> bytes:
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        timeout = aiohttp.ClientTimeout(total=wait_seconds + _GRACE_SECONDS)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            detail = f"no answer: {type(error).__name__}"
            raise ApiError(Ended(duty=Duty.BACK_OFF, detail=detail)) from error
        if answer.status not in {_OK, _NO_CONTENT, also}:
            raise ApiError(ended_by_status(answer.status, problem=_problem_of(text)))
        return text


def _problem_of(body: bytes) -> str:
    """Return the code of a problem; '' where a body is none, such as a proxy's page."""
    try:
        code = orjson.loads(body)["code"]
    except (ValueError, TypeError, LookupError):
        return ""
    return code if isinstance(code, str) else ""


def _snapshot_event(row: dict[str, object], *, epoch: str) -> Event:
    """Word a transaction as it stands as the event that a till would show."""
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
