"""Write the few pieces of HTML that the /docs page is made of; every text is escaped here."""

import re
from collections.abc import Iterable, Sequence
from html import escape as _escape
from typing import Final

import orjson

from listener.web.reference.schemas import JsonObject

_CODE: Final = re.compile(r"`([^`]+)`")


def escape(text: str) -> str:
    """Escape a text for HTML."""
    return _escape(text, quote=True)


def inline(text: str) -> str:
    """Write a line of prose; text in backticks becomes code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def code(text: str) -> str:
    """Write a word of a program."""
    return f"<code>{escape(text)}</code>"


def block(text: str) -> str:
    """Write lines of a program. They scroll, so they can be reached with the keyboard."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def example(title: str, value: JsonObject | str) -> str:
    """Write an example that can be folded away; ``title`` is HTML already."""
    shown = value if isinstance(value, str) else _indented(value)
    return f"<details open><summary>{title}</summary>{block(shown)}</details>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; the cells are HTML already. Narrow screens show each row as a card."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-name="{name}">{cell}</td>' for name, cell in zip(heads, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def document(title: str, *, contents: str, body: str) -> bytes:
    """Write the whole page around its table of contents and its sections."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>"
        '<link rel="stylesheet" href="/static/docs.css"></head><body>'
        '<a class="skip" href="#start">Skip to the text</a>'
        f"<header><h1>{escape(title)}</h1></header>"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>'
        f"<main>{body}</main></body></html>\n"
    ).encode()


def _indented(value: JsonObject) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
