"""AsyncAPI of ``pos.v1``: whole, true to its models, and enough to write a till from."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from listener.keys import Role
from listener.pos.codes import CloseCode, Duty, duty_of
from listener.pos.wire import parse_client_frame, parse_server_frame
from listener.web.reference.asyncapi import CLIENT_FRAMES, EXAMPLES, SERVER_FRAMES, document
from tests.support.schema import Json, faults, references, resolve
from tests.support.service import STREAM, Serving, serving
from tests.support.tills import acked

DOCUMENT = document()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db", confirm="off") as found:
        yield found


def member(value: object, *path: str) -> Json:
    for name in path:
        assert isinstance(value, dict)
        value = value[name]
    assert isinstance(value, dict)
    return value


def schema_of(kind: str) -> object:
    """Find a frame's schema as a till's author would: channel, message, payload."""
    message = member(DOCUMENT, "channels", "stream", "messages", kind)
    return member(resolve(str(message["$ref"]), DOCUMENT), "payload")


async def test_it_is_served_as_it_is_made(service: Serving) -> None:
    status, answer = await service.get("/asyncapi.json")
    assert status == 200
    assert answer == orjson.loads(orjson.dumps(DOCUMENT))
    assert member(answer)["asyncapi"] == "3.0.0"


def test_every_reference_leads_somewhere() -> None:
    found = references(orjson.loads(orjson.dumps(DOCUMENT)))
    assert len(found) > 30
    for ref in found:
        resolve(ref, DOCUMENT)


def test_every_frame_has_an_operation_and_the_right_direction() -> None:
    operations = member(DOCUMENT, "operations")
    actions = {kind: member(operation)["action"] for kind, operation in operations.items()}
    assert actions == {
        # As the listener sees it: it receives what a till sends.
        **dict.fromkeys(("connect", "ack", "pong"), "receive"),
        **dict.fromkeys(
            ("hello", "ready", "event", "ping", "resync", "error", "reconnect"), "send"
        ),
    }
    assert set(member(DOCUMENT, "channels", "stream", "messages")) == set(actions)


@pytest.mark.parametrize("frame", EXAMPLES)
def test_every_example_is_what_its_schema_and_the_program_read(frame: type) -> None:
    example = EXAMPLES[frame]
    assert faults(example, schema_of(str(example["type"])), DOCUMENT) == []
    parse = parse_client_frame if frame in CLIENT_FRAMES else parse_server_frame
    assert isinstance(parse(orjson.dumps(example)), frame)


def test_every_frame_has_an_example() -> None:
    assert set(EXAMPLES) == {*CLIENT_FRAMES, *SERVER_FRAMES}


@pytest.mark.parametrize("frame", EXAMPLES)
def test_a_frame_without_what_it_needs_is_refused_by_its_schema(frame: type) -> None:
    required = _schema(frame)["required"]
    assert isinstance(required, list)
    assert "type" in required
    for name in required:
        less = {key: value for key, value in EXAMPLES[frame].items() if key != name}
        assert faults(less, _schema(frame), DOCUMENT), name


def _schema(frame: type) -> Json:
    return member(DOCUMENT, "components", "schemas", frame.__name__)


def test_every_close_code_says_what_to_do() -> None:
    rows = DOCUMENT["x-close-codes"]
    assert isinstance(rows, list)
    told = {row["code"]: (row["client"], row["meaning"]) for row in rows}
    assert told == {int(code): (code.duty, code.meaning) for code in CloseCode}
    assert set(member(DOCUMENT, "x-client-duties")) == set(Duty)
    ranges = member(DOCUMENT, "x-close-code-ranges")
    for code, name in {4099: "40xx", 4199: "41xx", 4299: "42xx", 4300: "any other"}.items():
        assert ranges[name] == duty_of(code)


def test_the_rules_are_in_the_description() -> None:
    description = str(member(DOCUMENT, "info")["description"])
    for rule in ("never into the URL", "`recovered: false`", "stateVersion", "rand(0, min(30 s"):
        assert rule in description
    # No placeholder was left in a text.
    assert "_MAX" not in description
    assert "SECONDS" not in description


class Till:
    """A till that knows the description and a websocket library, and nothing else of ours."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws

    async def say(self, frame: Json) -> None:
        assert faults(frame, schema_of(str(frame["type"])), DOCUMENT) == []
        await self._ws.send(orjson.dumps(frame).decode())

    async def hear(self) -> Json:
        text = await self._ws.recv()
        assert isinstance(text, str)
        frame = member(orjson.loads(text))
        assert faults(frame, schema_of(str(frame["type"])), DOCUMENT) == []
        return frame

    async def hear_close(self) -> int:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await self._ws.recv()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


def stream_url(service: Serving) -> str:
    address = str(member(DOCUMENT, "channels", "stream")["address"])
    return service.url.replace("http", "ws", 1) + address


def subprotocol() -> str:
    headers = member(DOCUMENT, "channels", "stream", "bindings", "ws", "headers", "properties")
    return str(member(headers, "Sec-WebSocket-Protocol")["const"])


def dialled(service: Serving, key: str | None) -> connect:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return connect(
        stream_url(service),
        subprotocols=[subprotocol()],  # type: ignore[list-item]  # their NewType of str
        additional_headers=headers,
        compression=None,
    )


def numbers(count: int) -> Iterator[str]:
    return (str(297553638301777000 + number) for number in range(count))


async def test_a_till_written_from_it_follows_acknowledges_and_resumes(service: Serving) -> None:
    key = service.key(terminal="T-42")
    async with dialled(service, key) as ws:
        till = Till(ws)
        assert (await till.hear())["type"] == "hello"
        await till.say({"type": "connect", "id": 1})
        ready = await till.hear()
        assert (ready["type"], ready["id"]) == ("ready", 1)
        for number in numbers(3):
            await service.notify({"transactionNo": number})
        events = [await till.hear() for _ in range(3)]
        assert [(event["stream"], event["offset"]) for event in events] == [
            (STREAM, 1),
            (STREAM, 2),
            (STREAM, 3),
        ]
        await till.say({"type": "ack", "stream": STREAM, "offset": 2})
        # Answered by an error, which tells that the frame before it was taken.
        await till.say({"type": "ack", "id": 9, "stream": STREAM, "offset": 99})
        error = await till.hear()
        assert (error["code"], error["id"]) == ("ack-ahead", 9)
        assert error["code"] in member(DOCUMENT, "x-error-codes")
    # An ack is not answered: it is on disk a moment after it was taken.
    await acked(service.ledger, terminal=f"{STREAM}/T-42", stream=STREAM, offset=2)
    async with dialled(service, key) as ws:
        till = Till(ws)
        await till.hear()
        await till.say({"type": "connect", "streams": [{"stream": STREAM, "after": "acked"}]})
        assert (await till.hear())["type"] == "ready"
        again = await till.hear()
        assert again == events[2]


async def test_a_till_written_from_it_reads_the_snapshot_on_a_resync(service: Serving) -> None:
    await service.notify()
    key = service.key(terminal="T-42")
    async with dialled(service, None) as ws:
        till = Till(ws)
        await till.hear()
        after = {"epoch": "another", "offset": 1041}
        streams = [{"stream": STREAM, "after": after}]
        await till.say({"type": "connect", "id": 1, "key": key, "streams": streams})
        ready = await till.hear()
        resync = await till.hear()
        assert isinstance(ready["streams"], list)
        assert ready["streams"][0]["recovered"] is False
        assert (resync["type"], resync["reason"], resync["head"]) == ("resync", "epoch_changed", 1)
        status, snapshot = await service.get(str(resync["snapshot"]), key)
        assert status == 200
        assert len(member(snapshot)["data"]) == 1  # type: ignore[arg-type]  # a list
        await service.notify({"status": "refunded"})
        event = await till.hear()
        assert (event["type"], event["offset"]) == ("event", 2)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "connect", "streams": [{"stream": "200043/other"}]}, 4004),
        ({"type": "connect", "streams": [{"stream": "*"}]}, 4004),
        ({"type": "connect", "streams": [{"stream": "no stream"}]}, 4002),
        ({"no": "type"}, 4002),
    ],
)
async def test_a_forbidden_frame_closes_with_the_documented_code(
    service: Serving, frame: Json, code: int
) -> None:
    async with dialled(service, service.key()) as ws:
        till = Till(ws)
        await till.hear()
        await ws.send(orjson.dumps(frame).decode())
        assert await till.hear_close() == code
    assert CloseCode(code).duty is Duty.STOP


async def test_a_key_that_may_not_follow_is_closed_as_the_rules_say(service: Serving) -> None:
    for key, code in (
        ("lk_no_such", CloseCode.BAD_KEY),
        (service.key(Role.LEDGER), CloseCode.STREAM_NOT_ALLOWED),
    ):
        async with dialled(service, key) as ws:
            till = Till(ws)
            await till.hear()
            await till.say({"type": "connect"})
            assert await till.hear_close() == code


async def test_a_frame_before_connect_is_answered_by_the_documented_error(
    service: Serving,
) -> None:
    async with dialled(service, service.key()) as ws:
        till = Till(ws)
        await till.hear()
        await till.say({"type": "pong", "t": 1})
        assert (await till.hear())["code"] == "not-connected"
        await till.say({"type": "connect"})
        assert (await till.hear())["type"] == "ready"
