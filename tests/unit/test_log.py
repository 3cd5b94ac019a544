import asyncio
import contextlib
import io
import logging
from collections.abc import Iterator

import pytest

from listener import log


@pytest.fixture(name="written")
def _written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    # Taken away first, so that set_up does not close the handlers of pytest.
    root.handlers.clear()
    with contextlib.redirect_stderr(stream):
        log.set_up()
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


logger = logging.getLogger("listener.test")


def test_an_event_is_one_line_of_fields(written: io.StringIO) -> None:
    log.event(logger, "refused", merchantNo="200043", fields=7, late=True, why=None, seconds=0.5)
    moment, rest = written.getvalue().split(" ", 1)
    assert rest == "info refused merchantNo=200043 fields=7 late=true seconds=0.5\n"
    assert len(moment) == len("2026-11-23T10:11:12.345Z")


def test_the_time_is_utc(written: io.StringIO) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "up", None, None)
    record.created, record.msecs = 0.25, 250.0
    assert log.Logfmt().format(record).startswith("1970-01-01T00:00:00.250Z info up")
    assert not written.getvalue()


def test_a_level_that_is_off_writes_nothing(written: io.StringIO) -> None:
    log.event(logger, "detail", level=logging.DEBUG)
    log.event(logger, "trouble", level=logging.WARNING)
    assert written.getvalue().endswith("Z warning trouble\n")
    assert written.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a b", '"a b"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("x\r\n2026-11-23 info paid", r'"x\r\n2026-11-23 info paid"'),
        ("\x1b[2J\x00", r'"\u001b[2J\u0000"'),
        ("\u2028\u202e\x85", r'"\u2028\u202e\u0085"'),
        ("\ud800", r'"\ud800"'),
        ("\x7f", '"\x7f"'.replace("\x7f", r"\u007f")),
    ],
)
def test_a_value_cannot_leave_its_line(written: io.StringIO, value: str, expected: str) -> None:
    log.event(logger, "refused", why=value)
    assert written.getvalue().endswith(f"Z info refused why={expected}\n")
    assert len(written.getvalue().splitlines()) == 1


def test_a_name_cannot_leave_its_line(written: io.StringIO) -> None:
    log.event(logger, "refused\nx", **{"a b\n=c": 1, "n" * (log.NAME_CHARS_MAX + 1): 2})
    expected = f'"refused\\nx" a_b__c=1 {"n" * log.NAME_CHARS_MAX}=2\n'
    assert written.getvalue().endswith(expected)


def test_a_long_value_is_cut_at_its_limit(written: io.StringIO) -> None:
    log.event(logger, "e", fits="x" * log.VALUE_CHARS_MAX)
    assert written.getvalue().endswith(f"fits={'x' * log.VALUE_CHARS_MAX}\n")
    log.event(logger, "e", cut="y" * (log.VALUE_CHARS_MAX + 1))
    assert f'cut="{"y" * (log.VALUE_CHARS_MAX - 1)}\\u2026"\n' in written.getvalue()


def test_fields_beyond_the_limit_are_left_out(written: io.StringIO) -> None:
    log.event(logger, "e", **{f"f{n}": n for n in range(log.FIELDS_MAX + 1)})
    assert f"f{log.FIELDS_MAX - 1}=" in written.getvalue()
    assert f"f{log.FIELDS_MAX}=" not in written.getvalue()


def test_log_lines_of_libraries_have_the_same_form(written: io.StringIO) -> None:
    logging.getLogger("aiohttp").warning("%d bytes\nleft", 3)
    assert written.getvalue().endswith('Z warning "3 bytes\\nleft" logger=aiohttp\n')


def test_an_exception_is_logged_with_its_place_on_the_same_line(written: io.StringIO) -> None:
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        logger.exception("crashed")
    line = written.getvalue()
    assert 'error=RuntimeError message="first\\nsecond" at=test_log.py:' in line
    assert len(line.splitlines()) == 1


def test_an_exception_that_was_never_raised_has_no_place(written: io.StringIO) -> None:
    logger.error("odd", exc_info=ValueError("x"))
    assert written.getvalue().endswith("error=ValueError message=x\n")


def test_a_field_may_be_called_like_one_of_the_parameters_of_logging(
    written: io.StringIO,
) -> None:
    log.event(logger, "e", name="n", message="m", args="a")
    assert written.getvalue().endswith("e name=n message=m args=a\n")


def test_setting_up_twice_does_not_write_twice(written: io.StringIO) -> None:
    with contextlib.redirect_stderr(written):
        log.set_up()
    log.event(logger, "once")
    assert written.getvalue().count("once") == 1


def test_a_fault_that_a_stranger_repeats_fills_no_disk(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def fail() -> None:
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("request_failed", extra={"fields": {"route": "/v1"}})

    for _ in range(1_000):
        fail()
    log.event(logger, "serving", url="http://127.0.0.1")
    lines = written.getvalue().splitlines()
    assert len(lines) == log.LINES_AT_ONCE_MAX + 1
    assert "error request_failed route=/v1 error=ValueError" in lines[0]
    assert "serving" in lines[-1]
    now += 1.0
    fail()
    assert "heldBack=980" in written.getvalue().splitlines()[-1]


def test_what_a_library_repeats_is_limited_whatever_it_says(written: io.StringIO) -> None:
    for number in range(1_000):
        logging.getLogger("asyncio").warning(f"socket {number}")  # noqa: G004 - as libraries do
    assert len(written.getvalue().splitlines()) <= log.LINES_AT_ONCE_MAX + 2


async def test_a_throttled_event_is_limited_by_its_throttle_alone(written: io.StringIO) -> None:
    refused = log.Throttle(logger, "refused")
    for kind in range(100):
        refused.event(kind)
    assert len(written.getvalue().splitlines()) == 100


async def test_the_first_of_a_kind_is_logged_at_once(written: io.StringIO) -> None:
    throttle = log.Throttle(logger, "refused", level=logging.WARNING)
    throttle.event("bad-signature", sender="192.0.2.1")
    throttle.event("no-route", sender="192.0.2.2")
    first, second = written.getvalue().splitlines()
    assert first.endswith(" warning refused sender=192.0.2.1 count=1")
    assert second.endswith(" warning refused sender=192.0.2.2 count=1")


async def test_a_flood_is_one_line_a_pause_with_its_count(written: io.StringIO) -> None:
    throttle = log.Throttle(logger, "refused", pause_seconds=0.05)
    for number in range(1_000):
        throttle.event(number=number)
    assert written.getvalue().count("\n") == 1
    async with asyncio.timeout(5):
        while written.getvalue().count("\n") < 2:
            await asyncio.sleep(0.01)
    # The end of the flood is logged although nothing comes after it.
    assert written.getvalue().endswith(" info refused number=999 count=999\n")


async def test_after_a_quiet_pause_the_next_is_logged_at_once(written: io.StringIO) -> None:
    throttle = log.Throttle(logger, "refused", pause_seconds=0.01)
    throttle.event()
    async with asyncio.timeout(5):
        for lines in (2, 3):
            while written.getvalue().count("\n") < lines:
                await asyncio.sleep(0.02)
                throttle.event()
    assert all(line.endswith(" count=1") for line in written.getvalue().splitlines())
