"""Work out where a till begins in a stream, or that its position cannot be resumed."""

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from listener.hub.hub import Hub
from listener.keys import Key, Role
from listener.ledger.model import EVERY_STREAM, NO_STORE
from listener.ledger.promise import Ledger
from listener.ledger.results import Acked
from listener.pos.events import After, Position, ResyncMembers, ResyncReason, StreamStart
from listener.pos.frames import ReadyStream
from listener.settings import Merchant

TRANSACTIONS_PATH: Final = "/v1/transactions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a stream begins for a till; ``resync`` says why that is not where it asked."""

    stream: str
    epoch: str
    head: int
    after: int
    resync: ResyncMembers | None

    def ready(self) -> ReadyStream:
        """Build this stream's part of the ``ready`` frame."""
        return ReadyStream(
            stream=self.stream,
            epoch=self.epoch,
            head=self.head,
            after=self.after,
            recovered=self.resync is None,
        )


def may_follow(key: Key, stream: str, merchants: Mapping[str, Merchant]) -> bool:
    """Return whether a key may follow a stream: its scope covers it, and its store is configured.

    A stream of a store that is not configured has no events, and would be held for ever.
    """
    if stream == EVERY_STREAM:
        return key.may_follow(stream)
    merchant_no, _, store_no = stream.partition("/")
    merchant = merchants.get(merchant_no)
    is_there = merchant is not None and (store_no == NO_STORE or store_no in merchant.stores)
    return is_there and key.may_follow(stream)


async def begin(
    wanted: Sequence[StreamStart],
    *,
    others: Set[str] = frozenset(),
    key: Key,
    ledger: Ledger,
    hub: Hub,
) -> list[Start]:
    """Find where each stream begins, and store a pos key's first start.

    If a till has come before, a stream among ``others`` that is new begins at its first event.

    So a crash before the first ack loses nothing: ``acked`` resumes there. A start acknowledges
    nothing. After a restore the place in the old epoch stays until the till has shown that it knows
    the new one, so ``acked`` is answered by ``resync`` until the till has read one.

    Raises:
        LedgerUnavailableError: The ledger cannot be read or written now.
    """
    heads = await hub.heads([start.stream for start in wanted])
    terminal = key.subscriber
    names = [start.stream for start in wanted]
    found = await asyncio.gather(*(ledger.acked(terminal=terminal, stream=name) for name in names))
    places = dict(zip(names, found, strict=True))
    has_come_before = any(places.values()) or any(
        isinstance(start.after, Position) for start in wanted
    )
    starts = []
    first: dict[str, int] = {}
    for start in wanted:
        name, head, acked = start.stream, heads[start.stream], places[start.stream]
        is_new = acked is None and name in others and has_come_before
        asked = "earliest" if is_new else _resolve(start.after, acked)
        resync = lost(name, asked, epoch=ledger.epoch, head=head)
        after = head if resync else _offset(asked, head=head)
        is_first = acked is None or (acked.epoch != ledger.epoch and resync is None)
        if is_first:
            first[name] = after
        starts.append(Start(stream=name, epoch=ledger.epoch, head=head, after=after, resync=resync))
    if first and key.role is Role.POS:
        # Stored together: a till that has only some of them would seem to have come before.
        await ledger.start(terminal=terminal, offsets=first)
    return starts


def lost(stream: str, after: After, *, epoch: str, head: int) -> ResyncMembers | None:
    """Return how to go on from a position that cannot be resumed; None if it can be."""
    if not isinstance(after, Position) or (after.epoch == epoch and after.offset <= head):
        return None
    is_other = after.epoch != epoch
    return ResyncMembers(
        stream=stream,
        reason=ResyncReason.EPOCH_CHANGED if is_other else ResyncReason.OFFSET_AHEAD,
        epoch=epoch,
        head=head,
        snapshot=_snapshot(stream),
    )


def _resolve(after: After, acked: Acked | None) -> After:
    """Return the position that ``acked`` stands for; other starts unchanged."""
    if after != "acked":
        return after
    return Position(epoch=acked.epoch, offset=acked.offset) if acked else "latest"


def _offset(after: After, *, head: int) -> int:
    if isinstance(after, Position):
        return after.offset
    return 0 if after == "earliest" else head


def _snapshot(stream: str) -> str:
    """Return the path and query of a stream's present transactions."""
    if stream == EVERY_STREAM:
        return TRANSACTIONS_PATH
    merchant_no, _, store_no = stream.partition("/")
    return f"{TRANSACTIONS_PATH}?{urlencode({'merchantNo': merchant_no, 'storeNo': store_no})}"
