"""Follow the listener from a terminal, as any POS client does."""

import asyncio
from datetime import UTC
from typing import TYPE_CHECKING, Final

import click

from listener.commands.terminal import json_option, note, say_json, say_styled, shown

if TYPE_CHECKING:
    from pydantic import SecretStr

    from listener.pos.client import Follower, FollowStatus
    from listener.pos.events import After, Event, ResyncMembers

_STYLES: Final = {
    "cancelled": "bold yellow",
    "refunded": "bold yellow",
    "paid": "bold green",
    "conflict": "bold red",
    "failed": "red",
    "unresolved": "bold red",
}


def _read_after(_context: click.Context, _option: click.Parameter, text: str) -> "After":
    from listener.errors import UnreadableError
    from listener.pos.wire import parse_after

    try:
        return parse_after(text)
    except UnreadableError as error:
        raise click.BadParameter("write <epoch>:<offset>, acked, latest or earliest") from error


def _read_key(_context: click.Context, _option: click.Parameter, text: str) -> "SecretStr":
    from listener.pos.credential import read_key
    from listener.pos.status import StoppedError

    try:
        return read_key(text)
    except StoppedError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option(
    "--url",
    required=True,
    metavar="WS_URL",
    help="URL of the listener: ws://… or http://…, any path.",
)
@click.option(
    "--key",
    required=True,
    envvar="POS_KEY",
    show_envvar=True,
    metavar="KEY",
    callback=_read_key,
    help="The key that `listener keys create` showed; in the variable it stays out of the shell's"
    " history.",
)
@click.option(
    "--stream",
    metavar="S",
    help="merchantNo/storeNo, or * with an admin key; by default the key's own.",
)
@click.option(
    "--after",
    default="acked",
    show_default=True,
    metavar="P",
    callback=_read_after,
    help="Where to begin: <epoch>:<offset> (with --stream), acked, latest or earliest.",
)
@click.option(
    "--ack/--no-ack",
    default=True,
    show_default=True,
    help="Whether to acknowledge what was printed as handled by this terminal; admin keys may not.",
)
@json_option
def tail(
    *, url: str, key: "SecretStr", stream: str | None, after: "After", ack: bool, as_json: bool
) -> None:
    """Follow statuses as a till does, one line an event; times are UTC.

    It reconnects by itself, and resumes where it was. Whether it is live, and if not why, is
    written to stderr. With a till's key it takes the place of that till: to watch only, make a key
    without --terminal.

    \b
    Examples:
        export POS_KEY=lk_…
        listener tail --url ws://127.0.0.1:8080
        listener tail --url ws://127.0.0.1:8080 --stream 200043/303660 --after earliest
        listener tail --url https://pos.example.com --json | jq -r .data.status
    """
    from listener.pos.events import Position

    if isinstance(after, Position) and stream is None:
        raise click.UsageError(
            "--after with a position needs --stream: offsets count in one stream",
            click.get_current_context(),
        )
    follower = _follower(url, key=key, stream=stream, after=after, ack=ack)
    asyncio.run(_follow(follower, as_json=as_json))


def _follower(
    url: str, *, key: "SecretStr", stream: str | None, after: "After", ack: bool
) -> "Follower":
    from listener.pos.client import Follower, MemoryPositions
    from listener.pos.events import Position

    position = after if isinstance(after, Position) else None
    try:
        return Follower(
            url,
            key=key,
            streams=stream,
            position=MemoryPositions({stream: position} if position and stream else None),
            start="acked" if isinstance(after, Position) else after,
            acks=ack,
            on_status=_tell_status,
            on_resync=_tell_resync,
        )
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error


async def _follow(follower: "Follower", *, as_json: bool) -> None:
    note("connecting …")
    try:
        async with follower:
            async for event in follower:
                if as_json:
                    say_json(_json(event))
                else:
                    say_event(event)
    finally:
        for stream, position in follower.positions.items():
            note(f"{shown(stream)} was read up to {position.epoch}:{position.offset}")


def _json(event: "Event") -> dict[str, object]:
    """Write an event as the listener does: every member, times to the millisecond."""
    from listener.ledger.model import rfc3339

    time = rfc3339(round(event.time.timestamp() * 1000))
    return event.model_dump(mode="json", by_alias=True) | {"time": time}


def say_event(event: "Event") -> None:
    """Write an event as one line for a person."""
    data = event.data
    word = event.type.removeprefix("transaction.")
    if word == "snapshot":
        word = data.status
    amount = f"{data.amount or '?'} {data.currency or ''}".strip()
    because = f"{data.reason}, {data.evidence}" if data.reason else data.evidence
    say_styled(
        [
            (f"{event.time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}", "dim"),
            (f"{shown(word):<10}", _STYLES.get(word, "bold")),
            (shown(data.transaction_no), ""),
            (shown(amount), ""),
            (shown(data.reference or "-"), "cyan"),
            (shown(f"{data.merchant_no}/{data.store_no or '-'}"), ""),
            (shown(f"({because})"), "dim"),
        ]
    )


def _tell_status(status: "FollowStatus") -> None:
    if status.state == "live":
        note(f"live, over {status.transport}")
    elif status.state == "connecting":
        age = status.age_seconds
        last = "" if age is None else f"; the listener's last word is {age:.0f} s old"
        note(f"not live: {shown(status.why)}{last}; it is tried on and on")


def _tell_resync(resync: "ResyncMembers") -> None:
    note(
        f"{shown(resync.stream)}: the position cannot be resumed ({shown(resync.reason)});"
        " every transaction as it stands now follows"
    )
