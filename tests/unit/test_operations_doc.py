"""docs/operations.md names nothing that is not there, and every limit that can be met."""

import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

import listener
from listener.cli import program
from listener.environment import VARIABLES
from listener.web.app import routes
from listener.web.metrics import Metrics

DOC: Final = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
SOURCES: Final = sorted(Path(listener.__file__).parent.rglob("*.py"))

# Limits that neither an operator nor a till's developer meets, and why.
INNER: Final = {
    "hub.reads.READS_AT_ONCE_MAX": "how many pages are read at a time; the others wait",
    "keys.KEY_CHARS_MAX": "no key is as long",
    "ledger.promise.SALES_MAX": "sales of one reference beyond it were all refused",
    "web.app.POCKYT_CONNECTIONS_MAX": "the shares of the keys come first",
    "lifecycle.chaser.DUE_MAX": "what is due beyond it is done in the next turn",
    "lifecycle.steps.HEARD_MAX": "the newest transactions of one sale's reference are enough",
    "lifecycle.chaser.IDLE_SECONDS_MAX": "how long the chaser rests where nothing is due",
    "lifecycle.facts.FIELDS_MAX": "of an answer of Pockyt's, what is kept of it",
    "lifecycle.orders.VALUE_CHARS_MAX": "of an answer of Pockyt's, what is kept of it",
    "log.FIELDS_MAX": "no event has as many",
    "log.NAME_CHARS_MAX": "no event has a name as long",
    "ledger.summary.PAST_MAX": "no query is under way for as long",
    "pockyt.answer.MESSAGE_CHARS_MAX": "what is shown of Pockyt's words",
    "pockyt.layout.NAMES_CHARS_MAX": "a form with longer names is read in full",
    "pos.events.EPOCH_CHARS_MAX": "the listener's own epochs are shorter",
    "pos.events.STREAM_CHARS_MAX": "two numbers of 64 fit in it",
    "setting_types.HOST_CHARS_MAX": "the settings say it themselves",
    "origin.PORT_MAX": "the settings say it themselves",
    "environment.SHOWN_CHARS_MAX": "what is shown of a wrong setting",
    "setting_types.TOKEN_CHARS_MAX": "the settings say it themselves",
    "setting_types.URL_CHARS_MAX": "the settings say it themselves",
    "lifecycle.turns.NAME_CHARS_MAX": "a longer name is hashed",
    "storage.gathered.GATHERED_MAX": "how many are read for at once; the others are next",
    "storage.postgres.checkup.CLOCK_MS_MAX": "check says it itself",
    "storage.postgres.checkup.LAG_MAX": "check says it itself",
    "storage.postgres.checkup.QUEUE_USAGE_MAX": "check says it itself",
    "storage.postgres.checkup.SNAPSHOT_SECONDS_MAX": "check says it itself",
    "storage.postgres.connection.TOLD_CHARS_MAX": "what is shown of PostgreSQL's words",
    "storage.postgres.location.HOSTS_MAX": "the settings say it themselves",
    "storage.postgres.writer.PAUSE_SECONDS_MAX": "between two tries to connect",
    "storage.sqlite.bulk.EXACT_MAX": "rows of one statement",
    "storage.sqlite.bulk.ROWS_MAX": "rows of one statement",
    "storage.sqlite.faults.TOLD_CHARS_MAX": "what is shown of SQLite's words",
    "storage.sqlite.lock.NOTE_BYTES_MAX": "the listener's own note is shorter",
    "hub.tail.PAGE_EVENTS_MAX": "events that a till is read at a time; the others follow",
    "log.LINES_AT_ONCE_MAX": "lines beyond it are counted in the next",
    "web.connections.READ_BYTES_MAX": "the rest is read in the next turn of the loop",
    "web.connections.REST_SECONDS_MAX": "how long a refused stranger's next request waits",
    "web.lobby.GUEST_BODY_BYTES_MAX": "the body of a larger request is awaited by aiohttp",
    "web.lobby.GUEST_HEAD_BYTES_MAX": "a longer head is read by aiohttp",
    "web.head.HEAD_BYTES_MAX": "a longer head goes the ordinary way",
    "web.head.HEADERS_MAX": "more headers go the ordinary way",
    "web.http_connection.CUTS_MAX": "what comes behind so many requests is read uncut",
    "web.shapes.bodies.ERRORS_MAX": "the first mistakes are enough",
    "web.shapes.parameters.CURSOR_CHARS_MAX": "no cursor is as long",
    "web.shapes.parameters.PLACE_CHARS_MAX": "no cursor is as long",
    "web.shapes.parameters.NUMBER_CHARS_MAX": "as in the settings",
    "web.shapes.parameters.SEQ_MAX": "no ledger gets there",
    "web.refusals.PART_CHARS_MAX": "what of a refused path is logged",
    "web.shares.KEYS_MAX": "how many keys' shares are kept in mind",
    "web.till.sessions.SEEN_MAX": "how many that went away are remembered",
}
# Programs of their own, with limits of their own.
ASIDE: Final = ("listener.sandbox", "listener.commands", "listener.pos.")
# These hold for both sides.
WIRE: Final = ("listener.pos.frames", "listener.pos.events")
_UNITS: Final = {"": 1, "s": 1, "h": 3_600, "days": 1, "KiB": 1024, "MiB": 1024**2}
_LIMIT: Final = re.compile(r"^\| .+ \| ([\d,]+) ?(\w*) \| .+ \| `([\w.]+)` \|$", re.MULTILINE)


def _fences(*languages: str) -> Iterator[str]:
    for language, text in re.findall(r"^ *```(\w+)\n(.*?)^ *```$", DOC, re.DOTALL | re.MULTILINE):
        if language in languages:
            yield text


def _prose() -> str:
    return re.sub(r"^ *```.*?^ *```$", "", DOC, flags=re.DOTALL | re.MULTILINE)


def _spans() -> list[str]:
    return re.findall(r"`([^`\n]+)`", _prose())


def _commands() -> list[list[str]]:
    """Return every command line that is shown, from the word ``listener`` on."""
    consoles = "\n".join(_fences("console", "ini")).replace("\\\n", " ")
    texts = [*consoles.splitlines(), *_spans()]
    found = [re.search(r"(?:^|[\s/=])listener (?=[a-z])(.*)", text) for text in texts]
    lines = [re.split(r" [|>] ?", one[1])[0] for one in found if one]
    return [shlex.split(line) for line in lines]


def _find(words: list[str]) -> tuple[click.Command, list[str]]:
    found: click.Command = program
    while isinstance(found, click.Group) and words and words[0] in found.commands:
        found, words = found.commands[words[0]], words[1:]
    return found, words


def _options(command: click.Command) -> set[str]:
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def _all_commands(command: click.Command = program) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _all_commands(inner)


def _metrics() -> set[str]:
    """Return the names of all samples, with and without labels."""
    names: set[str] = set()
    made = Metrics()
    for family in (*made.registry.collect(), *made.of_ledger.collect()):
        endings = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_count", "_sum"),
            "info": ("_info",),
        }
        names |= {family.name + ending for ending in endings.get(family.type, ("",))}
    return names


def _constant(path: str) -> float:
    """Return a constant, or an option's default, by its path below ``listener``."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(["listener", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found() if isinstance(found, type) else found, name)
        assert isinstance(found, int | float), path
        return found / 1000 if path.endswith("_MS") else found
    raise AssertionError(f"no module of {path}")


def test_every_command_and_option_exists() -> None:
    lines = _commands()
    assert len(lines) > 15
    for words in lines:
        command, rest = _find(words)
        assert command is not program, words
        assert not isinstance(command, click.Group) or not rest, words
        unknown = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert unknown <= _options(command), words


def test_every_option_that_is_named_alone_exists() -> None:
    known = {name for command in _all_commands() for name in _options(command)}
    named = {word for span in _spans() for word in span.split() if word.startswith("--")}
    assert named
    assert named <= known


def test_every_metric_exists() -> None:
    named = set(re.findall(r"\blistener_[a-z_]+", DOC))
    assert len(named) > 8
    assert named <= _metrics()


def test_every_outcome_of_a_call_exists() -> None:
    (named,) = re.findall(r'outcome!~"([^"]+)"', DOC)
    source = "\n".join(path.read_text() for path in SOURCES)
    assert all(f'return "{word}' in source for word in named.split("\\|"))


def test_every_route_exists() -> None:
    known = {(route.method, route.path) for route in routes()}
    named = re.findall(r"\b(GET|POST) (/[\w./{}]*)", DOC)
    assert len(named) > 8
    assert {(method, path) for method, path in named} <= known


def test_every_event_of_the_log_exists() -> None:
    table = DOC[DOC.index("### The log") : DOC.index("## What each alarm means")]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    source = "\n".join(path.read_text() for path in SOURCES)
    logged = set(re.findall(r'(?:event|Throttle)\(\s*[\w.]+,\s*"(\w+)"', source))
    logged |= set(re.findall(r'(?:_LOG|logger)\.(?:exception|error)\(\s*"(\w+)"', source))
    logged |= set(re.findall(r'Throttle\(_LOG, "(\w+)"', source))
    assert set(named) == logged


def test_every_setting_in_the_environment_exists() -> None:
    named = set(re.findall(r"\bLISTENER_[A-Z_]+", DOC))
    assert named
    assert named <= set(VARIABLES)


@pytest.mark.parametrize(("number", "unit", "path"), _LIMIT.findall(DOC))
def test_every_limit_is_the_one_of_the_code(number: str, unit: str, path: str) -> None:
    assert int(number.replace(",", "")) * _UNITS[unit] == _constant(path)


def test_every_limit_that_can_be_reached_is_documented() -> None:
    told = {path for _, _, path in _LIMIT.findall(DOC)}
    assert not told & INNER.keys()
    there = set()
    for module in pkgutil.walk_packages(listener.__path__, "listener."):
        if module.name.startswith(ASIDE) and module.name not in WIRE:
            continue
        if module.name == "listener.__main__":
            continue
        # Only where it is made, not where it is imported.
        source = Path(str(importlib.import_module(module.name).__file__)).read_text()
        names = re.findall(r"^([A-Z][A-Z_]*_MAX)\b.*= ", source, re.MULTILINE)
        there |= {f"{module.name.removeprefix('listener.')}.{name}" for name in names}
    assert there - told == INNER.keys()


def test_systemd_starts_the_listener_again_however_long_its_database_is_down() -> None:
    (unit,) = re.findall(r"```ini\n(.*?)```", DOC, re.DOTALL)
    head, _, rest = unit.partition("[Service]")
    assert "\nStartLimitIntervalSec=0\n" in head.partition("[Unit]")[2]
    assert "\nRestart=always\n" in rest


def test_the_services_user_is_made_and_may_write_its_backups() -> None:
    user = re.search("^User=(.+)$", DOC, re.MULTILINE)
    assert user
    assert re.search(f"^\\$ useradd .* {user[1]}$", DOC, re.MULTILINE)
    folders = set(re.findall(r"(/var/backups/\S*?)/?ledger-", DOC))
    assert folders == set(re.findall(f"install -d -m 700 -o {user[1]} (.+)", DOC))
