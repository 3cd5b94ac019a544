"""Read the settings from a TOML file and the environment.

A wrong setting is reported on one line that says which it is and what to do, and never
shows a token.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from listener import environment
from listener.environment import shown, unknown
from listener.errors import SettingsError
from listener.origin import PORT_MAX
from listener.setting_types import (
    Database,
    Host,
    Number,
    Origin,
    Proxy,
    Secret,
    Stores,
    Url,
    check_proxy,
)
from listener.validation import explain

TOKENS_MAX: Final = 8
TIMEOUT_SECONDS_MIN: Final = 0.1
TIMEOUT_SECONDS_MAX: Final = 60.0

_ADD_A_MERCHANT: Final = (
    "no merchant is configured: add [merchants.<merchantNo>] with tokens = ["
    '"<API token>"] to the settings file, or set LISTENER_MERCHANTS'
)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Merchant(_Table):
    """A merchant at Pockyt.

    Attributes:
        tokens: API tokens; the first one signs, any of them verifies.
        stores: storeNos that its notifications may name; empty where it has none.
    """

    tokens: tuple[Secret, ...] = Field(min_length=1, max_length=TOKENS_MAX)
    stores: Stores = ()


class Pockyt(_Table):
    """How Pockyt is reached.

    Attributes:
        url: Without a closing slash.
        timeout_seconds: How long one call may take.
        proxy: The proxy to call through. Unless it is set, HTTPS_PROXY and NO_PROXY decide. Not
            in the repr: it may hold a password.
    """

    url: Url = "https://mapi.pockyt.io"
    timeout_seconds: float = Field(
        default=10.0, ge=TIMEOUT_SECONDS_MIN, le=TIMEOUT_SECONDS_MAX, strict=True
    )
    proxy: Proxy | None = None


class Settings(_Table):
    """Everything that an operator can set.

    Attributes:
        port: 0 lets the system choose.
        database: ``sqlite:///PATH``, relative to the current directory unless PATH begins with
            a slash, or ``postgresql://USER@HOST1:PORT,HOST2:PORT/NAME``, which any number of
            listeners may share. Not in the repr: it may hold a password.
        public_url: Our URL as Pockyt reaches it, without a closing slash; with None, no ipnUrl
            can be sent.
        origins: Origins of web pages and web views that are allowed besides our own.
        confirm: When tran-query is used to confirm notifications: where something is held,
            unknown or in conflict ("suspicious"), for every final status as well ("always"),
            or never ("off"). Tills are told first, with evidence ``signature``.
        fast_path: Whether plain notifications are answered before aiohttp builds requests of them.
        merchants: By merchantNo; at least one.
    """

    host: Host = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=PORT_MAX, strict=True)
    database: Database = Field(default="sqlite:///ledger.db", repr=False)
    public_url: Url | None = None
    origins: tuple[Origin, ...] = ()
    confirm: Literal["off", "suspicious", "always"] = "suspicious"
    fast_path: bool = Field(default=True, strict=True)
    pockyt: Pockyt = Pockyt()
    merchants: Mapping[Number, Merchant] = Field(min_length=1)


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings. The environment overrides the file.

    Args:
        path: A TOML file; None for the environment and the defaults alone.
        environ: ``LISTENER_<NAME>`` and the proxy variables are read; other names are ignored.

    Raises:
        SettingsError: A setting is unknown, missing or wrong, or the file cannot be read. One
            line, without the value; the cause is not chained, because it holds the value.
    """
    table = {} if path is None else _read_file(path)
    sources = environment.apply(table, environ)
    try:
        return _with_proxy(Settings.model_validate(table), environ)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    # Misspelt names first: they explain why the intended setting is missing.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    raise SettingsError(_explain(first, sources, path))


def _with_proxy(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Fill in the proxy that the environment names for Pockyt, unless a setting names one.

    Raises:
        SettingsError: It cannot be used. Going around it would break the network's rules.
    """
    found = environment.proxy_for(settings.pockyt.url, environ)
    if settings.pockyt.proxy is not None or found is None:
        return settings
    variable, text = found
    try:
        proxy = check_proxy(SecretStr(text))
    except PydanticCustomError as error:
        raise SettingsError(
            f"the variable {variable} {error.message()}; set pockyt.proxy, or NO_PROXY"
        ) from None
    return settings.model_copy(
        update={"pockyt": settings.pockyt.model_copy(update={"proxy": proxy})}
    )


def _read_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        reason = f"cannot be read ({error.strerror}): give the path of a TOML file"
    except UnicodeDecodeError:
        reason = "is not UTF-8 text"
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The parser's own words may quote a key, but never a value.
        reason = f"is not TOML: {shown(str(error))}"
    except ValueError:
        # Python reads no number of more digits than 4,300.
        reason = "has a number of thousands of digits"
    raise SettingsError(f"the settings file {path} {reason}")


_EXPLAINED: Final[Mapping[str, str]] = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text in quotes",
    "tuple_type": "must be a list",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "missing": "is missing",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "string_too_long": "must have at most {max_length} characters",
}


def _explain(error: ErrorDetails, sources: Mapping[tuple[str, ...], str], path: Path | None) -> str:
    """Explain a pydantic error in one line: what is wrong, and where it was written."""
    place = tuple(str(part) for part in error["loc"])
    source = next((name for at, name in sources.items() if place[: len(at)] == at), None)
    where = f"in {source}" if source else f"in {path}" if path else "in the defaults"
    if place == ("merchants",) and error["type"] in ("missing", "too_short"):
        return _ADD_A_MERCHANT
    if error["type"] == "extra_forbidden":
        return unknown(".".join(place), _known(place[:-1]), where)
    name = shown(".".join(part for part in place if part != "[key]"))
    if error["type"] == "string_pattern_mismatch":
        in_merchants = place[0] == "merchants"
        reason = "must be 1 to 64 of 0-9 A-Z a-z _ -" if in_merchants else "must be one word"
    else:
        reason = explain(error, _EXPLAINED)
    return f'the setting "{name}" {where} {reason}'


def _known(parents: tuple[str, ...]) -> tuple[str, ...]:
    tables: tuple[type[BaseModel], ...] = (Settings, Pockyt, Merchant)
    return tuple(".".join((*parents, name)) for name in tables[len(parents)].model_fields)
