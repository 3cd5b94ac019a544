"""The clients of this repository against the real service, each once."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
)
from pathlib import Path

import pytest

from listener.pos.client import Follower, Timing
from tests.support.service import MERCHANT_NO, STREAM, TOKEN_TEXT, Serving, serving
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


# Stores come and go while a till follows all of its key.

# Tells the numbers of the transactions that it hears of.
Hearing = AbstractAsyncContextManager[AsyncIterator[str]]
HEARD = """
const { follow } = await import(process.argv[1]);
const options = process.argv[4] === 'long-poll' ? { WebSocket: undefined } : {};
for await (const event of follow(process.argv[2], { key: process.argv[3], ...options })) {
  console.log(event.subject);
}
"""


@asynccontextmanager
async def hearing_in_python(
    url: str, key: str, transport: str
) -> AsyncIterator[AsyncIterator[str]]:
    timing = Timing(
        retry_first_seconds=0.05,
        retry_max_seconds=0.1,
        blocked_tries=0 if transport == "long-poll" else 3,
    )
    async with Follower(url, key=key, timing=timing) as follower:

        async def subjects() -> AsyncGenerator[str, None]:
            async for event in follower:
                yield event.subject

        async with aclosing(subjects()) as heard:
            yield heard


@asynccontextmanager
async def hearing_in_javascript(
    url: str, key: str, transport: str, node: str
) -> AsyncIterator[AsyncIterator[str]]:
    running = await asyncio.create_subprocess_exec(
        *(node, "--experimental-websocket", "--input-type=module", "--eval", HEARD, "--"),
        *(CLIENT.as_uri(), url, key, transport),
        stdout=asyncio.subprocess.PIPE,
    )
    assert running.stdout is not None
    stdout = running.stdout

    async def subjects() -> AsyncIterator[str]:
        while line := await stdout.readline():
            yield line.decode().strip()

    try:
        yield subjects()
    finally:
        running.kill()
        await running.wait()


async def tell(service: Serving, number: int, store_no: str) -> None:
    path = f"/notify/{MERCHANT_NO}/{store_no}"
    assert await service.notify({"transactionNo": str(number)}, path=path) == (200, "success")


async def begun(service: Serving, stores: str) -> None:
    """Wait until the till has its place in each stream."""
    names = {f"{MERCHANT_NO}/{store_no}" for store_no in (*stores.split(), "-")}
    while True:
        places = [
            await service.ledger.acked(terminal=f"{MERCHANT_NO}/-/T-42", stream=name)
            for name in names
        ]
        if all(places):
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("transport", ["websocket", "long-poll"])
@pytest.mark.parametrize("language", ["python", "javascript"])
async def test_a_till_of_all_stores_follows_those_that_are_added_and_outlives_those_that_go(
    tmp_path: Path,
    unused_tcp_port: int,
    request: pytest.FixtureRequest,
    language: str,
    transport: str,
) -> None:
    def of_stores(stores: str) -> AbstractAsyncContextManager[Serving]:
        merchants = {MERCHANT_NO: {"tokens": [TOKEN_TEXT], "stores": stores.split()}}
        return serving(tmp_path / "ledger.db", port=unused_tcp_port, merchants=merchants)

    def hearing(url: str, key: str) -> Hearing:
        if language == "python":
            return hearing_in_python(url, key, transport)
        return hearing_in_javascript(url, key, transport, request.getfixturevalue("node"))

    async with asyncio.timeout(2 * DEADLINE_SECONDS):
        async with AsyncExitStack() as till:
            async with of_stores("A B") as service:
                key = service.key(store_no=None, terminal="T-42")
                await tell(service, 1, "A")
                heard = await till.enter_async_context(hearing(service.url, key))
                await begun(service, "A B")
                await tell(service, 2, "B")
                assert await anext(heard) == "2"
            async with of_stores("A C") as service:
                # While the till was on its way.
                await tell(service, 3, "C")
                assert await anext(heard) == "3"
                await tell(service, 4, "A")
                assert await anext(heard) == "4"
        if transport == "websocket":
            # While the till was off.
            async with of_stores("A C D") as service, hearing(service.url, key) as heard:
                await tell(service, 5, "D")
                # What was not acknowledged yet comes once more.
                while (one := await anext(heard)) in {"3", "4"}:
                    pass
                assert one == "5"
