"""The `websockets` library and its broadcast(); the notifications come in beside it."""

import asyncio
from typing import cast

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers import frame, notification
from bench.peers.bare_fanout import ANSWER

tills: set[ServerConnection] = set()
sent = 0


class Notifications(asyncio.Protocol):
    """Turn each notification into an event for all tills."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        global sent
        if data.startswith(b"POST"):
            sent += 1
            broadcast(tills, frame.event(sent, data.split(b"transactionNo=")[1][:18].decode()))
        self.transport.write(ANSWER)


async def till(connection: ServerConnection) -> None:
    tills.add(connection)
    try:
        await connection.wait_closed()
    finally:
        tills.discard(connection)


async def main() -> None:
    loop = asyncio.get_running_loop()
    tills_at = notification.till_port()
    async with serve(
        till,
        "127.0.0.1",
        tills_at,
        compression=None,
        ping_interval=None,
        subprotocols=["pos.v1"],  # type: ignore[list-item]  # a NewType of str
    ):
        server = await loop.create_server(Notifications, "127.0.0.1", notification.port())
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
