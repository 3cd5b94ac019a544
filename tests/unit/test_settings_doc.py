"""docs/settings.md holds every setting, each as the code has it."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from listener import settings
from listener.environment import VARIABLES
from listener.origin import PORT_MAX
from listener.setting_types import NUMBER_PATTERN
from listener.settings import Merchant, Pockyt, Settings, load
from listener.storage.postgres.location import HOSTS_MAX, MODES, OPTIONS

DOC: Final = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
(EXAMPLE,) = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)
ROWS: Final = {
    name: (variable.strip("`"), default.strip("`"), text)
    for name, variable, default, text in re.findall(
        r"^\| `([\w.*]+)` \| (\S+) \| (.+?) \| (.+) \|$", DOC, re.MULTILINE
    )
}


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every setting by its name on the page."""
    tables: dict[str, tuple[type[BaseModel], str]] = {
        "pockyt": (Pockyt, "pockyt."),
        "merchants": (Merchant, "merchants.*."),
    }
    for name, field in model.model_fields.items():
        inner = tables.get(name)
        if name != "pockyt":
            yield prefix + name, field
        if inner is not None:
            yield from _fields(inner[0], inner[1])


FIELDS: Final = dict(_fields(Settings))


def test_every_setting_is_documented_and_no_other() -> None:
    assert list(ROWS) == sorted(FIELDS, key=list(ROWS).index)
    assert ROWS.keys() == FIELDS.keys()


@pytest.mark.parametrize("name", FIELDS)
def test_the_variable_of_a_setting_is_the_one_of_the_code(name: str) -> None:
    variables = {".".join(place): variable for variable, (place, _, _) in VARIABLES.items()}
    assert ROWS[name][0] == variables.get(name, "–")


@pytest.mark.parametrize("name", FIELDS)
def test_the_default_of_a_setting_is_the_one_of_the_code(name: str) -> None:
    told = ROWS[name][1]
    default = None if FIELDS[name].is_required() else FIELDS[name].default
    if default is None:
        assert told == "–"
    else:
        assert tomllib.loads(f"told = {told}")["told"] == (
            list(default) if isinstance(default, tuple) else default
        )


def test_the_example_names_every_setting_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "listener.toml"
    path.write_text(EXAMPLE)
    read = load(path, {})
    assert read.pockyt.proxy is not None
    table = tomllib.loads(EXAMPLE)
    named = set(table) | {f"pockyt.{name}" for name in table["pockyt"]}
    named |= {f"merchants.*.{name}" for name in table["merchants"]["200043"]}
    assert named - {"pockyt"} == FIELDS.keys()


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    assert f"0 to {PORT_MAX}" in ROWS["port"][2]
    assert f"1 to {settings.TOKENS_MAX} API tokens" in ROWS["merchants.*.tokens"][2]
    least, most = settings.TIMEOUT_SECONDS_MIN, settings.TIMEOUT_SECONDS_MAX
    assert f"{least:g} to {most:g}" in ROWS["pockyt.timeout_seconds"][2]
    assert "1 to 64 of `0-9 A-Z a-z _ -`" in DOC
    assert NUMBER_PATTERN == r"^([0-9A-Za-z_]|[0-9A-Za-z_-]{2,64})$"


def test_every_option_of_postgresql_is_documented_and_no_other() -> None:
    part = DOC.partition("## On PostgreSQL")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (`.+?`) \| (.+) \|$", part, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == OPTIONS
    assert set(re.findall(r"`([\w-]+)`", rows["`sslmode`"])) - OPTIONS == set(MODES)
    assert f"1 to {HOSTS_MAX} hosts" in part
    (example,) = re.findall(r'`database = "(.+?)"`', part)
    assert load(None, {"LISTENER_DATABASE": example, **_merchant()}).database == example


def test_every_word_of_confirm_is_documented() -> None:
    words = re.findall(r'`"(\w+)"`', ROWS["confirm"][2])
    for word in words:
        assert load(None, {"LISTENER_CONFIRM": word, **_merchant()}).confirm == word
    assert str(sorted(words)) in str(sorted(["off", "suspicious", "always"]))


def test_the_variables_of_the_page_do_what_it_says() -> None:
    (written,) = re.findall(r"`LISTENER_MERCHANTS=('.*?')`", DOC)
    assert load(None, {"LISTENER_MERCHANTS": written}).merchants["200043"].stores == ("303660",)
    (link,) = re.findall(r"`LISTENER_PORT=(tcp:\S+)`", DOC)
    environ = {"LISTENER_PORT": link, "LISTENER_SERVICE_HOST": "10.96.0.10", **_merchant()}
    assert load(None, environ).port == Settings.model_fields["port"].default


def _merchant() -> dict[str, str]:
    return {"LISTENER_MERCHANTS": '{"7": {"tokens": ["t"]}}'}
