"""Find settings that work but are unwise: what a stranger or a neighbour could exploit."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from listener import environment
from listener.environment import is_this_machine
from listener.storage.findings import Finding, Severity
from listener.storage.sqlite.checkup import find_loose_mode

if TYPE_CHECKING:
    from listener.settings import Merchant, Settings

TOKEN_CHARS_MIN: Final = 16
TOKEN_VARIETY_MIN: Final = 6

# Tokens from Pockyt's public pages; anybody can sign with them.
_PUBLISHED: Final = frozenset(
    {"5cbfb079f15b150122261c8537086d77a", "359c05eb811c7c8576f4a8a277dc6f6b"}
)
_PLACEHOLDER: Final = re.compile(
    r"[<>{}\s$…]|\.\.\.|your|token|change|replace|secret|example|sample|placeholder|dummy|todo",
    re.IGNORECASE,
)
# What is left around a token where an environment file is not read by a shell.
_QUOTES: Final = ("'", '"')
# A group may read the settings, as a service with its own user needs.
_OTHERS: Final = 0o037


def look_over(
    settings: "Settings", *, config: Path | None, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield a note for each unwise setting, with where it is stored."""
    yield from _tokens(settings)
    if config is not None and "LISTENER_MERCHANTS" not in environ:
        loose = find_loose_mode(config, "settings_mode", beyond=_OTHERS)
        if loose is not None:
            yield loose
    yield from _lines(settings)
    links = environment.service_links(environ)
    if links:
        yield Finding(
            name="service_links",
            value=len(links),
            severity=Severity.NOTE,
            advice="variables that Kubernetes sets for a Service called listener are passed over;"
            " enableServiceLinks: false in the pod's spec keeps them away",
        )


def _tokens(settings: "Settings") -> Iterator[Finding]:
    is_tried_out = is_this_machine(urlsplit(settings.pockyt.url).hostname or "")
    for number, merchant in settings.merchants.items():
        texts = _texts(merchant)
        if any(text[:1] in _QUOTES and text.endswith(text[:1]) for text in texts):
            yield Finding(
                name=f"token {number}",
                value="quoted",
                severity=Severity.PROBLEM,
                advice="a token of this merchant has quotes around it: remove them, or every"
                " notification is refused as not signed",
            )
        elif any(_is_placeholder(text, tried_out=is_tried_out) for text in texts):
            yield Finding(
                name=f"token {number}",
                value="placeholder",
                severity=Severity.NOTE,
                advice="a token of this merchant looks like one from a public page:"
                " replace it by the API token that Pockyt gave you",
            )
    owners = defaultdict(list)
    for number, merchant in settings.merchants.items():
        for text in set(_texts(merchant)):
            owners[text].append(number)
    shared = {number for numbers in owners.values() if len(numbers) > 1 for number in numbers}
    if shared:
        yield Finding(
            name="shared_token",
            value=", ".join(sorted(shared)),
            severity=Severity.NOTE,
            advice="these merchants share a token: what Pockyt signs for one is also believed"
            " for the other; give each its own",
        )


def _texts(merchant: "Merchant") -> list[str]:
    return [token.get_secret_value() for token in merchant.tokens]


def _is_placeholder(token: str, *, tried_out: bool) -> bool:
    """Return whether a token was copied from a page; with the sandbox that is right."""
    if token in _PUBLISHED:
        return not tried_out
    is_short = len(token) < TOKEN_CHARS_MIN or len(set(token)) < TOKEN_VARIETY_MIN
    return is_short or _PLACEHOLDER.search(token) is not None


def _lines(settings: "Settings") -> Iterator[Finding]:
    """Yield a finding for each connection that goes over a network as plain text."""
    if _is_plain(settings.pockyt.url):
        yield Finding(
            name="pockyt_plain",
            value=settings.pockyt.url,
            severity=Severity.NOTE,
            advice="whoever is on the way can read and change what Pockyt answers: use https://",
        )
    if settings.public_url is not None and _is_plain(settings.public_url):
        yield Finding(
            name="public_url_plain",
            value=settings.public_url,
            severity=Severity.NOTE,
            advice="whoever is on the way can read keys and notifications: use https://",
        )
    has_proxy = (settings.public_url or "").startswith("https://")
    if not is_this_machine(settings.host) and not has_proxy:
        yield Finding(
            name="host",
            value=settings.host,
            severity=Severity.NOTE,
            advice="other machines reach it by plain HTTP: let it listen on 127.0.0.1 behind a"
            " proxy that speaks TLS, and set public_url to the https:// address of that",
        )


def _is_plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_this_machine(parts.hostname or "")
