"""Answer a whole, plain notification as it arrives, before aiohttp builds a request from it.

Nearly every notification has a head like earlier ones, and a form, in one segment or in two.
Such a notification is recorded and acknowledged here, or refused because nobody signed it. At the
first byte of anything else, the connection is handed to aiohttp for good.

The connections are the same, with the same limits: see :mod:`listener.web.connections`. Why this
exists, and what it costs: docs/adr/0007.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from listener.errors import LedgerUnavailableError, ListenerError
from listener.ingest import Ingest
from listener.ledger.model import Fact
from listener.ledger.promise import Ledger
from listener.ledger.results import Recorded
from listener.web.acknowledgement import success, written
from listener.web.connections import Connections
from listener.web.head import HEAD_BYTES_MAX, HEAD_END, RequestHead, read_head
from listener.web.http_connection import HttpConnection
from listener.web.metrics import Cut, Metrics
from listener.web.problem import ProblemError, of_error, problem
from listener.web.refusals import Refusals

# How long to wait here for a form once its head has arrived; after that aiohttp waits for it.
FORM_SECONDS: Final = 1.0
HEADS_KEPT: Final = 256
REFUSALS_KEPT: Final = 16

_BEGIN: Final = b"POST /notify/"


class FastPath:
    """What the connections of a listener share: how a notification is read, and where it goes."""

    def __init__(
        self, *, ingest: Ingest, ledger: Ledger, metrics: Metrics, refusals: Refusals
    ) -> None:
        self.queue = ledger.queue
        self.acknowledged = metrics.acknowledged
        self._ingest = ingest
        self._refusals = refusals
        # A sender's heads differ only in the length, so nearly all were read before.
        self._read_head = lru_cache(maxsize=HEADS_KEPT)(read_head)
        self._refused = lru_cache(maxsize=REFUSALS_KEPT)(_refusal)

    def read(self, data: bytes, peer: object) -> Fact | bytes | None:
        """Return the fact that a whole notification states, or the answer that refuses it.

        None if aiohttp has to read it.
        """
        if not data.startswith(_BEGIN):
            return None
        end = data.find(HEAD_END, 0, HEAD_BYTES_MAX) + len(HEAD_END)
        if end < len(HEAD_END):
            return None
        head = self._read_head(data[:end])
        if head is None or len(data) - end != head.length:
            return None
        # `Ingest.receive` first looks for the message at merchants that share a token.
        if not self._ingest.is_alone(head.merchant_no):
            return None
        try:
            fact, _ = self._ingest.read(
                merchant_no=head.merchant_no,
                store_no=head.store_no,
                is_json=head.is_json,
                body=data[end:],
            )
        except ListenerError as error:
            return self._refuse(error, head, peer)
        # A store that nobody configured raises an alarm as well.
        return None if head.store_no and fact.store_no is None else fact

    def refuse(self, data: bytes, error: ListenerError, peer: object) -> bytes:
        """Return the answer to a notification that was read, and could not be recorded."""
        head = self._read_head(data[: data.find(HEAD_END) + len(HEAD_END)])
        if head is None:
            raise ValueError("a notification that was read has a head")
        return self._refuse(error, head, peer)

    def _refuse(self, error: ListenerError, head: RequestHead, peer: object) -> bytes:
        told = of_error(error)
        self._refusals.add(
            told,
            merchant_no=head.merchant_no,
            path=head.path,
            sender=str(peer[0]) if isinstance(peer, tuple) else None,
            forwarded_for=head.forwarded_for,
        )
        headers = tuple(told.headers.items())
        return self._refused(told.status, told.code, told.detail, headers, rfc822_formatted_time())

    def is_begun(self, data: bytes) -> bool:
        """Return whether this is a notification's whole head, with not all of its form."""
        end = data.find(HEAD_END, 0, HEAD_BYTES_MAX) + len(HEAD_END)
        return end >= len(HEAD_END) and self.size(data, end) > len(data)

    def size(self, data: bytes, head_bytes: int) -> int:
        """Return the length of a notification by its head; for any other request, of the head."""
        if head_bytes > HEAD_BYTES_MAX or not data.startswith(_BEGIN):
            return head_bytes
        head = self._read_head(data[:head_bytes])
        if head is None or not self._ingest.knows(head.merchant_no):
            return head_bytes
        return head_bytes + head.length


def _refusal(
    status: int, code: str, detail: str, headers: tuple[tuple[str, str], ...], date: str
) -> bytes:
    return written(problem(ProblemError(status, code, detail, headers=dict(headers))), date)


class FastConnection(HttpConnection):
    """A connection that stays on the fast path while only plain notifications arrive."""

    __slots__ = (
        "_begun",
        "_came_later",
        "_is_fast",
        "_path",
        "_settled",
        "_started",
        "_taken",
    )

    def __init__(
        self,
        server: web.Server,
        connections: Connections,
        path: FastPath,
        early: Sequence[bytes] = (),
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(server, connections, early, loop=loop)
        self._path = path
        self._is_fast = True
        # A notification whose form is still to come.
        self._begun = b""
        # The notification that is being recorded, and what came after it.
        self._taken: bytes | None = None
        self._came_later = b""
        self._started = 0.0
        self._settled: asyncio.Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request has arrived that is not answered yet."""
        return self._taken is None and not self._begun and super().is_idle

    @property
    def waits_for_peer(self) -> bool:
        """Whether the other side has to act: to send, or to prove itself."""
        return bool(self._begun) or super().waits_for_peer

    def data_received(self, data: bytes) -> None:
        """Queue a notification, wait for its form, or hand the connection over to aiohttp."""
        if self._taken is not None:
            self._came_later += data
            self._pause_transport_reading()
            return
        begun, self._begun = self._begun, b""
        came = begun + data
        is_ending = self._close or self._force_close
        is_fast = self._is_fast and not is_ending and not self.writing_paused
        # aiohttp reads what comes in more than two parts.
        if not (is_fast and (self._take(came) or (not begun and self._begin(came)))):
            if begun:
                self._leave(begun)
            self._leave(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # as in HttpConnection
        """Leave the connection open for an answer that is due."""
        if self._taken is None:
            self._leave_begun()
            return super().eof_received()
        self._is_ended = True
        return True

    def look(self, now: float) -> Cut | None:
        """Leave a form that is late to aiohttp; end a connection whose time is over."""
        if now - self.since >= FORM_SECONDS:
            self._leave_begun()
        return super().look(now)

    def _begin(self, data: bytes) -> bool:
        """Keep the beginning of a notification, if its head is whole; return whether it was one."""
        # For the first request, the lobby has waited for the form already.
        if self._request_count == 0 or not self._path.is_begun(data):
            return False
        self._begun = data
        self.since = self._loop.time()
        self._be_kept_alive()
        return True

    def _leave(self, data: bytes) -> None:
        """Hand the connection over to aiohttp, from this segment on."""
        self._is_fast = False
        super().data_received(data)

    def _leave_begun(self) -> None:
        if self._begun:
            begun, self._begun = self._begun, b""
            self._leave(begun)

    def _take(self, data: bytes) -> bool:
        """Queue a whole notification; return whether it was one."""
        started = time.perf_counter()
        fact = self._path.read(data, self.peername)
        if fact is None:
            return False
        if isinstance(fact, bytes):
            self._answer(fact)
            return True
        try:
            self._path.queue(fact, self._settle)
        except ListenerError:
            return False
        self._taken, self._started = data, started
        self._request_count += 1
        self._be_kept_alive()
        return True

    def _answer(self, refusal: bytes) -> None:
        self._request_count += 1
        if self.transport is not None:
            self.transport.write(refusal)
        self._be_kept_alive()
        if not self.is_proved:
            self.rest()

    def _settle(self, result: Recorded | Exception) -> None:
        """Acknowledge what is on disk, and refuse what is not; aiohttp handles any other error."""
        taken, self._taken = self._taken, None
        later, self._came_later = self._came_later, b""
        if isinstance(result, Recorded):
            self._acknowledge(is_repeat=not result.is_new)
        elif taken is not None and isinstance(result, LedgerUnavailableError):
            # A second try by aiohttp would take as long again.
            if self.transport is not None:
                self.transport.write(self._path.refuse(taken, result, self.peername))
            self._be_kept_alive()
        elif taken is not None:
            later = taken + later
        if self._close or self._force_close or (self._is_ended and not later):
            self.force_close()
        elif later:
            self._resume_transport_reading()
            self._leave(later)
        if self._settled is not None:
            self._settled.set_result(None)

    def _acknowledge(self, *, is_repeat: bool) -> None:
        if self.transport is not None:
            self.transport.write(success())
        self._path.acknowledged(time.perf_counter() - self._started, is_repeat=is_repeat)
        # A repeat proves nothing: anybody who captured a message can send it again.
        if not (is_repeat or self.is_proved or self.transport is None):
            self.prove()

    def _be_kept_alive(self) -> None:
        """Postpone the end of an idle connection; aiohttp's timer checks when it is due."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Close, once what was queued is answered."""
        if self._taken is not None:
            self._settled = self._loop.create_future()
            await asyncio.wait([self._settled], timeout=timeout)
        await super().shutdown(timeout)
