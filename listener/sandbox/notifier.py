"""Deliver notifications: eight attempts in two hours, until the answer is ``success``.

Source: Pockyt, "Webhook Notification Format".
"""

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from listener.pockyt.notification import ACKNOWLEDGEMENT
from listener.pockyt.signature import Token
from listener.sandbox.book import Sale, Word
from listener.sandbox.faults import Fault, Place
from listener.sandbox.message import (
    SignedMessage,
    notification_fields,
    truncate,
    word_notification,
)
from listener.sandbox.stage import Stage
from listener.sandbox.steps import SandboxStep

# Pauses before the eight attempts; Pockyt publishes only their number, and that they take 2 h.
PAUSES_SECONDS: Final = (0, 15, 45, 240, 600, 900, 1_800, 3_600)
LATE_SECONDS: Final = 600.0
STALL_SECONDS: Final = 60.0
REPEATS: Final = 2
ATTEMPT_SECONDS: Final = 10.0
ACKNOWLEDGEMENT_BYTES_MAX: Final = 1_024

_FIRST_ATTEMPT_ONLY: Final = frozenset(
    {
        Fault.NOTIFICATION_TRUNCATED,
        Fault.NOTIFICATION_STALLED,
        Fault.NOTIFICATION_HUNG_BEFORE,
        Fault.NOTIFICATION_HUNG_AFTER,
    }
)


class Notifier:
    """Writes each notification once and delivers it until it is acknowledged."""

    def __init__(
        self,
        *,
        merchants: Mapping[str, Token],
        old_tokens: Mapping[str, Token],
        notify_url: str | None,
        stage: Stage,
    ) -> None:
        self._merchants = merchants
        self._old_tokens = old_tokens
        self._notify_url = notify_url
        self._stage = stage
        self._held_back: set[asyncio.Event] = set()

    def notify(self, sale: Sale, word: Word) -> None:
        """Start to deliver a notification of the sale's present state, without waiting."""
        detail = {"transactionNo": sale.transaction_no, "status": word.value}
        faults = self._stage.strike(Place.NOTIFICATION, detail)
        if Fault.NOTIFICATION_LOST in faults:
            return
        url = self._url(sale)
        if url is None:
            self._stage.on_step(SandboxStep.NOTIFICATION_DROPPED, detail)
            return
        merchant_no = sale.order.merchant_no
        notification = word_notification(
            notification_fields(sale, word, now_seconds=self._stage.clock.now_seconds()),
            token=self._merchants[merchant_no],
            old_token=self._old_tokens.get(merchant_no),
            faults=faults,
        )
        if not self._stage.tasks.start(self._bring(notification, {**detail, "url": url}, faults)):
            self._stage.on_step(SandboxStep.NOTIFICATION_DROPPED, detail)

    def _url(self, sale: Sale) -> str | None:
        """Return where to send it: the sale's ipnUrl, or the default with the numbers filled in."""
        if sale.order.ipn_url or not self._notify_url:
            return sale.order.ipn_url
        url = self._notify_url.replace("{merchantNo}", sale.order.merchant_no)
        return url.replace("{storeNo}", sale.order.store_no)

    async def _bring(
        self, notification: SignedMessage, detail: Mapping[str, str], faults: frozenset[Fault]
    ) -> None:
        if Fault.NOTIFICATION_LATE in faults:
            await self._stage.clock.sleep(LATE_SECONDS)
        if Fault.NOTIFICATION_REORDERED in faults:
            await self._let_another_pass()
        spoilt = faults & _FIRST_ATTEMPT_ONLY
        for attempt, pause_seconds in enumerate(PAUSES_SECONDS, 1):
            await self._stage.clock.sleep(pause_seconds)
            if await self._attempt(notification, detail, attempt, spoilt):
                break
            spoilt = frozenset()
        else:
            self._stage.on_step(SandboxStep.NOTIFICATION_GIVEN_UP, detail)
        if Fault.NOTIFICATION_REPEATED in faults:
            for again in range(1, REPEATS + 1):
                await self._attempt(notification, detail, attempt + again, frozenset())

    async def _let_another_pass(self) -> None:
        """Wait until another notification was delivered, but not for ever."""
        passed = asyncio.Event()
        self._held_back.add(passed)
        try:
            async with asyncio.timeout(self._stage.clock.real_seconds(LATE_SECONDS)):
                await passed.wait()
        except TimeoutError:
            return
        finally:
            self._held_back.discard(passed)

    async def _attempt(
        self,
        notification: SignedMessage,
        detail: Mapping[str, str],
        attempt: int,
        faults: frozenset[Fault],
    ) -> bool:
        """Deliver a notification once, and return whether it was acknowledged."""
        detail = {**detail, "attempt": str(attempt)}
        self._stage.on_step(SandboxStep.NOTIFICATION_SENT, detail)
        status, acknowledged = await self._send(notification, detail["url"], faults)
        self._stage.on_step(
            SandboxStep.NOTIFICATION_ANSWERED,
            {
                **detail,
                "httpStatus": str(status or "none"),
                "acknowledged": "yes" if acknowledged else "no",
            },
        )
        for held_back in self._held_back:
            held_back.set()
        return acknowledged

    async def _send(
        self, notification: SignedMessage, url: str, faults: frozenset[Fault]
    ) -> tuple[int | None, bool]:
        """Send it; return the HTTP status (None if none came), and whether it is settled."""
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                if faults & {Fault.NOTIFICATION_STALLED, Fault.NOTIFICATION_HUNG_BEFORE}:
                    whole = Fault.NOTIFICATION_HUNG_BEFORE in faults
                    await self._send_and_hang_up(notification, url, whole=whole)
                    return None, False
                cut = Fault.NOTIFICATION_TRUNCATED in faults
                status, text = await self._post(notification, url, cut=cut)
        except (OSError, aiohttp.ClientError):
            return None, False
        heard = Fault.NOTIFICATION_HUNG_AFTER not in faults
        return status, heard and status == 200 and text.strip() == ACKNOWLEDGEMENT

    async def _post(self, notification: SignedMessage, url: str, *, cut: bool) -> tuple[int, bytes]:
        async with self._stage.session.post(
            url,
            data=truncate(notification.body) if cut else notification.body,
            headers={"Content-Type": notification.content_type},
            allow_redirects=False,
        ) as response:
            return response.status, await response.content.read(ACKNOWLEDGEMENT_BYTES_MAX)

    async def _send_and_hang_up(
        self, notification: SignedMessage, url: str, *, whole: bool
    ) -> None:
        """Send all or half of a request on a bare socket, and leave without reading."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        _, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None)
        try:
            head = (
                f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                f"Content-Type: {notification.content_type}\r\n"
                f"Content-Length: {len(notification.body)}\r\n\r\n"
            )
            body = notification.body if whole else truncate(notification.body)
            writer.write(head.encode() + body)
            await writer.drain()
            if not whole:
                await self._stage.clock.sleep(STALL_SECONDS)
        finally:
            writer.close()
