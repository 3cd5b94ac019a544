"""What is counted without a lock reads as any other histogram."""

import inspect
import re

from listener.lifecycle import CALLS, OUTCOMES, caller
from listener.pos.codes import CloseCode
from listener.web.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    text = metrics.text().decode()
    found = re.findall(r"^(listener_notif\S+(?:\{[^}]*\})?) (\S+)", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_acknowledged_notifications_are_counted_by_how_long_they_took() -> None:
    metrics = Metrics()
    assert samples(metrics)['listener_notify_seconds_bucket{le="+Inf"}'] == 0
    for seconds, is_repeat in ((0.0005, False), (0.001, True), (0.002, False), (60.0, False)):
        metrics.acknowledged(seconds, is_repeat=is_repeat)
    for _ in range(2):
        found = samples(metrics)
        assert found['listener_notifications_total{status="200"}'] == 4
        assert found["listener_notification_repeats_total"] == 1
        assert found['listener_notify_seconds_bucket{le="0.001"}'] == 2
        assert found['listener_notify_seconds_bucket{le="0.0025"}'] == 3
        assert found['listener_notify_seconds_bucket{le="10.0"}'] == 3
        assert found['listener_notify_seconds_bucket{le="+Inf"}'] == 4
        assert found["listener_notify_seconds_count"] == 4
        assert found["listener_notify_seconds_sum"] == 60.0035


def test_whatever_can_be_counted_is_at_0_from_the_start() -> None:
    metrics = Metrics()
    lines = set(metrics.text().decode().splitlines())
    assert {f'listener_pos_closes_total{{code="{int(code)}"}} 0.0' for code in CloseCode} <= lines
    calls = [f'call="{call}",outcome="{outcome}"' for call in CALLS for outcome in OUTCOMES]
    assert {f"listener_pockyt_calls_total{{{labels}}} 0.0" for labels in calls} <= lines
    # What is counted is one of them, not a series beside it.
    metrics.closed(4108)
    metrics.called("cancel", "timeout", 0.1)
    names = {line.partition(" ")[0] for line in metrics.text().decode().splitlines()}
    of_calls = [name for name in names if name.startswith("listener_pockyt_calls_total{")]
    assert len(of_calls) == len(calls)


def test_the_calls_that_are_counted_are_those_that_are_made() -> None:
    source = inspect.getsource(caller)
    made = set(re.findall(r'_call\(\s+"([\w-]+)"', source))
    made |= set(*re.findall(r'name = "([\w-]+)" if .* else "([\w-]+)"', source))
    assert made == set(CALLS)
