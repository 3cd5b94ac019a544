"""Publish every node's events in order. LISTEN is a hint; the ledger is read each second anyway."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from listener import log
from listener.errors import LedgerUnavailableError
from listener.ledger.model import EVERY_STREAM, Event
from listener.ledger.promise import Follows
from listener.storage.postgres.channel import Channel
from listener.storage.postgres.connection import Connection
from listener.storage.postgres.rows import event_of
from listener.storage.postgres.selects import EVENT

PAGE_EVENTS: Final = 512
POLL_SECONDS: Final = 1.0

_NEXT: Final = f"SELECT {EVENT} FROM events v WHERE v.number > $1 ORDER BY v.number LIMIT $2"
# The newest offset of each stream in the next events, and their newest entry.
_HEADS: Final = (
    f"WITH page AS MATERIALIZED ({_NEXT})"
    ' SELECT stream, max("offset"), max(number), max(seq),'
    " (SELECT hash FROM entries WHERE seq = (SELECT max(seq) FROM page)) FROM page GROUP BY stream"
)
# The inner limit keeps a stream from being read through its own index, which goes back for ever.
_EVENTS: Final = (
    f"SELECT {EVENT} FROM ({_NEXT}) v WHERE v.stream = ANY ($3::text[]) ORDER BY v.number"
)
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """A range of event numbers: the events of followed streams, and the heads of the others."""

    after: int
    last: int
    seq: int = 0
    hash: str = ""
    heads: Mapping[str, int] = field(default_factory=dict)
    events: Sequence[Event] = ()


class Publisher:
    """Publishes events, each once and without a hole, whichever node has recorded them.

    This node's own commits are published immediately if they follow on. If events of another node
    come before them, those are read first: the events of streams that are followed here, and only
    the heads of the others. A lost bell costs a second.
    """

    def __init__(
        self,
        *,
        channel: Channel,
        follows: Follows,
        ring: Callable[[Sequence[Event], Mapping[str, int], int], None],
        witness: Callable[[int, str], None],
    ) -> None:
        self._channel = channel
        self._follows = follows
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
        """Go on after an event, which is an earlier one if the ledger went back."""
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
            self._publish(events, last=events[-1].number, heads={})
        elif events[-1].number > self._number:
            self._wake.set()

    def _publish(self, events: Sequence[Event], *, last: int, heads: Mapping[str, int]) -> None:
        left_out = last - self._number - len(events)
        self._number = last
        self._heard_of = max(self._heard_of, last)
        try:
            self._ring(events, heads, left_out)
        except Exception:  # noqa: BLE001 - what is committed stays published
            _LOG.exception("bell_failed")

    async def run(self) -> None:
        """Publish what other nodes record, for ever."""
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
                    log.event(_LOG, "read_failed", level=logging.ERROR, reason=str(error))
                self._told_failure = True
                await asyncio.sleep(POLL_SECONDS / 4)
            except Exception:  # noqa: BLE001 - nothing may end the publishing
                _LOG.exception("bell_failed")

    async def _catch_up(self) -> None:
        while True:
            page = await self._channel.run(partial(self._read, after=self._number))
            # What this node recorded may have been published while the page was read.
            if page.after <= self._number < page.last:
                events = [event for event in page.events if event.number > self._number]
                self._publish(events, last=page.last, heads=page.heads)
                self._witness(page.seq, page.hash)
            if page.last - page.after < PAGE_EVENTS:
                return

    async def _read(self, db: Connection, *, after: int) -> _Page:
        """Read the heads of the streams after the next events, and the events of those followed."""
        rows = await db.fetch(_HEADS, after, PAGE_EVENTS)
        if not rows:
            return _Page(after=after, last=after)
        last = max(row[2] for row in rows)
        heads = {row[0]: row[1] for row in rows} | {EVERY_STREAM: last}
        every = self._follows(EVERY_STREAM)
        followed = [name for name in heads if every or self._follows(name)]
        found = await db.fetch(_EVENTS, after, last - after, followed) if followed else []
        return _Page(
            after=after,
            last=last,
            seq=max(row[3] for row in rows),
            hash=rows[0][4],
            heads={name: head for name, head in heads.items() if name not in followed},
            events=[event_of(row) for row in found],
        )
