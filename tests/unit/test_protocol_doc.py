"""docs/protocol.md against the code: each number, each close code, and the clients' words."""

import json
import re
from pathlib import Path

import pytest

from listener.pos.codes import PROBLEM_TYPES, CloseCode, Duty, duty_of
from listener.pos.frames import (
    CONNECT_SECONDS,
    DEAD_SECONDS,
    FRAME_BYTES_MAX,
    PING_SECONDS,
    RECONNECT_JITTER_MS,
    STREAMS_MAX,
)
from listener.pos.schedule import Timing
from listener.web.reference.protocol import protocol_text, read_protocol
from listener.web.till.sessions import DRAIN_SECONDS, SESSIONS_PER_KEY_MAX, STALLED_SECONDS
from listener.web.till.socket import FRAMES_AT_ONCE_MAX, FRAMES_PER_SECOND

CLIENT = Path(__file__).parents[2] / "clients" / "js" / "pos-client.js"
PROTOCOL = read_protocol()


def test_each_close_code_is_one_row_that_agrees_with_the_code() -> None:
    told = {int(row.code): (row.meaning, row.duty, row.to_do) for row in PROTOCOL.codes}
    assert told == {int(code): (code.meaning, code.duty, code.to_do) for code in CloseCode}
    assert len(PROTOCOL.codes) == len(CloseCode)


def test_a_code_of_each_range_means_what_the_range_says() -> None:
    ranges = {row.code: row.duty for row in PROTOCOL.ranges}
    sample = {"40xx": 4099, "41xx": 4199, "42xx": 4299, "any other": 4300}
    assert ranges == {name: duty_of(code) for name, code in sample.items()}


def test_a_person_has_to_do_something_where_a_client_stops_and_only_there() -> None:
    for code in CloseCode:
        assert bool(code.to_do) is (code.duty is Duty.STOP), code
    assert set(PROTOCOL.duties) == set(Duty)


@pytest.mark.parametrize(
    "words",
    [
        f"due within {CONNECT_SECONDS:g} s",
        f"at most {STREAMS_MAX} streams",
        f"`ping` every {PING_SECONDS:g} s",
        f"`deadSeconds` ({DEAD_SECONDS:g} s)",
        f"no event comes for {Timing().behind_seconds:g} s",
        f"rand(0, `reconnectJitterMs`) ({RECONNECT_JITTER_MS} ms)",
        f"rand(0, min({Timing().retry_max_seconds:g} s, {Timing().retry_first_seconds:g} s · 2ⁿ))",
        f"spread over {DRAIN_SECONDS:g} s",
        f"at most {FRAME_BYTES_MAX // 1024} KiB (1009)",
        f"At most {FRAMES_AT_ONCE_MAX} frames at once and {FRAMES_PER_SECOND} a second",
        f"at most {SESSIONS_PER_KEY_MAX} connections a key",
        f"accepts nothing for {STALLED_SECONDS:g} s",
        f"begins with `{PROBLEM_TYPES}`",
    ],
)
def test_each_number_is_the_codes(words: str) -> None:
    assert words in PROTOCOL.markdown()


def test_every_chapter_is_read_whole() -> None:
    text = " ".join(protocol_text().split())
    for chapter in PROTOCOL.chapters:
        assert chapter.rules
        for rule in chapter.rules:
            assert rule in text
    assert text.count("## ") == len(PROTOCOL.chapters) + 3


def test_the_javascript_client_says_the_same_of_each_code() -> None:
    source = CLIENT.read_text()
    found = re.search(r"const CODES = \{(.*?\n)\};", source, re.DOTALL)
    assert found is not None
    rows = re.findall(r"(\d{4}): \[(.*?)\],?\n", found[1])
    told = {int(code): _strings(cells) for code, cells in rows}
    assert told == {
        int(code): [code.meaning, code.to_do] if code.to_do else [code.meaning]
        for code in CloseCode
    }


def _strings(cells: str) -> list[str]:
    """Read the texts of a JavaScript list."""
    return [
        json.loads('"' + (single or double) + '"')
        for single, double in re.findall(r"'([^']*)'|\"([^\"]*)\"", cells)
    ]
