"""Work out where a till begins in a stream, or that its position cannot be resumed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from listener.hub.hub import Hub
from listener.keys import Key, Role
from listener.ledger.model import EVERY_STREAM
from listener.ledger.promise import Ledger
from listener.pos.frames import (
    After,
    Position,
    ReadyStream,
    ResyncMembers,
    ResyncReason,
    StreamStart,
)

TRANSACTIONS_PATH: Final = "/v1/transactions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a stream begins for a till; ``resync`` says why that is not where it asked for."""

    stream: str
    epoch: str
    head: int
    after: int
    resync: ResyncMembers | None

    def ready(self) -> ReadyStream:
        """Word it for the ``ready`` frame."""
        return ReadyStream(
            stream=self.stream,
            epoch=self.epoch,
            head=self.head,
            after=self.after,
            recovered=self.resync is None,
        )


async def begin(
    wanted: Sequence[StreamStart], *, key: Key, ledger: Ledger, hub: Hub
) -> list[Start]:
    """Find where each stream begins, and keep a pos key's first start as its ack.

    A crash before the first ack then loses nothing: ``acked`` goes on from there.

    Raises:
        LedgerUnavailableError: The ledger cannot be read or written now.
    """
    heads = await hub.heads([start.stream for start in wanted])
    starts = []
    for start in wanted:
        name, head = start.stream, heads[start.stream]
        acked = await ledger.acked(terminal=key.subscriber, stream=name)
        resync = lost(start, epoch=ledger.epoch, head=head)
        after = head if resync else _offset(start.after, acked=acked, head=head)
        if acked is None and key.role is Role.POS:
            await ledger.ack(terminal=key.subscriber, stream=name, offset=after)
        starts.append(Start(stream=name, epoch=ledger.epoch, head=head, after=after, resync=resync))
    return starts


def lost(start: StreamStart, *, epoch: str, head: int) -> ResyncMembers | None:
    """Tell how to go on from a position that cannot be resumed, None where it can be."""
    after = start.after
    if not isinstance(after, Position) or (after.epoch == epoch and after.offset <= head):
        return None
    is_other = after.epoch != epoch
    return ResyncMembers(
        stream=start.stream,
        reason=ResyncReason.EPOCH_CHANGED if is_other else ResyncReason.OFFSET_AHEAD,
        epoch=epoch,
        head=head,
        snapshot=_snapshot(start.stream),
    )


def _offset(after: After, *, acked: int | None, head: int) -> int:
    if isinstance(after, Position):
        return after.offset
    if after == "earliest":
        return 0
    return head if after == "latest" or acked is None else acked


def _snapshot(stream: str) -> str:
    """Return the path and query of a stream's transactions as they stand."""
    if stream == EVERY_STREAM:
        return TRANSACTIONS_PATH
    merchant_no, _, store_no = stream.partition("/")
    return f"{TRANSACTIONS_PATH}?{urlencode({'merchantNo': merchant_no, 'storeNo': store_no})}"
