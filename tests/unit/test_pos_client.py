"""What a POS client decides, without a listener."""

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from listener.errors import UnreadableError
from listener.pos.api import base_url
from listener.pos.causes import Cause, HttpRefusal, Outage
from listener.pos.client import Follower, StoppedError
from listener.pos.codes import CloseCode, Duty
from listener.pos.credential import read_key
from listener.pos.ended import Ended, ended_by, ended_by_answer
from listener.pos.events import Event, EventData, PageEvent, Position, ResyncMembers
from listener.pos.frames import STREAMS_MAX, Ping, Ready, ReadyStream
from listener.pos.positions import FilePositions, MemoryPositions
from listener.pos.schedule import AFTER_MS_MAX, Schedule, Timing
from listener.pos.tracking import BrokenError, Tracker, Versions

STREAM = "200043/303660"
OUTAGE = Outage(cause=Cause.UNREACHABLE, why="nobody there")
WAIT_SECONDS = 10
ALWAYS_LATEST = Timing(chance=lambda: 1.0)


def event(no: str, version: int) -> Event:
    data = EventData(
        transaction_no=no, merchant_no="200043", status="cancelled", state_version=version
    )
    return Event.model_validate(
        {
            "id": f"e-{no}",
            "type": "transaction.cancelled",
            "subject": no,
            "time": "2026-11-23T10:11:12Z",
            "data": data,
        }
    )


def place(offset: int, *, stream: str = STREAM) -> PageEvent:
    return PageEvent(stream=stream, offset=offset, event=event(f"t{offset}", 1))


def ready(after: int, *, epoch: str = "e", recovered: bool = True) -> Ready:
    stream = ReadyStream(stream=STREAM, epoch=epoch, head=9, after=after, recovered=recovered)
    return Ready(streams=[stream])


def waits(ended: Ended, *, tries: int) -> list[float]:
    schedule = Schedule(ALWAYS_LATEST)
    return [schedule.next(ended) for _ in range(tries)]


def test_after_a_close_by_the_listener_the_first_wait_is_its_jitter_and_then_doubles() -> None:
    ended = ended_by(CloseCode.SERVER_ERROR, jitter_ms=5000, after_ms=None)
    assert waits(ended, tries=9) == [5, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_without_a_listener_the_wait_doubles_from_half_a_second_for_ever() -> None:
    ended = Ended(duty=Duty.BACK_OFF, outage=OUTAGE)
    assert waits(ended, tries=8) == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert waits(ended, tries=2000)[-1] == 30


def test_at_once_means_within_half_a_second_unless_it_is_always_said() -> None:
    ended = ended_by(CloseCode.COME_BACK, jitter_ms=5000, after_ms=None)
    assert waits(ended, tries=3) == [0.5, 1, 2]


def test_after_41xx_a_second_passes_at_least() -> None:
    ended = ended_by(CloseCode.TOO_MANY_FRAMES, jitter_ms=0, after_ms=None)
    assert waits(ended, tries=4) == [1, 1, 1, 2]


def test_it_waits_as_long_as_the_listener_asked_but_not_for_ever() -> None:
    asked = ended_by(CloseCode.RESTART, jitter_ms=5000, after_ms=3120)
    assert waits(asked, tries=2) == [3.12, 3.12]
    longer = ended_by(CloseCode.RESTART, jitter_ms=5000, after_ms=AFTER_MS_MAX + 1)
    assert waits(longer, tries=1) == [AFTER_MS_MAX / 1000]


def test_progress_makes_the_next_wait_short_again_and_jitter_is_full() -> None:
    schedule = Schedule(ALWAYS_LATEST)
    ended = Ended(duty=Duty.BACK_OFF, outage=OUTAGE)
    assert [schedule.next(ended) for _ in range(3)] == [0.5, 1, 2]
    schedule.progress()
    assert schedule.next(ended) == 0.5
    assert Schedule(Timing(chance=lambda: 0.0)).next(ended) == 0


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, CloseCode.MALFORMED),
        (401, CloseCode.BAD_KEY),
        (403, CloseCode.STREAM_NOT_ALLOWED),
        (422, CloseCode.MALFORMED),
    ],
)
def test_the_listeners_own_refusal_stops_with_the_close_code_of_the_same_meaning(
    status: int, code: int
) -> None:
    final = HttpRefusal(code="some-code", detail="", retry=False, streams=("200043/-",))
    ended = ended_by_answer(status, OUTAGE, problem=final)
    assert (ended.duty, ended.code, ended.streams) == (Duty.STOP, code, ("200043/-",))
    may_pass = HttpRefusal(code="some-code", detail="", retry=True)
    assert ended_by_answer(status, OUTAGE, problem=may_pass).duty is Duty.BACK_OFF


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 407, 410, 422, 429, 502, 503])
def test_no_answer_of_anybody_else_stops(status: int) -> None:
    assert ended_by_answer(status, OUTAGE, problem=None).duty is Duty.BACK_OFF


def test_only_a_higher_state_version_is_new() -> None:
    versions = Versions()
    shown = [versions.is_new(event("t", n), stream=STREAM, epoch="e1") for n in (2, 2, 1, 3)]
    assert shown == [True, False, False, True]
    versions.forget("another/stream")
    assert not versions.is_new(event("t", 3), stream=STREAM, epoch="e1")
    versions.forget(STREAM)
    assert versions.is_new(event("t", 1), stream=STREAM, epoch="e1")


def test_a_state_version_of_another_ledger_says_nothing() -> None:
    versions = Versions()
    assert versions.is_new(event("t", 3), stream=STREAM, epoch="e1")
    # After a restore it is a transaction of another store; STREAM's resync has not come yet.
    assert versions.is_new(event("t", 1), stream="another/stream", epoch="e2")
    versions.forget(STREAM)
    assert not versions.is_new(event("t", 1), stream="another/stream", epoch="e2")


def test_only_the_last_used_state_versions_are_held() -> None:
    versions = Versions(limit=2)
    for no, version in (("a", 1), ("b", 1), ("a", 2), ("c", 1)):
        assert versions.is_new(event(no, version), stream=STREAM, epoch="e1")
    assert not versions.is_new(event("a", 2), stream=STREAM, epoch="e1")
    assert not versions.is_new(event("c", 1), stream=STREAM, epoch="e1")
    assert versions.is_new(event("b", 1), stream=STREAM, epoch="e1")


def test_events_are_taken_once_and_in_order() -> None:
    tracker = Tracker(streams=[STREAM])
    tracker.ready(ready(4))
    assert tracker.take(place(4)) is None
    assert tracker.take(place(5)) == Position(epoch="e", offset=5)
    assert tracker.take(place(5)) is None
    with pytest.raises(BrokenError):
        tracker.take(place(7))
    with pytest.raises(BrokenError):
        tracker.take(place(1, stream="1/2"))
    assert tracker.received[STREAM].offset == 5


def test_a_listener_that_begins_earlier_repeats_but_one_that_begins_later_is_broken() -> None:
    tracker = Tracker(streams=[STREAM])
    tracker.load({STREAM: Position(epoch="e", offset=5), "1/2": Position(epoch="e", offset=1)})
    assert list(tracker.received) == [STREAM]
    tracker.ready(ready(4))
    assert tracker.take(place(5)) is None
    with pytest.raises(BrokenError):
        tracker.ready(ready(6))
    with pytest.raises(BrokenError):
        tracker.ready(ready(5, epoch="f"))
    # Its resync follows.
    tracker.ready(ready(40, epoch="f", recovered=False))
    assert tracker.received[STREAM] == Position(epoch="e", offset=5)


def test_heads_that_are_ahead_are_noticed_for_followed_streams_only() -> None:
    tracker = Tracker(streams=[STREAM])
    tracker.ready(ready(4))
    tracker.ping(Ping(t=1, heads={"1/2": 9, STREAM: 4}))
    behind = [tracker.is_behind]
    tracker.ping(Ping(t=2, heads={STREAM: 5}))
    behind.append(tracker.is_behind)
    tracker.take(place(5))
    behind.append(tracker.is_behind)
    assert behind == [False, True, False]


def test_heads_of_before_a_resync_are_not_ahead_of_what_comes_after_it() -> None:
    tracker = Tracker(streams=[STREAM])
    tracker.ready(ready(4))
    tracker.ping(Ping(t=1, heads={STREAM: 9}))
    tracker.resync(
        ResyncMembers(stream=STREAM, reason="epoch_changed", epoch="f", head=2, snapshot="/")
    )
    assert not tracker.is_behind
    tracker.ping(Ping(t=2, heads={STREAM: 3}))
    assert tracker.is_behind


def test_only_what_is_handled_in_the_ledger_in_use_can_be_acknowledged() -> None:
    tracker = Tracker(streams=None)
    assert tracker.ackable(STREAM) is None
    tracker.ready(ready(4))
    assert tracker.ackable(STREAM) is None
    tracker.handled[STREAM] = Position(epoch="e", offset=4)
    assert tracker.ackable(STREAM) == Position(epoch="e", offset=4)
    tracker.resync(
        ResyncMembers(stream=STREAM, reason="epoch_changed", epoch="f", head=2, snapshot="/")
    )
    assert tracker.ackable(STREAM) is None
    assert tracker.names == [STREAM]


@pytest.mark.parametrize("count", [STREAMS_MAX, STREAMS_MAX + 1])
def test_of_all_streams_of_a_key_no_more_are_named_than_may_be(count: int) -> None:
    tracker = Tracker(streams=None)
    first = tracker.connect(1)
    assert (first.streams, first.others) == (None, True)
    tracker.name([f"1/{number}" for number in range(count)])
    again = tracker.connect(2)
    assert again.streams is not None
    assert len(again.streams) == STREAMS_MAX
    assert again.others


def test_streams_that_were_chosen_bring_no_others() -> None:
    assert Tracker(streams=[STREAM]).connect(1).others is None


def test_nothing_handled_before_a_resync_is_acknowledged_after_it() -> None:
    tracker = Tracker(streams=[STREAM])
    tracker.load({STREAM: Position(epoch="e", offset=99)})
    # `ready` said so, and the resync is still on its way.
    tracker.ready(ready(40, recovered=False))
    assert tracker.ackable(STREAM) is None
    position = tracker.resync(
        ResyncMembers(stream=STREAM, reason="offset_ahead", epoch="e", head=40, snapshot="/")
    )
    # What is handled meanwhile may be of the time before, and not be what has the offset now.
    tracker.take(place(41))
    tracker.handled[STREAM] = Position(epoch="e", offset=41)
    assert tracker.ackable(STREAM) is None
    tracker.ready(ready(41))
    complete = [tracker.is_complete]
    tracker.found(STREAM, position)
    assert [*complete, tracker.is_complete] == [False, True]
    assert tracker.ackable(STREAM) == Position(epoch="e", offset=41)


def test_a_snapshot_is_not_the_end_of_a_later_resync() -> None:
    tracker = Tracker(streams=[STREAM])
    members = ResyncMembers(stream=STREAM, reason="offset_ahead", epoch="e", head=4, snapshot="/")
    older, newer = tracker.resync(members), tracker.resync(members)
    complete = []
    for position in (older, newer):
        tracker.found(STREAM, position)
        complete.append(tracker.is_complete)
    assert complete == [False, True]


def test_of_a_store_that_is_gone_nothing_is_missing_and_all_comes_if_it_is_back() -> None:
    tracker = Tracker(streams=None)
    tracker.load({STREAM: Position(epoch="e", offset=5)})
    old, new = ready(2, epoch="f", recovered=False).streams[0], "200043/-"
    other = old.model_copy(update={"stream": new, "recovered": True})
    tracker.ready(Ready(id=1, streams=[old, other]))
    tracker.resync(
        ResyncMembers(stream=STREAM, reason="epoch_changed", epoch="f", head=2, snapshot="/")
    )
    assert (tracker.is_unread(STREAM), tracker.is_complete) == (True, False)
    tracker.ready(Ready(id=2, streams=[other]))
    assert (tracker.is_unread(STREAM), tracker.is_complete) == (False, True)
    tracker.name([STREAM, new])
    assert tracker.after(STREAM) == Position(epoch="e", offset=5)


def test_of_a_store_that_is_gone_nothing_is_acknowledged() -> None:
    tracker = Tracker(streams=None)
    tracker.ready(ready(4))
    tracker.handled[STREAM] = position = Position(epoch="e", offset=4)
    assert tracker.ackable(STREAM) == position
    tracker.name(["200043/-"])
    assert tracker.ackable(STREAM) is None


def test_a_store_that_is_gone_before_its_resync_is_not_missing_either() -> None:
    tracker = Tracker(streams=None)
    tracker.ready(ready(2, epoch="f", recovered=False))
    tracker.name(["200043/-"])
    assert tracker.is_complete


def test_a_position_that_is_resumed_after_all_is_not_lost() -> None:
    tracker = Tracker(streams=[STREAM])
    tracker.load({STREAM: Position(epoch="e", offset=5)})
    tracker.ready(ready(2, epoch="f", recovered=False))
    assert (tracker.ackable(STREAM), tracker.is_complete) == (None, False)
    # The old ledger is back, before a resync came.
    tracker.ready(ready(5))
    assert tracker.ackable(STREAM) == Position(epoch="e", offset=5)
    assert tracker.is_complete


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("wss://pos.example.com/v1/pos/stream", "https://pos.example.com"),
        ("https://example.com/pockyt/", "https://example.com/pockyt"),
        ("ws://example.com/pockyt/v1/pos/stream", "http://example.com/pockyt"),
    ],
)
def test_any_address_of_the_listener_leads_to_its_base(url: str, base: str) -> None:
    assert str(base_url(url)) == base


@pytest.mark.parametrize(
    "url", ["ftp://x", "pos.example.com", "http://x/?key=1", "http://u:p@x/", "http://"]
)
def test_an_address_that_cannot_be_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        base_url(url)


def test_a_key_is_shown_by_nothing() -> None:
    client = Follower("http://x", key="lk_secret")
    assert "lk_secret" not in repr(client)
    assert "lk_secret" not in repr(vars(client))


@pytest.mark.parametrize(
    "text", ["lk_a_b\n", " lk_a_b\r\n", "\ufefflk_a_b", "\tlk_a_b\u00a0", "\u200b\nlk_a_b \u2060"]
)
def test_blanks_around_a_key_do_not_count(text: str) -> None:
    assert read_key(text).get_secret_value() == "lk_a_b"
    assert read_key(SecretStr(text)).get_secret_value() == "lk_a_b"


@pytest.mark.parametrize("text", ["", " \n", "\ufeff", "lk_a b", "lk_a\nb", "lk_\u00e9", "lk_\x00"])
def test_a_broken_key_is_refused_in_one_sentence_that_does_not_quote_it(text: str) -> None:
    # A program that catches StoppedError tells the cashier about this key as about an unknown one.
    with pytest.raises(StoppedError, match="the key") as refused:
        Follower("http://x", key=text)
    assert refused.value.code == CloseCode.BAD_KEY
    assert "lk_" not in str(refused.value).replace("keys create", "")
    assert "\n" not in str(refused.value)


def names_in(folder: Path) -> list[str]:
    return [found.name for found in folder.iterdir()]


async def test_positions_in_a_file_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    assert await FilePositions(path).load() == {}
    store = FilePositions(path)
    await store.save(STREAM, Position(epoch="e", offset=1))
    await store.save("1/2", Position(epoch="e", offset=7))
    await store.save(STREAM, Position(epoch="e", offset=2))
    assert await FilePositions(path).load() == {
        STREAM: Position(epoch="e", offset=2),
        "1/2": Position(epoch="e", offset=7),
    }
    assert names_in(tmp_path) == ["positions.json"]
    path.write_text('{"1/2": {"epoch": "e"}}')
    with pytest.raises(UnreadableError, match=r"positions\.json"):
        await FilePositions(path).load()


async def test_a_saved_position_is_on_disk_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[str]] = []

    def sync(handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        synced.append(["folder" if is_folder else "file", *names_in(tmp_path)])

    monkeypatch.setattr(os, "fsync", sync)
    await FilePositions(tmp_path / "positions.json").save(STREAM, Position(epoch="e", offset=1))
    assert synced == [["file", ".positions.json.new"], ["folder", "positions.json"]]


async def test_a_save_that_was_cancelled_spoils_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, begun, go_on = os.fsync, threading.Event(), threading.Event()

    def slow(handle: int) -> None:
        begun.set()
        go_on.wait(WAIT_SECONDS)
        sync(handle)

    monkeypatch.setattr(os, "fsync", slow)
    path = tmp_path / "positions.json"
    store = FilePositions(path)
    saving = asyncio.create_task(store.save(STREAM, Position(epoch="e" * 32, offset=1)))
    await asyncio.to_thread(begun.wait, WAIT_SECONDS)
    saving.cancel()
    later = asyncio.create_task(store.save(STREAM, Position(epoch="e", offset=2)))
    await asyncio.sleep(0.05)
    assert names_in(tmp_path) == [".positions.json.new"]
    assert b"e" * 32 in (tmp_path / ".positions.json.new").read_bytes()
    go_on.set()
    await later
    assert await FilePositions(path).load() == {STREAM: Position(epoch="e", offset=2)}
    assert names_in(tmp_path) == ["positions.json"]


async def test_positions_in_memory_are_kept_apart_from_what_was_given() -> None:
    given = {STREAM: Position(epoch="e", offset=1)}
    store = MemoryPositions(given)
    await store.save(STREAM, Position(epoch="e", offset=2))
    assert given[STREAM].offset == 1
    assert (await store.load())[STREAM].offset == 2
