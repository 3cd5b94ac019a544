"""Describe the HTTP API and ``pos.v1`` for people, on one page without scripts or outside files."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

from aiohttp import web

from listener.ledger.model import Status
from listener.web.pages import HEADERS
from listener.web.reference import markup
from listener.web.reference.asyncapi import CLIENT_FRAMES, EXAMPLES, SERVER_FRAMES
from listener.web.reference.markup import code, inline, table
from listener.web.reference.openapi import TAGS
from listener.web.reference.operations import DESCRIBED, Operation, Tag
from listener.web.reference.protocol import CodeRow, read_protocol
from listener.web.reference.schemas import JsonObject, query_parameters
from listener.web.shapes.parameters import INSTANT_PATTERN

POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
STATUSES: Final[Mapping[Status, str]] = {
    Status.CREATED: "Pockyt has made the transaction; nobody has paid.",
    Status.PENDING: "The customer is about to pay.",
    Status.PAID: "Paid. A cancel is refused from here on, unless it may refund.",
    Status.FAILED: "The payment failed. It may be tried again.",
    Status.CANCELLED: "Cancelled, or timed out: it can no longer be paid.",
    Status.REFUNDED: "Paid, and the money went back.",
    Status.CONFLICT: "Reported both as paid and as cancelled. Neither hand out goods nor give back"
    " money until Pockyt has settled it; it is being asked.",
    Status.UNKNOWN: "Nothing is known for certain. Pockyt is being asked.",
}
_ROLES: Final[Mapping[str, str]] = {
    "pos": "A till, or all tills of a store or merchant: sells, cancels, follows, acknowledges.",
    "ledger": "Accounting and head office: reads the whole ledger, changes nothing.",
    "admin": "The operator: reads and follows everything, asks Pockyt, decides a conflict.",
}
_TRY: Final = """listener keys create --config listener.toml --role ledger
export LISTENER=http://127.0.0.1:8080 KEY=<the key, shown once>
curl -H "Authorization: Bearer $KEY" "$LISTENER/v1/transactions?limit=5\""""


async def show(request: web.Request) -> web.Response:
    """Answer with the page."""
    headers = {**HEADERS, "Content-Security-Policy": POLICY}
    return web.Response(
        body=page(request.app[DESCRIBED]),
        content_type="text/html",
        charset="utf-8",
        headers=headers,
    )


@cache
def page(operations: tuple[Operation, ...]) -> bytes:
    """Write the page."""
    sections = [
        ("start", "Start here", _start()),
        *((_anchor(tag), tag.value, _routes_of(tag, operations)) for tag in Tag),
        ("pos.v1", "The protocol pos.v1", _protocol()),
        ("close-codes", "Close codes", _close_codes()),
        ("statuses", "Statuses", _statuses()),
    ]
    contents = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in sections)
    body = "".join(
        f'<section id="{anchor}"><h2>{title}</h2>{inner}</section>'
        for anchor, title, inner in sections
    )
    return markup.document("Pockyt listener: the API", contents=contents, body=body)


def _start() -> str:
    return (
        "<p>The listener receives Pockyt's signed notifications, records them in an append-only"
        " ledger, and tells the tills. This page is made from the same models as"
        ' <a href="/openapi.json">OpenAPI</a> and <a href="/asyncapi.json">AsyncAPI</a>.</p>'
        "<p>Every route under <code>/v1</code> needs a key:</p>"
        f"{markup.block(_TRY)}"
        f"{table(('Role', 'For'), ((code(role), says) for role, says in _ROLES.items()))}"
        "<ul><li>Amounts are decimal strings, transaction numbers are strings, times are RFC 3339"
        " in UTC.</li>"
        "<li>Errors are <code>application/problem+json</code>: <code>code</code> is a word for"
        " programs, <code>detail</code> says what to do.</li>"
        "<li>What is outside a key's scope is answered as if it did not exist.</li>"
        "<li>Answers may get new members; existing ones stay.</li></ul>"
    )


def _routes_of(tag: Tag, operations: Sequence[Operation]) -> str:
    told = "".join(_route(operation) for operation in operations if operation.tag is tag)
    return f"<p>{TAGS[tag]}</p>{told}"


def _route(operation: Operation) -> str:
    roles = "".join(f'<span class="role">{role}</span>' for role in operation.roles)
    parts = [
        f'<article id="{operation.id}">{_heading(operation)}',
        f'<p class="summary">{inline(operation.summary)} {roles}</p>',
        f"<p>{inline(operation.says)}</p>",
    ]
    if operation.query is not None:
        parts.append(_parameters(query_parameters(operation.query)))
    if operation.headers:
        rows = ((code(name), inline(says)) for name, says in operation.headers.items())
        parts.append(table(("Header", "Meaning"), rows))
    parts.append(markup.block(operation.curl))
    answers = operation.all_answers()
    for status, answer in answers.items():
        if status < 300 and answer.example is not None:
            parts.append(markup.example(f"Answer {status}", answer.example))
    rows = ((f"<b>{status}</b>", inline(answer.says)) for status, answer in answers.items())
    parts.append(table(("Answer", "When"), rows))
    return "".join(parts) + "</article>"


def _heading(operation: Operation) -> str:
    method = f'<span class="method {operation.method.lower()}">{operation.method}</span>'
    return f'<h3>{method} <span class="path">{_breakable(operation.path)}</span></h3>'


def _parameters(parameters: Iterable[JsonObject]) -> str:
    rows = (
        (code(str(one["name"])), inline(str(one["description"])), _kind(one["schema"]))
        for one in parameters
    )
    return table(("Parameter", "Meaning", "Value"), rows)


def _kind(schema: object) -> str:
    """Describe the type of a value in a few words."""
    known = schema if isinstance(schema, dict) else {}
    if "enum" in known:
        return " ".join(code(str(word)) for word in known["enum"])
    if INSTANT_PATTERN in known.get("pattern", ""):
        return "RFC 3339, or a day"
    if known.get("type") == "integer":
        bounds = f"{known['minimum']} to {known['maximum']}"
        return f"{bounds}; else {known['default']}"
    longest = known.get("maxLength")
    return f"text, at most {longest}" if longest else "text"


def _protocol() -> str:
    protocol = read_protocol()
    chapters = "".join(
        f"<h3>{chapter.title}</h3><ul>"
        + "".join(f"<li>{inline(rule)}</li>" for rule in chapter.rules)
        + "</ul>"
        for chapter in protocol.chapters
    )
    frames = "".join(
        f"<h4>{side}</h4>"
        + "".join(markup.example(inline((f.__doc__ or "").split("\n")[0]), EXAMPLES[f]) for f in of)
        for side, of in (("From the till", CLIENT_FRAMES), ("From the listener", SERVER_FRAMES))
    )
    errors = table(
        ("Error", "Meaning"), ((code(word), inline(says)) for word, says in protocol.errors.items())
    )
    return f"{chapters}<h3>Frames</h3>{frames}<h3>Errors</h3>{errors}"


def _close_codes() -> str:
    protocol = read_protocol()
    rows = (
        (f"<b>{row.code}</b>", _why(row), inline(protocol.duties[row.duty]))
        for row in protocol.codes
    )
    ranges = ((f"<b>{row.code}</b>", inline(protocol.duties[row.duty])) for row in protocol.ranges)
    return (
        "<p>Either side may send 1000, 1001 and 4201. 1005 and 1006 are never sent; only the"
        " program sees them.</p>"
        + table(("Code", "Meaning", "The till"), rows)
        + "<p>Any other code:</p>"
        + table(("Range", "The till"), ranges)
    )


def _why(row: CodeRow) -> str:
    return inline(f"{row.meaning}; {row.to_do}" if row.to_do else row.meaning)


def _statuses() -> str:
    rows = (
        (f'<span class="status {status}">{status}</span>', says)
        for status, says in STATUSES.items()
    )
    return (
        "<p>A status follows from everything that was said, in whatever order and however"
        " often it arrived.</p>" + table(("Status", "Meaning"), rows)
    )


def _anchor(tag: Tag) -> str:
    return tag.name.lower()


def _breakable(path: str) -> str:
    """Write a long path so that it breaks after its slashes on a narrow screen."""
    return markup.escape(path).replace("/", "/<wbr>")
