"""docs/api: every signature, route and code of the pages is the one of the code."""

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Final

import pytest

from listener.pockyt import client
from listener.pockyt.answer import Answer
from listener.pockyt.calls import PockytCalls
from listener.pockyt.client import PockytClient
from listener.web.reference.catalogue import OPERATIONS
from listener.web.reference.openapi import document

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ROOT / "docs" / "api"
POCKYT: Final = (PAGES / "pockyt-client.md").read_text()
SALES: Final = (PAGES / "sales.md").read_text()
API: Final = json.loads(json.dumps(document(OPERATIONS)))
STARTED_BY_TILLS: Final = re.findall(r"`POST (/v1/\S+?)`", SALES)
MAP: Final = ROOT / "docs" / "README.md"


def _shown() -> dict[str, ast.AsyncFunctionDef | ast.FunctionDef]:
    """Return every signature that the page of the client shows."""
    blocks = re.findall(r"```python\n((?:async def|class) .*?)```", POCKYT, re.DOTALL)
    trees = [node for block in blocks for node in ast.walk(ast.parse(block))]
    kinds = (ast.AsyncFunctionDef, ast.FunctionDef)
    return {node.name: node for node in trees if isinstance(node, kinds)}


def _of_code(name: str) -> list[tuple[str, object]]:
    parameters = inspect.signature(getattr(PockytClient, name)).parameters.values()
    return [(one.name, one.default) for one in parameters if one.name != "self"]


def _of_page(function: ast.AsyncFunctionDef | ast.FunctionDef) -> list[tuple[str, object]]:
    plain = [(one.arg, inspect.Parameter.empty) for one in function.args.args if one.arg != "self"]
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return plain + [
        (one.arg, inspect.Parameter.empty if default is None else ast.literal_eval(default))
        for one, default in pairs
    ]


def test_every_call_of_the_client_is_shown_and_no_other() -> None:
    calls = {name for name in vars(PockytCalls) if not name.startswith("_")} - {"exchange"}
    assert set(_shown()) == calls | {"__init__"}


@pytest.mark.parametrize("name", sorted(_shown()))
def test_a_signature_on_the_page_is_the_one_of_the_code(name: str) -> None:
    assert _of_page(_shown()[name]) == _of_code(name)


def test_every_member_of_an_answer_and_every_error_is_documented() -> None:
    members = {one.name for one in dataclasses.fields(Answer)}
    assert not [name for name in members if f"`{name}`" not in POCKYT]
    errors = {name for name in client.__all__ if name.endswith("Error")}
    assert not [name for name in errors if f"`{name}" not in POCKYT]


@pytest.mark.parametrize("path", STARTED_BY_TILLS)
def test_a_route_of_the_page_exists_with_the_members_that_it_tells(path: str) -> None:
    post = API["paths"][path]["post"]
    ref = post["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = API["components"]["schemas"][ref.rpartition("/")[2]]
    section = next(part for part in SALES.split("\n## ") if f"POST {path}`" in part)
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE)
    told = {name: text for names, text in rows for name in re.findall(r"`(\w+)`", names)}
    assert told.keys() == schema["properties"].keys()
    optional = {name for name, text in told.items() if text.startswith("optional")}
    assert told.keys() - optional == set(schema.get("required", []))


def test_every_route_that_a_till_sells_with_is_documented() -> None:
    sells = {
        path
        for path, methods in API["paths"].items()
        if path.startswith(("/v1/transactions", "/v1/sales"))
        and "post" in methods
        and not path.endswith(("/ask", "/decide"))
    }
    assert set(STARTED_BY_TILLS) == sells


def test_every_answer_of_the_page_is_one_of_the_routes() -> None:
    table = SALES[SALES.index("## When it says no") :]
    told = {int(number) for number in re.findall(r"\b([45]\d\d)\b", table)}
    known = {
        int(status)
        for path in STARTED_BY_TILLS
        for status in API["paths"][path]["post"]["responses"]
        if int(status) >= 400
    }
    # The body came too late: the till's own line, and nothing that it could do otherwise.
    assert told == known - {408}
    sources = "".join(path.read_text() for path in (ROOT / "listener").rglob("*.py"))
    codes = re.findall(r"^\| \d+ `([a-z-]+)`", table, re.MULTILINE)
    assert codes
    assert all(f'"{code}"' in sources for code in codes)


@pytest.mark.parametrize("page", [MAP, *PAGES.glob("*.md"), ROOT / "tests" / "README.md"])
def test_every_file_that_is_linked_exists(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_map_has_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#:]+)", MAP.read_text()))
    pages = {
        str(page.relative_to(ROOT / "docs"))
        for page in (ROOT / "docs").rglob("*.md")
        if page != MAP and page.parent.name not in ("adr", "bench")
    }
    assert pages <= linked
