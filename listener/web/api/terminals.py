"""Answer who follows the streams, how far each has come, and which cancellations nobody saw."""

from collections import Counter
from typing import Final

import orjson
from aiohttp import web

from listener.keys import Key
from listener.ledger.model import NO_STORE, rfc3339
from listener.ledger.promise import Ledger
from listener.ledger.results import StoredAck, Unacked
from listener.web.api.health import UNACKED_MAX, UNACKED_SECONDS
from listener.web.context import CLOCK, LEDGER, SESSIONS
from listener.web.shapes.cursors import open_cursor, seal_cursor
from listener.web.shapes.models import reply
from listener.web.shapes.parameters import TerminalsQuery, read_query
from listener.web.shapes.terminals import NodeState, Terminals, TerminalState, Unacknowledged

_KEY_PREFIX: Final = "key:"


async def list_terminals(request: web.Request, key: Key) -> web.Response:
    """Answer with a page of the terminals that are connected or ever followed a stream."""
    query = read_query(request, TerminalsQuery)
    ledger, sessions = request.app[LEDGER], request.app[SESSIONS]
    now_ms = request.app[CLOCK].now_ms()
    after = _place_of(query, ledger)
    # Read before the heads, so that no terminal is ahead of its stream.
    acks = await ledger.acks(after=after, scope=key.scope, limit=query.limit + 1)
    unacked = await ledger.read_unacked(before_ms=now_ms + 1, scope=key.scope, limit=UNACKED_MAX)
    heads = await ledger.stream_heads(sorted({ack.stream for ack in acks}))
    online, seen = sessions.online(), sessions.seen()
    for name, count in (await ledger.elsewhere()).items():
        online[name] = online.get(name, 0) + count
        seen[name] = now_ms / 1_000
    unseen = Counter(one.stream for one in unacked)
    rows: dict[tuple[str, str], TerminalState] = {
        (ack.terminal, ack.stream): _followed(
            ack, head=heads[ack.stream], online=online, seen=seen, unseen=unseen[ack.stream]
        )
        for ack in acks
    }
    # If there are more rows than these, this page ends with the last row's name.
    is_cut = len(acks) > query.limit
    with_rows = {ack.terminal for ack in acks}
    for name in set(online) - with_rows:
        is_here = after[0] < name and (not is_cut or name < acks[-1].terminal)
        if is_here and key.scope.covers(name):
            rows[name, ""] = _silent(name, seen=seen)
    places = sorted(rows)
    page = places[: query.limit]
    cursor = None
    if len(places) > query.limit:
        cursor = seal_cursor("\n".join(page[-1]).encode(), query, ledger=ledger)
    late_ms = now_ms - int(UNACKED_SECONDS * 1_000)
    answer = Terminals(
        data=[rows[place] for place in page],
        unacknowledged=[_unseen(one, late_ms) for one in unacked],
        nodes=[NodeState.of(one) for one in await ledger.nodes()],
        next_cursor=cursor,
    )
    return reply(answer)


def _place_of(query: TerminalsQuery, ledger: Ledger) -> tuple[str, str]:
    """Return the terminal and stream with which the previous page ended."""
    if query.cursor is None:
        return "", ""
    terminal, _, stream = open_cursor(query.cursor, query, ledger=ledger).decode().partition("\n")
    return terminal, stream


def _followed(
    ack: StoredAck, *, head: int, online: dict[str, int], seen: dict[str, float], unseen: int
) -> TerminalState:
    """Describe how far a terminal has come in a stream."""
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
        acked_offset=ack.acked,
        acked_at=None if ack.acked is None else rfc3339(ack.acked_at_ms),
        head=head,
        lag=max(0, head - ack.offset),
        unacknowledged_cancellations=unseen,
    )


def _silent(name: str, *, seen: dict[str, float]) -> TerminalState:
    """Describe a connection that follows without acknowledging, such as a dashboard."""
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
    told = orjson.loads(unacked.body)["data"]
    return Unacknowledged(
        stream=unacked.stream,
        offset=unacked.offset,
        transaction_no=unacked.transaction_no,
        reference=told["reference"],
        amount=told["amount"],
        currency=told["currency"],
        recorded_at=rfc3339(unacked.recorded_at_ms),
        late=unacked.recorded_at_ms < late_ms,
    )


def _parts(name: str) -> tuple[str | None, str | None, str | None]:
    """Split a terminal's name into its parts; a key without a terminal has none."""
    if name.startswith(_KEY_PREFIX):
        return None, None, None
    merchant_no, store_no, terminal = name.split("/", 2)
    return merchant_no, None if store_no == NO_STORE else store_no, terminal
