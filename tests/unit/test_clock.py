"""The time of the service: the machine's clock, but that it never goes back or stands still."""

import pytest

from listener.lifecycle import Clock, Steady

SECOND_NS = 1_000_000_000
HOUR = 3_600


class Machine:
    """A machine whose clock can be set."""

    def __init__(self) -> None:
        self.up_seconds: float = 0
        self.set_by_seconds = 1_792_000_000

    def steady(self) -> Steady:
        return Steady(
            wall_ns=lambda: round(self.up_seconds * SECOND_NS) + self.set_by_seconds * SECOND_NS,
            steady_ns=lambda: round(self.up_seconds * SECOND_NS),
        )


def test_the_time_is_the_machines() -> None:
    machine = Machine()
    now_ms = machine.steady()
    for machine.up_seconds in (0, 1, 60):
        assert now_ms() == (1_792_000_000 + machine.up_seconds) * 1_000


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        # Each: the clock is set by so much after so many seconds; then what the time is.
        ([(10, -HOUR)], [10, 20]),
        ([(10, HOUR)], [10 + HOUR, 20 + HOUR]),
        ([(10, HOUR), (20, -HOUR)], [20 + HOUR, 30 + HOUR]),
        ([(10, -HOUR), (20, HOUR)], [20, 30]),
        ([(10, -HOUR), (20, 2 * HOUR)], [20 + HOUR, 30 + HOUR]),
        ([(10, -2), (20, 1)], [20, 30]),
    ],
)
def test_a_clock_that_is_set_back_makes_the_time_neither_go_back_nor_stand_still(
    steps: list[tuple[int, int]], seconds: list[int]
) -> None:
    machine = Machine()
    now_ms = machine.steady()
    began_ms = now_ms()
    for machine.up_seconds, by in steps:
        now_ms()
        machine.set_by_seconds += by
    found = [(now_ms() - began_ms) // 1_000]
    machine.up_seconds += 10
    assert [*found, (now_ms() - began_ms) // 1_000] == seconds


def test_the_time_is_that_of_the_server_which_several_listeners_share() -> None:
    machine = Machine()
    clock = Clock(now_ms=machine.steady())
    server_ms = clock.now_ms() - HOUR * 1_000
    clock.follow(server_ms)
    assert clock.now_ms() == server_ms
    machine.up_seconds = 10
    machine.set_by_seconds += 48 * HOUR
    assert clock.now_ms() == server_ms + 10_000
    # An answer that took long.
    clock.follow(server_ms + 7_000)
    assert clock.now_ms() == server_ms + 9_999
    clock.follow(server_ms + 11_000)
    assert clock.now_ms() == server_ms + 11_000


def test_a_machine_that_runs_fast_stays_with_the_server_and_never_goes_back() -> None:
    machine = Machine()
    clock = Clock(now_ms=machine.steady())
    began_ms = last_ms = clock.now_ms()
    clock.follow(began_ms)
    for second in range(1, 10_001):
        # It gains 4 s a day on the server, far more than a quartz does.
        machine.up_seconds = second * (1 + 5e-5)
        clock.follow(began_ms + second * 1_000)
        assert clock.now_ms() > last_ms
        last_ms = clock.now_ms()
    assert last_ms - (began_ms + 10_000_000) <= 1


def test_a_clock_that_a_test_provides_goes_its_own_way() -> None:
    clock = Clock(now_ms=lambda: 7)
    clock.follow(1_792_000_000_000)
    assert clock.now_ms() == 7


def test_each_service_has_a_time_of_its_own() -> None:
    assert isinstance(Clock().now_ms, Steady)
    assert Clock().now_ms is not Clock().now_ms


@pytest.mark.parametrize("is_led", [False, True])
def test_the_time_goes_on_from_where_it_was_and_never_begins_earlier(is_led: bool) -> None:
    machine = Machine()
    now_ms = machine.steady()
    began_ms = now_ms()
    if is_led:
        now_ms.follow(began_ms)
    assert now_ms.go_on_from(began_ms - HOUR * 1_000) == 0
    assert now_ms() == began_ms
    assert now_ms.go_on_from(began_ms + HOUR * 1_000) == HOUR * 1_000
    machine.up_seconds = 1
    assert now_ms() == began_ms + HOUR * 1_000 + 1_000
    if is_led:
        now_ms.follow(began_ms + 1_000)
        assert now_ms() == began_ms + HOUR * 1_000 + 999
