"""Sign fields as Pockyt does, and send a notification as Pockyt would."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from listener.commands.terminal import (
    is_watched,
    json_option,
    no_answer,
    note,
    say,
    say_json,
    shown,
)

if TYPE_CHECKING:
    from listener.pockyt.signature import Token

ANSWER_BYTES_MAX: Final = 64 * 1024
ANSWER_SECONDS: Final = 10.0

_TRANSACTION_NO_DIGITS: Final = 18


def _read_token(_context: click.Context, _option: click.Parameter, text: str) -> "Token":
    from listener.pockyt.signature import Token

    try:
        return Token(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _read_fields(
    _context: click.Context, _option: click.Parameter, pairs: Sequence[str]
) -> dict[str, str]:
    """Read ``field=value …``; an error names the field by its place, since it may hold a token."""
    fields: dict[str, str] = {}
    for place, pair in enumerate(pairs, 1):
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"number {place} is not written field=value")
        if name in fields:
            raise click.BadParameter(f"{shown(name)} is given twice")
        try:
            pair.encode()
        except UnicodeEncodeError as error:
            raise click.BadParameter(f"number {place} is not UTF-8") from error
        fields[name] = value
    return fields


_token_option = click.option(
    "--token",
    required=True,
    envvar="POCKYT_TOKEN",
    show_envvar=True,
    metavar="TOKEN",
    callback=_read_token,
    help="The merchant's API token; the variable keeps it out of the shell's history.",
)
_fields_argument = click.argument(
    "fields", nargs=-1, metavar="[FIELD=VALUE]...", callback=_read_fields
)


@click.command()
@_token_option
@_fields_argument
def sign(token: "Token", fields: dict[str, str]) -> None:
    """Print the verifySign of some fields.

    The values are signed as they are written, never encoded; a field verifySign is left out.

    \b
    Example, the call of Pockyt's "Cancel API" tutorial:
        export POCKYT_TOKEN=359c05eb811c7c8576f4a8a277dc6f6b
        listener sign merchantNo=200043 storeNo=303660 refundAmount=10 \\
            currency=USD settleCurrency=USD transactionNo=316129873376769782
    """
    from listener.pockyt import signature

    if not fields:
        raise click.UsageError(
            "there is nothing to sign: give field=value", click.get_current_context()
        )
    say(signature.sign(fields, token))


@click.command()
@click.option(
    "--url",
    required=True,
    metavar="NOTIFY_URL",
    help="The notify URL as registered with Pockyt: …/notify/200043",
)
@_token_option
@click.option(
    "--status",
    default="closed",
    show_default=True,
    help="Pockyt's word: init, dealing, pending, success, failed, closed, or any other.",
)
@click.option("--bare", is_flag=True, help="Send the given fields alone, not even a status.")
@json_option
@_fields_argument
def trigger(
    url: str, token: "Token", status: str, bare: bool, as_json: bool, fields: dict[str, str]
) -> None:
    """Sign a notification, send it as Pockyt would, print the answer.

    The seven fields of a payment notification are made up where they are not given. The status is
    given once: with --status, or as status=…. The exit code is 0 only if the answer is "success".

    \b
    Examples:
        export POCKYT_TOKEN=5cbfb079f15b150122261c8537086d77a
        listener trigger --url http://127.0.0.1:8080/notify/200043/303660
        listener trigger --url http://127.0.0.1:8080/notify/200043 --status success \\
            transactionNo=297553638301777927 reference=test20200101307 amount=0.01
    A signature that is wrong on purpose, to see it refused:
        listener trigger --url http://127.0.0.1:8080/notify/200043 verifySign=0
    """
    from listener.pockyt import signature
    from listener.pockyt.notification import ACKNOWLEDGEMENT
    from listener.sandbox.fields import is_url

    if not is_url(url):
        raise click.BadParameter("it must begin with http:// or https://", param_hint="--url")
    context = click.get_current_context()
    if "status" in fields and context.get_parameter_source("status") is ParameterSource.COMMANDLINE:
        raise click.UsageError("the status is given twice: by --status, and as status=…", context)
    sent = fields if bare else _made_up(status) | fields
    if not sent:
        raise click.UsageError("there is nothing to send", context)
    signed = {signature.FIELD: signature.sign(sent, token)}
    http_status, answer = asyncio.run(_bring(url, signed | sent))
    is_taken = http_status == 200 and answer.encode() == ACKNOWLEDGEMENT
    if as_json:
        told = {name: value for name, value in sent.items() if name != signature.FIELD}
        say_json({"httpStatus": http_status, "answer": answer, "taken": is_taken, "sent": told})
    else:
        number = shown(sent.get("transactionNo", "-"))
        note(f"sent {shown(sent.get('status', '-'))} for transaction {number}")
        say(shown(answer) if is_watched() else answer)
    if not is_taken:
        raise click.ClickException(f"the answer was HTTP {http_status}, not success")


def _made_up(status: str) -> dict[str, str]:
    """Make up a payment notification. Source: Pockyt, "Webhook Notification Format"."""
    from listener.sandbox.results import in_pockyt_zone

    first = 10 ** (_TRANSACTION_NO_DIGITS - 1)
    number = f"{first + secrets.randbelow(9 * first)}"
    return {
        "transactionNo": number,
        "status": status,
        "amount": "13.00",
        "currency": "USD",
        "settleCurrency": "USD",
        "reference": f"trigger-{number[-8:]}",
        "time": f"{in_pockyt_zone(time.time()):%Y%m%d%H%M%S}",
    }


async def _bring(url: str, fields: dict[str, str]) -> tuple[int, str]:
    """POST a form; return the HTTP status and the text of the answer."""
    from urllib.parse import urlencode

    import aiohttp

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url, data=urlencode(fields).encode(), headers=headers, allow_redirects=False
            ) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    break
    except TimeoutError as error:
        raise click.ClickException(f"no answer within {ANSWER_SECONDS:g} s") from error
    except aiohttp.ClientError as error:
        raise click.ClickException(no_answer(error)) from error
    return response.status, body[:ANSWER_BYTES_MAX].decode(errors="replace")
