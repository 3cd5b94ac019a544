"""Publish every node's events in order. LISTEN is a hint; the ledger is read each second anyway."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.ledger.model import Event
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.rows import event_of
from listener.storage.postgres.selects import listed
from listener.storage.rows import EVENT_COLUMNS

PAGE_EVENTS: Final = 512
POLL_SECONDS: Final = 1.0

_PAGE: Final = (
    f"SELECT {listed(EVENT_COLUMNS, 'v')}, e.hash FROM events v JOIN entries e ON e.seq = v.seq"
    " WHERE v.number > $1 ORDER BY v.number LIMIT $2"
)
_LOG: Final = logging.getLogger(__name__)


class Publisher:
    """Publishes events, each once and without a hole, whichever node has recorded them.

    This node's own commits are published at once if they follow on. If events of another node lie
    between, those are read first. A lost bell costs a second.
    """

    def __init__(
        self,
        *,
        channel: Channel,
        ring: Callable[[Sequence[Event]], None],
        witness: Callable[[int, str], None],
    ) -> None:
        self._channel = channel
        self._ring = ring
        self._witness = witness
        self._number = 0
        self._heard_of = 0
        self._wake = asyncio.Event()
        self._told_failure = False

    @property
    def number(self) -> int:
        """The newest event that was published here."""
        return self._number

    @property
    def lag(self) -> int:
        """How many known events are not published yet."""
        return max(0, self._heard_of - self._number)

    def begin(self, number: int) -> None:
        """Go on after an event; after the ledger went back, that is an earlier one."""
        self._number = self._heard_of = number
        self._wake.set()

    async def listen(self, db: Connection) -> None:
        """Listen for the bell on a new connection, and check whether it rang before."""
        await db.add_listener("ledger", self._hear)
        self._wake.set()

    def _hear(self, _db: object, _process: int, _name: str, text: object) -> None:
        text = str(text)
        if text.isdecimal():
            self._heard_of = max(self._heard_of, int(text))
        if self._heard_of > self._number:
            self._wake.set()

    def offer(self, events: Sequence[Event]) -> None:
        """Publish what this node has just recorded; if events before it are missing, read them."""
        if not events:
            return
        self._heard_of = max(self._heard_of, events[-1].number)
        if events[0].number == self._number + 1:
            self._publish(events)
        elif events[-1].number > self._number:
            self._wake.set()

    def _publish(self, events: Sequence[Event]) -> None:
        self._number = events[-1].number
        self._heard_of = max(self._heard_of, self._number)
        try:
            self._ring(events)
        except Exception:  # noqa: BLE001 - what is committed stays published
            _LOG.exception("bell_failed")

    async def run(self) -> None:
        """Publish what others record, for ever."""
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._catch_up()
                self._told_failure = False
            except LedgerUnavailableError as error:
                if not self._told_failure:
                    log.event(_LOG, "bell_failed", level=logging.ERROR, cause=str(error))
                self._told_failure = True
                await asyncio.sleep(POLL_SECONDS / 4)
            except Exception:  # noqa: BLE001 - nothing may end the publishing
                _LOG.exception("bell_failed")

    async def _catch_up(self) -> None:
        while True:
            page = await self._channel.run(partial(_read_page, after=self._number))
            # What this node recorded may have been published while the page was read.
            events = [event for event, _ in page if event.number > self._number]
            if events and events[0].number == self._number + 1:
                self._publish(events)
                self._witness(events[-1].seq, page[-1][1])
            if len(page) < PAGE_EVENTS:
                return


async def _read_page(db: Connection, *, after: int) -> list[tuple[Event, str]]:
    """Read the next events, each with the hash of its entry."""
    return [(event_of(row), row[-1]) for row in await db.fetch(_PAGE, after, PAGE_EVENTS)]
