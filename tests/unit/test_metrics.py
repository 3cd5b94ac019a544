"""What is counted without a lock reads as any other histogram."""

import re

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
