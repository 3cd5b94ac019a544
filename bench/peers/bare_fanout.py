"""Pre-built frames written bare to the transports: what asyncio itself costs."""

import asyncio
import base64
import hashlib
from typing import ClassVar, cast

from bench.peers import frame, notification

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nsuccess"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Protocol: pos.v1\r\nSec-WebSocket-Accept: %s\r\n\r\n"
)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Connection(asyncio.Protocol):
    """One HTTP request at a time, or a till once it has upgraded."""

    tills: ClassVar[set[asyncio.Transport]] = set()
    sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self.tills.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /till"):
            key = data.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            self.transport.write(SWITCH % accept)
            self.tills.add(self.transport)
        elif data.startswith(b"POST"):
            self.publish(data.split(b"transactionNo=")[1][:18].decode())
        elif data.startswith(b"GET"):
            self.transport.write(ANSWER)

    def publish(self, transaction_no: str) -> None:
        Connection.sent += 1
        encoded = frame.encoded(frame.event(Connection.sent, transaction_no))
        for till in self.tills:
            till.write(encoded)
        self.transport.write(ANSWER)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", notification.port(), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
