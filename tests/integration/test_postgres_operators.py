"""What an operator is told of several nodes: by check, API and metrics, and nothing twice."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from listener import __version__
from listener.keys import Role
from listener.storage import check_up
from listener.storage.findings import Severity
from listener.web.context import LEDGER
from tests.support.service import Serving, serving

OF_LEDGER = {
    "listener_ledger_seq",
    "listener_unacknowledged_cancellations",
    "listener_doubts",
    "listener_nodes",
}
# Another node, in place of what it says of itself.
AS_IF = (
    "INSERT INTO nodes (id, url, version, started_at, lag, clock_ms, lease_until)"
    " VALUES ('other', 'http://b:1', $1, 0, $2, $3, 9000000000000)"
)


async def node_id(served: Serving) -> str:
    (here,) = [node.id for node in await served.service.app[LEDGER].nodes() if node.is_here]
    return here


async def scrape(served: Serving) -> dict[tuple[str, str | None], float]:
    """Read the metrics as Prometheus does; return the sum of each name, by node."""
    admin = served.key(Role.ADMIN, merchant_no=None, store_no=None)
    headers = {"Authorization": f"Bearer {admin}"}
    async with served.client.get(f"{served.url}/metrics", headers=headers) as answer:
        text = await answer.text()
    found: dict[tuple[str, str | None], float] = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            name = sample.name, sample.labels.get("node")
            found[name] = found.get(name, 0.0) + sample.value
    return found


async def test_every_node_is_named_with_its_version_and_lag(one: Serving, other: Serving) -> None:
    admin = one.key(Role.ADMIN, merchant_no=None, store_no=None)
    for served in (one, other):
        _, told = await served.get("/v1/terminals", admin)
        assert isinstance(told, dict)
        nodes = {node["id"]: node for node in told["nodes"]}
        assert list(nodes) == [await node_id(one), await node_id(other)]
        assert {node["version"] for node in nodes.values()} == {__version__}
        assert {node["lag"] for node in nodes.values()} == {0}
        assert [name for name, node in nodes.items() if node["here"]] == [await node_id(served)]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", nodes[await node_id(one)]["startedAt"])
        # Where a node is, only those learn who may look at the server.
        assert not any("url" in node for node in nodes.values())


async def test_check_names_every_node_with_its_version_and_lag(
    one: Serving, other: Serving, url: str
) -> None:
    found = {finding.name: finding for finding in await asyncio.to_thread(check_up, url)}
    for served in (one, other):
        finding = found[f"node {await node_id(served)}"]
        assert finding.severity is Severity.FINE
        port = served.url.rpartition(":")[2]
        # Not the loopback that every machine has: its name.
        assert re.fullmatch(
            rf"http://(?!127)[^ ]+:{port} version {__version__} lag 0", str(finding.value)
        )
    assert "versions" not in found


@pytest.mark.parametrize(
    ("version", "lag", "clock_ms", "name", "advice"),
    [
        (__version__, 10_001, 0, "node other", "behind the others"),
        (__version__, 0, -1_001, "node other", "1001 ms behind"),
        ("0.1.9", 0, 0, "versions", "rolling restart"),
    ],
)
async def test_a_node_that_is_unlike_the_others_is_a_note(
    one: Serving, url: str, version: str, lag: int, clock_ms: int, name: str, advice: str
) -> None:
    db = await asyncpg.connect(url)
    await db.execute(AS_IF, version, lag, clock_ms)
    await db.close()
    found = {finding.name: finding for finding in await asyncio.to_thread(check_up, url)}
    assert found[name].severity is Severity.NOTE
    assert advice in str(found[name].advice)
    assert f"node {await node_id(one)}" in found


async def test_each_nodes_series_are_its_own_and_nothing_of_the_ledger_adds_up_twice(
    one: Serving, other: Serving
) -> None:
    assert (await one.notify({"transactionNo": "1", "status": "voided"}))[0] == 200
    assert (await one.notify({"transactionNo": "2"}))[0] == 200
    assert (await other.notify({"transactionNo": "3"}))[0] == 200
    scraped = [await scrape(one), await scrape(other)]
    for served, found, count in zip((one, other), scraped, (2, 1), strict=True):
        mine = await node_id(served)
        assert {node for name, node in found if name not in OF_LEDGER} == {mine}
        assert found["listener_notifications_total", mine] == count
        assert found["listener_node_info", mine] == 1
        assert found["listener_node_lag", mine] == 0
        assert abs(found["listener_node_clock_seconds", mine]) < 5
    everything: dict[str, float] = {}
    for found in scraped:
        for (name, _), value in found.items():
            everything[name] = everything.get(name, 0.0) + value
    assert everything["listener_notifications_total"] == 3
    assert everything["listener_ledger_seq"] == 3
    assert everything["listener_doubts"] == 1
    assert everything["listener_nodes"] == 2
    assert all((name, None) in scraped[0] for name in OF_LEDGER)


async def test_when_the_node_that_tells_of_the_ledger_leaves_another_does(url: str) -> None:
    async with serving(Path(), database=url) as first, serving(Path(), database=url) as second:
        assert ("listener_ledger_seq", None) in await scrape(first)
        assert ("listener_ledger_seq", None) not in await scrape(second)
        await first.service.app[LEDGER].close()
        assert (await scrape(second))["listener_nodes", None] == 1


async def test_a_ledger_on_a_file_has_no_nodes_and_no_such_label(tmp_path: Path) -> None:
    async with serving(tmp_path / "ledger.db") as served:
        admin = served.key(Role.ADMIN, merchant_no=None, store_no=None)
        _, told = await served.get("/v1/terminals", admin)
        assert isinstance(told, dict)
        assert told["nodes"] == []
        found = await scrape(served)
        assert {node for _, node in found} == {None}
        assert found["listener_nodes", None] == 1
        assert {name for name, _ in found} >= OF_LEDGER
