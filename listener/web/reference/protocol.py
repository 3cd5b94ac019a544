"""Read the rules and the tables of codes of ``pos.v1`` from docs/protocol.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

from listener.pos.codes import Duty

_CLOSE_CODES: Final = "Close codes"
_DUTIES: Final = "What the till does"
_ERRORS: Final = "Errors"
_ROW: Final = "| "
_RULE: Final = "- "


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """The rules on one subject, in Markdown."""

    title: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRow:
    """What a close code, or a range of them (``40xx``), means, and what follows."""

    code: str
    meaning: str
    duty: Duty
    to_do: str
    sent_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The protocol as it is written down."""

    chapters: Sequence[Chapter]
    codes: Sequence[CodeRow]
    ranges: Sequence[CodeRow]
    duties: Mapping[Duty, str]
    errors: Mapping[str, str]

    def markdown(self) -> str:
        """Return the rules as Markdown, without the tables."""
        return "\n\n".join(
            f"## {chapter.title}\n\n" + "\n".join(f"{_RULE}{rule}" for rule in chapter.rules)
            for chapter in self.chapters
        )


@cache
def read_protocol() -> Protocol:
    """Read docs/protocol.md."""
    sections = _sections(protocol_text())
    tables = {title: _rows(lines) for title, lines in sections.items()}
    codes = [
        CodeRow(code=code, meaning=why, duty=_duty(word), to_do=to_do, sent_by=by)
        for code, why, word, to_do, by in tables[_CLOSE_CODES]
    ]
    return Protocol(
        chapters=[
            Chapter(title=title, rules=rules)
            for title, lines in sections.items()
            if (rules := _rules(lines))
        ],
        codes=[row for row in codes if row.code.isdecimal()],
        ranges=[row for row in codes if not row.code.isdecimal()],
        duties={_duty(word): says for word, says in tables[_DUTIES]},
        errors={word.strip("`"): says for word, says in tables[_ERRORS]},
    )


def protocol_text() -> str:
    """Read the file: beside this module in the wheel, under docs in a checkout."""
    packaged = resources.files("listener.web.reference").joinpath("protocol.md")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")


def _sections(text: str) -> dict[str, list[str]]:
    """Return the lines below each heading of the second level."""
    sections: dict[str, list[str]] = {}
    for part in text.split("\n## ")[1:]:
        title, *lines = part.splitlines()
        sections[title] = lines
    return sections


def _rules(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the items of a section's list, each on one line."""
    rules: list[str] = []
    for line in lines:
        if line.startswith(_RULE):
            rules.append(line.removeprefix(_RULE))
        elif line.startswith("  "):
            rules[-1] += f" {line.strip()}"
    return tuple(rules)


def _rows(lines: Sequence[str]) -> list[list[str]]:
    """Return the cells of a section's table, without its head."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith(_ROW)
    ]
    return rows[1:]


def _duty(words: str) -> Duty:
    return Duty(words.replace(" ", "_"))
