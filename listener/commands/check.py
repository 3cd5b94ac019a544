"""Check settings, environment and ledger, before and after a deploy."""

import asyncio
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from listener import __version__
from listener.commands.terminal import (
    config_option,
    json_option,
    no_answer,
    read_settings,
    say_json,
    say_table,
)

if TYPE_CHECKING:
    from listener.settings import Settings
    from listener.storage.findings import Finding

ANSWER_SECONDS: Final = 3.0


@click.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> None:
    """Check settings and ledger, before and after a deploy.

    Notes are worth knowing; a problem keeps the listener from serving, and makes the exit code 1.
    Nothing is changed, and a service that runs is not hindered.

    \b
    Examples:
        listener check --config listener.toml
        listener check --config listener.toml --json | jq '.findings[] | select(.advice)'
    """
    from listener.commands.hygiene import look_over
    from listener.storage import check_up
    from listener.storage.findings import Severity

    settings = read_settings(config)
    in_ledger = check_up(settings.database)
    is_served = any(finding.name == "served" and finding.value == "yes" for finding in in_ledger)
    is_unread = any(finding.name == "readable" for finding in in_ledger)
    findings = [
        *_program(),
        *_settings(settings),
        *_address(settings, is_served=is_served, is_unread=is_unread),
        asyncio.run(_pockyt(settings)),
        *look_over(settings, config=config, environ=os.environ),
        *in_ledger,
    ]
    problems = sum(finding.severity is Severity.PROBLEM for finding in findings)
    if as_json:
        say_json({"ok": not problems, "findings": [_told(finding) for finding in findings]})
    else:
        say_table(("", "name", "value", "advice"), [_row(finding) for finding in findings])
    if problems:
        raise click.ClickException(f"{problems} {'problem' if problems == 1 else 'problems'}")


def _program() -> "Iterator[Finding]":
    from listener.storage.findings import Finding

    yield Finding(name="version", value=__version__)
    yield Finding(name="python", value=platform.python_version())


def _settings(settings: "Settings") -> "Iterator[Finding]":
    from listener.storage.findings import Finding, Severity

    for number, merchant in settings.merchants.items():
        held = f"{len(merchant.tokens)} token(s), stores {', '.join(merchant.stores) or 'none'}"
        yield Finding(name=f"merchant {number}", value=held)
    if settings.public_url is None:
        yield Finding(
            name="public_url",
            value="-",
            severity=Severity.NOTE,
            advice="without it Pockyt cannot be told where to notify a sale by QR code",
        )
    else:
        yield Finding(name="public_url", value=settings.public_url)
    yield Finding(name="confirm", value=settings.confirm)


def _address(settings: "Settings", *, is_served: bool, is_unread: bool) -> "Iterator[Finding]":
    """Yield whether the service answers, or could.

    A ledger that cannot be read does not tell who serves it: then a listener that has the address
    is taken for the service.
    """
    from listener.storage.findings import Finding, Severity
    from listener.web.address import bind

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.port}"
    if is_served:
        yield asyncio.run(_readiness(settings))
        return
    try:
        bind(settings.host, settings.port).close()
    except OSError as error:
        if is_unread and (ready := asyncio.run(_readiness(settings))).value in ("yes", "503"):
            yield ready
            return
        yield Finding(
            name="address", value=address, severity=Severity.PROBLEM, advice=error.strerror
        )
        return
    yield Finding(name="address", value=address)


async def _readiness(settings: "Settings") -> "Finding":
    """Ask the service that has the ledger whether it is ready."""
    from listener.storage.findings import Finding, Severity
    from listener.web.address import is_everywhere

    host = settings.host
    if is_everywhere(host):
        host = "::1" if ":" in host else "127.0.0.1"
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/readyz"
    answer = await _answer(url) if settings.port else "its port is not known: it chose one"
    if answer == 200:
        return Finding(name="ready", value="yes")
    advice = "look at the service's log"
    if settings.port:
        return Finding(name="ready", value=f"{answer}", severity=Severity.PROBLEM, advice=advice)
    return Finding(name="ready", value=answer, severity=Severity.NOTE)


async def _pockyt(settings: "Settings") -> "Finding":
    """Return whether anything answers at Pockyt's address, whatever it says."""
    from listener.storage.findings import Finding, Severity

    proxy = settings.pockyt.proxy.get_secret_value() if settings.pockyt.proxy else None
    value = settings.pockyt.url
    if proxy is not None:
        # Without the user and the password that it may contain.
        value = f"{value} through {urlsplit(proxy).netloc.rpartition('@')[2]}"
    answer = await _answer(settings.pockyt.url, proxy=proxy)
    if isinstance(answer, int):
        return Finding(name="pockyt", value=value)
    advice = f"{answer}; until it answers, sales and cancels wait, and nothing can be asked"
    return Finding(name="pockyt", value=value, severity=Severity.NOTE, advice=advice)


async def _answer(url: str, *, proxy: str | None = None) -> int | str:
    """Return the HTTP status that a URL answers with, or why there is none."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False, proxy=proxy) as response,
        ):
            return response.status
    except TimeoutError:
        return f"no answer within {ANSWER_SECONDS:g} s"
    except aiohttp.ClientHttpProxyError as error:
        # Its own message contains the proxy's password.
        return f"no answer: the proxy answered HTTP {error.status}"
    except aiohttp.ClientError as error:
        return no_answer(error)


def _told(finding: "Finding") -> dict[str, object]:
    return {
        "name": finding.name,
        "value": finding.value,
        "severity": finding.severity.value,
        "advice": finding.advice,
    }


def _row(finding: "Finding") -> list[str]:
    from listener.storage.findings import Severity

    mark = "" if finding.severity is Severity.FINE else finding.severity.value
    return [mark, finding.name, f"{finding.value}", finding.advice or ""]
