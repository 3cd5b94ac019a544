"""What an edge answers in the listener's place ends no till; `tests.fault.edges` runs it longer."""

from pathlib import Path
from typing import Final

from tests.fault.edges import BACK_OFF_SECONDS, STALLS, Client, Outcome, javascript, outage, python

# Longer than the first wait, which the listener asks for: up to 5 s.
OUTAGE_SECONDS: Final = 9.0
# Of a client's waits only the longest are cut short; a stall is longer than half of them.
STALL_SECONDS: Final = 1.2
# What an outage may be called, by the fault's name; of the others: refused.
CAUSES: Final = {
    "200 of a captive portal": {"not_websocket"},
    "200 with other json": {"not_websocket"},
    "204 of a captive portal": {"not_websocket"},
    # A browser's fetch hides this one.
    "407 of a proxy": {"refused", "unreachable"},
    "broken gzip": {"not_websocket", "unreachable"},
    "a page without an end": {"not_websocket", "silent"},
    "a page a byte at a time": {"silent"},
    "101 with a wrong accept": {"not_websocket", "unreachable"},
    "101 without an upgrade": {"not_websocket", "unreachable"},
    "101 and silence": {"not_websocket", "unreachable", "silent"},
    "another's websocket that closes with 4001": {"closed", "refused"},
    "another's websocket that says hi": {"closed", "refused"},
    "another's websocket that is silent": {"silent", "refused"},
    "frames that are none": {"closed", "unreachable", "refused"},
    "a frame too long": {"closed", "unreachable", "refused"},
    "half a head": {"silent", "unreachable", "not_websocket"},
    "http/2 only": {"silent", "unreachable", "not_websocket"},
    "no http at all": {"not_websocket", "unreachable"},
    "reset": {"unreachable"},
    "reset mid-handshake": {"unreachable"},
    "hang-up": {"unreachable"},
    "silence": {"silent"},
    "a certificate of nobody": {"tls"},
    "a certificate of another name": {"tls"},
}


def check(outcomes: list[Outcome]) -> None:
    for one in outcomes:
        assert one.stopped is None, one
        assert one.back_after_seconds is not None, one
        assert one.back_after_seconds < BACK_OFF_SECONDS, one
        if one.name in STALLS:
            continue
        # A second, and what a busy machine adds.
        assert one.told_after_seconds is not None, one
        assert one.told_after_seconds < 3, one
        assert CAUSES.get(one.name, {"refused"}) & set(one.causes), one


def quick_python() -> Client:
    return python(connect_seconds=2.0, retry_max_seconds=1.0)


async def test_no_edge_ends_the_python_client(tmp_path: Path) -> None:
    check(
        await outage(tmp_path, quick_python(), seconds=OUTAGE_SECONDS, stall_seconds=STALL_SECONDS)
    )


async def test_no_edge_ends_the_javascript_client(tmp_path: Path, node: str) -> None:
    client = javascript(node, connectMs=2000, retryMaxMs=1000)
    check(await outage(tmp_path, client, seconds=OUTAGE_SECONDS, stall_seconds=STALL_SECONDS))
