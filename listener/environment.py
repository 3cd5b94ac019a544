"""Read the environment: our own variables, and those that others set, for us or for themselves.

A variable that is empty counts as not set, and one pair of quotes around it is removed, because
containers pass the lines of env files on unchanged.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from listener.errors import SettingsError

PREFIX: Final = "LISTENER_"
# Names the settings file; `--config` of every command reads it.
CONFIG_VARIABLE: Final = "LISTENER_CONFIG"
SHOWN_CHARS_MAX: Final = 80

# Kubernetes sets these in every pod of a namespace that has a Service called `listener`, or
# `listener-…`. Source: Kubernetes, "Accessing the Service", environment variables.
_LINK_NAME: Final = re.compile(
    r"LISTENER_(?:\w+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_LINK_URL_NAME: Final = re.compile(r"LISTENER_(?:\w+_)?PORT")
_LINK_URL: Final = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+")


def _read_json(text: str) -> object:
    value: object = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_refuse_repeats)
    return value


def _refuse_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _read_list(text: str) -> object:
    if text.startswith("["):
        return _read_json(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _read_switch(text: str) -> object:
    if text.lower() not in ("true", "false"):
        raise ValueError("neither true nor false")
    return text.lower() == "true"


# For each variable: its place in the table, a function that reads its text (ValueError if it
# cannot), and a description of what the text should be.
VARIABLES: Final[Mapping[str, tuple[tuple[str, ...], Callable[[str], object], str]]] = {
    "LISTENER_HOST": (("host",), str, "text"),
    "LISTENER_PORT": (("port",), int, "a whole number"),
    "LISTENER_DATABASE": (("database",), str, "text"),
    "LISTENER_PUBLIC_URL": (("public_url",), str, "text"),
    "LISTENER_ORIGINS": (("origins",), _read_list, "a JSON list, or origins between commas"),
    "LISTENER_CONFIRM": (("confirm",), str, "text"),
    "LISTENER_FAST_PATH": (("fast_path",), _read_switch, "true or false"),
    "LISTENER_POCKYT_URL": (("pockyt", "url"), str, "text"),
    "LISTENER_POCKYT_TIMEOUT_SECONDS": (("pockyt", "timeout_seconds"), float, "a number"),
    "LISTENER_POCKYT_PROXY": (("pockyt", "proxy"), str, "text"),
    "LISTENER_MERCHANTS": (
        ("merchants",),
        _read_json,
        'JSON such as {"<merchantNo>": {"tokens": ["<API token>"]}}, each name once',
    ),
}


def apply(table: dict[str, object], environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Copy the variables into the table; return which of its places came from which variable.

    Raises:
        SettingsError: A variable is unknown, or its text cannot be read.
    """
    sources: dict[tuple[str, ...], str] = {}
    passed_over = {CONFIG_VARIABLE, *service_links(environ)}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in passed_over:
            continue
        if variable not in VARIABLES:
            raise SettingsError(unknown(variable, tuple(VARIABLES), "in the environment"))
        text = _text_of(variable, environ)
        if not text:
            continue
        place, value = _read(variable, text)
        inner = table
        for name in place[:-1]:
            nested = inner.setdefault(name, {})
            if not isinstance(nested, dict):
                raise SettingsError(f'the setting "{name}" must be a table')
            inner = nested
        inner[place[-1]] = value
        sources[place] = variable
    return sources


def config_path(environ: Mapping[str, str]) -> str:
    """Return the path of the settings file that a variable names; empty for none."""
    return _text_of(CONFIG_VARIABLE, environ)


def service_links(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that Kubernetes sets for a Service; they are not settings."""
    return tuple(
        name
        for name in sorted(environ)
        if _LINK_NAME.fullmatch(name)
        or (_LINK_URL_NAME.fullmatch(name) and _LINK_URL.fullmatch(environ[name]))
    )


def proxy_for(url: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the name and text of the variable that sets a proxy for a URL; None for none.

    As in other programs, lower case wins over upper case, and this machine needs no proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_this_machine(host):
        return None
    excepted = _text_of("no_proxy", environ) or _text_of("NO_PROXY", environ)
    if _is_excepted(host, f"{host}:{parts.port}", listed=excepted):
        return None
    for variable in (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper()):
        if variable in environ:
            text = _text_of(variable, environ)
            return (variable, text) if text else None
    return None


def _is_excepted(*names: str, listed: str) -> bool:
    """Return whether NO_PROXY lists one of a host's names, or a domain above one."""
    for entry in re.split(r"[,\s]+", listed.lower()):
        domain = entry.removeprefix("*").lstrip(".")
        if entry == "*" or (domain and any(f".{name}".endswith(f".{domain}") for name in names)):
            return True
    return False


def is_this_machine(host: str) -> bool:
    """Return whether a host is a loopback address, which only this machine can reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _text_of(variable: str, environ: Mapping[str, str]) -> str:
    """Return the text of a variable, without surrounding blanks and one pair of quotes."""
    text = environ.get(variable, "").strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].strip()
    return text


def _read(variable: str, text: str) -> tuple[tuple[str, ...], object]:
    place, read, wanted = VARIABLES[variable]
    try:
        return place, read(text)
    except (ValueError, RecursionError):
        # Raised below, outside of this block: Python's own message would quote the value.
        pass
    raise SettingsError(f"the variable {variable} must be {wanted}")


def unknown(name: str, known: tuple[str, ...], where: str) -> str:
    """Describe an unknown setting, and suggest the one that was probably meant."""
    near = difflib.get_close_matches(name, known, n=1)
    advice = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
    return f'unknown setting "{shown(name)}" {where}; {advice}'


def shown(text: str) -> str:
    """Shorten a name for a message, and keep it on one line."""
    return text[:SHOWN_CHARS_MAX].encode("unicode_escape").decode()
