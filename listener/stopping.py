"""Act on the signal that a program is to stop, from a person or a supervisor."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask a program to stop in good order.

    SIGHUP is among them: a terminal sends it as it closes, and some rotate logs with it. It stays
    ignored if the program was started with ``nohup``.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


@contextmanager
def told_to_stop() -> Iterator[asyncio.Event]:
    """Yield an event that is set at the first of these signals, instead of ending the program.

    Enter this before the program says that it is ready: a reader of that may stop it immediately.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    numbers = stop_signals()
    for number in numbers:
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextmanager
def interrupted_to_stop() -> Iterator[None]:
    """Take each of these signals for SIGINT, so that a command leaves nothing behind.

    Only the program's main thread may enter this.
    """
    before = {number: signal.getsignal(number) for number in stop_signals()}
    for number in before:
        # By way of SIGINT, which asyncio handles by itself: it cancels what is under way.
        signal.signal(number, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
