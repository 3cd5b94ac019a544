"""Write to the person or the program that started a command.

A person gets tables and colours; a program gets plain text, or JSON with ``--json``. Results go to
stdout, everything else to stderr.
"""

import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from listener.environment import CONFIG_VARIABLE, config_path

if TYPE_CHECKING:
    from listener.settings import Settings

# Control and format characters (direction marks among them), half of a pair, line separators.
_STEERING: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_TLS_WORD: Final = re.compile(r" ssl:\w+(?= )")

F = TypeVar("F", bound=Callable[..., object])


def config_option(function: F) -> F:
    """Add ``--config``."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        callback=_or_named,
        metavar="FILE",
        help=f"The settings, a TOML file; by default the one that {CONFIG_VARIABLE} names."
        " Variables LISTENER_<NAME> override it, or replace it.",
    )(function)


def _or_named(_context: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
    """Return the path that was given, else the one of the environment."""
    named = config_path(os.environ) if path is None else ""
    return Path(named) if named else path


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, for a program.")(
        function
    )


def read_settings(config: Path | None) -> "Settings":
    """Read the settings of a command.

    Raises:
        SettingsError: They cannot be used.
    """
    from listener.settings import load

    return load(config, os.environ)


def is_watched() -> bool:
    """Return whether a person looks at the results."""
    return sys.stdout.isatty()


def shown(text: str) -> str:
    """Return outside text as a terminal can show it: on one line, with its escapes disarmed."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def escaped(text: str, *, but: str = "") -> str:
    """Return text with every character that steers a terminal or misleads a reader as ``\\u…``.

    Those are control characters, marks that change the direction of text, and invisible ones.
    Within JSON the text keeps its value.

    Args:
        text: Any text, JSON included.
        but: Characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char in but or not _steers(char) else json.dumps(char)[1:-1] for char in text
    )


def _steers(char: str) -> bool:
    return unicodedata.category(char) in _STEERING


def no_answer(error: Exception) -> str:
    """Describe why an HTTP request had no answer.

    aiohttp's word for how it would have encrypted, `ssl:default`, helps nobody and is left out.
    """
    return f"no answer: {_TLS_WORD.sub('', str(error))}"


def say(text: str) -> None:
    """Write a line of results."""
    click.echo(text)


def say_json(value: Mapping[str, object] | Sequence[object]) -> None:
    """Write an object, or a list of them, as one line of results."""
    click.echo(escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))


def note(text: str) -> None:
    """Write a line that is not a result, to stderr."""
    click.echo(text, err=True)


def say_styled(parts: Sequence[tuple[str, str]]) -> None:
    """Write a line of ``(text, style)``; only a person sees the styles."""
    if not is_watched():
        say(" ".join(text for text, _ in parts))
        return
    from rich.console import Console
    from rich.text import Text

    line = Text(" ").join(Text(text, style=style) for text, style in parts)
    Console(highlight=False).print(line, soft_wrap=True)


def say_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table; for a program, tab-separated with the column names in the first line."""
    if not is_watched():
        for row in (columns, *rows):
            say("\t".join(shown(cell) for cell in row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, header_style="bold")
    for row in rows:
        # As text, so that square brackets in a cell are not markup.
        table.add_row(*(Text(shown(cell), overflow="fold") for cell in row))
    Console().print(table)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of long work on stderr, if a person looks at it.

    Yields:
        A function to call with how much is done, and how much there is.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=max(total, 1))
