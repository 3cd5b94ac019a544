"""Answer who follows the streams, how far each has come, and which cancellations nobody saw."""

import time
from collections import Counter
from typing import Final

from aiohttp import web

from listener.keys import Key
from listener.ledger.model import NO_STORE, rfc3339
from listener.ledger.promise import Ack, Unacked
from listener.web.api.health import UNACKED_MAX, UNACKED_SECONDS
from listener.web.context import LEDGER, SESSIONS
from listener.web.shapes.models import JSON, Terminals, TerminalState, Unacknowledged
from listener.web.shapes.parameters import NoQuery, read_query

_KEY_PREFIX: Final = "key:"


async def list_terminals(request: web.Request, key: Key) -> web.Response:
    """Answer every terminal that is connected or ever acknowledged something."""
    read_query(request, NoQuery)
    ledger, sessions = request.app[LEDGER], request.app[SESSIONS]
    now_ms = time.time_ns() // 1_000_000
    # Read before the heads, so that no terminal is ahead of its stream.
    acks = [ack for ack in await ledger.acks() if key.scope.covers(ack.stream)]
    unacked = [
        one
        for one in await ledger.read_unacked(before_ms=now_ms + 1, limit=UNACKED_MAX)
        if key.scope.covers(one.stream)
    ]
    heads = await ledger.stream_heads(sorted({ack.stream for ack in acks}))
    online, seen = sessions.online(), sessions.seen()
    for name, count in (await ledger.elsewhere()).items():
        online[name] = online.get(name, 0) + count
        seen[name] = now_ms / 1_000
    silent = set(online) - {ack.terminal for ack in acks}
    unseen = Counter(one.stream for one in unacked)
    data = [
        _followed(ack, head=heads[ack.stream], online=online, seen=seen, unseen=unseen[ack.stream])
        for ack in acks
    ]
    data += [_silent(name, seen=seen) for name in sorted(silent) if key.scope.covers(name)]
    late_ms = now_ms - int(UNACKED_SECONDS * 1_000)
    answer = Terminals(data=data, unacknowledged=[_unseen(one, late_ms) for one in unacked])
    return web.Response(body=answer.encode(), content_type=JSON)


def _followed(
    ack: Ack, *, head: int, online: dict[str, int], seen: dict[str, float], unseen: int
) -> TerminalState:
    """Word how far a terminal has come in a stream."""
    merchant_no, store_no, terminal = _parts(ack.terminal)
    heard_ms = int(seen.get(ack.terminal, 0.0) * 1_000)
    return TerminalState(
        name=ack.terminal,
        merchant_no=merchant_no,
        store_no=store_no,
        terminal=terminal,
        stream=ack.stream,
        online=ack.terminal in online,
        last_seen_at=rfc3339(max(ack.acked_at_ms, heard_ms)),
        acked_offset=ack.offset,
        acked_at=rfc3339(ack.acked_at_ms),
        head=head,
        lag=max(0, head - ack.offset),
        unacknowledged_cancellations=unseen,
    )


def _silent(name: str, *, seen: dict[str, float]) -> TerminalState:
    """Word a connection that follows without acknowledging, such as a dashboard."""
    merchant_no, store_no, terminal = _parts(name)
    return TerminalState(
        name=name,
        merchant_no=merchant_no,
        store_no=store_no,
        terminal=terminal,
        stream=None,
        online=True,
        last_seen_at=rfc3339(int(seen[name] * 1_000)),
        acked_offset=None,
        acked_at=None,
        head=None,
        lag=None,
        unacknowledged_cancellations=0,
    )


def _unseen(unacked: Unacked, late_ms: int) -> Unacknowledged:
    return Unacknowledged(
        stream=unacked.stream,
        offset=unacked.offset,
        transaction_no=unacked.transaction_no,
        recorded_at=rfc3339(unacked.recorded_at_ms),
        late=unacked.recorded_at_ms < late_ms,
    )


def _parts(name: str) -> tuple[str | None, str | None, str | None]:
    """Take a terminal's name apart; a key without a terminal has no parts."""
    if name.startswith(_KEY_PREFIX):
        return None, None, None
    merchant_no, store_no, terminal = name.split("/", 2)
    return merchant_no, None if store_no == NO_STORE else store_no, terminal
