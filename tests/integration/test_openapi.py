"""OpenAPI and the page of docs: every route told, and every answer as it is told."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import aiohttp
import orjson
import pytest

from listener.keys import Role
from listener.ledger.model import Fact, Kind, Status
from listener.pos.codes import CloseCode
from listener.sandbox.servers import Sandbox, SandboxSettings
from listener.web.app import routes
from listener.web.reference.catalogue import OPERATIONS
from listener.web.reference.openapi import document
from listener.web.reference.operations import Operation
from listener.web.reference.page import STATUSES, page
from listener.web.reference.schemas import query_parameters
from listener.web.shapes.parameters import Query
from tests.support.schema import Json, faults, references, resolve
from tests.support.service import (
    FIELDS,
    FORM,
    MERCHANT_NO,
    STORE_NO,
    STREAM,
    TOKEN_TEXT,
    Serving,
    serving,
    signed,
)
from tests.support.tills import place

DOCUMENT = document(OPERATIONS)
OTHER_MERCHANT_NO = "200044"
NUMBER = "297553638301777927"
MERCHANTS = {
    MERCHANT_NO: {"tokens": [TOKEN_TEXT], "stores": [STORE_NO]},
    OTHER_MERCHANT_NO: {"tokens": [TOKEN_TEXT], "stores": [STORE_NO]},
}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Serving]:
    path = tmp_path / "ledger.db"
    async with serving(path, confirm="off", merchants=MERCHANTS) as found:
        yield found


def member(value: object, *path: str) -> Json:
    for name in path:
        assert isinstance(value, dict)
        value = value[name]
    assert isinstance(value, dict)
    return value


def told_operations() -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, methods in member(DOCUMENT, "paths").items()
        for method in member(methods)
    }


def fault_of(method: str, path: str, *, status: int, content_type: str, body: bytes) -> list[str]:
    """Return what is wrong with an answer, by the description of its operation."""
    operation = member(DOCUMENT, "paths", path, method.lower())
    answers = member(operation, "responses")
    if str(status) not in answers:
        return [f"{status} is not told"]
    content = member(answers, str(status)).get("content", {})
    assert isinstance(content, dict)
    if not content:
        return [] if not body else [f"{status} should have no body"]
    if content_type not in content:
        return [f"{status} as {content_type} is not told"]
    is_json = content_type.endswith("json") and "ndjson" not in content_type
    value = orjson.loads(body) if is_json else body.decode()
    return faults(value, content[content_type]["schema"], DOCUMENT)


def test_every_route_is_documented_and_every_documented_route_exists() -> None:
    there = set()
    for route in routes():
        resource = route.path
        method = route.method
        if not resource.startswith("/static/"):
            there.add(("POST" if method == "*" else method, resource))
    assert told_operations() == there


async def test_it_is_served_as_it_is_made(service: Serving) -> None:
    status, answer = await service.get("/openapi.json")
    assert status == 200
    assert answer == orjson.loads(orjson.dumps(DOCUMENT))
    assert member(answer)["openapi"] == "3.1.0"


def test_every_reference_leads_somewhere() -> None:
    found = references(orjson.loads(orjson.dumps(DOCUMENT)))
    assert len(found) > 50
    for ref in found:
        resolve(ref, DOCUMENT)


def test_every_schema_is_used() -> None:
    used = {ref.rpartition("/")[2] for ref in references(orjson.loads(orjson.dumps(DOCUMENT)))}
    # The lines of NDJSON name theirs in words.
    assert set(member(DOCUMENT, "components", "schemas")) - used <= {"Entry"}


def test_operations_have_names_of_their_own() -> None:
    names = [operation.id for operation in OPERATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_example_is_what_its_schema_says(operation: Operation) -> None:
    told = operation_of(operation)
    parts = [*member(told, "responses").values(), told.get("requestBody", {})]
    for part in parts:
        content_types = member(part).get("content", {})
        assert isinstance(content_types, dict)
        for content in content_types.values():
            if "example" in content:
                assert faults(content["example"], content["schema"], DOCUMENT) == []


def operation_of(operation: Operation) -> Json:
    path, method = operation.path, operation.method.lower()
    return member(DOCUMENT, "paths", path, method)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_key_and_every_path_parameter_is_documented(operation: Operation) -> None:
    told = operation_of(operation)
    roles = operation.roles
    assert told["security"] == ([{"key": []}, {"keyHeader": []}] if roles else [])
    assert ("401" in member(told, "responses")) == bool(roles) or "notify" in str(told)
    assert ("Role: " in str(told["description"])) == bool(roles)
    parameters = told["parameters"]
    assert isinstance(parameters, list)
    in_path = {one["name"] for one in parameters if one["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", operation.path))


def test_parameters_are_documented_by_the_model_that_reads_them() -> None:
    models = [one.query for one in OPERATIONS if one.query and issubclass(one.query, Query)]
    assert len(models) >= 4
    for model in models:
        told = {str(one["name"]) for one in query_parameters(model)}
        assert told == {info.alias or name for name, info in model.model_fields.items()}
        for one in query_parameters(model):
            assert one["description"], one["name"]
            # A value that may be left out is not null in a URL.
            assert "anyOf" not in member(one["schema"])


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request, and the answer that the description promises."""

    path: str
    status: int
    url: str = ""
    method: str = "GET"
    role: Role | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


ADMIN, LEDGER, POS = Role.ADMIN, Role.LEDGER, Role.POS
LIST, SHOW = "/v1/transactions", "/v1/transactions/{transactionNo}"
EVENTS, ACKS, STREAM_PATH = "/v1/pos/events", "/v1/pos/acks", "/v1/pos/stream"
NOTIFY = "/notify/{merchantNo}/{storeNo}"
NOTIFY_URL = f"/notify/{MERCHANT_NO}/{STORE_NO}"
AS_FORM, AS_JSON = {"Content-Type": FORM}, {"Content-Type": "application/json"}
ASKS = [
    Ask(path=LIST, status=200, role=POS),
    Ask(path=LIST, status=200, role=LEDGER, url=f"{LIST}?limit=1"),
    Ask(path=LIST, status=400, role=POS, url=f"{LIST}?limit=0"),
    Ask(path=LIST, status=401),
    Ask(path=SHOW, status=200, role=POS, url=f"{LIST}/{NUMBER}"),
    Ask(path=SHOW, status=400, role=POS, url=f"{LIST}/{NUMBER}?x=1"),
    Ask(path=SHOW, status=401, url=f"{LIST}/{NUMBER}"),
    Ask(path=SHOW, status=404, role=POS, url=f"{LIST}/1"),
    Ask(path=SHOW, status=409, role=ADMIN, url=f"{LIST}/shared"),
    Ask(path="/v1/entries", status=200, role=LEDGER),
    Ask(path="/v1/entries", status=200, role=LEDGER, headers={"Accept": "application/x-ndjson"}),
    Ask(path="/v1/entries", status=400, role=LEDGER, url="/v1/entries?wait=31"),
    Ask(path="/v1/entries", status=401),
    Ask(path="/v1/entries", status=403, role=POS),
    Ask(path="/v1/ledger", status=200, role=LEDGER),
    Ask(path="/v1/ledger", status=400, role=LEDGER, url="/v1/ledger?x=1"),
    Ask(path="/v1/ledger", status=403, role=POS),
    Ask(path="/v1/terminals", status=200, role=ADMIN),
    Ask(path="/v1/terminals", status=400, role=ADMIN, url="/v1/terminals?x=1"),
    Ask(path="/v1/terminals", status=403, role=POS),
    Ask(path=EVENTS, status=200, role=POS, url=f"{EVENTS}?after=earliest"),
    Ask(path=EVENTS, status=200, role=ADMIN, url=f"{EVENTS}?stream=*&after=earliest"),
    Ask(path=EVENTS, status=400, role=POS, url=f"{EVENTS}?after=x"),
    Ask(path=EVENTS, status=401),
    Ask(path=EVENTS, status=403, role=LEDGER),
    Ask(path=EVENTS, status=403, role=POS, url=f"{EVENTS}?stream=1/2"),
    Ask(path=EVENTS, status=410, role=POS, url=f"{EVENTS}?after=another:1"),
    Ask(path=ACKS, status=400, role=POS, method="POST", headers=AS_JSON, body=b"{"),
    Ask(path=ACKS, status=422, role=POS, method="POST", headers=AS_JSON, body=b"{}"),
    Ask(path=ACKS, status=401, method="POST", headers=AS_JSON, body=b"{}"),
    Ask(path=ACKS, status=403, role=ADMIN, method="POST", headers=AS_JSON, body=b"{}"),
    Ask(
        path=ACKS,
        status=410,
        role=POS,
        method="POST",
        headers=AS_JSON,
        body=orjson.dumps({"stream": STREAM, "epoch": "another", "offset": 1}),
    ),
    Ask(path=STREAM_PATH, status=426),
    Ask(path=STREAM_PATH, status=403, headers={"Origin": "https://evil.example"}),
    Ask(path=STREAM_PATH, status=400, headers={"Sec-WebSocket-Protocol": "mqtt"}),
    Ask(
        path=NOTIFY, url=NOTIFY_URL, status=200, method="POST", headers=AS_FORM, body=signed(FIELDS)
    ),
    Ask(path=NOTIFY, url=NOTIFY_URL, status=400, method="POST", headers=AS_FORM, body=b"\xff=1"),
    Ask(path=NOTIFY, url=NOTIFY_URL, status=401, method="POST", headers=AS_FORM, body=b"a=1"),
    Ask(path=NOTIFY, url="/notify/1/2", status=404, method="POST", headers=AS_FORM, body=b"a=1"),
    Ask(path=NOTIFY, url=NOTIFY_URL, status=413, method="POST", headers=AS_FORM, body=b"a" * 65537),
    Ask(
        path=NOTIFY,
        url=NOTIFY_URL,
        status=415,
        method="POST",
        headers={"Content-Type": "image/png"},
        body=b"a=1",
    ),
    Ask(
        path="/notify/{merchantNo}",
        url=f"/notify/{MERCHANT_NO}",
        status=200,
        method="POST",
        headers=AS_FORM,
        body=signed(FIELDS),
    ),
    Ask(path="/healthz", status=200),
    Ask(path="/readyz", status=200),
    Ask(path="/metrics", status=200, role=ADMIN),
    Ask(path="/metrics", status=401),
    Ask(path="/metrics", status=403, role=POS),
    Ask(path="/", status=200),
    Ask(path="/till", status=200),
    Ask(path="/docs", status=200),
    Ask(path="/openapi.json", status=200),
    Ask(path="/asyncapi.json", status=200),
]


async def send(service: Serving, ask: Ask) -> tuple[aiohttp.ClientResponse, bytes]:
    headers = dict(ask.headers)
    if ask.role is POS:
        headers["Authorization"] = f"Bearer {service.key()}"
    elif ask.role is not None:
        key = service.key(ask.role, merchant_no=None, store_no=None)
        headers["Authorization"] = f"Bearer {key}"
    async with service.client.request(
        ask.method, service.url + (ask.url or ask.path), headers=headers, data=ask.body
    ) as answer:
        return answer, await answer.read()


async def test_every_answer_is_as_documented(service: Serving) -> None:
    await service.notify()
    for merchant_no in (MERCHANT_NO, OTHER_MERCHANT_NO):
        await service.ledger.record(
            Fact(
                kind=Kind.NOTIFICATION,
                merchant_no=merchant_no,
                transaction_no="shared",
                says=Status.PAID,
                fingerprint="1",
            )
        )
    for ask in ASKS:
        answer, body = await send(service, ask)
        where = f"{ask.method} {ask.url or ask.path} {ask.role}"
        assert answer.status == ask.status, (where, body)
        assert (
            fault_of(
                ask.method,
                ask.path,
                status=answer.status,
                content_type=answer.content_type,
                body=body,
            )
            == []
        ), where


PAY, CANCEL = f"{SHOW}/pay", f"{SHOW}/cancel"
ASK, DECIDE = f"{SHOW}/ask", f"{SHOW}/decide"


def sale(**changes: object) -> bytes:
    """Write a sale; a reference may be used once."""
    wish: dict[str, object] = {
        "reference": "ref-1",
        "amount": "13.00",
        "currency": "USD",
        "settleCurrency": "USD",
        "storeNo": STORE_NO,
        "terminal": "T-1",
    }
    return orjson.dumps(wish | changes)


async def post(
    service: Serving,
    path: str,
    key: str | None,
    body: bytes = b"",
    *,
    number: str = "1",
    once: str | None = None,
) -> tuple[int, Json]:
    """POST to a route of the sales; what it answers must be as it is told."""
    headers = dict(AS_JSON)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    if once is not None:
        headers["Idempotency-Key"] = once
    url = service.url + path.replace("{transactionNo}", number)
    async with service.client.post(url, data=body, headers=headers) as answer:
        text = await answer.read()
    content_type = answer.content_type
    found = fault_of("POST", path, status=answer.status, content_type=content_type, body=text)
    assert found == [], (path, answer.status, text)
    return answer.status, member(orjson.loads(text))


async def test_every_answer_to_a_till_that_sells_is_as_documented(tmp_path: Path) -> None:
    sandbox_settings = SandboxSettings(merchants={MERCHANT_NO: TOKEN_TEXT})
    async with (
        Sandbox.start(sandbox_settings) as sandbox,
        serving(tmp_path / "ledger.db", pockyt={"url": sandbox.url}) as service,
    ):
        pos, admin = service.key(), service.key(ADMIN, store_no=None)
        status, started = await post(service, LIST, pos, sale())
        assert (status, started["status"]) == (201, "created")
        number = str(started["transactionNo"])
        for expected, body in (
            (400, b"{"),
            (403, sale(storeNo="1")),
            (409, sale(amount="14.00")),
            (413, b" " * 70_000),
            (422, sale(reference="ref-2", amount="0")),
        ):
            status, problem = await post(service, LIST, pos, body)
            assert status == expected, problem
        assert (await post(service, LIST, None, sale()))[0] == 401
        assert (await post(service, LIST, admin, sale()))[0] == 403
        for path, key, body in (
            (PAY, pos, b'{"paymentBarcode":"284957205723"}'),
            (CANCEL, pos, b""),
            (ASK, admin, b""),
            (DECIDE, admin, b'{"status":"paid","name":"Kim Lee","reason":"seen"}'),
        ):
            assert (await post(service, path, key, body, number="404"))[0] == 404
            assert (await post(service, path, key, b'{"x":1}', number=number))[0] == 422
            assert (await post(service, path, None, body, number=number))[0] == 401
            assert (await post(service, path, pos if key == admin else admin, body))[0] == 403
            assert (await post(service, path, key, body, number=number, once="a b"))[0] == 400
        refund = b'{"refundIfPaid":true}'
        assert (await post(service, CANCEL, pos, refund, number=number))[0] == 403
        first = await post(service, CANCEL, pos, number=number, once="x")
        other = b'{"refundIfPaid":false}'
        assert first[0] == 200
        assert member(first[1], "cancel")["state"] == "confirmed"
        assert await post(service, CANCEL, pos, number=number, once="x") == first
        assert (await post(service, CANCEL, pos, other, number=number, once="x"))[0] == 422
        assert (await post(service, ASK, admin, number=number))[0] == 200
        paid = str((await post(service, LIST, pos, sale(reference="ref-3")))[1]["transactionNo"])
        sandbox.pay(paid)
        status, problem = await post(service, CANCEL, pos, number=paid)
        assert (status, problem["code"]) == (409, "already-paid")
        decision = b'{"status":"refunded","name":"Kim Lee","reason":"given back by hand"}'
        status, decided = await post(service, DECIDE, admin, decision, number=paid)
        assert (status, decided["status"]) == (200, "refunded")


async def test_a_pockyt_that_cannot_be_reached_is_answered_as_documented(
    service: Serving,
) -> None:
    status, problem = await post(service, LIST, service.key(), sale())
    assert (status, problem["status"]) == (502, 502)
    await service.notify({"status": "pending"})
    assert (await post(service, CANCEL, service.key(), number=NUMBER))[0] in (202, 502)


async def test_an_ack_over_http_is_stored_and_answered_as_documented(service: Serving) -> None:
    await service.notify()
    key = service.key(terminal="T-1")
    body = orjson.dumps({"stream": STREAM, "epoch": service.ledger.epoch, "offset": 1})
    headers = {"Authorization": f"Bearer {key}", **AS_JSON}
    async with service.client.post(service.url + ACKS, data=body, headers=headers) as answer:
        text = await answer.read()
    told = {"status": answer.status, "content_type": answer.content_type, "body": text}
    assert answer.status == 204
    assert fault_of("POST", ACKS, **told) == []  # type: ignore[arg-type]  # as above
    assert await place(service.ledger, terminal=f"{STREAM}/T-1", stream=STREAM) == 1


def test_the_checker_notices_an_answer_that_is_not_documented() -> None:
    good = b'{"epoch":"e","seq":1,"hash":"h","counts":{"entries":1,"transactions":1,"events":1,'
    good += b'"deliveries":1,"repeats":0}}'
    told = {"status": 200, "content_type": "application/json"}

    def check(body: bytes) -> list[str]:
        return fault_of("GET", "/v1/ledger", body=body, **told)  # type: ignore[arg-type]  # as told

    assert check(good) == []
    assert check(good.replace(b'"seq":1', b'"seq":"1"'))
    assert check(good.replace(b'"seq":1', b'"seq":-1'))
    assert check(good.replace(b'"seq":1,', b""))
    assert check(good.replace(b'"seq":1', b'"seq":1,"more":1'))
    assert fault_of("GET", "/v1/ledger", status=418, content_type="", body=b"")


class Outline(HTMLParser):
    """What a page loads, links to, and names."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes |= set(given)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given["href"])
        elif "href" in given or "src" in given:
            self.loads.append(given.get("href") or given["src"])


async def test_the_page_of_docs_needs_no_script_and_no_internet(service: Serving) -> None:
    async with service.client.get(f"{service.url}/docs") as answer:
        text = await answer.text()
    assert answer.status == 200
    assert answer.content_type == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self';")
    assert "script-src" not in policy
    assert "unsafe" not in policy
    outline = Outline()
    outline.feed(text)
    assert outline.loads == ["/static/docs.css"]
    assert not {"script", "style", "iframe", "img"} & set(outline.tags)
    assert "style" not in outline.attributes
    assert not [name for name in outline.attributes if name.startswith("on")]
    for link in outline.links:
        if link.startswith("#"):
            assert link[1:] in outline.ids
        else:
            async with service.client.get(service.url + link) as there:
                assert there.status == 200
    assert len(set(outline.ids)) == len(outline.ids)
    async with service.client.get(f"{service.url}/static/docs.css") as style:
        assert (style.status, style.content_type) == (200, "text/css")
        assert "prefers-color-scheme: dark" in await style.text()


def test_the_page_of_docs_lists_every_route_code_and_status() -> None:
    text = page(OPERATIONS).decode()
    told = unescape(re.sub(r"<[^>]+>", "", text))
    for operation in OPERATIONS:
        assert f'<article id="{operation.id}">' in text
        assert operation.path in told
        assert operation.curl in told
        for status in operation.all_answers():
            assert str(status) in told
    for code in CloseCode:
        assert f"<b>{int(code)}</b>" in text
        assert code.meaning in told
    assert set(STATUSES) == set(Status)
    for word in Status:
        assert f'class="status {word}">{word}<' in text


def test_nothing_in_the_docs_is_left_unescaped() -> None:
    assert "`" not in page(OPERATIONS).decode()
    assert "&lt;merchantNo&gt;" in page(OPERATIONS).decode()
