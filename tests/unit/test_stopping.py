"""Which signals stop a program."""

import signal
from collections.abc import Iterator

import pytest

from listener.stopping import interrupted_to_stop, stop_signals


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, handler)


def test_a_terminal_that_closes_stops_a_program() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert set(stop_signals()) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def test_what_was_started_with_nohup_stays_when_the_terminal_closes() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert signal.SIGHUP not in stop_signals()
    with interrupted_to_stop():
        signal.raise_signal(signal.SIGHUP)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_is_interrupted_by_each_and_then_as_before(number: signal.Signals) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = {one: signal.getsignal(one) for one in stop_signals()}
    with pytest.raises(KeyboardInterrupt), interrupted_to_stop():
        signal.raise_signal(number)
    assert {one: signal.getsignal(one) for one in stop_signals()} == before
