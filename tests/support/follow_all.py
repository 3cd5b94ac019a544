"""Follow a listener through many edges at once, and print what happens as JSON, one line each.

The plan comes on stdin: ``{"urls": {name: url}, "key", "timing": {…}}``.
"""

import asyncio
import json
import sys
import time

from listener.pos.client import Follower, FollowStatus, StoppedError, Timing


def tell(name: str, **what: object) -> None:
    sys.stdout.write(json.dumps({"name": name, "at": time.time(), **what}) + "\n")
    sys.stdout.flush()


async def follow_one(name: str, url: str, *, key: str, timing: Timing) -> None:
    def on_status(status: FollowStatus) -> None:
        tell(name, state=status.state, cause=status.cause, why=status.why)

    try:
        async with Follower(
            url, key=key, start="latest", acks=False, timing=timing, on_status=on_status
        ) as follower:
            async for event in follower:
                tell(name, event=event.data.transaction_no)
    except StoppedError as error:
        tell(name, stopped=str(error))


async def main() -> None:
    plan = json.loads(sys.stdin.readline())
    timing = Timing(**plan["timing"])
    async with asyncio.TaskGroup() as group:
        for name, url in plan["urls"].items():
            group.create_task(follow_one(name, url, key=plan["key"], timing=timing))


asyncio.run(main())
