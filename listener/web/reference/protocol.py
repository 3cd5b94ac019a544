"""Write down ``pos.v1`` for those who write a till: its rules, what it leaves open included."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from listener.pos.codes import PROBLEM_TYPES, CloseCode, Duty
from listener.pos.frames import (
    CONNECT_SECONDS,
    DEAD_SECONDS,
    FRAME_BYTES_MAX,
    PING_SECONDS,
    RECONNECT_JITTER_MS,
    STREAMS_MAX,
)
from listener.web.till.sessions import (
    DRAIN_SECONDS,
    PENDING_MAX,
    SESSIONS_PER_KEY_MAX,
    STALLED_SECONDS,
)
from listener.web.till.socket import FRAMES_AT_ONCE_MAX, FRAMES_PER_SECOND

DUTIES: Final[Mapping[Duty, str]] = {
    Duty.STOP: "Stop: do not come back unchanged, a person must act first.",
    Duty.BACK_OFF: "Come back after the jitter, then with growing waits; resume.",
    Duty.BACK_OFF_LONGER: "Come back with growing waits, never before 1 s; resume.",
    Duty.RESTART: "Come back `afterMs` after the close, else after the jitter; resume.",
    Duty.AT_ONCE: "Come back after rand(0, 0.5 s), then with growing waits; resume.",
}
RANGES: Final[Mapping[str, Duty]] = {
    "40xx": Duty.STOP,
    "41xx": Duty.BACK_OFF_LONGER,
    "42xx": Duty.AT_ONCE,
    "any other": Duty.BACK_OFF,
}
ERROR_CODES: Final[Mapping[str, str]] = {
    "not-connected": "A frame before `connect`. Send `connect`.",
    "already-connected": "A second `connect`. To follow other streams, connect anew.",
    "wrong-role": "Only a pos key acknowledges; an admin key follows without.",
    "unknown-stream": "An ack of a stream that this connection does not follow.",
    "ack-ahead": "An ack beyond the head of its stream.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A few rules of one thing, in Markdown."""

    title: str
    rules: tuple[str, ...]


def _chapter(title: str, text: str) -> Chapter:
    """Take a text apart into its rules, one a paragraph."""
    rules = tuple(" ".join(rule.split()) for rule in text.strip().split("\n\n"))
    return Chapter(title=title, rules=rules)


CHAPTERS: Final = (
    _chapter(
        "Streams and positions",
        """
        Every event belongs to one stream, `<merchantNo>/<storeNo>`, or `<merchantNo>/-`
        where no store is known. `*` is every event of the ledger, numbered in the same
        way; only an admin key may follow it.

        `offset` counts a stream's events 1, 2, 3 … without a hole, in commit order.

        `epoch` names the ledger. A position is `{epoch, offset}`, the last event that the
        till has; one of another epoch, or beyond the head, is answered by `resync`.
        """,
    ),
    _chapter(
        "Connecting",
        f"""
        Upgrade `GET /v1/pos/stream` with the subprotocol `pos.v1`, or with none. The key
        goes into `Authorization: Bearer <key>`, or, from a browser, into `connect`; where
        both are given, the one in `connect` counts: a proxy may have put the header there.
        Never into the URL.

        Several lines of `Sec-WebSocket-Protocol` are one list; an empty list names none. A
        page's `Origin` has to be the listener's own (that of `public_url`, or the host that
        was asked for; a scheme's own port is the same as none) or one of the setting
        `origins`, where any scheme may stand (`capacitor://localhost`), and `null` if said.

        Before the upgrade HTTP answers 400 (only other subprotocols), 403 (a foreign
        `Origin`), 426 (no upgrade) or 503 (a restart is under way: back off). Every other
        refusal accepts the upgrade and closes with a code.

        Only the listener says stop: by a 40xx code, or by a problem
        (`application/problem+json`) whose `type` begins with `{PROBLEM_TYPES}` and
        whose member `retry` is false. Whatever else answers, a proxy's 403 or a sign-on
        page, a till comes back.

        The listener says `hello` first. `connect` is due within {CONNECT_SECONDS:g} s of
        the upgrade, with a key in the header too; a late one is closed with 4103, a `connect`
        without any key with 4003. The times in `hello` are those that
        hold, whatever stands here.

        `connect` without `streams`, or with an empty list, follows all streams of the
        key's scope. At most {STREAMS_MAX} streams are named, each once. A second
        `connect` on one connection is answered by `error` `already-connected`: to change
        streams, connect again.

        A `connect` names where each stream begins: a position, `acked` (the default: this
        terminal's last acknowledged offset, `latest` where there is none), `latest` or
        `earliest`. A terminal's first `ready` on a stream stores its start as what `acked`
        means, so that a crash before the first ack loses nothing. It acknowledges nothing.

        An ack belongs to its epoch. After a restore `acked` is answered by `resync`, again
        and again until the terminal has named a start of the new epoch, or acknowledged in
        it. Acks of before still show that a cancellation was seen.

        Only a configured store has a stream; another's is answered by 4004.

        A key made with a terminal has one connection: a newer one closes the older with
        4009. A key without a terminal may have many, and they share one ack.

        A key of the role ledger may not follow (4004); it reads `/v1/entries`.
        """,
    ),
    _chapter(
        "Events",
        """
        `ready` lists where each stream begins; then its events follow, in offset order,
        those missed and those to come alike. Events of several streams are mixed.

        An offset not above the last one is a repeat: drop it. One above the next is a
        hole: close, and connect again from the position.

        A till shows an event only if its `stateVersion` is above the one it holds of the
        same merchant and transaction. A `held` or `cancelling` event carries the status
        as it stands.

        A till that does not know an event's `type` or `status` shows the status word as
        it is. Unknown fields and unknown frame types are ignored, by either side.

        Members that are null, or absent, are not known.
        """,
    ),
    _chapter(
        "Resync",
        """
        `resync` comes after `ready`, where such a stream has `recovered: false`, and
        before the stream's first event. The till forgets its positions and state versions
        of the stream, reads the `snapshot` (a path and query of this host, with the same
        key; page by page with `cursor`), and goes on from `head`.

        Events go on while the snapshot is read: keep what is newer by `stateVersion`.
        """,
    ),
    _chapter(
        "Acknowledging",
        """
        `ack` says that every event up to the offset is handled: shown, or stored. It is
        cumulative, durable, kept per terminal and stream, and not answered. A lower
        offset than the one kept changes nothing, and an offset need not have been sent to
        this connection; one beyond the head is answered by `error`.

        Acks that come quickly are stored together. Whoever must know that an ack is on
        disk uses `POST /v1/pos/acks`, whose 204 says so.
        """,
    ),
    _chapter(
        "Heartbeat",
        f"""
        The listener sends `ping` every {PING_SECONDS:g} s; answer `pong` with its `t`.
        Any frame counts as a sign of life. Websocket pings are answered too, and do not
        replace these.

        Whoever hears nothing for `deadSeconds` ({DEAD_SECONDS:g} s) closes with 4201, and
        a till comes back. So does a till whose `ping.heads` stay ahead of what it has
        while no event comes for 2 s.
        """,
    ),
    _chapter(
        "Coming back",
        f"""
        The first try after a close by the listener waits rand(0, `reconnectJitterMs`)
        ({RECONNECT_JITTER_MS} ms), the next ones rand(0, min(30 s, 0.5 s · 2ⁿ)), for
        ever. `n` begins at 0 again once a connection was ready and something came of it.

        Before a planned restart `reconnect` says when to come back, spread over
        {DRAIN_SECONDS:g} s; 1012 follows at once.

        A code that is not listed is read by its range.
        """,
    ),
    _chapter(
        "Limits",
        f"""
        A client's frame has at most {FRAME_BYTES_MAX // 1024} KiB (1009) and is JSON
        text; one that is not as described closes with 4002. A server's frame has at most
        1 MiB.

        JSON is read as any language writes it: `7.0` and `7E0` are the integer 7, a member
        that is `null` is absent, a byte order mark in front and a binary frame that holds
        text are taken. Half a number, or one above 2⁵³ - 1, is malformed.

        At most {FRAMES_AT_ONCE_MAX} frames at once and {FRAMES_PER_SECOND} a second for
        long (4101); at most {SESSIONS_PER_KEY_MAX} connections a key (4102). Of connections
        without a `connect` at most {PENDING_MAX} are kept: the oldest is closed with 4103.

        A socket that takes nothing for {STALLED_SECONDS:g} s is closed with 4108 and cut.
        A till that is merely slow falls behind in the ledger, and misses nothing.

        No compression is offered.
        """,
    ),
    _chapter(
        "Without a websocket",
        """
        `GET /v1/pos/events` and `POST /v1/pos/acks` read and keep the same, with the same
        guarantees; a position that cannot be resumed is answered 410, with the members of
        `resync`. One request reads one stream: without its name, a key of several is answered
        400 `stream-missing`, with their names as `streams`. Both are in `/openapi.json`.
        """,
    ),
)


def markdown() -> str:
    """Write the rules as Markdown."""
    return "\n\n".join(
        f"## {chapter.title}\n\n" + "\n".join(f"- {rule}" for rule in chapter.rules)
        for chapter in CHAPTERS
    )


def close_codes() -> list[dict[str, object]]:
    """Return the table of close codes."""
    return [
        {
            "code": int(code),
            "meaning": code.meaning,
            "client": code.duty,
            "sentBy": _SENT_BY.get(code, "listener"),
        }
        for code in CloseCode
    ]


_SENT_BY: Final[Mapping[CloseCode, str]] = {
    CloseCode.DONE: "either",
    CloseCode.GOING_AWAY: "either",
    CloseCode.NO_CODE: "nobody",
    CloseCode.CUT: "nobody",
    CloseCode.DEAD: "either",
}
