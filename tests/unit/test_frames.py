"""The frames of ``pos.v1``: what is read, what is refused, and the bytes that are built."""

import json

import pytest
from pydantic import BaseModel, SecretStr

from listener.errors import UnreadableError
from listener.pos.codes import CloseCode, Duty, duty_of
from listener.pos.events import STREAM_CHARS_MAX, AckBody, EventsPage, Position, StreamStart
from listener.pos.frames import (
    FRAME_BYTES_MAX,
    STREAMS_MAX,
    Ack,
    Connect,
    ErrorFrame,
    EventFrame,
    Hello,
    Ping,
    Pong,
    Ready,
    Reconnect,
    Resync,
)
from listener.pos.lenient import NUMBER_MAX, whole_of
from listener.pos.wire import (
    after_text,
    encode,
    event_frame,
    parse_after,
    parse_client_frame,
    parse_server_frame,
    ws_close,
    ws_text,
)

STREAM = "200043/303660"
# Word for word from the protocol's page.
EVENT = {
    "specversion": "1.0",
    "id": "9f3c-17",
    "source": "/listener",
    "type": "transaction.cancelled",
    "subject": "297553638301777927",
    "time": "2026-11-23T10:11:12.345Z",
    "datacontenttype": "application/json",
    "data": {
        "transactionNo": "297553638301777927",
        "reference": "test20200101307",
        "merchantNo": "200043",
        "storeNo": "303660",
        "terminal": "T-42",
        "status": "cancelled",
        "providerStatus": "closed",
        "stateVersion": 3,
        "amount": "13.00",
        "currency": "USD",
        "reason": "cancel_requested",
        "evidence": "signature",
    },
}


def test_the_connect_frame_of_the_protocols_page_is_read() -> None:
    text = (
        '{"type":"connect","id":1,"key":"secret-key","streams":'
        '[{"stream":"200043/303660","after":{"epoch":"9f3c","offset":1041}}]}'
    )
    frame = parse_client_frame(text)
    assert frame == Connect(
        id=1,
        key=SecretStr("secret-key"),
        streams=[StreamStart(stream=STREAM, after=Position(epoch="9f3c", offset=1041))],
    )
    assert "secret-key" not in repr(frame)
    assert "secret-key" not in encode(frame).decode()


def test_every_field_of_connect_is_optional() -> None:
    assert parse_client_frame('{"type":"connect"}') == Connect()
    assert parse_client_frame('{"type":"connect","id":null,"key":null,"streams":null}') == Connect()
    start = parse_client_frame('{"type":"connect","streams":[{"stream":"*"}]}')
    assert start == Connect(streams=[StreamStart(stream="*", after="acked")])


@pytest.mark.parametrize("after", ["acked", "latest", "earliest"])
def test_a_start_may_be_a_word(after: str) -> None:
    frame = parse_client_frame(
        json.dumps({"type": "connect", "streams": [{"stream": "1/-", "after": after}]})
    )
    assert isinstance(frame, Connect)
    assert frame.streams is not None
    assert frame.streams[0].after == after


def test_acks_and_pongs_are_read_from_text_and_bytes() -> None:
    assert parse_client_frame(b'{"type":"ack","stream":"200043/303660","offset":7,"x":1}') == Ack(
        stream=STREAM, offset=7
    )
    assert parse_client_frame('{"type":"pong","t":1792000000000}') == Pong(t=1792000000000)


def test_an_unknown_type_is_not_a_frame() -> None:
    assert parse_client_frame('{"type":"weather","t":"warm"}') is None
    assert parse_server_frame('{"type":"connect"}') is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        b"\xff",
        "[" * 5000,
        "{}",
        '{"type":5}',
        '{"type":null}',
        '{"type":"ack","stream":"1/2"}',
        '{"type":"ack","offset":1}',
        '{"type":"ack","stream":"1/2","offset":true}',
        '{"type":"ack","stream":"1/2","offset":"1"}',
        '{"type":"ack","stream":"1/2","offset":0.5}',
        '{"type":"ack","stream":"1/2","offset":9007199254740992.0}',
        '{"type":"ack","stream":"1/2","offset":-1.0}',
        '{"type":"ack","stream":"1/2","offset":null}',
        '{"type":"ack","stream":null,"offset":1}',
        '{"type":"connect","streams":[null]}',
        '{"type":"ack","stream":"1/2","offset":-1}',
        '{"type":"ack","stream":"1","offset":1}',
        '{"type":"ack","stream":"1/2/3","offset":1}',
        '{"type":"ack","stream":"/2","offset":1}',
        '{"type":"ack","stream":"1/","offset":1}',
        '{"type":"ack","stream":"1/ 2","offset":1}',
        '{"type":"ack","stream":"1/2\\n","offset":1}',
        '{"type":"ack","stream":"**","offset":1}',
        '{"type":"ack","stream":"","offset":1}',
        '{"type":"pong","t":1e400}',
        '{"type":"connect","id":true}',
        '{"type":"connect","id":[1]}',
        f'{{"type":"connect","id":"{"x" * 65}"}}',
        f'{{"type":"connect","id":{2**63}}}',
        '{"type":"connect","key":5}',
        '{"type":"connect","streams":{"0":{"stream":"1/2"}}}',
        '{"type":"connect","streams":[{"stream":"1/2","after":"now"}]}',
        '{"type":"connect","streams":[{"stream":"1/2","after":{"epoch":"","offset":1}}]}',
        '{"type":"connect","streams":[{"stream":"1/2","after":{"offset":1}}]}',
        '{"type":"connect","streams":[{"stream":"1/2"},{"stream":"1/2"}]}',
    ],
)
def test_a_malformed_frame_is_refused(text: str | bytes) -> None:
    with pytest.raises(UnreadableError):
        parse_client_frame(text)


@pytest.mark.parametrize(
    "t", ["", "null", "1792000000000.12", "-1", f"{NUMBER_MAX + 1}", "true", '"now"', "[]", "{}"]
)
def test_a_pong_counts_whatever_its_time(t: str) -> None:
    assert parse_client_frame(f'{{"type":"pong","t":{t}}}' if t else '{"type":"pong"}') == Pong()


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"type":"pong","t":1.79571183133E12}', Pong(t=1_795_711_831_330)),
        ('{"type":"ack","stream":"1/2","offset":7.0}', Ack(stream="1/2", offset=7)),
        ('{"type":"ack","stream":"1/2","offset":7E0,"id":1e1}', Ack(stream="1/2", offset=7, id=10)),
        ('{"type":"ack","stream":"1/2","offset":-0.0}', Ack(stream="1/2", offset=0)),
        ('{"type":"connect","id":1.0}', Connect(id=1)),
        ('{"type":"connect","id":"1"}', Connect(id="1")),
        ('{"type":"connect","id":1795735080149000001}', Connect(id=1795735080149000001)),
        ('{"type":"connect","id":-1}', Connect(id=-1)),
        (
            '{"type":"connect","streams":[{"stream":"1/2","after":{"epoch":"e","offset":41.0}}]}',
            Connect(
                streams=[StreamStart(stream="1/2", after=Position(epoch="e", offset=41))],
            ),
        ),
    ],
)
def test_a_number_with_a_zero_fraction_or_an_exponent_is_the_integer_it_equals(
    text: str, frame: BaseModel
) -> None:
    assert parse_client_frame(text) == frame


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"type":"connect","id":null,"key":null,"streams":null}', Connect()),
        (
            '{"type":"connect","streams":[{"stream":"1/2","after":null}]}',
            Connect(streams=[StreamStart(stream="1/2")]),
        ),
        ('{"type":"ack","id":null,"stream":"1/2","offset":1}', Ack(stream="1/2", offset=1)),
        ('{"type":"pong","t":5,"note":null}', Pong(t=5)),
    ],
)
def test_a_member_that_is_null_is_absent(text: str, frame: BaseModel) -> None:
    assert parse_client_frame(text) == frame


@pytest.mark.parametrize(
    "after",
    [
        *('""', "[]", "{}", '{"epoch":null,"offset":null}', '{"epoch":"","offset":0.0}'),
        '{"epoch":null,"offset":0}',
    ],
)
def test_a_position_that_was_never_set_is_absent(after: str) -> None:
    text = f'{{"type":"connect","streams":[{{"stream":"1/2","after":{after}}}]}}'
    assert parse_client_frame(text) == Connect(streams=[StreamStart(stream="1/2")])


def test_an_empty_object_in_the_place_of_the_streams_is_none_of_them() -> None:
    assert parse_client_frame('{"type":"connect","streams":{}}') == Connect(streams=[])


def test_a_byte_order_mark_before_a_frame_is_passed_over() -> None:
    text = '\ufeff{"type":"connect"}'
    assert parse_client_frame(text) == parse_client_frame(text.encode()) == Connect()


def test_the_client_reads_numbers_and_nulls_as_leniently() -> None:
    text = '{"type":"ping","t":1.5E3,"heads":{"1/2":7.0}}'
    assert parse_server_frame(text) == Ping(t=1_500, heads={"1/2": 7})
    assert parse_server_frame('{"type":"ready","id":null,"streams":[]}') == Ready(streams=[])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        ("7.0", 7),
        ("1.041E3", 1_041),
        ("1.0e-0", 1),
        ("10e-1", 1),
        (f"{NUMBER_MAX}.0", NUMBER_MAX),
        (f"{NUMBER_MAX + 1}", None),
        ("1e9999", None),
        ("1e-9999", None),
        ("1e99999", None),
        ("1.5", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1_0", None),
        ("٣", None),
        ("0x1", None),
        ("", None),
        ("nan", None),
        ("0" * 32, 0),
        ("0" * 33, None),
    ],
)
def test_a_number_in_a_url_is_read_as_json_writes_it(text: str, number: int | None) -> None:
    assert whole_of(text) == number


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    for text in (
        '{"type":"connect","key":["secret-key"]}',
        '{"type":"connect","key":"secret-key',
    ):
        with pytest.raises(UnreadableError) as refused:
            parse_client_frame(text)
        chain = [refused.value, refused.value.__cause__]
        assert "secret-key" not in "".join(f"{error} {error!r}" for error in chain)
        assert refused.value.__context__ is None or refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("build", "limit"),
    [
        (lambda n: {"type": "ack", "stream": "1/2", "offset": n}, NUMBER_MAX),
        (
            lambda n: {"type": "ack", "stream": f"1/{'2' * (n - 2)}", "offset": 1},
            STREAM_CHARS_MAX,
        ),
        (
            lambda n: {"type": "connect", "streams": [{"stream": f"1/{i}"} for i in range(n)]},
            STREAMS_MAX,
        ),
    ],
)
def test_every_limit_holds_at_its_edge(build: object, limit: int) -> None:
    assert callable(build)
    assert parse_client_frame(json.dumps(build(limit))) is not None
    with pytest.raises(UnreadableError):
        parse_client_frame(json.dumps(build(limit + 1)))


def test_a_connect_frame_of_as_many_streams_as_may_be_named_fits() -> None:
    streams = [
        {"stream": f"{i:020}/{i:020}", "after": {"epoch": "e" * 16, "offset": 99_999_999}}
        for i in range(STREAMS_MAX)
    ]
    connect = {"type": "connect", "id": NUMBER_MAX, "key": "k" * 128, "streams": streams}
    text = json.dumps(connect, separators=(",", ":"))
    assert len(text) <= FRAME_BYTES_MAX
    assert parse_client_frame(text) is not None


@pytest.mark.parametrize(
    "frame",
    [
        Hello(session="s"),
        Ready(id=1, streams=[]),
        Resync(stream=STREAM, reason="epoch_changed", epoch="e", head=1, snapshot="/v1/x"),
        Ping(t=1, heads={STREAM: 4}),
        ErrorFrame(code="ack-ahead", message="beyond the head"),
        Reconnect(after_ms=3120),
    ],
)
def test_the_client_reads_every_frame_of_the_server(frame: BaseModel) -> None:
    assert parse_server_frame(encode(frame)) == frame


def test_hello_is_written_as_the_protocols_page_shows_it() -> None:
    # As bytes: Python finds 20 and 20.0 equal, and some languages cannot read the one as the other.
    assert encode(Hello(session="s")) == (
        b'{"type":"hello","protocol":"pos.v1","session":"s",'
        b'"pingSeconds":20,"deadSeconds":35,"reconnectJitterMs":5000}'
    )
    assert b'"pingSeconds":0.5,' in encode(Hello(session="s", ping_seconds=0.5))


def test_an_event_frame_is_built_around_the_stored_bytes() -> None:
    stored = json.dumps(EVENT).encode()
    built = event_frame(STREAM, 1042, stored)
    assert stored in built
    assert json.loads(built) == {
        "type": "event",
        "stream": STREAM,
        "offset": 1042,
        "event": EVENT,
    }
    frame = parse_server_frame(built)
    assert isinstance(frame, EventFrame)
    assert frame.event.data.state_version == 3
    assert frame.event.time.tzinfo is not None
    assert json.loads(event_frame('a"/é', 1, b"{}"))["stream"] == 'a"/é'


def test_a_page_reads_events_and_leaves_out_what_is_none() -> None:
    body = {
        "epoch": "e",
        "head": 2,
        "next": 2,
        "events": [{"stream": STREAM, "offset": 2, "event": EVENT}],
    }
    page = EventsPage.model_validate(body)
    assert page.stream is None
    assert "stream" not in json.loads(encode(page))
    assert json.loads(encode(AckBody(stream=STREAM, epoch="e", offset=2))) == {
        "stream": STREAM,
        "epoch": "e",
        "offset": 2,
    }


@pytest.mark.parametrize(
    ("length", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_text_frame_has_the_shortest_length_that_fits(length: int, head: bytes) -> None:
    payload = b"x" * length
    assert ws_text(payload) == head + payload


@pytest.mark.parametrize(
    "after", ["acked", "latest", "earliest", "9f3c:0", "9f3c:1041", f"a:b:{NUMBER_MAX}"]
)
def test_a_query_after_is_read_and_written_alike(after: str) -> None:
    assert after_text(parse_after(after)) == after


@pytest.mark.parametrize(
    "after",
    [
        "",
        "now",
        "5",
        ":5",
        "e:",
        "e:-1",
        "e:+1",
        "e:٣",
        "e: 1",
        "e:1.5",
        f"e:{NUMBER_MAX + 1}",
        "e:" + "9" * 99,
    ],
)
def test_another_query_after_is_refused(after: str) -> None:
    with pytest.raises(UnreadableError):
        parse_after(after)


def test_every_close_code_has_a_duty_and_a_meaning() -> None:
    stop = {code for code in CloseCode if code.duty is Duty.STOP}
    assert {int(code) for code in stop} == {1009, 4001, 4002, 4003, 4004, 4009, 4010}
    assert CloseCode.CONNECT_LATE.duty is Duty.BACK_OFF_LONGER
    assert CloseCode.RESTART.duty is Duty.RESTART
    assert CloseCode.SLOW_CONSUMER.duty is Duty.BACK_OFF_LONGER
    assert CloseCode.DEAD.duty is Duty.AT_ONCE
    for code in CloseCode:
        assert 0 < len(code.meaning.encode()) <= 123


@pytest.mark.parametrize(
    ("code", "duty"),
    [
        (3000, Duty.BACK_OFF),
        (4000, Duty.STOP),
        (4099, Duty.STOP),
        (4100, Duty.BACK_OFF_LONGER),
        (4103, Duty.BACK_OFF_LONGER),
        (4199, Duty.BACK_OFF_LONGER),
        (4200, Duty.AT_ONCE),
        (4299, Duty.AT_ONCE),
        (4300, Duty.BACK_OFF),
    ],
)
def test_an_unknown_code_means_what_its_range_means(code: int, duty: Duty) -> None:
    assert duty_of(code) is duty


@pytest.mark.parametrize(
    ("reason", "told"), [("x" * 123, 123), ("x" * 124, 123), ("é" * 62, 122), ("", 0)]
)
def test_the_reason_of_a_close_is_cut_between_characters(reason: str, told: int) -> None:
    frame = ws_close(4002, reason)
    assert (frame[0], frame[1], frame[2:4]) == (0x88, 2 + told, (4002).to_bytes(2, "big"))
    assert len(frame) == 4 + told
    assert reason.startswith(frame[4:].decode())
