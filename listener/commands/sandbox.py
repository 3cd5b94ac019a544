"""Run the stand-in Pockyt and the wallet server."""

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import click

from listener.clock import now_ms
from listener.commands.terminal import json_option, say_json, say_styled, shown
from listener.origin import PORT_MAX

if TYPE_CHECKING:
    from listener.sandbox.faults import Planned
    from listener.sandbox.servers import SandboxSettings

PORT: Final = 8090
SEEDS: Final = 2**31

_NUMBER: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_port = click.IntRange(0, PORT_MAX)


def _read_merchants(
    _context: click.Context, _option: click.Parameter, texts: Sequence[str]
) -> dict[str, str]:
    """Read ``NO:TOKEN``; a wrong value is not repeated, since it may be a token."""
    merchants: dict[str, str] = {}
    for text in texts:
        number, _, token = text.partition(":")
        if not _NUMBER.fullmatch(number) or not token.strip():
            raise click.BadParameter("write it merchantNo:token")
        if number in merchants:
            raise click.BadParameter(f"{number} is given twice")
        merchants[number] = token
    return merchants


def _read_faults(
    _context: click.Context, _option: click.Parameter, texts: Sequence[str]
) -> "tuple[Planned, ...]":
    from listener.sandbox.faults import FAULTS_MAX, Planned

    if len(texts) > FAULTS_MAX:
        raise click.BadParameter(f"there are more than {FAULTS_MAX}")
    try:
        return tuple(Planned.parse(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _read_time_scale(_context: click.Context, _option: click.Parameter, scale: float) -> float:
    from listener.sandbox.tasks import TIME_SCALE_MAX

    # Written so that "nan" is refused too.
    if not 0 < scale <= TIME_SCALE_MAX:
        raise click.BadParameter(f"it must be above 0 and at most {TIME_SCALE_MAX:g}")
    return scale


def _read_url(_context: click.Context, option: click.Parameter, url: str | None) -> str | None:
    from listener.sandbox.fields import is_url

    if url is not None and not is_url(url):
        raise click.BadParameter("it must begin with http:// or https://")
    return url.rstrip("/") if url and option.name == "public_url" else url


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address.")
@click.option(
    "--port",
    type=_port,
    default=PORT,
    show_default=True,
    help="Listen on this port for Pockyt's calls; 0 for any free one.",
)
@click.option(
    "--wallet-port",
    type=_port,
    default=0,
    help="Run the wallet server on this port; by default any free one.",
)
@click.option(
    "--public-url",
    callback=_read_url,
    help="The URL for customers, if they do not reach it at its host and port.",
)
@click.option(
    "--merchant",
    "merchants",
    multiple=True,
    metavar="NO:TOKEN",
    callback=_read_merchants,
    help="A merchant and its API token; by default Pockyt's sample merchant 200043. Repeatable.",
)
@click.option(
    "--old-token",
    "old_tokens",
    multiple=True,
    metavar="NO:TOKEN",
    callback=_read_merchants,
    help="The token that the fault notification-old-token signs with. Repeatable.",
)
@click.option(
    "--notify-url",
    callback=_read_url,
    help="Send the notifications of calls without an ipnUrl to this URL; {merchantNo} and"
    " {storeNo} in it are filled in.",
)
@click.option(
    "--seed",
    type=int,
    help="Seed of transaction numbers and faults. The same seed gives the same numbers again; by"
    " default a random one, which is printed.",
)
@click.option(
    "--time-scale",
    type=float,
    callback=_read_time_scale,
    default=1.0,
    show_default=True,
    help="Sandbox seconds in a real one: with 120, the eight attempts take one minute.",
)
@click.option(
    "--notify-on-cancel/--no-notify-on-cancel",
    default=True,
    show_default=True,
    help="Whether to notify of a sale that was closed: Pockyt does not document it.",
)
@click.option(
    "--refund-shows",
    type=click.Choice(["success", "closed"]),
    default="success",
    show_default=True,
    help="What tran-query says about a sale that a cancel refunded.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME[@N|%P]",
    callback=_read_faults,
    help="What goes wrong: every time, the Nth time, or P % of the time. A wrong NAME lists them"
    " all. Repeatable.",
)
@json_option
def sandbox(  # noqa: PLR0913 - a command's options arrive as its arguments
    *,
    host: str,
    port: int,
    wallet_port: int,
    public_url: str | None,
    merchants: Mapping[str, str],
    old_tokens: Mapping[str, str],
    notify_url: str | None,
    seed: int | None,
    time_scale: float,
    notify_on_cancel: bool,
    refund_shows: Literal["success", "closed"],
    faults: "tuple[Planned, ...]",
    as_json: bool,
) -> None:
    """Run a stand-in Pockyt and wallet server, print their steps.

    It signs, answers, notifies and repeats as Pockyt is documented to; with faults it does not.
    A sale's page at /sandbox/checkout/TRANSACTION_NO lets the customer pay.

    \b
    Examples:
        listener sandbox
        listener sandbox --merchant 200043:secret \\
            --notify-url http://127.0.0.1:8080/notify/{merchantNo}/{storeNo}
        listener sandbox --seed 7 --fault notification-lost%25 --fault cancel-timeout@2
    Then, in the listener's settings:
        [pockyt]
        url = "http://127.0.0.1:8090"
    """
    from listener.sandbox.servers import SandboxSettings

    settings = SandboxSettings(
        host=host,
        port=port,
        wallet_port=wallet_port,
        url=public_url,
        notify_url=notify_url,
        seed=secrets.randbelow(SEEDS) if seed is None else seed,
        time_scale=time_scale,
        notify_on_cancel=notify_on_cancel,
        refund_shows=refund_shows,
        faults=faults,
    )
    asyncio.run(_serve(_with_merchants(settings, merchants, old_tokens), as_json=as_json))


def _with_merchants(
    settings: "SandboxSettings", merchants: Mapping[str, str], old_tokens: Mapping[str, str]
) -> "SandboxSettings":
    """Use the merchants that were given; the sample's old token belongs to the sample alone."""
    from dataclasses import replace

    if merchants:
        return replace(settings, merchants=merchants, old_tokens=old_tokens)
    return replace(settings, old_tokens=old_tokens) if old_tokens else settings


async def _serve(settings: "SandboxSettings", *, as_json: bool) -> None:
    from listener.sandbox.servers import Sandbox
    from listener.stopping import told_to_stop

    with told_to_stop() as told:

        def say_step(name: str, detail: Mapping[str, str]) -> None:
            try:
                (_say_step_json if as_json else _say_step)(name, detail)
            except BrokenPipeError:
                # The reader of stdout has gone; a server's handler must not fail because of that.
                told.set()

        async with Sandbox.start(settings, on_step=say_step) as running:
            detail = {
                "url": running.url,
                "walletUrl": running.wallet_url,
                "merchants": ",".join(settings.merchants),
                "seed": str(settings.seed),
            }
            say_step("started", detail)
            await told.wait()


def _now() -> str:
    from listener.ledger.model import rfc3339

    return rfc3339(now_ms())


def _say_step(name: str, detail: Mapping[str, str]) -> None:
    fields = " ".join(f"{key}={shown(value)}" for key, value in detail.items())
    style = "bold red" if name == "fault" else "bold"
    say_styled([(_now(), "dim"), (name, style), (fields, "")])


def _say_step_json(name: str, detail: Mapping[str, str]) -> None:
    say_json({"time": _now(), "step": name, "detail": dict(detail)})
