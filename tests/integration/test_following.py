"""The clients of this repository against the real service, each once."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from listener.pos.client import Follower
from tests.support.service import STREAM, Serving, serving
from tests.support.tills import DEADLINE_SECONDS, place

CLIENT = Path(__file__).parents[2] / "clients" / "js" / "pos-client.js"
SCRIPT = """
const { follow } = await import(process.argv[1]);
let seen = 0;
for await (const event of follow(process.argv[2], { key: process.argv[3] })) {
  console.log(JSON.stringify([event.subject, event.data.status]));
  if (++seen === 3) break;
}
"""


@pytest.fixture(name="service")
async def _service(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "ledger.db") as running:
        yield running


async def sell(service: Serving, *numbers: int) -> None:
    for number in numbers:
        answer = await service.notify({"transactionNo": str(number), "status": "success"})
        assert answer == (200, "success")


async def test_the_python_client_follows_acknowledges_and_resumes(service: Serving) -> None:
    key = service.key(terminal="T-42")
    await sell(service, 1)
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with Follower(service.url, key=key, start="earliest") as follower:
            assert (await anext(follower)).subject == "1"
            await sell(service, 2)
            assert (await anext(follower)).subject == "2"
            assert follower.status.transport == "websocket"
        # The second was in hand, and is told again.
        async with Follower(service.url, key=key) as follower:
            event = await anext(follower)
            assert (event.subject, event.data.status) == ("2", "paid")
    assert await place(service.ledger, terminal=f"{STREAM}/T-42", stream=STREAM) == 1


async def test_the_javascript_client_follows(service: Serving, node: str) -> None:
    # Acknowledged before its first event, the till is told all.
    await service.ledger.ack(terminal=f"{STREAM}/T-42", stream=STREAM, offset=0)
    await sell(service, 1, 2)
    running = await asyncio.create_subprocess_exec(
        *(node, "--experimental-websocket", "--input-type=module", "--eval", SCRIPT, "--"),
        *(CLIENT.as_uri(), service.url, service.key(terminal="T-42")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        heard = [json.loads(await running.stdout.readline() or b"null") for _ in range(2)]
        assert heard == [["1", "paid"], ["2", "paid"]], await running.stderr.read()
        await sell(service, 3)
        assert json.loads(await running.stdout.readline()) == ["3", "paid"]
        assert await running.wait() == 0, await running.stderr.read()
