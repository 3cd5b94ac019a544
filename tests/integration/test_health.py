"""What an operator, a load balancer and Prometheus are told."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from listener.keys import Role
from listener.storage.sqlite import connection as storage_connection
from listener.web.api import health
from listener.web.context import LEDGER, SESSIONS
from tests.support.service import STREAM, TOKEN_TEXT, Serving, serving
from tests.support.tills import acked, till


@pytest.fixture(name="service")
async def _service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    monkeypatch.setattr(storage_connection, "BUSY_SECONDS", 0.05)
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def metrics(service: Serving) -> dict[str, float]:
    """Read the metrics as Prometheus does; return each sample by its name and labels."""
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    headers = {"Authorization": f"Bearer {admin}"}
    async with service.client.get(f"{service.url}/metrics", headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text = await answer.text()
    assert TOKEN_TEXT not in text
    assert STREAM not in text
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sample.labels.items()): (
            sample.value
        )
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("accept", "is_plain"),
    [
        # vmagent; Telegraf of 2022; Prometheus; curl.
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", True),
        ("application/vnd.google.protobuf;encoding=delimited;q=0.7,text/plain;q=0.3", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4", False),
        ("*/*", False),
    ],
)
async def test_metrics_come_in_the_format_that_is_asked_for(
    service: Serving, accept: str, is_plain: bool
) -> None:
    admin = service.key(Role.ADMIN, merchant_no=None, store_no=None)
    headers = {"Authorization": f"Bearer {admin}", "Accept": accept}
    async with service.client.get(f"{service.url}/metrics", headers=headers) as answer:
        kind, text = answer.headers["Content-Type"], await answer.text()
    assert kind.startswith("text/plain; version=0.0.4" if is_plain else "application/openmetrics")
    # The older format knows no other types, and a reader of it refuses them.
    known = {"counter", "gauge", "histogram", "summary", "untyped"}
    types = {line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    assert (types <= known) is is_plain
    assert "listener_events_total" in text


async def test_healthz_says_that_the_process_answers(service: Serving) -> None:
    service.service.app[SESSIONS].is_draining = True
    assert await service.get("/healthz") == (200, {"status": "alive"})


async def test_readyz_says_that_notifications_can_be_taken(service: Serving) -> None:
    assert await service.get("/readyz") == (200, {"status": "ready"})


async def test_a_draining_listener_is_not_ready(service: Serving) -> None:
    service.service.app[SESSIONS].is_draining = True
    status, problem = await service.get("/readyz")
    assert isinstance(problem, dict)
    assert (status, problem["code"]) == (503, "draining")


async def test_a_ledger_that_cannot_commit_is_not_ready(service: Serving) -> None:
    with closing(sqlite3.connect(service.path)) as db:
        db.execute("BEGIN IMMEDIATE")
        async with service.client.get(f"{service.url}/readyz") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert answer.content_type == "application/problem+json"
    assert await service.get("/readyz") == (200, {"status": "ready"})


async def test_all_who_ask_at_the_same_time_share_one_commit(service: Serving) -> None:
    """Anybody may ask: a flood must not fill the queue in which notifications wait."""
    ledger = service.service.app[LEDGER]
    before = (await metrics(service))["listener_commit_facts_sum"]
    with closing(sqlite3.connect(service.path)) as db:
        db.execute("BEGIN IMMEDIATE")
        asked = [asyncio.create_task(service.get("/readyz")) for _ in range(50)]
        while not all(task.done() for task in asked):
            assert ledger.waiting <= 1
            await asyncio.sleep(0.001)
    assert {task.result()[0] for task in asked} == {503}
    assert (await metrics(service))["listener_commit_facts_sum"] == before


async def test_metrics_are_for_admins(service: Serving) -> None:
    assert (await service.get("/metrics"))[0] == 401
    for role in (Role.POS, Role.LEDGER):
        assert (await service.get("/metrics", service.key(role)))[0] == 403


async def test_metrics_tell_what_is_in_doubt(service: Serving) -> None:
    assert (await service.notify({"transactionNo": "1", "status": "voided"}))[0] == 200
    assert (await service.notify({"transactionNo": "2", "amount": "?"}))[0] == 200
    for word in ("success", "closed"):
        assert (await service.notify({"transactionNo": "3", "status": word}))[0] == 200
    found = await metrics(service)
    for why, count in {"unknown": 1, "held": 1, "conflict": 1, "cancel": 0}.items():
        assert found[f"listener_doubts{{raised=false}}{{why={why}}}"] == count
        assert found[f"listener_doubts{{raised=true}}{{why={why}}}"] == 0


async def test_metrics_tell_what_happened(service: Serving) -> None:
    for _ in range(3):
        assert await service.notify() == (200, "success")
    assert (await service.notify(path="/notify/nobody"))[0] == 404
    async with till(service.url, service.key()) as one:
        await one.join()
        found = await metrics(service)
    assert found["listener_notifications_total{status=200}"] == 3
    assert found["listener_notifications_total{status=404}"] == 1
    assert found["listener_notification_repeats_total"] == 2
    assert found["listener_events_total"] == 1
    assert found["listener_pos_sessions"] == 1
    assert found["listener_ledger_seq"] >= 1
    assert found["listener_ledger_waiting"] == 0
    assert (
        found["listener_notify_seconds_count"] == found["listener_notifications_total{status=200}"]
    )
    assert found["listener_commit_seconds_count"] >= 1


async def test_a_cancellation_that_no_till_acknowledged_in_time_is_counted(
    service: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await service.notify() == (200, "success")
    assert (await metrics(service))["listener_unacknowledged_cancellations"] == 0
    # As if the time were over.
    monkeypatch.setattr(health, "UNACKED_SECONDS", -1.0)
    assert (await metrics(service))["listener_unacknowledged_cancellations"] == 1
    async with till(service.url, service.key(terminal="T-42")) as one:
        await one.join({"stream": STREAM, "after": "earliest"})
        assert await one.offsets(1) == [1]
        await one.ack(STREAM, 1)
        await acked(service.ledger, terminal=f"{STREAM}/T-42", stream=STREAM, offset=1)
    assert (await metrics(service))["listener_unacknowledged_cancellations"] == 0
